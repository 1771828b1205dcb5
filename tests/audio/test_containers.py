"""Truncated audio files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgel3_tflm.audio.clips import read_clip
from edgel3_tflm.errors import AudioError

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
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(800, 0.5), 8000, subtype="PCM_16")
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
