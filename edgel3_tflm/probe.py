"""A linear probe: what a linear classifier reads from embeddings. Needs the extra ``probe``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio import read_windows
from edgel3_tflm.corpus import LabelledClip
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.frontend import log_mel
from edgel3_tflm.variants import FrontendSpec

try:
    from sklearn.linear_model import LogisticRegression
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

    ``values`` has shape (n, d); ``clip`` has shape (n,), the index of the window's clip.
    """

    values: FloatArray
    clip: npt.NDArray[np.int64]


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
    values, clip = [], []
    for number, (_, windows) in enumerate(
        read_windows(
            [each.path for each in clips],
            sample_rate_hz=spec.sample_rate_hz,
            window_samples=spec.window_samples,
            hop_s=HOP_S,
        )
    ):
        values.append(features(log_mel(windows, spec)))
        clip.append(np.full(len(windows), number))
        progress("embed clips", number + 1, len(clips))
    return Features(np.concatenate(values), np.concatenate(clip))


def log_mel_statistics(decibels: FloatArray) -> FloatArray:
    """Mean and standard deviation over time of every mel band.

    The plainest features there are, for comparison: (n, mels, frames) to (n, 2 mels), in dB.
    """
    return np.concatenate([decibels.mean(axis=2), decibels.std(axis=2)], axis=1)


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
    known = sorted(set(folds.tolist()))
    if len(known) < 2:
        raise EdgeL3Error(f"expected clips in at least two folds, found fold {known[0]} alone")
    results = []
    for fold in known if test_folds is None else test_folds:
        if fold not in known:
            raise EdgeL3Error(f"expected a fold of the manifest ({known}), got {fold}")
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
