"""The windows of a comparison, their groups, and the few that layers are measured on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.types import BoolArray, FloatArray

SAMPLED_WINDOWS = 8
"""Number of windows that layers and frontend are measured on."""
GROUPS = ("all", "sounding", "near_silent", "silent", "padded")
"""Sets of windows with figures of their own; ``all`` is the union of the others."""


def spread_evenly(total: int, count: int) -> list[int]:
    """Return at most ``count`` of the numbers 0 to ``total - 1``, evenly spread."""
    found: list[int] = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    return found


@dataclass(frozen=True)
class Windows:
    """The windows of a comparison, in the order of the clips.

    Parameters
    ----------
    clip : numpy.ndarray, shape (n,)
        Index of each window's clip.
    start_s : numpy.ndarray, shape (n,)
        Start of the window within its clip, in seconds.
    silent, near_silent, padded : numpy.ndarray, shape (n,), bool
        The group of the window. A padded window ends with zeros because its clip is shorter than a
        window. Of the others, a silent window has a log-mel of zeros, and a nearly silent window
        has a level below ``NEAR_SILENCE_DBFS``.
    """

    clip: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    silent: BoolArray
    near_silent: BoolArray
    padded: BoolArray

    @property
    def sounding(self) -> BoolArray:
        """Windows that are neither padded, silent nor nearly silent; shape (n,)."""
        return ~(self.silent | self.near_silent | self.padded)

    def groups(self) -> dict[str, BoolArray]:
        """Return a mask of the windows for each of ``GROUPS``."""
        everything = np.ones(len(self.clip), bool)
        masks = everything, self.sounding, self.near_silent, self.silent, self.padded
        return dict(zip(GROUPS, masks, strict=True))


@dataclass(frozen=True)
class SampledWindows:
    """The windows that layers and frontend were measured on: the loudest of evenly spread clips.

    Parameters
    ----------
    clip : numpy.ndarray, shape (n,)
        Index of each window's clip.
    start_s : numpy.ndarray, shape (n,)
    samples : numpy.ndarray, shape (n, window_samples), float32
    decibels : numpy.ndarray, shape (n, mels, frames), float32
        Log-mel of the host.
    """

    clip: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    samples: FloatArray
    decibels: FloatArray


class LoudestWindows:
    """Collects the loudest windows of evenly spread clips, at most ``SAMPLED_WINDOWS`` of them."""

    def __init__(self, clips: int) -> None:
        spread = spread_evenly(clips, SAMPLED_WINDOWS)
        self._per_clip = dict.fromkeys(spread, SAMPLED_WINDOWS // len(spread))
        self._taken: list[tuple[npt.NDArray[Any], ...]] = []

    def add(self, clip: int, level: FloatArray, *arrays: npt.NDArray[Any]) -> None:
        """Take the rows of a clip's loudest windows from arrays with one row per window."""
        loudest = np.sort(np.argsort(-level, kind="stable")[: self._per_clip.get(clip, 0)])
        self._taken.append(tuple(each[loudest] for each in arrays))

    def join(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the rows of all clips, one array for each array of :meth:`add`."""
        return tuple(np.concatenate(each) for each in zip(*self._taken, strict=True))
