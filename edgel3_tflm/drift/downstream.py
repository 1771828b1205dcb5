"""What drift does to those who use embeddings: neighbours, geometry, and trained classifiers.

Neighbours and geometry need embeddings alone; classifiers need labels, folds and scikit-learn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.errors import install_hint
from edgel3_tflm.metrics import linear_cka
from edgel3_tflm.schema import JsonFloat
from edgel3_tflm.types import FloatArray

SEED = 0
RESAMPLES = 2000
_MAX_WINDOWS = 4000
MLP_LAYERS = (512, 128)
"""Hidden layers of the MLP that L3-Net and EdgeL3 are judged by."""
_MLP_PASSES = 50


@dataclass(frozen=True)
class Interval:
    """An estimate, and the bounds that 95 % of the resamples lie in."""

    estimate: JsonFloat
    low: JsonFloat
    high: JsonFloat


@dataclass(frozen=True)
class ClassifierDrift:
    """Accuracy of a classifier in percent of the clips, each fold judged by all others.

    ``name`` says which. One is trained and judged on the float embeddings, one on the quantized
    ones; ``change`` is quantized less float, in points, resampled clip by clip in pairs.
    """

    name: str
    clips: int
    float_percent: Interval
    quantized_percent: Interval
    change_points: Interval


@dataclass(frozen=True)
class Downstream:
    """What the first runtime's drift does, over ``windows`` windows that are not silent.

    ``neighbour_agreement`` is the share of windows whose nearest neighbour by cosine among the
    windows of other clips is the same one in float and quantized; NaN with a single clip.
    ``linear_cka`` is that of Kornblith et al., Similarity of Neural Network Representations
    Revisited, ICML 2019, equation 3 with linear kernels. ``note`` says why labelled clips judged no
    classifiers; empty if they did, or if there are none.
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
    clip: npt.NDArray[np.int64],
    sounding: npt.NDArray[np.bool_],
    labelled: Sequence[LabelledClip | None],
    progress: Callable[[str, int, int], None],
) -> Downstream:
    """Measure all that the data allow.

    Parameters
    ----------
    reference, other : numpy.ndarray, shape (n, d)
        Float and quantized embeddings.
    clip, sounding : numpy.ndarray, shape (n,)
        The index of each window's clip, and whether the window is neither silent nor nearly so.
    labelled : sequence of LabelledClip or None
        Of each clip; classifiers are judged if there are two folds or more, and two classes outside
        of each.
    progress : callable
    """
    rows = np.flatnonzero(sounding)
    rows = rows[:: -(-len(rows) // _MAX_WINDOWS) or 1]
    classifiers: tuple[ClassifierDrift, ...] = ()
    note = _why_not_judged(labelled)
    if any(labelled) and not note:
        progress("train and judge classifiers", 0, 0)
        classifiers = _judge_classifiers(reference, other, clip, labelled)
    return Downstream(
        windows=len(rows),
        neighbour_agreement=_agree_on_neighbours(reference[rows], other[rows], clip[rows]),
        linear_cka=linear_cka(reference[rows], other[rows]) if len(rows) else float("nan"),
        classifiers=classifiers,
        note=note and f"classifiers: not judged: {note}",
    )


def _why_not_judged(labelled: Sequence[LabelledClip | None]) -> str:
    """Why labelled clips cannot judge classifiers; empty if they can, or if there are none."""
    known = [each for each in labelled if each is not None]
    folds = sorted({each.fold for each in known})
    if not known:
        return ""
    if len(folds) < 2:
        return f"the labelled clips are all of fold {folds[0]}; give them two folds or more"
    for fold in folds:
        if len({each.label for each in known if each.fold != fold}) < 2:
            return f"without fold {fold} fewer than two classes are left"
    if find_spec("sklearn") is None:
        return f"scikit-learn is not installed; {install_hint('probe')}"
    return ""


def _agree_on_neighbours(
    reference: FloatArray, other: FloatArray, clip: npt.NDArray[np.int64]
) -> float:
    if len(np.unique(clip)) < 2:
        return float("nan")
    same = _nearest(reference, clip) == _nearest(other, clip)
    return float(same.mean())


def _nearest(embeddings: FloatArray, clip: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(length, np.finfo(np.float32).tiny)
    cosine = unit @ unit.T
    cosine[clip[:, None] == clip] = -np.inf
    nearest: npt.NDArray[np.int64] = cosine.argmax(axis=1)
    return nearest


def _judge_classifiers(
    reference: FloatArray,
    other: FloatArray,
    clip: npt.NDArray[np.int64],
    labelled: Sequence[LabelledClip | None],
) -> tuple[ClassifierDrift, ...]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    # The linear probe is that of edgel3_tflm.evaluation.probe; the MLP has the published layers.
    kinds: dict[str, Callable[[], Any]] = {
        "linear probe": lambda: LogisticRegression(C=0.1, max_iter=1000),
        "MLP 512-128": lambda: MLPClassifier(MLP_LAYERS, max_iter=_MLP_PASSES, random_state=SEED),
    }
    return tuple(
        _compare_rights(
            name,
            *(_judge_clips(make, side, clip, labelled) for side in (reference, other)),
        )
        for name, make in kinds.items()
    )


def _judge_clips(
    make: Callable[[], Any],
    embeddings: FloatArray,
    clip: npt.NDArray[np.int64],
    labelled: Sequence[LabelledClip | None],
) -> npt.NDArray[np.bool_]:
    """Tell which labelled clips a classifier gets right that was trained on the other folds.

    Standardise; mean log-probability over a clip's windows.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = [number for number, each in enumerate(labelled) if each is not None]
    labels = np.array(["" if each is None else each.label for each in labelled])
    folds = np.array([-1 if each is None else each.fold for each in labelled])
    has_label = np.isin(clip, numbers)
    right = np.zeros(len(labelled), bool)
    for fold in sorted({int(folds[number]) for number in numbers}):
        test = has_label & (folds[clip] == fold)
        train = has_label & ~test
        model = make_pipeline(StandardScaler(), make())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the passes are bounded
            model.fit(embeddings[train], labels[clip[train]])
        probabilities = model.predict_proba(embeddings[test]).astype(np.float64)
        scores = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
        for number in np.unique(clip[test]):
            mean = scores[clip[test] == number].mean(axis=0)
            right[number] = model.classes_[mean.argmax()] == labels[number]
    return right[numbers]


def _compare_rights(
    name: str, in_float: npt.NDArray[np.bool_], quantized: npt.NDArray[np.bool_]
) -> ClassifierDrift:
    change = quantized.astype(np.float64) - in_float
    return ClassifierDrift(
        name,
        len(in_float),
        *(bootstrap_mean(100.0 * each) for each in (in_float, quantized, change)),
    )


def bootstrap_mean(values: npt.NDArray[np.float64]) -> Interval:
    """Mean, and the 2.5th and 97.5th percentile of the means of ``RESAMPLES`` seeded resamples.

    Parameters
    ----------
    values : numpy.ndarray, shape (n,)
        One for each clip.
    """
    rng = np.random.default_rng(SEED)
    chosen = rng.integers(0, len(values), (RESAMPLES, len(values)))
    return _interval(float(values.mean()), values[chosen].mean(axis=1))


def bootstrap(
    figures: Callable[[npt.NDArray[np.int64]], Sequence[float]], clips: int
) -> list[Interval]:
    """As :func:`bootstrap_mean`, for figures that are no means; all from the same resamples.

    Parameters
    ----------
    figures : callable
        Takes indices of clips, shape (n,), some of them repeated.
    clips : int

    Returns
    -------
    list of Interval
        One for each figure.
    """
    rng = np.random.default_rng(SEED)
    resampled = [figures(rng.integers(0, clips, clips)) for _ in range(RESAMPLES)]
    return [
        _interval(estimate, np.array(column))
        for estimate, column in zip(
            figures(np.arange(clips)), zip(*resampled, strict=True), strict=True
        )
    ]


def _interval(estimate: float, resampled: npt.NDArray[np.float64]) -> Interval:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])  # NaN: figures that a resample has not
    return Interval(estimate, float(low), float(high))
