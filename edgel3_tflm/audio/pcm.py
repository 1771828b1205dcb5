"""Conversion between samples of full scale 1 and 16-bit samples, as microphones deliver them."""

import numpy as np

from edgel3_tflm.types import FloatArray, Int16Array, RealArray

FULL_SCALE = 32768
"""The 16-bit value of a sample of 1, one more than the largest that int16 holds."""


def to_int16(samples: RealArray) -> Int16Array:
    """Round samples of full scale 1 to 16 bits; samples beyond full scale are clipped."""
    pcm: Int16Array = np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(
        np.int16
    )
    return pcm


def from_int16(samples: Int16Array) -> FloatArray:
    """Return 16-bit samples as float32 of full scale 1."""
    return samples / np.float32(FULL_SCALE)


def round_to_int16(samples: RealArray) -> FloatArray:
    """Return samples as they are after 16 bits: float32 of full scale 1."""
    return from_int16(to_int16(samples))
