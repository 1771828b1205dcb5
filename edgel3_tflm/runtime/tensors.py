"""Descriptions of tensors, and the interface of every runtime."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TensorSpec:
    """Shape, type and quantization of an input or output: ``real = scale * (q - zero_point)``.

    ``scale`` is 0 for float tensors.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    def dequantize(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the real values of quantized ones, float32; a float tensor's are unchanged."""
        if self.scale == 0:
            return values.astype(np.float32)
        return np.float32(self.scale) * (values.astype(np.float32) - np.float32(self.zero_point))


class Interpreter(Protocol):
    """A loaded model with one input and one output, batch size 1."""

    input: TensorSpec
    output: TensorSpec

    def run(self, windows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run windows.

        Parameters
        ----------
        windows : numpy.ndarray, shape (n, *input.shape[1:]), input.dtype

        Returns
        -------
        numpy.ndarray, shape (n, *output.shape[1:]), output.dtype
        """
        ...
