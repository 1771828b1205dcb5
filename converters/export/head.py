"""A small classifier on top of an embedding: one int8 dense layer, for the C library's head."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

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
from edgel3_tflm.converters.export.c_array import write_float
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.files import make_directory, sha256_hex, write_whole
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.schema import WRITTEN, Format, parse_json, read_file
from edgel3_tflm.types import DoubleArray, IntArray, Progress

if TYPE_CHECKING:  # needs scikit-learn, which reading a head does not
    from edgel3_tflm.evaluation.probe import Features

FORMAT = Format("edgel3-tflm head", 1, remedy="run train-head again")
HEAD_NAME = "edgel3_head.json"
SOURCE_NAME = "edgel3_model_head.c"
HEADER_NAME = "edgel3_model_head.h"
KINDS = ("softmax", "sigmoid")
"""One class applies to a clip, or any number of them."""
MAX_CLASSES = 64
"""As EDGEL3_NODE_MAX_CLASSES in edgel3_node.h."""
_WEIGHTS_PER_LINE = 24


_Int8 = Annotated[int, Field(ge=-128, le=127)]
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_Float32 = Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]


@checked_dataclass(frozen=True, config=WRITTEN)
class _HeadFile:
    """A head as it stands in the file."""

    kind: Literal["softmax", "sigmoid"]
    labels: Annotated[list[str], Field(min_length=1, max_length=MAX_CLASSES)]
    zero_point: _Int8
    scale: list[_Float32]
    bias: list[_Float32]
    weights: list[Annotated[list[_Int8], Field(min_length=1)]]
    model_sha256: str
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _check(self) -> Self:
        classes = len(self.labels)
        for name in ("scale", "bias", "weights"):
            if len(getattr(self, name)) != classes:
                raise ValueError(
                    f"{name}: expected one for each of {classes} labels, found"
                    f" {len(getattr(self, name))}"
                )
        if len({len(row) for row in self.weights}) != 1:
            raise ValueError("weights: expected rows of one length, found several")
        return self


@dataclass(frozen=True)
class FoldFigures:
    """How a head trained on all other folds did on one.

    For 'softmax' a decision is a clip's class; for 'sigmoid' there is one for every clip and class.
    """

    fold: int
    decisions: int
    right_float: int
    right_int8: int


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head; class c scores ``scale[c] * sum((q - zero_point) * weights[c]) + bias[c]``.

    Parameters
    ----------
    kind : {'softmax', 'sigmoid'}
    labels : tuple of str
    weights : numpy.ndarray, shape (classes, embedding size), int8
    scale, bias : numpy.ndarray, shape (classes,), float32
    zero_point : int
        The embedding's.
    model_sha256 : str
        Digest of the quantized flatbuffer whose embeddings it takes.
    provenance : mapping
        What it was trained on, with what, and how well it did.
    """

    kind: str
    labels: tuple[str, ...]
    weights: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    zero_point: int
    model_sha256: str
    provenance: Mapping[str, Any]

    def scores(self, embeddings: npt.NDArray[np.int8]) -> DoubleArray:
        """Scores in [0, 1] of int8 embeddings (n, embedding size): (n, classes)."""
        sums = (embeddings.astype(np.int64) - self.zero_point) @ self.weights.T.astype(np.int64)
        scale, bias = (np.asarray(each, np.float64) for each in (self.scale, self.bias))
        logits = scale * sums + bias
        scores: DoubleArray = np.exp(_log_scores(logits, self.kind))
        return scores

    def check_model(self, deployment: Deployment) -> None:
        """Refuse a deployment that the head was not trained for.

        Raises
        ------
        EdgeL3Error
            If its quantized flatbuffer is another.
        """
        found = deployment.manifest["artefacts"][quantized_model_name("int8")]["sha256"]
        if found != self.model_sha256:
            raise EdgeL3Error(
                f"expected a head trained for {deployment.directory} (model SHA-256"
                f" {found[:12]}...), this one was trained for {self.model_sha256[:12]}...; run"
                " train-head again"
            )

    def to_json(self) -> dict[str, Any]:
        """Give everything as it stands in the file."""
        return {
            "format": FORMAT.name,
            "format_version": FORMAT.version,
            "kind": self.kind,
            "labels": self.labels,
            "zero_point": self.zero_point,
            "scale": [float(value) for value in self.scale],
            "bias": [float(value) for value in self.bias],
            "weights": self.weights.tolist(),
            "model_sha256": self.model_sha256,
            "provenance": dict(self.provenance),
        }

    def write_c(self) -> dict[str, bytes]:
        """Write the head as C: names and contents of a source and a header."""
        banner = (
            f"// Generated by edgel3-tflm {__version__}; do not edit.\n"
            f"// Head for the model with SHA-256 {self.model_sha256}"
        )
        classes, size = self.weights.shape
        rows = []
        for row in self.weights:
            rows += [
                "    " + " ".join(f"{value}," for value in row[start : start + _WEIGHTS_PER_LINE])
                for start in range(0, size, _WEIGHTS_PER_LINE)
            ]
        weights = "\n".join(rows)
        scale = " ".join(f"{write_float(value)}," for value in self.scale)
        bias = " ".join(f"{write_float(value)}," for value in self.bias)
        labels = "\n".join(f"    {_quote(label)}," for label in self.labels)
        source = f"""{banner}
#include "{HEADER_NAME}"

static const int8_t weights[{classes * size}] = {{
{weights}
}};
static const float scale[{classes}] = {{{scale}}};
static const float bias[{classes}] = {{{bias}}};
static const char *const labels[{classes}] = {{
{labels}
}};

const edgel3_head edgel3_model_head = {{
    EDGEL3_HEAD_{self.kind.upper()},
    {classes},  // classes
    {size},  // embedding
    {self.zero_point},  // embedding_zero_point
    weights,
    scale,
    bias,
    labels,
}};
"""
        header = f"""{banner}
#ifndef EDGEL3_MODEL_HEAD_H_
#define EDGEL3_MODEL_HEAD_H_

#include "edgel3_head.h"

#ifdef __cplusplus
extern "C" {{
#endif

extern const edgel3_head edgel3_model_head;

#ifdef __cplusplus
}}
#endif

#endif  // EDGEL3_MODEL_HEAD_H_
"""
        return {SOURCE_NAME: source.encode(), HEADER_NAME: header.encode()}

    def write(self, directory: Path) -> None:
        """Write the JSON and the C files into a directory, each whole or not at all.

        Raises
        ------
        EdgeL3Error
            If the disk refuses.
        """
        files = {**self.write_c(), HEAD_NAME: (json.dumps(self.to_json()) + "\n").encode()}
        make_directory(directory)
        for name, data in files.items():
            write_whole(directory / name, data)


