"""Resampling block by block."""

import numpy as np
import pytest
import resampy

from edgel3_tflm.audio.resampling import resample_blocks
from edgel3_tflm.errors import AudioError, EdgeL3Error


@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [(44_100, 8000), (48_000, 8000), (11_025, 8000), (44_101, 8000), (44_100, 48_000)],
)
@pytest.mark.parametrize("samples", [7, 30_001])
def test_kaiser_best_is_resampy_s(from_hz: int, to_hz: int, samples: int) -> None:
    sound = np.random.default_rng(2).normal(0, 0.1, samples).astype(np.float32)
    expected = resampy.resample(sound.astype(np.float64), from_hz, to_hz, filter="kaiser_best")
    found = np.concatenate(list(resample_blocks([sound], from_hz, to_hz, "kaiser_best")))
    assert len(found) == len(expected)
    # Rounding to float32, and times that are grouped to 2^-25 of a sample, in which a sound at the
    # Nyquist frequency turns by pi times as much.
    bound = (2.0**-24 + np.pi * 2.0**-25) * abs(sound).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    other = np.concatenate(list(resample_blocks([sound], from_hz, to_hz, "soxr")))
    assert len(other) == len(expected)


def test_rates_and_resamplers_that_cannot_be_are_named() -> None:
    with pytest.raises(AudioError, match=r"at most 4,096,000 Hz for kaiser_best.*choose soxr"):
        resample_blocks([np.ones(9, np.float32)], 5_000_000, 8000, "kaiser_best")
    with pytest.raises(EdgeL3Error, match="unknown resampler 'linear': expected kaiser"):
        resample_blocks([np.ones(9, np.float32)], 44_100, 8000, "linear")
