"""Reading and cutting clips."""

from pathlib import Path

import numpy as np
import pytest
import resampy
import soundfile
import soxr

from edgel3_tflm.audio.clips import (
    Clip,
    find_clips,
    measure_seconds,
    read_blocks,
    read_clip,
)
from edgel3_tflm.audio.framing import Framing, cut_windows, read_windows
from edgel3_tflm.audio.resampling import RESAMPLERS, resample_blocks
from edgel3_tflm.errors import AudioError, EdgeL3Error


def write(path: Path, samples: np.ndarray, rate_hz: int, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
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
    path = write(tmp_path / "a.wav", np.arange(1, 41) / 64, 8000)
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


def test_the_length_of_what_is_no_audio_is_unknown(tmp_path: Path) -> None:
    assert measure_seconds(write(tmp_path / "a.wav", np.zeros(4000), 8000)) == 0.5
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    assert measure_seconds(tmp_path / "b.wav") == 0


def test_a_file_that_is_no_audio_is_named(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(AudioError, match=r"noise\.wav.*libsndfile"):
        read_clip(path, 8000)


TRUNCATED_FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_24"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize("part", [0.5, 0.9, 0.999])
@pytest.mark.parametrize(("container", "subtype"), TRUNCATED_FORMATS)
def test_a_truncated_file_is_named(
    tmp_path: Path, container: str, subtype: str, part: float
) -> None:
    path = tmp_path / "a.audio"
    noise = np.random.default_rng(0).normal(0, 0.1, 80_000)
    soundfile.write(path, noise, 8000, format=container, subtype=subtype)
    whole = path.read_bytes()
    # Blocks of ADPCM and MP3 are longer than the clip that is written.
    assert len(read_clip(path, 8000).samples) >= len(noise)
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(AudioError, match=r"a\.audio: .*truncated") as caught:
        read_clip(path, 8000)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("riff_size", "data_size"),
    [(8, 0), (0x7FFFF024, 0x7FFFF000), (0x80000024, 0x80000000), (0xFFFFFFFF, 0xFFFFFFFF)],
)
def test_a_file_written_into_a_pipe_is_not_truncated(
    tmp_path: Path, riff_size: int, data_size: int
) -> None:
    path = write(tmp_path / "a.wav", np.full(800, 0.5), 8000, "PCM_16")
    whole = bytearray(path.read_bytes())
    assert whole[36:40] == b"data"
    whole[4:8], whole[40:44] = (size.to_bytes(4, "little") for size in (riff_size, data_size))
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_clip(path, 8000).samples, np.full(800, 0.5))


def test_tags_around_the_samples_are_no_damage(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    for container in ("WAV", "OGG", "MP3"):
        path = tmp_path / f"a.{container.lower()}"
        soundfile.write(path, noise, 8000, format=container)
        size = bytes([0, 0, 3, 0])  # seven bits a byte
        tag = b"ID3\x04\0\0" + size + bytes(3 << 7) if container == "MP3" else b""
        path.write_bytes(tag + path.read_bytes() + b"TAG" + bytes(125))
        assert len(read_clip(path, 8000).samples) >= len(noise)


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
