"""Reading audio files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from edgel3_tflm.audio.clips import find_clips, measure_seconds, read_blocks, read_clip
from edgel3_tflm.audio.resampling import RESAMPLERS, resample_blocks
from edgel3_tflm.errors import AudioError


def write(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
    soundfile.write(path, samples, rate_hz, subtype="FLOAT")
    return path


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.array([[0.5, 0.0], [-0.25, 0.25], [1.0, 0.5]], np.float32)
    clip = read_clip(write(tmp_path / "a.wav", stereo, 8000), 8000)
    np.testing.assert_array_equal(clip.samples, np.float32([0.25, 0.0, 0.75]))


def test_stereo_at_96_khz_becomes_the_same_tone_at_8_khz(tmp_path: Path) -> None:
    def tone(rate_hz: int) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 500 * np.arange(2 * rate_hz) / rate_hz)

    path = write(tmp_path / "a.wav", np.stack([tone(96_000)] * 2, axis=1), 96_000)
    clip = read_clip(path, 8000)
    assert clip.samples.dtype == np.float32
    assert len(clip.samples) == 16_000
    # Away from the ends; soxr's HQ passband ripple is 0.01 dB, 0.12 % of an amplitude of 0.5.
    np.testing.assert_allclose(clip.samples[800:-800], tone(8000)[800:-800], atol=6e-4)


def test_an_empty_clip_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "empty.wav", np.zeros(0), 8000)
    with pytest.raises(AudioError, match=r"empty\.wav.*0 samples"):
        read_clip(path, 8000)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    path = write(tmp_path / "a.wav", np.array([0, bad, 0]), 8000)
    with pytest.raises(AudioError, match="finite"):
        read_clip(path, 8000)


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("rate_hz", [8000, 11_025, 44_100, 48_000])
@pytest.mark.parametrize("block_frames", [1000, 1 << 19])
def test_blocks_are_what_resampling_in_one_piece_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate_hz: int, block_frames: int, resampler: str
) -> None:
    monkeypatch.setattr("edgel3_tflm.audio.clips.BLOCK_FRAMES", block_frames)
    stereo = np.random.default_rng(1).normal(0, 0.1, (60_003, 2)).astype(np.float32)
    path = write(tmp_path / "a.wav", stereo, rate_hz)
    mono = stereo.mean(axis=1)
    if resampler == "soxr":
        whole = soxr.resample(mono, rate_hz, 8000, quality="HQ")[: int(60_003 * (8000 / rate_hz))]
    else:
        whole = np.concatenate(list(resample_blocks([mono], rate_hz, 8000, resampler)))
    found = np.concatenate(list(read_blocks(path, 8000, resampler)))
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_array_equal(read_clip(path, 8000, resampler).samples, whole)


def test_the_length_of_what_is_no_audio_is_unknown(tmp_path: Path) -> None:
    assert measure_seconds(write(tmp_path / "a.wav", np.zeros(4000), 8000)) == 0.5
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    assert measure_seconds(tmp_path / "b.wav") == 0


def test_a_file_that_is_no_audio_is_named(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(AudioError, match=r"noise\.wav.*libsndfile"):
        read_clip(path, 8000)


@pytest.mark.parametrize("suffix", ["raw", "au", "snd", "vox", "gsm", "pcm"])
def test_samples_without_a_header_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(AudioError, match=rf"a\.{suffix}: expected .*without a header.*WAV"):
        read_clip(path, 8000)
    assert measure_seconds(path) == 0


def test_contents_count_and_not_the_suffix(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.full(800, 0.5), 8000).rename(tmp_path / "a.raw")
    np.testing.assert_array_equal(read_clip(path, 8000).samples, np.full(800, 0.5))


def test_directories_are_searched_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.wav", "b/1.flac", "a.ogg", "notes.txt"):
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_clips([tmp_path])]
    assert found == ["a.ogg", "b/1.flac", "b/2.wav"]


def test_a_directory_without_audio_and_a_missing_path_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="found none"):
        find_clips([tmp_path])
    with pytest.raises(AudioError, match=r"nothing\.wav: no such file"):
        find_clips([tmp_path / "nothing.wav"])
    with pytest.raises(AudioError, match=r"nothing\.wav: .* no such file"):
        read_clip(tmp_path / "nothing.wav", 8000)
