"""The input BatchNorm as the affine map it is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.types import FloatArray


@dataclass(frozen=True)
class InputMap:
    """The input BatchNorm as the affine map it is: network input = ``slope * log_mel + offset``.

    ``slope`` is per dB. The flatbuffers start behind this map; for a quantized one it is merged
    with the quantization, so that one multiplication and one addition turn a decibel into an
    integer.
    """

    slope: float
    offset: float

    @classmethod
    def of(cls, weights: NetworkWeights) -> "InputMap":
        """Take the map from a network's input BatchNorm."""
        norm = weights.input_norm
        return cls(float(norm.slope[0]), float(norm.offset[0]))

    def steps(self, spec: TensorSpec) -> tuple[float, float]:
        """Factor and offset that turn decibels into quantization steps of an input."""
        return self.slope / spec.scale, self.offset / spec.scale + spec.zero_point

    def normalise(self, decibels: FloatArray) -> FloatArray:
        """Float network input: (n, mels, frames) to (n, mels, frames, 1)."""
        return (np.float32(self.slope) * decibels + np.float32(self.offset))[..., np.newaxis]

    def apply(self, decibels: FloatArray, spec: TensorSpec) -> npt.NDArray[Any]:
        """Turn log-mel values into what a flatbuffer's input takes.

        For a quantized input: ``floor(factor * dB + offset + 0.5)`` in float32, clamped. A device
        computes the same two operations, so it gets the same integers from the same decibels.

        Parameters
        ----------
        decibels : numpy.ndarray, shape (n, mels, frames), float32
        spec : TensorSpec
            The input's.

        Returns
        -------
        numpy.ndarray, shape (n, mels, frames, 1), spec.dtype
        """
        if spec.scale == 0:
            return self.normalise(decibels)
        factor, offset = self.steps(spec)
        limits = np.iinfo(spec.dtype)
        steps = np.floor(np.float32(factor) * decibels + np.float32(offset) + np.float32(0.5))
        quantized: npt.NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(spec.dtype)
        return quantized[..., np.newaxis]
