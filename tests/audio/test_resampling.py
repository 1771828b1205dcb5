"""Resampling block by block."""

from fractions import Fraction

import numpy as np
import pytest
import resampy

from edgel3_tflm.audio.resampling import _Filter, _Polyphase, resample_blocks
from edgel3_tflm.errors import AudioError, EdgeL3Error


@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [
        (44_100, 8000),
        (48_000, 8000),
        (11_025, 8000),
        (44_101, 8000),
        (44_100, 48_000),
        (8000, 48_000),
        (22_050, 48_000),
        (44_101, 48_000),
    ],
)
@pytest.mark.parametrize("samples", [7, 30_001])
def test_kaiser_best_is_resampy_s(from_hz: int, to_hz: int, samples: int) -> None:
    sound = np.random.default_rng(2).normal(0, 0.1, samples).astype(np.float32)
    expected = resampy.resample(sound.astype(np.float64), from_hz, to_hz, filter="kaiser_best")
    found = np.concatenate(list(resample_blocks([sound], from_hz, to_hz, "kaiser_best")))
    assert len(found) == len(expected)
    # Rounding to float32.
    bound = 1.01 * 2.0**-24 * abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    other = np.concatenate(list(resample_blocks([sound], from_hz, to_hz, "soxr")))
    assert len(other) == len(expected)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 48_000), (44_100, 8000), (48_000, 8000)])
def test_blocks_of_any_length_give_the_same_samples(from_hz: int, to_hz: int) -> None:
    sound = np.random.default_rng(3).normal(0, 0.1, 100_003).astype(np.float32)
    (whole, *rest) = (
        np.concatenate(list(resample_blocks(blocks, from_hz, to_hz, "kaiser_best")))
        for blocks in ([sound], np.array_split(sound, 7), np.array_split(sound, 1001))
    )
    for found in rest:
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("ratio", [Fraction(160, 147), Fraction(80, 441), Fraction(1, 6)])
@pytest.mark.parametrize("deviation", [0, -3e-13, 1e-9, -1e-6, 2e-4, 0.3])
def test_weights_in_a_matrix_follow_times_that_deviate(ratio: Fraction, deviation: float) -> None:
    """Hours after the start of a file, the rounding of times has added up to such deviations."""
    rng = np.random.default_rng(4)
    filter_ = _Filter(min(1.0, float(ratio)))
    polyphase = _Polyphase.of(filter_, ratio)
    assert polyphase is not None
    count = polyphase.chunk_outputs
    times = 5000 + np.arange(count) / float(ratio) + deviation * np.linspace(0.5, 1, count)
    held = rng.normal(0, 0.1, int(times[-1]) + 2 * filter_.taps)
    expected = filter_(held, 0, times)
    found = polyphase(held, 0, times)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2.0**-24 * abs(expected).max())


def test_rates_and_resamplers_that_cannot_be_are_named() -> None:
    with pytest.raises(AudioError, match=r"at most 4,096,000 Hz for kaiser_best.*choose soxr"):
        resample_blocks([np.ones(9, np.float32)], 5_000_000, 8000, "kaiser_best")
    with pytest.raises(EdgeL3Error, match="unknown resampler 'linear': expected kaiser"):
        resample_blocks([np.ones(9, np.float32)], 44_100, 8000, "linear")
