"""Ranges of activations: what the calibration clips reach, and how much of it int8 spans."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from edgel3_tflm.converters.quantization.chain import Quantization
from edgel3_tflm.types import FloatArray

RangeMethod = Literal["minmax", "percentile", "mse"]
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)

PERCENTILE = 99.999
"""Of all values: 99.99 already cuts off so much that SQNR falls below that of the full range."""
# Fractions of the full range that the search for the least error tries.
_MSE_FRACTIONS = np.linspace(0.3, 1, 71)


@dataclass(frozen=True)
class Activations:
    """What the outputs of a layer, behind its pool, are over the calibration windows.

    Parameters
    ----------
    minimum, maximum : numpy.ndarray, shape (channels,), float32
    sample : numpy.ndarray, shape (n, channels), float32
        Values at some places, drawn from all windows alike.
    """

    minimum: FloatArray
    maximum: FloatArray
    sample: FloatArray

    def divided(self, factors: FloatArray) -> "Activations":
        """Divide each channel by a positive factor."""
        return Activations(self.minimum / factors, self.maximum / factors, self.sample / factors)

    @property
    def full_range(self) -> tuple[float, float]:
        """Least and greatest value, widened to hold zero."""
        return min(float(self.minimum.min()), 0.0), max(float(self.maximum.max()), 0.0)


def choose_range(activations: Activations, method: RangeMethod) -> tuple[float, float]:
    """Choose the range that int8 spans; values outside are clamped to its ends."""
    low, high = activations.full_range
    values = activations.sample
    if method == "percentile":
        ends = np.percentile(values, [100 - PERCENTILE, PERCENTILE])
        return min(float(ends[0]), 0.0), max(float(ends[1]), 0.0)
    if method == "mse":
        errors = [_squared_error(values, low * share, high * share) for share in _MSE_FRACTIONS]
        share = float(_MSE_FRACTIONS[int(np.argmin(errors))])
        return low * share, high * share
    return low, high


def _squared_error(values: FloatArray, low: float, high: float) -> float:
    quantization = Quantization.of_range(low, high)
    steps = np.rint(values / quantization.scale) + quantization.zero_point
    found = (steps.clip(-128, 127) - quantization.zero_point) * quantization.scale
    return float(np.mean((found - values) ** 2, dtype=np.float64))
