"""Clips: reading, downmixing, resampling and cutting into windows."""

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
"""Frames read at a time: some ten seconds, which are windows enough for many cores."""
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
    """Directory of the synthetic clips that ship with the package."""
    return Path(str(files("edgel3_tflm.calibration_data"))) / "clips"


def is_audio_file(path: Path) -> bool:
    """Whether libsndfile reads files with this suffix (compressed ones included)."""
    suffix = path.suffix.lstrip(".").upper()
    return suffix in {"AIF", "OGA", "OPUS", *soundfile.available_formats()}


def find_clips(paths: list[Path]) -> list[Path]:
    """List clips: files as they are named, directories searched through, sorted by path.

    Raises
    ------
    AudioError
        If a path does not exist, or a directory holds no audio file.
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
    """Read a clip as mono at a given sample rate: channels are averaged.

    Raises
    ------
    AudioError
        If libsndfile cannot read the file, it is truncated, or it holds no samples or non-finite
        ones.
    """
    samples = np.concatenate([_NO_SAMPLES, *read_blocks(path, sample_rate_hz, resampler)])
    return Clip(samples, sample_rate_hz)


def read_blocks(path: Path, sample_rate_hz: int, resampler: str = SOXR) -> Iterator[FloatArray]:
    """Read a file of any length block by block; together they are :func:`read_clip`'s samples.

    Yields
    ------
    numpy.ndarray, shape (n,), float32
        Mono, at ``sample_rate_hz``, full scale 1.

    Raises
    ------
    AudioError
        As :func:`read_clip`, after any number of blocks.
    """
    with _open(path) as file:
        yield from resample_blocks(_read_mono(file), file.samplerate, sample_rate_hz, resampler)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a whole file; what is wrong with it or found wrong later is an error with its name.

    Raises
    ------
    AudioError
        If libsndfile cannot read the file, or it is shorter than its header says.
    """
    file = None
    try:
        # Given the name, soundfile and libsndfile guess by its suffix what the file does not say.
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
        raise AudioError(f"{path}: expected an audio file libsndfile can read: {reason}") from error


def _read_mono(file: Any) -> Iterator[FloatArray]:
    count = 0
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        count += len(block)
        yield mix_down(block)
    # Of MP3 libsndfile estimates the length; a stream that was never closed has the largest.
    if count < file.frames < _LONGEST_FRAMES and file.format != "MP3":
        raise AudioError(
            f"truncated: by its header it has {file.frames:,} samples, {count:,} can be decoded;"
            " get the whole file again"
        )
    if count == 0:
        raise AudioError("expected audio, the clip is empty (0 samples)")


def mix_down(block: npt.NDArray[Any]) -> FloatArray:
    """Average the channels of samples, shape (n, channels), to float32 of shape (n,).

    Raises
    ------
    AudioError
        If one is NaN or infinite.
    """
    mono: FloatArray = block.astype(np.float32, copy=False).mean(axis=1)
    refuse_non_finite(mono, "samples")
    return mono


def refuse_non_finite(values: npt.NDArray[Any], what: str) -> None:
    """Refuse values that are no numbers; ``what`` names them.

    Raises
    ------
    AudioError
        If one is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise AudioError(f"expected finite {what}, some are NaN or infinite")


def measure_seconds(path: Path) -> float:
    """Length of a file as its header has it; 0 where that is no help."""
    try:
        with _open(path) as file:
            # A stream that was never closed says the largest number there is.
            return file.frames / file.samplerate if file.frames < _LONGEST_FRAMES else 0.0
    except AudioError:
        return 0.0
