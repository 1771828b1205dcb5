"""A head: a small classifier of embeddings, one int8 dense layer that the C library runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import Self

from edgel3_tflm.converters.export.head_source import write_head_source
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.files import make_directory, write_together
from edgel3_tflm.runtime.artefacts import HEAD_NAME, quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.schema import WRITTEN, parse_json, read_file
from edgel3_tflm.types import DoubleArray, Format

FORMAT = Format("edgel3-tflm head", 1, remedy="run train-head again")
KINDS = ("softmax", "sigmoid")
"""softmax: exactly one class applies to a clip; sigmoid: any number of classes."""
MAX_CLASSES = 64
"""Equal to EDGEL3_NODE_MAX_CLASSES in edgel3_node.h."""


_Int8 = Annotated[int, Field(ge=-128, le=127)]
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_Float32 = Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]


@checked_dataclass(frozen=True, config=WRITTEN)
class _HeadFile:
    """The fields of a head's file."""

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


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head.

    The linear output of class c for an int8 embedding q is
    ``scale[c] * sum((q - zero_point) * weights[c]) + bias[c]``.

    Parameters
    ----------
    kind : {'softmax', 'sigmoid'}
        How linear outputs become scores.
    labels : tuple of str
        Names of the classes.
    weights : numpy.ndarray, shape (classes, embedding size), int8
    scale, bias : numpy.ndarray, shape (classes,), float32
    zero_point : int
        Zero point of the embedding.
    model_sha256 : str
        Digest of the quantized flatbuffer that computes the embeddings.
    provenance : mapping
        Training data, tools and accuracy.
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
        """Return the scores of embeddings.

        Parameters
        ----------
        embeddings : numpy.ndarray, shape (n, embedding size), int8

        Returns
        -------
        numpy.ndarray, shape (n, classes), float64 in [0, 1]
        """
        sums = (embeddings.astype(np.int64) - self.zero_point) @ self.weights.T.astype(np.int64)
        scale, bias = (np.asarray(each, np.float64) for each in (self.scale, self.bias))
        logits = scale * sums + bias
        scores: DoubleArray = np.exp(log_scores(logits, self.kind))
        return scores

    def check_model(self, deployment: Deployment) -> None:
        """Raise an error if the head was trained for another deployment.

        Raises
        ------
        EdgeL3Error
            If the deployment's quantized flatbuffer is another one.
        """
        found = deployment.manifest["artefacts"][quantized_model_name("int8")]["sha256"]
        if found != self.model_sha256:
            raise EdgeL3Error(
                f"expected a head trained for {deployment.directory} (model SHA-256"
                f" {found[:12]}...), this one was trained for {self.model_sha256[:12]}...; run"
                " train-head again"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the contents of the head's file."""
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
        """Return the head's C source and header, by file name."""
        files = write_head_source(
            kind=self.kind,
            labels=self.labels,
            weights=self.weights,
            scale=self.scale,
            bias=self.bias,
            zero_point=self.zero_point,
            model_sha256=self.model_sha256,
        )
        return {name: text.encode() for name, text in files.items()}

    def write(self, directory: Path) -> None:
        """Write the head's file and its C files into a directory: all of them, or none.

        Raises
        ------
        EdgeL3Error
            If a file cannot be written.
        """
        files = {**self.write_c(), HEAD_NAME: (json.dumps(self.to_json()) + "\n").encode()}
        make_directory(directory)
        write_together(directory, files)


def log_scores(logits: DoubleArray, kind: str) -> DoubleArray:
    """Return the logarithms of the scores of linear outputs, both of shape (n, classes)."""
    if kind == "sigmoid":
        scores: DoubleArray = -np.logaddexp(0, -logits)
        return scores
    below: DoubleArray = logits - logits.max(axis=1, keepdims=True)
    below -= np.log(np.exp(below).sum(axis=1, keepdims=True))
    return below


def read_head(path: Path) -> Head:
    """Return the head in a file, or in the file ``edgel3_head.json`` of a directory.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged or no head.
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
        A head's file, or its directory. If None, the head in the deployment's directory is used.
    deployment : Deployment

    Raises
    ------
    EdgeL3Error
        If there is no head at ``path``, or the head is damaged or was trained for another model.
    """
    if path is None:
        path = deployment.directory / HEAD_NAME
        if not path.is_file():
            return None
    head = read_head(path)
    head.check_model(deployment)
    return head
