"""Trains a head on labelled clips, and judges it fold by fold."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.manifest import (
    HOP_S,
    LabelledClip,
    list_folds,
    note_unlearned_classes,
    read_manifest,
    split_by_fold,
    split_labels,
)
from edgel3_tflm.converters.export.head import KINDS, MAX_CLASSES, Head, log_scores
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.types import DoubleArray, IntArray, Progress

if TYPE_CHECKING:  # needs scikit-learn
    from edgel3_tflm.evaluation.probe import Features


@dataclass(frozen=True)
class FoldFigures:
    """Results on one fold of a head that was trained on all other folds.

    With 'softmax' there is one decision for each clip: its class. With 'sigmoid' there is one for
    each clip and class.

    Parameters
    ----------
    fold : int
    decisions : int
        Number of decisions.
    right_float, right_int8 : int
        Correct decisions before and after quantization of the head.
    """

    fold: int
    decisions: int
    right_float: int
    right_int8: int


def train_head(
    manifest: Path,
    deployment: Deployment,
    progress: Progress,
    *,
    kind: str | None = None,
    runtime: str | None = None,
) -> tuple[Head, list[FoldFigures]]:
    """Train a head on the int8 embeddings of labelled clips.

    Parameters
    ----------
    manifest : pathlib.Path
        A table for :func:`edgel3_tflm.audio.manifest.read_manifest`. Semicolons separate several
        labels of a clip.
    deployment : Deployment
        An int8 deployment.
    progress : callable
        ``(step, done, total)``.
    kind : {'softmax', 'sigmoid'}, optional
        Default: 'softmax' if every clip has one label, else 'sigmoid'.
    runtime : str, optional
        Runtime that computes the embeddings; by default the fastest with the exact result.

    Returns
    -------
    Head
        A head trained on all folds.
    list of FoldFigures
        One for each fold, from heads trained on the other folds.

    Raises
    ------
    EdgeL3Error
        If the manifest, its clips or the deployment cannot be used.
    """
    from edgel3_tflm.drift.classifiers import INVERSE_REGULARISATION
    from edgel3_tflm.evaluation.probe import extract_features

    if deployment.quantization != "int8":
        raise EdgeL3Error(
            f"{deployment.directory}: expected an int8 deployment, got {deployment.quantization};"
            " convert again with --quantization int8"
        )
    clips = read_manifest(manifest)
    kind, _ = _choose_kind(clips, kind)  # reports wrong labels before the clips are embedded
    runtime = runtime or deployment.fastest_runtime("int8")
    embedder = deployment.embedder("int8", runtime)
    output = open_interpreter(deployment.read_model("int8", runtime), runtime).output
    spec = deployment.variant.frontend
    features = extract_features(clips, spec, embedder.embed_log_mel, progress)
    head, figures = fit_head(clips, features, output, progress, kind=kind)
    decisions = sum(each.decisions for each in figures)
    provenance = {
        "generator": f"edgel3-tflm {__version__}",
        "model": deployment.variant.name,
        "weights": deployment.manifest["weights"]["description"],
        "manifest_sha256": sha256_hex(manifest.read_bytes()),
        "clips": [
            {"file": clip.path.name, "sha256": sha256_hex(clip.path.read_bytes())} for clip in clips
        ],
        "windows": len(features.values),
        "notes": [
            *note_unlearned_classes(
                [split_labels(clip.label) for clip in clips],
                split_by_fold(clips, list_folds(clips)),
            ),
            *features.notes,
        ],
        "hop_s": HOP_S,
        "inverse_regularisation": INVERSE_REGULARISATION,
        "folds": [asdict(each) for each in figures],
        "accuracy_float_percent": 100 * sum(each.right_float for each in figures) / decisions,
        "accuracy_int8_percent": 100 * sum(each.right_int8 for each in figures) / decisions,
        "tools": {name: version(name) for name in ("numpy", "scikit-learn", "soxr")},
    }
    model = deployment.manifest["artefacts"][quantized_model_name("int8")]["sha256"]
    return replace(head, model_sha256=model, provenance=provenance), figures


def fit_head(
    clips: Sequence[LabelledClip],
    features: "Features",
    output: TensorSpec,
    progress: Progress,
    *,
    kind: str | None = None,
) -> tuple[Head, list[FoldFigures]]:
    """Train a head on the embeddings of windows, and judge it fold by fold.

    The embeddings are standardised and a logistic regression is fitted, as in the linear probe.
    Standardisation and embedding scale are then folded into the weights, which are quantized to
    int8 with one scale for each class. The decision about a clip uses the mean log-score of its
    windows.

    Parameters
    ----------
    clips : sequence of LabelledClip
    features : Features
        Dequantized int8 embeddings of these clips.
    output : TensorSpec
        Quantization of the embeddings.
    progress : callable
        ``(step, done, total)``.
    kind : {'softmax', 'sigmoid'}, optional

    Returns
    -------
    Head
        A head trained on all folds, without the digest of its model and without provenance.
    list of FoldFigures
        One for each fold, from heads trained on the other folds.

    Raises
    ------
    EdgeL3Error
        If there are too few folds, or too few or too many classes.
    """
    kind, labels = _choose_kind(clips, kind)
    targets = np.array([[label in split_labels(clip.label) for label in labels] for clip in clips])
    folds = np.array([clip.fold for clip in clips])
    known_folds = list_folds(clips)
    if len(known_folds) < 2:
        raise EdgeL3Error(
            f"expected clips in at least two folds, found fold {known_folds[0]} only; add clips of"
            " another fold"
        )
    # The floats are scale * (q - zero point), so that this division restores the integers exactly.
    values = np.rint(features.values.astype(np.float64) / output.scale)
    wanted = targets[features.clip]
    figures = []
    for position, fold in enumerate(known_folds):
        train = folds[features.clip] != fold
        fitted = _fit(values[train], wanted[train], kind)
        weights, scale, bias = _quantize(*fitted)
        logits = (
            values @ fitted[0].T + fitted[1],
            scale.astype(np.float64) * (values @ weights.T.astype(np.float64)) + bias,
        )
        tested = np.flatnonzero(folds == fold)
        right = [_count_right(each, features.clip, tested, targets, kind) for each in logits]
        decisions = len(tested) * (1 if kind == "softmax" else len(labels))
        figures.append(FoldFigures(fold, decisions, *right))
        progress("cross-validate", position + 1, len(known_folds))
    weights, scale, bias = _quantize(*_fit(values, wanted, kind))
    return Head(kind, labels, weights, scale, bias, output.zero_point, "", {}), figures


def _choose_kind(clips: Sequence[LabelledClip], kind: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the kind of head for the labels of some clips, and its classes."""
    own_labels = [split_labels(clip.label) for clip in clips]
    one_each = all(len(own) == 1 for own in own_labels)
    kind = kind or ("softmax" if one_each else "sigmoid")
    if kind not in KINDS:
        raise EdgeL3Error(f"unknown kind {kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "softmax" and not one_each:
        raise EdgeL3Error(
            "softmax expects one label for every clip, some clips have none or several; choose"
            " sigmoid"
        )
    labels = tuple(sorted({label for own in own_labels for label in own}))
    least = 2 if kind == "softmax" else 1
    if not least <= len(labels) <= MAX_CLASSES:
        raise EdgeL3Error(f"expected {least} to {MAX_CLASSES} classes, found {len(labels)}")
    return kind, labels


def _fit(
    values: DoubleArray, targets: npt.NDArray[np.bool_], kind: str
) -> tuple[DoubleArray, DoubleArray]:
    """Return weights (classes, size) and bias (classes,) for ``q - zero_point`` of embeddings."""
    from edgel3_tflm.drift.classifiers import make_linear_probe

    mean, deviation = values.mean(axis=0), values.std(axis=0)
    deviation[deviation == 0] = 1
    standardised = (values - mean) / deviation

    def regress(wanted: npt.NDArray[Any]) -> tuple[DoubleArray, DoubleArray, npt.NDArray[Any]]:
        model = make_linear_probe()
        model.fit(standardised, wanted)
        return model.coef_, model.intercept_, model.classes_

    classes = targets.shape[1]
    coefficients = np.zeros((classes, values.shape[1]))
    # A bias of -20 gives a class without training clips a score of almost 0.
    intercepts = np.full(classes, -20.0)
    if kind == "softmax" and len(present := np.flatnonzero(targets.any(axis=0))) == 1:
        intercepts[present] = 20.0
    elif kind == "softmax":
        rows, offsets, present = regress(targets.argmax(axis=1))
        if len(present) == 2:  # scikit-learn returns one row for two classes: their difference
            rows, offsets = np.vstack([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
        coefficients[present], intercepts[present] = rows, offsets
    else:
        for position in range(classes):
            if targets[:, position].all():
                intercepts[position] = 20.0
            elif targets[:, position].any():
                rows, offsets, _ = regress(targets[:, position])
                coefficients[position], intercepts[position] = rows[0], offsets[0]
    weights = coefficients / deviation
    return weights, intercepts - weights @ mean


def _quantize(
    weights: DoubleArray, bias: DoubleArray
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the weights as int8, a scale for each class, and the bias as float32."""
    largest = np.abs(weights).max(axis=1)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    quantized = np.clip(np.rint(weights / scale[:, None]), -127, 127).astype(np.int8)
    return quantized, scale, bias.astype(np.float32)


def _count_right(
    logits: DoubleArray,
    clip_of_window: IntArray,
    tested: IntArray,
    targets: npt.NDArray[np.bool_],
    kind: str,
) -> int:
    """Return the number of correct decisions about some clips."""
    scores = log_scores(logits, kind)
    right = 0
    for number in tested:
        mean = scores[clip_of_window == number].mean(axis=0)
        if kind == "softmax":
            right += int(targets[number, mean.argmax()])
        else:
            right += int(((mean >= math.log(0.5)) == targets[number]).sum())
    return right
