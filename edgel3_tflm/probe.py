"""A linear probe: what a linear classifier reads from embeddings. Needs the extra ``probe``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio import read_windows
from edgel3_tflm.corpus import LabelledClip
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.frontend import is_silent, log_mel
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.variants import FrontendSpec

try:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
except ImportError as error:
    raise RuntimeUnavailableError(
        f"probing needs the package {error.name}, which is not installed;"
        " pip install 'edgel3-tflm[probe]'"
    ) from error

FloatArray = npt.NDArray[np.float32]

HOP_S = 0.5
_INVERSE_REGULARISATION = 0.1
_MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Features:
    """Features of every window of some clips.

    ``values`` has shape (n, d). ``clip``, ``position`` and ``silent`` have shape (n,): the index of
    the window's clip, its number within the clip, and whether its log-mel is all zeros.
    """

    values: FloatArray
    clip: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    silent: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FoldResult:
    """Clips of one fold that a probe trained on the other folds got right."""

    fold: int
    right: int
    clips: int


def extract_features(
    clips: Sequence[LabelledClip],
    spec: FrontendSpec,
    features: Callable[[FloatArray], FloatArray],
    progress: Callable[[str, int, int], None],
) -> Features:
    """Features of one-second windows, one every 0.5 s.

    Parameters
    ----------
    clips : sequence of LabelledClip
    spec : FrontendSpec
    features : callable
        Turns log-mel spectrograms (n, mels, frames) into values (n, d).
    progress : callable
        Called with the name of the step, clips done and clips in all.

    Raises
    ------
    AudioError
        For the first clip that cannot be used.
    """
    values, clip, position, silent = [], [], [], []
    for number, (_, windows) in enumerate(
        read_windows(
            [each.path for each in clips],
            sample_rate_hz=spec.sample_rate_hz,
            window_samples=spec.window_samples,
            hop_s=HOP_S,
        )
    ):
        decibels = log_mel(windows, spec)
        values.append(features(decibels))
        clip.append(np.full(len(windows), number))
        position.append(np.arange(len(windows)))
        silent.append(is_silent(decibels))
        progress("embed clips", number + 1, len(clips))
    return Features(
        np.concatenate(values),
        np.concatenate(clip),
        np.concatenate(position),
        np.concatenate(silent),
    )


def probe(
    clips: Sequence[LabelledClip], features: Features, test_folds: Sequence[int] | None = None
) -> list[FoldResult]:
    """Judge each fold by a classifier trained on all others.

    Standardise, multinomial logistic regression (C = 0.1), mean log-probability over a clip's
    windows.

    Parameters
    ----------
    clips : sequence of LabelledClip
    features : Features
        Of these clips.
    test_folds : sequence of int, optional
        Folds to judge; all by default.

    Raises
    ------
    EdgeL3Error
        If there is but one fold, or a fold to judge has no clips.
    """
    labels = np.array([clip.label for clip in clips])
    folds = np.array([clip.fold for clip in clips])
    results = []
    for fold in _choose_folds(folds, test_folds):
        train = folds[features.clip] != fold
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=_MAX_ITERATIONS),
        )
        model.fit(features.values[train], labels[features.clip[train]])
        scores = model.predict_log_proba(features.values[~train])
        tested = features.clip[~train]
        right = [
            model.classes_[scores[tested == clip].mean(axis=0).argmax()] == labels[clip]
            for clip in np.flatnonzero(folds == fold)
        ]
        results.append(FoldResult(fold, int(sum(right)), len(right)))
    return results


def map_cosine(
    clips: Sequence[LabelledClip],
    features: Features,
    teacher: Features,
    test_folds: Sequence[int] | None = None,
) -> float:
    """Mean cosine between a teacher's embeddings and a linear map of other features.

    For each fold the map (ridge regression on standardised features) is fitted on all others.
    Silent windows are left out: they all have the same embedding.

    Parameters
    ----------
    clips : sequence of LabelledClip
    features, teacher : Features
        Of the same clips, through whatever frontends.
    test_folds : sequence of int, optional
        Folds to judge; all by default.

    Raises
    ------
    EdgeL3Error
        As :func:`probe`.
    """
    folds = np.array([clip.fold for clip in clips])
    # Resampling rounds a clip's length: one frontend may see a window that the other does not.
    places = {
        place: row
        for row, place in enumerate(zip(teacher.clip, teacher.position, strict=True))
        if not teacher.silent[row]
    }
    rows = [
        (row, places[place])
        for row, place in enumerate(zip(features.clip, features.position, strict=True))
        if place in places
    ]
    own, other = (np.array(side) for side in zip(*rows, strict=True))
    fold_of_row = folds[features.clip[own]]
    cosines = []
    for fold in _choose_folds(folds, test_folds):
        train = fold_of_row != fold
        model = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
        model.fit(features.values[own[train]], teacher.values[other[train]])
        mapped = model.predict(features.values[own[~train]])
        cosines.append(cosine_similarity(teacher.values[other[~train]], mapped))
    return float(np.concatenate(cosines).mean())


def _choose_folds(folds: npt.NDArray[np.int64], test_folds: Sequence[int] | None) -> Sequence[int]:
    known = sorted(set(folds.tolist()))
    if len(known) < 2:
        raise EdgeL3Error(f"expected clips in at least two folds, found fold {known[0]} alone")
    for fold in test_folds or ():
        if fold not in known:
            raise EdgeL3Error(f"expected a fold of the manifest ({known}), got {fold}")
    return test_folds or known
