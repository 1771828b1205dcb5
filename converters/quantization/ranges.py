"""Ranges of activations: measured on the calibration set, and chosen for int8."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from edgel3_tflm.converters.quantization.chain import Quantization
from edgel3_tflm.types import FloatArray

RangeMethod = Literal["minmax", "percentile", "mse"]
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)

PERCENTILE = 99.999
"""Percentile that the method 'percentile' uses as the upper end of the range; 100 minus it is the
lower end. A percentile of 99.99 already gives a lower signal-to-quantization-noise ratio than the
full range."""
# Fractions of the full range that the search for the smallest squared error tries.
_MSE_FRACTIONS = np.linspace(0.3, 1, 71)


@dataclass(frozen=True)
class Activations:
    """The outputs of a layer, after its pool, over the calibration windows.

    Parameters
    ----------
    minimum, maximum : numpy.ndarray, shape (channels,), float32
    sample : numpy.ndarray, shape (n, channels), float32
        Values at some positions of the map. Each window contributes the same number of positions.
    """

    minimum: FloatArray
    maximum: FloatArray
    sample: FloatArray

    def divided(self, factors: FloatArray) -> "Activations":
        """Return the activations with each channel divided by its positive factor."""
        return Activations(self.minimum / factors, self.maximum / factors, self.sample / factors)

    @property
    def full_range(self) -> tuple[float, float]:
        """Smallest and largest value over all channels, extended to include zero."""
        return min(float(self.minimum.min()), 0.0), max(float(self.maximum.max()), 0.0)


def choose_range(activations: Activations, method: RangeMethod) -> tuple[float, float]:
    """Choose the range that int8 spans. Values outside are clamped to its ends.

    Parameters
    ----------
    activations : Activations
    method : {'minmax', 'percentile', 'mse'}
        'minmax' takes the full range, 'percentile' the range between two percentiles
        (:data:`PERCENTILE`), 'mse' the fraction of the full range for which quantization of the
        sample has the smallest mean squared error.
    """
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
    errors = quantization.dequantize(quantization.quantize(values))
    errors -= values
    errors *= errors
    return float(np.mean(errors, dtype=np.float64))
