"""Cutting audio into windows: the hop, padding, and the windows of clips."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.clips import Clip, read_clip
from edgel3_tflm.audio.resampling import KAISER_BEST, SOXR, check_resampler
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.types import FloatArray

_MAX_NAMES = 5


def hop_in_samples(hop_s: float, sample_rate_hz: int) -> int:
    """Return the number of samples of a hop, rounded down as in edgel3.

    Raises
    ------
    EdgeL3Error
        If the hop is shorter than a sample or not finite.
    """
    if not 1 <= hop_s * sample_rate_hz < math.inf:
        raise EdgeL3Error(
            f"expected a hop of at least one sample at {sample_rate_hz} Hz, in seconds, got"
            f" {hop_s!r}"
        )
    return int(hop_s * sample_rate_hz)


def cut_windows(clip: Clip, *, window_samples: int, hop_samples: int) -> FloatArray:
    """Cut a clip into overlapping whole windows; samples after the last window are dropped.

    Returns
    -------
    numpy.ndarray, shape (n, window_samples), float32
        ``n = 1 + floor((samples - window_samples) / hop_samples)``. A clip shorter than a window
        gives one window, padded with zeros at its end.

    Raises
    ------
    ValueError
        If a length is not positive.
    """
    if window_samples < 1 or hop_samples < 1:
        raise ValueError(f"expected positive lengths, got {window_samples} and {hop_samples}")
    padded = np.pad(clip.samples, (0, max(0, window_samples - len(clip.samples))))
    view = np.lib.stride_tricks.sliding_window_view(padded, window_samples)
    return view[::hop_samples]


@dataclass(frozen=True)
class ReadingLog:
    """The short and the damaged clips that :func:`read_windows` found, in the order of the clips.

    Parameters
    ----------
    keep_going : bool
        Skip damaged clips instead of raising an error for the first one.
    short : list of pathlib.Path
        Clips shorter than a window. Each gives one window, padded with zeros.
    damaged : dict of pathlib.Path to str
        Clips that were skipped, with the reason.
    """

    keep_going: bool = False
    short: list[Path] = field(default_factory=list)
    damaged: dict[Path, str] = field(default_factory=dict)

    def describe_short(self) -> str:
        """Return a sentence about the short clips; empty if there are none."""
        if not self.short:
            return ""
        names = ", ".join(path.name for path in self.short[:_MAX_NAMES])
        more = len(self.short) - _MAX_NAMES
        return (
            f"shorter than a window of 1 s, so padded with zeros: {len(self.short)} clips:"
            f" {names}{f' and {more} more' if more > 0 else ''}"
        )


def read_windows(
    paths: Iterable[Path],
    *,
    sample_rate_hz: int,
    window_samples: int,
    hop_s: float,
    log: ReadingLog | None = None,
    resampler: str = SOXR,
) -> Iterator[tuple[Path, FloatArray]]:
    """Read clips one after the other, and cut each into windows with :func:`cut_windows`.

    Parameters
    ----------
    paths : iterable of pathlib.Path
    sample_rate_hz, window_samples : int
    hop_s : float
        Seconds from one window to the next; :func:`hop_in_samples` converts them to samples.
    log : ReadingLog, optional
        Filled in while clips are read.
    resampler : str
        One of ``resampling.RESAMPLERS``.

    Yields
    ------
    path, windows : pathlib.Path, numpy.ndarray of shape (n, window_samples)

    Raises
    ------
    AudioError
        For the first damaged clip, unless ``log.keep_going`` is True.
    EdgeL3Error
        If the hop is shorter than a sample.
    """
    log = ReadingLog() if log is None else log
    hop_samples = hop_in_samples(hop_s, sample_rate_hz)
    for path in paths:
        try:
            clip = read_clip(path, sample_rate_hz, resampler)
        except AudioError as error:
            if not log.keep_going:
                raise
            log.damaged[path] = str(error)
            continue
        if len(clip.samples) < window_samples:
            log.short.append(path)
        yield path, cut_windows(clip, window_samples=window_samples, hop_samples=hop_samples)


DEFAULT_BATCH_SIZE = 32
"""Windows in one call of the runtime: about 15 MB of samples and spectrograms."""


@dataclass(frozen=True)
class Framing:
    """Options for cutting audio into windows of one second.

    Parameters
    ----------
    hop_size : float
        Seconds from one window to the next.
    center : bool
        Begin with half a window of zeros, so that a timestamp is the middle of its window.
    batch_size : int
        Windows in one call of the runtime. It changes no result.
    resampler : str
        One of ``resampling.RESAMPLERS``, for audio with another sample rate than the network's.

    Raises
    ------
    EdgeL3Error
        If a value is out of range.
    """

    hop_size: float = 0.1
    center: bool = True
    batch_size: int = DEFAULT_BATCH_SIZE
    resampler: str = KAISER_BEST

    def __post_init__(self) -> None:
        if not is_positive(self.hop_size):
            raise EdgeL3Error(f"expected a hop size in seconds above 0, got {self.hop_size!r}")
        if self.center not in (True, False):
            raise EdgeL3Error(f"expected center to be True or False, got {self.center!r}")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise EdgeL3Error(f"expected a batch size of 1 or more, got {self.batch_size!r}")
        check_resampler(self.resampler)

    def hop_samples(self, sample_rate_hz: int) -> int:
        """Return the number of samples of a hop by :func:`hop_in_samples`."""
        return hop_in_samples(self.hop_size, sample_rate_hz)


def center_audio(audio: npt.NDArray[Any], frame_len: int) -> npt.NDArray[Any]:
    """Prepend half a window of zeros, rounded down."""
    return np.pad(audio, (frame_len // 2, 0))


def pad_audio(audio: npt.NDArray[Any], frame_len: int, hop_len: int) -> npt.NDArray[Any]:
    """Append zeros so that windows of ``frame_len``, one every ``hop_len``, cover all samples."""
    hops = -(-max(0, audio.size - frame_len) // hop_len)
    return np.pad(audio, (0, frame_len + hops * hop_len - audio.size))


def is_positive(value: Any) -> bool:
    """Return whether a value is a finite real number above zero."""
    return isinstance(value, Real) and 0 < float(value) < math.inf