def _quote(text: str) -> str:
    """Write a C string literal; whatever is not plain ASCII becomes octal."""
    quoted = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{quoted}"'


def _log_scores(logits: DoubleArray, kind: str) -> DoubleArray:
    if kind == "sigmoid":
        scores: DoubleArray = -np.logaddexp(0, -logits)
        return scores
    below: DoubleArray = logits - logits.max(axis=1, keepdims=True)
    below -= np.log(np.exp(below).sum(axis=1, keepdims=True))
    return below


def read_head(path: Path) -> Head:
    """Read a head's JSON file, or that in a directory.

    Raises
    ------
    ModelFileError
        If it is missing, damaged or not a head.
    """
    if path.is_dir():
        path = path / HEAD_NAME
    return read_file(path, _parse_head, ModelFileError)


def _parse_head(text: bytes) -> Head:
    found = parse_json(text, _HeadFile, FORMAT)
    return Head(
        kind=found.kind,
        labels=tuple(found.labels),
        weights=np.array(found.weights, np.int8),
        scale=np.array(found.scale, np.float32),
        bias=np.array(found.bias, np.float32),
        zero_point=found.zero_point,
        model_sha256=found.model_sha256,
        provenance=found.provenance,
    )


def find_head(path: Path | None, deployment: Deployment) -> Head | None:
    """Return the head for a deployment's node, or None if there is none.

    Parameters
    ----------
    path : pathlib.Path or None
        A head's JSON file, or the directory with it; if None, the deployment's own is taken.
    deployment : Deployment

    Raises
    ------
    EdgeL3Error
        If the head is missing where it was named, damaged or was trained for another model.
    """
    if path is None:
        path = deployment.directory / HEAD_NAME
        if not path.is_file():
            return None
    head = read_head(path)
    head.check_model(deployment)
    return head


