"""The linear probe: accuracy of a linear classifier on embeddings. Needs the extra ``probe``."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.framing import ReadingLog, read_windows
from edgel3_tflm.audio.log_mel import is_silent, log_mel
from edgel3_tflm.audio.manifest import HOP_S, LabelledClip, list_folds
from edgel3_tflm.drift.classifiers import classify_folds, make_linear_probe
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.types import FloatArray

# ESC-50 in windows of 0.5 s, embedded in 6144 dimensions, is 0.5 GB.
_MAX_ARRAY_BYTES = 2**30


@dataclass(frozen=True)
class Features:
    """Features of the windows of clips.

    Parameters
    ----------
    values : numpy.ndarray, shape (n, d)
    clip : numpy.ndarray, shape (n,)
        Index of each window's clip.
    position : numpy.ndarray, shape (n,)
        Number of the window within its clip.
    silent : numpy.ndarray, shape (n,), bool
        Whether the window's log-mel is all zeros.
    notes : tuple of str
        Sentences about the clips that a reader needs to judge the results.
    """

    values: FloatArray
    clip: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    silent: npt.NDArray[np.bool_]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldResult:
    """Clips of one fold that a probe trained on the other folds classified correctly."""

    fold: int
    right: int
    clips: int


def extract_features(
    clips: Sequence[LabelledClip],
    spec: FrontendSpec,
    features: Callable[[FloatArray], FloatArray],
    progress: Callable[[str, int, int], None],
    hop_s: float = HOP_S,
) -> Features:
    """Compute features of one-second windows.

    Parameters
    ----------
    clips : sequence of LabelledClip
    spec : FrontendSpec
    features : callable
        Takes log-mel spectrograms (n, mels, frames) and returns values (n, d).
    progress : callable
    hop_s : float
        Seconds between the starts of two windows.

    Raises
    ------
    AudioError
        If a clip cannot be read.
    """
    values, clip, position, silent = [], [], [], []
    log = ReadingLog()
    for number, (_, windows) in enumerate(
        read_windows(
            [each.path for each in clips],
            sample_rate_hz=spec.sample_rate_hz,
            window_samples=spec.window_samples,
            hop_s=hop_s,
            log=log,
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
        (log.describe_short(),) if log.short else (),
    )


def read_embeddings(path: Path, manifest: Path, clips: Sequence[LabelledClip]) -> Features:
    """Read embeddings that another program computed.

    Parameters
    ----------
    path : pathlib.Path
        An .npz file with two arrays: ``clip``, shape (n,), text, the clip's file as in the
        manifest; ``embedding``, shape (n, d), floats. A clip may have several rows, one for each
        window. Rows of clips that are not in the manifest are left out.
    manifest : pathlib.Path
        File names in ``clip`` are relative to its directory.
    clips : sequence of LabelledClip
        Clips of the manifest.

    Returns
    -------
    Features
        In the order of the clips; no window is marked as silent.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read, an array is missing, too large, of another type or shape or not
        finite, or a clip has no row.
    """
    try:
        paths, values = _load_embeddings(path, manifest.parent)
    except EdgeL3Error as error:
        raise EdgeL3Error(f"{path}: {error}") from error
    except OSError as error:
        raise EdgeL3Error(f"{path}: cannot read embeddings: {error.strerror or error}") from error
    # A damaged file raises exceptions of a dozen types: from zlib, from zipfile, and from Python's
    # parser, with which numpy reads a header.
    except Exception as error:
        raise EdgeL3Error(
            f"{path}: expected an .npz file with the arrays clip and embedding: {error}"
        ) from error
    rows: dict[Path, list[int]] = {}
    for row, each in enumerate(paths):
        rows.setdefault(each, []).append(row)
    if missing := [clip.path.name for clip in clips if clip.path not in rows]:
        raise EdgeL3Error(
            f"{path}: expected an embedding of every clip of the manifest; {len(missing)} of"
            f" {len(clips)} have none, the first is {missing[0]}"
        )
    chosen = [rows[clip.path] for clip in clips]
    counts = [len(each) for each in chosen]
    return Features(
        values[np.concatenate(chosen)],
        np.repeat(np.arange(len(clips)), counts),
        np.concatenate([np.arange(count) for count in counts]),
        np.zeros(sum(counts), bool),
    )


def _load_embeddings(path: Path, root: Path) -> tuple[list[Path], FloatArray]:
    """Load and check the clip of every row, as a path below ``root``, and its embedding."""
    with zipfile.ZipFile(path) as archive:
        sizes = [archive.getinfo(f"{name}.npy").file_size for name in ("clip", "embedding")]
    if max(sizes) > _MAX_ARRAY_BYTES:
        raise EdgeL3Error(
            f"expected arrays of at most {_MAX_ARRAY_BYTES} bytes, found {max(sizes)}"
        )
    with np.load(path, allow_pickle=False) as arrays:
        names, values = np.asarray(arrays["clip"]), np.asarray(arrays["embedding"])
    if (names.ndim, names.dtype.kind, values.ndim, values.dtype.kind) != (1, "U", 2, "f"):
        raise EdgeL3Error(
            "expected text of shape (n,) in clip and floats of shape (n, d) in embedding, found"
            f" {names.dtype} of shape {names.shape} and {values.dtype} of shape {values.shape}"
        )
    if len(names) != len(values) or values.shape[1] == 0:
        raise EdgeL3Error(
            "expected an embedding for each row of clip, found shapes"
            f" {names.shape} and {values.shape}"
        )
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise EdgeL3Error("expected finite embeddings, some are NaN or infinite")
    return [root / name for name in names.tolist()], values


def probe(
    clips: Sequence[LabelledClip], features: Features, test_folds: Sequence[int] | None = None
) -> list[FoldResult]:
    """Test each fold with a linear classifier that was trained on all others.

    See :func:`edgel3_tflm.drift.classifiers.classify_folds` and ``make_linear_probe``.

    Parameters
    ----------
    clips : sequence of LabelledClip
    features : Features
        Features of these clips.
    test_folds : sequence of int, optional
        Folds to test on; all by default.

    Raises
    ------
    EdgeL3Error
        As :func:`check_folds`.
    """
    chosen = check_folds(clips, test_folds)
    right = classify_folds(
        make_linear_probe,
        features.values,
        features.clip,
        [clip.label for clip in clips],
        [clip.fold for clip in clips],
        chosen,
    )
    results = []
    for fold in chosen:
        tested = [number for number, clip in enumerate(clips) if clip.fold == fold]
        results.append(FoldResult(fold, sum(right[number] for number in tested), len(tested)))
    return results


def find_interval(right: int, clips: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy, in percent.

    Parameters
    ----------
    right, clips : int
        Clips that were classified correctly, and all clips; at least one.
    """
    # Here for the reason that map_cosine states: scipy comes with scikit-learn.
    from scipy.stats import binomtest

    found = binomtest(right, clips).proportion_ci(0.95, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def map_cosine(
    clips: Sequence[LabelledClip],
    features: Features,
    teacher: Features,
    test_folds: Sequence[int] | None = None,
) -> float:
    """Return the mean cosine between a teacher's embeddings and a linear map of other features.

    For each fold the map, a ridge regression on standardised features, is fitted on all others.
    Silent windows are left out, because all of them have the same embedding.

    Parameters
    ----------
    clips : sequence of LabelledClip
    features, teacher : Features
        Features of the same clips; the frontends may differ.
    test_folds : sequence of int, optional
        Folds to test on; all by default.

    Raises
    ------
    EdgeL3Error
        If there is only one fold, a fold to test on has no clips, or all windows in it or outside
        it are silent.
    """
    # Here, after the import of classifiers, which says how to install a missing scikit-learn.
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = np.array([clip.fold for clip in clips])
    # Resampling rounds the length of a clip, so that one frontend may have a window more.
    teacher_rows = {
        window: row
        for row, window in enumerate(zip(teacher.clip, teacher.position, strict=True))
        if not teacher.silent[row]
    }
    rows = [
        (row, teacher_rows[window])
        for row, window in enumerate(zip(features.clip, features.position, strict=True))
        if window in teacher_rows
    ]
    own, other = np.array(rows, np.int64).reshape(-1, 2).T
    fold_of_row = folds[features.clip[own]]
    cosines = []
    for fold in _choose_folds(clips, test_folds):
        train = fold_of_row != fold
        for part, where in ((~train, "in"), (train, "outside")):
            if not part.any():
                raise EdgeL3Error(
                    f"expected windows with sound {where} fold {fold} for the linear map, all are"
                    " silent; leave these clips out"
                )
        model = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
        model.fit(features.values[own[train]], teacher.values[other[train]])
        mapped = model.predict(features.values[own[~train]])
        cosines.append(cosine_similarity(teacher.values[other[~train]], mapped))
    return float(np.concatenate(cosines).mean())


def check_folds(
    clips: Sequence[LabelledClip], test_folds: Sequence[int] | None = None
) -> list[int]:
    """Return the folds to test on, all by default.

    Raises
    ------
    EdgeL3Error
        If there is only one fold, a fold to test on has no clips, or the clips outside a fold have
        fewer than two classes.
    """
    chosen = _choose_folds(clips, test_folds)
    for fold in chosen:
        classes = {clip.label for clip in clips if clip.fold != fold}
        if len(classes) < 2:
            raise EdgeL3Error(
                f"expected clips of two classes or more outside fold {fold} to learn from, found"
                f" {classes.pop()!r} alone; add clips, or choose other folds"
            )
    return chosen


def _choose_folds(clips: Sequence[LabelledClip], test_folds: Sequence[int] | None) -> list[int]:
    if len(known := list_folds(clips)) < 2:
        raise EdgeL3Error(f"expected clips in at least two folds, found fold {known[0]} alone")
    return list_folds(clips, test_folds)
