"""The linear probe, and the test of classifiers on folds. Needs the extra ``probe``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.errors import RuntimeUnavailableError, install_hint
from edgel3_tflm.types import FloatArray, IntArray

try:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneGroupOut
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
except ImportError as error:
    raise RuntimeUnavailableError(
        f"probing needs the package {error.name}, which is not installed; {install_hint('probe')}"
    ) from error

INVERSE_REGULARISATION = 0.1
MAX_ITERATIONS = 1000


def make_linear_probe() -> Any:
    """Return the untrained classifier of the linear probe: multinomial logistic regression."""
    return LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS)


def classify_folds(
    make: Callable[[], Any],
    values: FloatArray,
    clip: IntArray,
    labels: Sequence[str],
    folds: Sequence[int],
    test_folds: Sequence[int] | None = None,
) -> dict[int, bool]:
    """Train a classifier on all folds but one and test it on that fold, for each fold.

    Values are standardised by the training windows. The score of a clip is the mean of the log
    probabilities of its windows.

    Parameters
    ----------
    make : callable
        Returns an untrained scikit-learn classifier.
    values : numpy.ndarray, shape (n, d)
        Features of the windows.
    clip : numpy.ndarray, shape (n,)
        Index of each window's clip.
    labels, folds : sequence of str, sequence of int
        Label and fold of each clip.
    test_folds : sequence of int, optional
        Folds to test on; all by default.

    Returns
    -------
    dict of int to bool
        Whether the classifier is right, for each clip of the tested folds.
    """
    label_of, fold_of = np.asarray(labels), np.asarray(folds)
    right = {}
    for train, test in LeaveOneGroupOut().split(values, groups=fold_of[clip]):
        if test_folds is not None and fold_of[clip[test[0]]] not in test_folds:
            continue
        model = make_pipeline(StandardScaler(), make())
        model.fit(values[train], label_of[clip[train]])
        scores = _log_probabilities(model, values[test])
        for number in np.unique(clip[test]).tolist():
            mean = scores[clip[test] == number].mean(axis=0)
            right[number] = bool(model.classes_[mean.argmax()] == label_of[number])
    return right


def _log_probabilities(model: Any, values: FloatArray) -> npt.NDArray[np.float64]:
    # predict_log_proba returns -inf for a probability that underflows. One such window would
    # decide about its clip, whatever the scores of the other windows.
    probabilities = model.predict_proba(values).astype(np.float64)
    logs: npt.NDArray[np.float64] = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return logs