def train_head(
    manifest: Path,
    deployment: Deployment,
    progress: Progress,
    *,
    kind: str | None = None,
    runtime: str | None = None,
) -> tuple[Head, list[FoldFigures]]:
    """Fit a head to the int8 embeddings of labelled clips.

    Parameters
    ----------
    manifest : pathlib.Path
        As :func:`edgel3_tflm.audio.manifest.read_manifest` reads it; several labels of a clip are
        separated by semicolons.
    deployment : Deployment
        Of int8.
    progress : callable
    kind : {'softmax', 'sigmoid'}, optional
        'softmax' if every clip has one label, else 'sigmoid'.
    runtime : str, optional

    Returns
    -------
    Head
        Trained on all folds.
    list of FoldFigures

    Raises
    ------
    EdgeL3Error
        If the manifest, its clips or the deployment cannot be used.
    """
    from edgel3_tflm.evaluation.probe import INVERSE_REGULARISATION, extract_features
    from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME, open_interpreter

    if deployment.quantization != "int8":
        raise EdgeL3Error(
            f"{deployment.directory}: a head takes int8 embeddings, this deployment is"
            f" {deployment.quantization}; convert again as int8"
        )
    clips = read_manifest(manifest)
    kind, _ = _choose_kind(clips, kind)  # mistakes are told before clips are embedded
    runtime = runtime or DEFAULT_RUNTIME
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
    """Fit a head to the embeddings of windows, and judge it fold by fold.

    Standardise, logistic regression as the probe has it, then standardisation and embedding scale
    are folded into the weights, which become int8, with a scale for each class. A clip is judged by
    the mean log-score of its windows.

    Parameters
    ----------
    clips : sequence of LabelledClip
    features : Features
        int8 embeddings of these clips, as the floats they stand for.
    output : TensorSpec
        What they stand for.
    progress : callable
    kind : {'softmax', 'sigmoid'}, optional

    Returns
    -------
    Head
        Trained on all folds; it does not know its model.
    list of FoldFigures
        Each fold, judged by a head trained on all others, before and after quantization.

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
        raise EdgeL3Error(f"expected clips in at least two folds, found {known_folds[0]} alone")
    # The floats are scale * (q - zero point): the integers come back exactly.
    steps = np.rint(features.values.astype(np.float64) / output.scale)
    wanted = targets[features.clip]
    figures = []
    for position, fold in enumerate(known_folds):
        train = folds[features.clip] != fold
        fitted = _fit(steps[train], wanted[train], kind)
        weights, scale, bias = _quantize(*fitted)
        logits = (
            steps @ fitted[0].T + fitted[1],
            scale.astype(np.float64) * (steps @ weights.T.astype(np.float64)) + bias,
        )
        tested = np.flatnonzero(folds == fold)
        right = [_count_right(each, features.clip, tested, targets, kind) for each in logits]
        decisions = len(tested) * (1 if kind == "softmax" else len(labels))
        figures.append(FoldFigures(fold, decisions, *right))
        progress("cross-validate", position + 1, len(known_folds))
    weights, scale, bias = _quantize(*_fit(steps, wanted, kind))
    return Head(kind, labels, weights, scale, bias, output.zero_point, "", {}), figures


def _choose_kind(clips: Sequence[LabelledClip], kind: str | None) -> tuple[str, tuple[str, ...]]:
    """Kind of head for the labels of some clips, and its classes."""
    own_labels = [split_labels(clip.label) for clip in clips]
    one_each = all(len(own) == 1 for own in own_labels)
    kind = kind or ("softmax" if one_each else "sigmoid")
    if kind not in KINDS:
        raise EdgeL3Error(f"unknown kind {kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "softmax" and not one_each:
        raise EdgeL3Error(
            "softmax needs one label for every clip, some have none or several; choose sigmoid"
        )
    labels = tuple(sorted({label for own in own_labels for label in own}))
    least = 2 if kind == "softmax" else 1
    if not least <= len(labels) <= MAX_CLASSES:
        raise EdgeL3Error(f"expected {least} to {MAX_CLASSES} classes, found {len(labels)}")
    return kind, labels


def _fit(
    steps: DoubleArray, targets: npt.NDArray[np.bool_], kind: str
) -> tuple[DoubleArray, DoubleArray]:
    """Weights (classes, size) and bias (classes,) for embeddings in quantization steps."""
    from sklearn.linear_model import LogisticRegression

    from edgel3_tflm.evaluation.probe import INVERSE_REGULARISATION, MAX_ITERATIONS

    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    deviation[deviation == 0] = 1
    standardised = (steps - mean) / deviation

    def regress(wanted: npt.NDArray[Any]) -> tuple[DoubleArray, DoubleArray, npt.NDArray[Any]]:
        model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS)
        model.fit(standardised, wanted)
        return model.coef_, model.intercept_, model.classes_

    classes = targets.shape[1]
    coefficients = np.zeros((classes, steps.shape[1]))
    # A class that the training folds lack is all but ruled out.
    intercepts = np.full(classes, -20.0)
    if kind == "softmax" and len(present := np.flatnonzero(targets.any(axis=0))) == 1:
        intercepts[present] = 20.0
    elif kind == "softmax":
        rows, offsets, present = regress(targets.argmax(axis=1))
        if len(present) == 2:  # scikit-learn gives the difference of the two
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
    """Weights as int8 with a scale for each class."""
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
    """Count right decisions about some clips."""
    log_scores = _log_scores(logits, kind)
    right = 0
    for number in tested:
        mean = log_scores[clip_of_window == number].mean(axis=0)
        if kind == "softmax":
            right += int(targets[number, mean.argmax()])
        else:
            right += int(((mean >= math.log(0.5)) == targets[number]).sum())
    return right
