"""Clips: reading, downmixing, resampling and cutting into windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from edgel3_tflm.errors import AudioError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A mono clip.

    ``samples`` has shape (n,), float32, full scale 1.
    """

    samples: FloatArray
    sample_rate_hz: int


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


def read_clip(path: Path, sample_rate_hz: int) -> Clip:
    """Read a clip as mono at a given sample rate.

    Channels are averaged; resampling is soxr's high quality.

    Raises
    ------
    AudioError
        If libsndfile cannot read the file, or it holds no samples or non-finite ones.
    """
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, MemoryError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise AudioError(f"{path}: expected an audio file libsndfile can read: {reason}") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: expected audio, the clip is empty (0 samples)")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: expected finite samples, some are NaN or infinite")
    mono = samples.mean(axis=1)
    if rate_hz != sample_rate_hz:
        mono = soxr.resample(mono, rate_hz, sample_rate_hz, quality="HQ")
    return Clip(np.ascontiguousarray(mono, np.float32), sample_rate_hz)


def cut_windows(clip: Clip, *, window_samples: int, hop_samples: int) -> FloatArray:
    """Cut a clip into overlapping windows; the tail is zero-padded so that every sample is used.

    Returns
    -------
    numpy.ndarray, shape (n, window_samples), float32
        At least one window, however short the clip: ``n = 1 + ceil((N - window) / hop)``.

    Raises
    ------
    ValueError
        If a length is not positive.
    """
    if window_samples < 1 or hop_samples < 1:
        raise ValueError(f"expected positive lengths, got {window_samples} and {hop_samples}")
    overhang = max(0, len(clip.samples) - window_samples)
    count = 1 + -(-overhang // hop_samples)
    needed = (count - 1) * hop_samples + window_samples
    padded = np.pad(clip.samples, (0, needed - len(clip.samples)))
    view = np.lib.stride_tricks.sliding_window_view(padded, window_samples)
    return view[::hop_samples]


def read_windows(
    paths: list[Path], *, sample_rate_hz: int, window_samples: int, hop_s: float
) -> Iterator[tuple[Path, FloatArray]]:
    """Read clips one after the other and cut each into windows.

    Yields
    ------
    path, windows : pathlib.Path, numpy.ndarray of shape (n, window_samples)

    Raises
    ------
    AudioError
        For the first clip that cannot be used.
    """
    hop_samples = round(hop_s * sample_rate_hz)
    for path in paths:
        clip = read_clip(path, sample_rate_hz)
        yield path, cut_windows(clip, window_samples=window_samples, hop_samples=hop_samples)
