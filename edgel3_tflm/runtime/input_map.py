"""The input BatchNorm of a network as an affine map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.types import FloatArray


@dataclass(frozen=True)
class InputMap:
    """The input BatchNorm as an affine map: network input = ``slope * log_mel + offset``.

    ``slope`` is per dB. The flatbuffers do not contain this map. For a quantized flatbuffer it is
    merged with the quantization: one multiplication and one addition for each value.
    """

    slope: float
    offset: float

    @classmethod
    def of(cls, weights: NetworkWeights) -> "InputMap":
        """Return the map of a network."""
        norm = weights.input_norm
        return cls(float(norm.slope[0]), float(norm.offset[0]))

    def steps(self, spec: TensorSpec) -> tuple[float, float]:
        """Return the factor (per dB) and the offset from decibels to quantized values."""
        return self.slope / spec.scale, self.offset / spec.scale + spec.zero_point

    def normalise(self, decibels: FloatArray) -> FloatArray:
        """Return the float network input: (n, mels, frames) to (n, mels, frames, 1)."""
        return (np.float32(self.slope) * decibels + np.float32(self.offset))[..., np.newaxis]

    def apply(self, decibels: FloatArray, spec: TensorSpec) -> npt.NDArray[Any]:
        """Return the input of a flatbuffer for log-mel values.

        For a quantized input this is ``floor(factor * dB + offset + 0.5)`` in float32, clamped to
        the range of the type. Devices compute the same operations, so that the same decibels give
        the same integers.

        Parameters
        ----------
        decibels : numpy.ndarray, shape (n, mels, frames), float32
        spec : TensorSpec
            The input of the flatbuffer.

        Returns
        -------
        numpy.ndarray, shape (n, mels, frames, 1), spec.dtype
        """
        if spec.scale == 0:
            return self.normalise(decibels)
        factor, offset = self.steps(spec)
        limits = np.iinfo(spec.dtype)
        rounded = np.floor(np.float32(factor) * decibels + np.float32(offset) + np.float32(0.5))
        quantized: npt.NDArray[Any] = np.clip(rounded, limits.min, limits.max).astype(spec.dtype)
        return quantized[..., np.newaxis]
