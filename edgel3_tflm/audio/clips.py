"""Reading audio files: as mono samples at a given sample rate, whole or block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from edgel3_tflm.audio.containers import refuse_truncated
from edgel3_tflm.audio.resampling import SOXR, resample_blocks
from edgel3_tflm.errors import AudioError
from edgel3_tflm.types import FloatArray

BLOCK_FRAMES = 1 << 19
"""Frames in a block: about ten seconds, which gives windows for many cores."""
_LONGEST_FRAMES = 1 << 48
_NO_SAMPLES = np.empty(0, np.float32)


@dataclass(frozen=True)
class Clip:
    """A mono clip.

    ``samples`` has shape (n,), float32, full scale 1.
    """

    samples: FloatArray
    sample_rate_hz: int


def bundled_clips_directory() -> Path:
    """Return the directory of the synthetic clips that ship with the package."""
    return Path(str(files("edgel3_tflm.calibration_data"))) / "clips"


def is_audio_file(path: Path) -> bool:
    """Return whether libsndfile reads files with this suffix, including compressed formats."""
    suffix = path.suffix.lstrip(".").upper()
    return suffix in {"AIF", "OGA", "OPUS", *soundfile.available_formats()}


def find_clips(paths: list[Path]) -> list[Path]:
    """Return the files among the paths, and all audio files below the directories among them.

    The files of a directory are sorted by path.

    Raises
    ------
    AudioError
        If a path does not exist, or a directory contains no audio file.
    """
    clips: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and is_audio_file(p))
            if not found:
                raise AudioError(f"{path}: expected audio files in this directory, found none")
            clips += found
        elif path.exists():
            clips.append(path)
        else:
            raise AudioError(f"{path}: no such file or directory")
    return clips


def read_clip(path: Path, sample_rate_hz: int, resampler: str = SOXR) -> Clip:
    """Read a clip as mono, the mean of its channels, at a given sample rate.

    Raises
    ------
    AudioError
        If libsndfile cannot read the file, or if the file is truncated, has no samples, or has
        samples that are NaN or infinite.
    """
    samples = np.concatenate([_NO_SAMPLES, *read_blocks(path, sample_rate_hz, resampler)])
    return Clip(samples, sample_rate_hz)


def read_blocks(path: Path, sample_rate_hz: int, resampler: str = SOXR) -> Iterator[FloatArray]:
    """Read a file of any length block by block; the blocks together equal :func:`read_clip`.

    Yields
    ------
    numpy.ndarray, shape (n,), float32
        Mono, at ``sample_rate_hz``, full scale 1.

    Raises
    ------
    AudioError
        As for :func:`read_clip`, after any number of blocks.
    """
    with _open(path) as file:
        yield from resample_blocks(_read_mono(file), file.samplerate, sample_rate_hz, resampler)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open an audio file; errors here and in the body of ``with`` begin with the file's name.

    Raises
    ------
    AudioError
        If libsndfile cannot read the file, or the file is shorter than its header states.
    """
    file = None
    try:
        # Given a name, soundfile and libsndfile use its suffix to guess what the header lacks.
        with path.open("rb", buffering=0) as raw:
            refuse_truncated(raw)
            if raw.seekable():
                raw.seek(0)
            with soundfile.SoundFile(raw.fileno(), closefd=False) as file:
                yield file
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise AudioError(f"{path}: expected an audio file, there is no such file") from error
    except (soundfile.LibsndfileError, OSError, MemoryError) as error:
        reason = (getattr(error, "error_string", None) or str(error)).rstrip(".")
        if file is not None:
            reason += "; it is truncated or damaged, get the whole file again"
        elif "not recognised" in reason:
            reason += "; samples without a header (raw PCM) must be converted, to WAV for example"
        raise AudioError(
            f"{path}: expected an audio file that libsndfile can read: {reason}"
        ) from error


def _read_mono(file: Any) -> Iterator[FloatArray]:
    count = 0
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        count += len(block)
        yield mix_down(block)
    # libsndfile estimates the length of an MP3. A stream that was never closed has the largest.
    if count < file.frames < _LONGEST_FRAMES and file.format != "MP3":
        raise AudioError(
            f"truncated: its header states {file.frames:,} samples, {count:,} can be decoded;"
            " get the whole file again"
        )
    if count == 0:
        raise AudioError("expected audio, the clip is empty (0 samples)")


def mix_down(block: npt.NDArray[Any]) -> FloatArray:
    """Return the mean of the channels: samples (n, channels) to (n,), float32.

    Raises
    ------
    AudioError
        If a mean is NaN or infinite.
    """
    mono: FloatArray = block.astype(np.float32, copy=False).mean(axis=1)
    refuse_non_finite(mono, "samples")
    return mono


def refuse_non_finite(values: npt.NDArray[Any], what: str) -> None:
    """Check that all values are finite; ``what`` describes them in the error.

    Raises
    ------
    AudioError
        If a value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise AudioError(f"expected finite {what}, some are NaN or infinite")


def measure_seconds(path: Path) -> float:
    """Return the length of a file in seconds by its header; 0 if unknown."""
    try:
        with _open(path) as file:
            # The header of a stream that was never closed has the largest possible number.
            return file.frames / file.samplerate if file.frames < _LONGEST_FRAMES else 0.0
    except AudioError:
        return 0.0
