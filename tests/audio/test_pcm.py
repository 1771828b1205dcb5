"""Conversion to and from 16-bit samples."""

import numpy as np
import pytest

from edgel3_tflm.audio.pcm import from_int16, to_int16


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        (0, 0),
        (0.5, 16384),
        (-1, -32768),
        (1, 32767),  # int16 cannot hold 32768
        (-1.5, -32768),
        (7, 32767),
        (0.4 / 32768, 0),
        (-0.6 / 32768, -1),
        (1.5 / 32768, 2),  # ties go to the even value
        (2.5 / 32768, 2),
    ],
)
def test_samples_are_rounded_and_clipped(sample: float, value: int) -> None:
    for dtype in (np.float32, np.float64):
        found = to_int16(np.array([sample], dtype))
        assert found.dtype == np.int16
        assert found.tolist() == [value]


def test_16_bit_samples_survive_the_way_there_and_back() -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    samples = from_int16(every)
    assert samples.dtype == np.float32
    assert samples.tolist() == [value / 32768 for value in range(-32768, 32768)]
    np.testing.assert_array_equal(to_int16(samples), every)
