"""Effect of drift on the users of embeddings: nearest neighbours, geometry, trained classifiers.

Neighbours and geometry need embeddings only; classifiers need labels, folds and scikit-learn.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.errors import install_hint
from edgel3_tflm.metrics import linear_cka
from edgel3_tflm.types import BoolArray, DoubleArray, FloatArray, IntArray, JsonFloat, Progress

SEED = 0
RESAMPLES = 2000
_MAX_WINDOWS = 4000
MLP_LAYERS = (512, 128)
"""Hidden layers of the MLP that L3-Net and EdgeL3 were evaluated with."""
_MLP_EPOCHS = 50


@dataclass(frozen=True)
class Interval:
    """An estimate, and the bounds of 95 % of its resamples."""

    estimate: JsonFloat
    low: JsonFloat
    high: JsonFloat


@dataclass(frozen=True)
class ClassifierDrift:
    """Accuracy of a classifier, each fold tested after training on all others.

    Parameters
    ----------
    name : str
        Name of the classifier.
    clips : int
        Clips tested.
    float_percent, quantized_percent : Interval
        Clips classified correctly, in percent, trained and tested on float embeddings and on
        quantized embeddings.
    change_points : Interval
        Quantized minus float, in percentage points. A resample takes the same clips for both.
    """

    name: str
    clips: int
    float_percent: Interval
    quantized_percent: Interval
    change_points: Interval


@dataclass(frozen=True)
class Downstream:
    """Effect of the first runtime's drift.

    Parameters
    ----------
    windows : int
        Sounding windows that neighbours and geometry were measured on.
    neighbour_agreement : float
        Share of the windows that have the same nearest neighbour in float and quantized, by cosine,
        among the windows of other clips; NaN with a single clip.
    linear_cka : float
        Linear centred kernel alignment: Kornblith et al., Similarity of Neural Network
        Representations Revisited, ICML 2019, equation 3.
    classifiers : tuple of ClassifierDrift
    note : str
        Why no classifiers were tested although clips are labelled; empty otherwise.
    """

    windows: int
    neighbour_agreement: JsonFloat
    linear_cka: JsonFloat
    classifiers: tuple[ClassifierDrift, ...]
    note: str


DOWNSTREAM_FIGURES = {"neighbour_agreement": True, "linear_cka": True}
"""Figures of :class:`Downstream`, each with whether a higher value is better."""
CLASSIFIER_FIGURES = {"change_points": True, "quantized_percent": True, "float_percent": True}
"""Intervals of :class:`ClassifierDrift`, each with whether a higher value is better."""


def measure_downstream(
    reference: FloatArray,
    other: FloatArray,
    clip: IntArray,
    sounding: BoolArray,
    labelled: Sequence[LabelledClip | None],
    progress: Progress,
) -> Downstream:
    """Measure neighbours, geometry and, if labels allow, classifiers.

    Parameters
    ----------
    reference, other : numpy.ndarray, shape (n, d)
        Float and quantized embeddings.
    clip : numpy.ndarray, shape (n,)
        Index of each window's clip.
    sounding : numpy.ndarray, shape (n,), bool
        False for silent, nearly silent and padded windows.
    labelled : sequence of LabelledClip or None
        Label and fold of each clip, if known. Classifiers need two folds or more, and two classes
        outside each fold.
    progress : callable
    """
    rows = np.flatnonzero(sounding)
    rows = rows[:: -(-len(rows) // _MAX_WINDOWS) or 1]
    classifiers: tuple[ClassifierDrift, ...] = ()
    note = _find_obstacle(labelled)
    if any(labelled) and not note:
        progress("train and test classifiers", 0, 0)
        classifiers = _test_classifiers(reference, other, clip, labelled)
    return Downstream(
        windows=len(rows),
        neighbour_agreement=_agree_on_neighbours(reference[rows], other[rows], clip[rows]),
        linear_cka=linear_cka(reference[rows], other[rows]) if len(rows) else float("nan"),
        classifiers=classifiers,
        note=note and f"classifiers: not tested: {note}",
    )


def _find_obstacle(labelled: Sequence[LabelledClip | None]) -> str:
    """Return why labelled clips cannot test classifiers; empty if they can or there are none."""
    known = [each for each in labelled if each is not None]
    folds = sorted({each.fold for each in known})
    if not known:
        return ""
    if len(folds) < 2:
        return f"expected labelled clips in two folds or more, found fold {folds[0]} alone"
    for fold in folds:
        if len({each.label for each in known if each.fold != fold}) < 2:
            return f"expected clips of two classes or more outside fold {fold}"
    if find_spec("sklearn") is None:
        return f"scikit-learn is not installed; {install_hint('probe')}"
    return ""


def _agree_on_neighbours(reference: FloatArray, other: FloatArray, clip: IntArray) -> float:
    if len(np.unique(clip)) < 2:
        return float("nan")
    same = _nearest(reference, clip) == _nearest(other, clip)
    return float(same.mean())


def _nearest(embeddings: FloatArray, clip: IntArray) -> IntArray:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(length, np.finfo(np.float32).tiny)
    cosine = unit @ unit.T
    cosine[clip[:, None] == clip] = -np.inf
    nearest: IntArray = cosine.argmax(axis=1)
    return nearest


def _test_classifiers(
    reference: FloatArray,
    other: FloatArray,
    clip: IntArray,
    labelled: Sequence[LabelledClip | None],
) -> tuple[ClassifierDrift, ...]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    from edgel3_tflm.drift.classifiers import classify_folds, make_linear_probe

    kinds: dict[str, Callable[[], Any]] = {
        "linear probe": make_linear_probe,
        f"MLP {'-'.join(map(str, MLP_LAYERS))}": lambda: MLPClassifier(
            MLP_LAYERS, max_iter=_MLP_EPOCHS, random_state=SEED
        ),
    }
    numbers = [number for number, each in enumerate(labelled) if each is not None]
    labels = ["" if each is None else each.label for each in labelled]
    folds = [-1 if each is None else each.fold for each in labelled]
    rows = np.isin(clip, numbers)

    def test(make: Callable[[], Any], embeddings: FloatArray) -> BoolArray:
        """Return for each labelled clip whether the classifier is right."""
        with warnings.catch_warnings():
            # The MLP stops after a fixed number of epochs, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            right = classify_folds(make, embeddings[rows], clip[rows], labels, folds)
        return np.array([right[number] for number in numbers])

    return tuple(
        _compare_rights(name, test(make, reference), test(make, other))
        for name, make in kinds.items()
    )


def _compare_rights(name: str, in_float: BoolArray, quantized: BoolArray) -> ClassifierDrift:
    change = quantized.astype(np.float64) - in_float
    return ClassifierDrift(
        name,
        len(in_float),
        *(bootstrap_mean(100.0 * each) for each in (in_float, quantized, change)),
    )


def bootstrap_mean(values: DoubleArray) -> Interval:
    """Return the mean and its 95 % interval from ``RESAMPLES`` seeded resamples.

    Parameters
    ----------
    values : numpy.ndarray, shape (n,)
        One value for each clip.
    """
    rng = np.random.default_rng(SEED)
    chosen = rng.integers(0, len(values), (RESAMPLES, len(values)))
    return _interval(float(values.mean()), values[chosen].mean(axis=1))


def bootstrap(figures: Callable[[IntArray], Sequence[float]], clips: int) -> list[Interval]:
    """Return figures and their 95 % intervals from ``RESAMPLES`` seeded resamples.

    This is :func:`bootstrap_mean` for figures that are not means.

    Parameters
    ----------
    figures : callable
        Takes indices of clips, shape (n,), with repetitions, and returns the figures of these
        clips.
    clips : int
        Number of clips.

    Returns
    -------
    list of Interval
        One for each figure, all from the same resamples.
    """
    rng = np.random.default_rng(SEED)
    resampled = [figures(rng.integers(0, clips, clips)) for _ in range(RESAMPLES)]
    return [
        _interval(estimate, np.array(column))
        for estimate, column in zip(
            figures(np.arange(clips)), zip(*resampled, strict=True), strict=True
        )
    ]


def _interval(estimate: float, resampled: DoubleArray) -> Interval:
    # NaN: the figure does not exist for this resample, for example without clips of a label.
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Interval(estimate, float(low), float(high))
