"""The device's embeddings, and a scale that shows how far apart other embeddings are.

Distances are ``1 - cosine`` after the mean of the float embeddings is removed. Without that step,
embeddings of unrelated sounds have a high cosine too, because all values are positive.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.drift.windows import spread_evenly
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.types import BoolArray, FloatArray, IntArray, JsonFloat

LATER_S = 0.016
"""Time by which the shifted windows of the scale begin later."""
LATER_CLIPS = 32
"""Number of clips of which one window is shifted."""
_PAIRS = 4000
_SEED = 0


@dataclass(frozen=True)
class Distance:
    """Distance between pairs of embeddings: mean, 5th and 95th percentile."""

    pairs: int
    mean: JsonFloat
    p5: JsonFloat
    p95: JsonFloat


@dataclass(frozen=True)
class Scale:
    """Distance of the device's embeddings from the float embeddings, beside other distances.

    None stands for a distance that could not be measured.

    Parameters
    ----------
    runtime : str
        What computed the device's embeddings.
    device : Distance
        Device and float, of the same window.
    later : Distance or None
        The float network, and the same network on a window that begins 16 ms later.
    same_class : Distance or None
        The float network on two clips of one class.
    chance : Distance or None
        The float network on two clips.
    """

    runtime: str
    device: Distance
    later: Distance | None
    same_class: Distance | None
    chance: Distance | None


def shift_windows(windows: FloatArray, hop_samples: int, shift_samples: int) -> FloatArray:
    """Return the windows of a clip, each moved by some samples.

    The new samples come from the window after it, or for the last window from the one before.

    Parameters
    ----------
    windows : numpy.ndarray, shape (n, window_samples)
        Consecutive windows of one clip.
    hop_samples, shift_samples : int

    Returns
    -------
    numpy.ndarray, shape (n, window_samples)
        NaN if the clip has no further samples there: it has one window, or its windows do not
        overlap.
    """
    size, shift = windows.shape[1], shift_samples
    moved = np.full_like(windows, np.nan)
    if len(windows) < 2 or hop_samples > size or hop_samples < shift:
        return moved
    following = size - hop_samples
    moved[:-1, :-shift] = windows[:-1, shift:]
    moved[:-1, -shift:] = windows[1:, following : following + shift]
    moved[-1, shift:] = windows[-1, :-shift]
    moved[-1, :shift] = windows[-2, hop_samples - shift : hop_samples]
    return moved


class LaterWindows:
    """Collects a shifted window of evenly spread clips, with the embedding of the unshifted one."""

    def __init__(self, clips: int, hop_samples: int, spec: FrontendSpec) -> None:
        self._clips = set(spread_evenly(clips, LATER_CLIPS))
        self._hop_samples = hop_samples
        self._spec = spec
        self._windows: list[FloatArray] = []
        self._embeddings: list[FloatArray] = []

    def add(
        self, clip: int, level: FloatArray, windows: FloatArray, embeddings: FloatArray
    ) -> None:
        """Take the loudest window of a clip that can be shifted."""
        if clip not in self._clips:
            return
        shift = round(LATER_S * self._spec.sample_rate_hz)
        moved = shift_windows(windows, self._hop_samples, shift)
        loudest = int(level.argmax())
        if np.isfinite(level[loudest]) and np.isfinite(moved[loudest]).all():
            self._windows.append(moved[loudest])
            self._embeddings.append(embeddings[loudest])

    def measure(
        self, embed_in_float: Callable[[FloatArray, FloatArray], FloatArray], mean: FloatArray
    ) -> Distance | None:
        """Embed the shifted windows and return their distance from the unshifted ones."""
        if not self._windows:
            return None
        windows = np.stack(self._windows)
        moved = embed_in_float(windows, log_mel(windows, self._spec))
        return _describe(np.stack(self._embeddings), moved, mean)


def measure_scale(
    runtime: str,
    reference: FloatArray,
    device: FloatArray,
    clip: IntArray,
    labels: list[str | None],
    sounding: BoolArray,
    measure_later: Callable[[FloatArray], Distance | None],
) -> Scale | None:
    """Measure all distances of the scale.

    Parameters
    ----------
    runtime : str
        What computed ``device``.
    reference, device : numpy.ndarray, shape (n, d), float32
        Embeddings of the float network and of the device, of the samples as they are.
    clip : numpy.ndarray, shape (n,)
        Index of each window's clip.
    labels : list of str or None
        Label of each clip.
    sounding : numpy.ndarray, shape (n,), bool
        Windows to measure on.
    measure_later : callable
        Takes the mean of the float embeddings and returns the distance of the shifted windows.

    Returns
    -------
    Scale or None
        None if fewer than two clips have sounding windows: distances need their mean.
    """
    rows = np.flatnonzero(sounding)
    clips = np.unique(clip[rows])
    if len(clips) < 2:
        return None
    mean = reference[rows].mean(axis=0)
    first, second = np.random.default_rng(_SEED).choice(rows, (2, 16 * _PAIRS))
    apart = clip[first] != clip[second]
    names = np.array([label or "" for label in labels])
    same = apart & (names[clip[first]] == names[clip[second]]) & (names[clip[first]] != "")

    def between(pairs: BoolArray) -> Distance | None:
        chosen = np.flatnonzero(pairs)[:_PAIRS]
        if len(chosen) == 0:
            return None
        return _describe(reference[first[chosen]], reference[second[chosen]], mean)

    return Scale(
        runtime,
        _describe(reference[rows], device[rows], mean),
        measure_later(mean),
        between(same),
        between(apart),
    )


def _describe(a: FloatArray, b: FloatArray, mean: FloatArray) -> Distance:
    distance = 1 - cosine_similarity(a - mean, b - mean)
    low, high = np.percentile(distance, [5, 95])
    return Distance(len(distance), float(distance.mean()), float(low), float(high))
