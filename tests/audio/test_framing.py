"""Cutting audio into windows."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgel3_tflm.audio.clips import Clip
from edgel3_tflm.audio.framing import Framing, cut_windows, read_windows
from edgel3_tflm.errors import EdgeL3Error


@pytest.mark.parametrize(
    ("samples", "hop", "count"),
    [
        (10, 50, 1),
        (99, 1, 1),
        (100, 50, 1),
        (149, 50, 1),
        (150, 50, 2),
        (151, 50, 2),
        (200, 100, 2),
        (500, 300, 2),
    ],
)
def test_windows_are_whole_unless_the_clip_is_shorter(samples: int, hop: int, count: int) -> None:
    clip = Clip(np.arange(1, samples + 1, dtype=np.float32), 100)
    windows = cut_windows(clip, window_samples=100, hop_samples=hop)
    assert windows.shape == (count, 100)
    assert (windows == 0).sum() == max(0, 100 - samples)
    np.testing.assert_array_equal(windows[0, : min(samples, 100)], clip.samples[:100])


@pytest.mark.parametrize("hop_s", [0.00024, 0.00031, 0.001])
def test_a_hop_has_the_samples_that_embed_gives_it(tmp_path: Path, hop_s: float) -> None:
    """1.92, 2.48 and 8 samples at 8 kHz; edgel3 rounds down."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.arange(1, 41) / 64, 8000, subtype="FLOAT")
    ((_, windows),) = read_windows([path], sample_rate_hz=8000, window_samples=8, hop_s=hop_s)
    hop = Framing(hop_s).hop_samples(8000)
    np.testing.assert_array_equal(windows[:, 0], np.arange(1, 34, hop) / np.float32(64))


@pytest.mark.parametrize("hop_s", [0, -1, 1e-9, float("nan"), float("inf")])
def test_a_hop_shorter_than_a_sample_is_refused(hop_s: float) -> None:
    with pytest.raises(EdgeL3Error, match="at least one sample at 8000 Hz"):
        list(read_windows([], sample_rate_hz=8000, window_samples=8, hop_s=hop_s))


def test_windows_start_every_hop() -> None:
    clip = Clip(np.arange(300, dtype=np.float32), 100)
    windows = cut_windows(clip, window_samples=100, hop_samples=40)
    np.testing.assert_array_equal(windows[:, 0], [0, 40, 80, 120, 160, 200])


@pytest.mark.parametrize("lengths", [(0, 1), (1, 0), (1, -1)])
def test_lengths_that_are_not_positive_are_refused(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        cut_windows(
            Clip(np.ones(3, np.float32), 1), window_samples=lengths[0], hop_samples=lengths[1]
        )
