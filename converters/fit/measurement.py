"""Measures a candidate: a conversion without a search, its needs, and its embeddings on clips."""

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic.dataclasses import dataclass

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import bundled_clips_directory, find_clips
from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.converters.fit.candidates import Candidate
from edgel3_tflm.converters.pipeline import ConvertOptions, convert
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.device.estimate import Work, estimate_work
from edgel3_tflm.device.footprint import Footprint, plan_footprint
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.drift.figures import EmbeddingDrift, to_plain
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.evaluation.probe import (
    Features,
    FoldResult,
    check_folds,
    extract_features,
    find_interval,
    map_cosine,
    probe,
)
from edgel3_tflm.files import sha256_hex, write_whole
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.schema import WRITTEN, parse_json
from edgel3_tflm.types import JsonFloat, Progress

_DRIFT_CLIPS = 8
"""Clips on which drift is measured: the float model of L3 takes long."""
_DRIFT_HOP_S = 1.0
_FOLDS = 4
"""Folds of clips without labels, for the linear map to the teacher."""


@dataclass(frozen=True)
class Sample:
    """The clips that all candidates are measured on.

    Parameters
    ----------
    clips : tuple of LabelledClip
    is_labelled : bool
        False: the labels are empty, and the folds only fit the linear map.
    test_folds : tuple of int, optional
        Folds to test on; all by default.
    calibration : pathlib.Path, optional
        Directory of the calibration clips; by default those of the package.
    """

    clips: tuple[LabelledClip, ...]
    is_labelled: bool
    test_folds: tuple[int, ...] | None = None
    calibration: Path | None = None

    @classmethod
    def of(
        cls,
        labelled: Sequence[LabelledClip],
        calibration: Path | None,
        test_folds: Sequence[int] | None,
    ) -> "Sample":
        """Return a sample of labelled clips, or of the calibration clips if there are none.

        Raises
        ------
        EdgeL3Error
            If the folds cannot test a classifier.
        """
        if labelled:
            check_folds(labelled, test_folds)
            folds = tuple(test_folds) if test_folds else None
            return cls(tuple(labelled), True, folds, calibration)
        paths = find_clips([calibration or bundled_clips_directory()])
        clips = (LabelledClip(path, "", at % _FOLDS) for at, path in enumerate(paths))
        return cls(tuple(clips), False, None, calibration)

    def describe(self) -> dict[str, Any]:
        """Return what measurements depend on, as plain data."""
        calibration = find_clips([self.calibration or bundled_clips_directory()])
        return {
            "clips": [
                [sha256_hex(clip.path.read_bytes()), clip.label, clip.fold] for clip in self.clips
            ],
            "test_folds": self.test_folds,
            "calibration": [sha256_hex(path.read_bytes()) for path in calibration],
        }


@dataclass(frozen=True, config=WRITTEN)
class Measurement:
    """The figures of a candidate. The fields are keys of its file and of ``fit.json``.

    Parameters
    ----------
    digest : str
        Digest of all that the figures depend on.
    network, origin : str
    is_given : bool
    weights_kind, weights : str
        Kind and description of the weights.
    zeros_percent : float
    footprint : Footprint
    work : Work
    folds : list of FoldResult
        Of the linear probe on int8 embeddings; empty without labels.
    cosine : float
        Mean cosine of a linear map of the int8 embeddings to the teacher's embeddings.
    int8 : EmbeddingDrift
        int8 against float, on the same log-mel.
    device : EmbeddingDrift or None
        All that a device does, from 16-bit samples on, against float on the samples as they are;
        on the loudest windows. None if the C library is not built.
    """

    digest: str
    network: str
    origin: str
    is_given: bool
    weights_kind: str
    weights: str
    zeros_percent: float
    footprint: Footprint
    work: Work
    folds: list[FoldResult]
    cosine: JsonFloat
    int8: EmbeddingDrift
    device: EmbeddingDrift | None

    @property
    def clips(self) -> int:
        """Number of clips that the probe was tested on."""
        return sum(each.clips for each in self.folds)

    @property
    def right(self) -> int:
        """Number of clips that the probe classified correctly."""
        return sum(each.right for each in self.folds)

    @property
    def accuracy_percent(self) -> float | None:
        """Accuracy of the probe; None without labels."""
        return 100 * self.right / self.clips if self.folds else None

    @property
    def interval_percent(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the accuracy; None without labels."""
        return find_interval(self.right, self.clips) if self.folds else None


def digest_of(candidate: Candidate, inputs: dict[str, Any]) -> str:
    """Return the digest of a candidate and of the inputs that all candidates share."""
    weights = candidate.weights
    identity = {
        "generator": f"edgel3-tflm {__version__}",
        "weights": weights.provenance.sha256,
        "network": weights.variant.name,
        "origin": candidate.origin,
        "quantizer": asdict(PLAIN),
        **inputs,
    }
    return sha256_hex(json.dumps(identity, sort_keys=True).encode())


_Figures = TypeVar("_Figures")


def read_figures(path: Path, digest: str, kind: type[_Figures]) -> _Figures | None:
    """Read figures of a class with the field ``digest``; None if there are none of this digest."""
    with suppress(OSError, EdgeL3Error):
        found = parse_json(path.read_bytes(), kind)
        return found if getattr(found, "digest", None) == digest else None
    return None


def write_measurement(path: Path, found: Measurement) -> None:
    """Write a measurement that :func:`read_figures` can read."""
    write_whole(path, (json.dumps(to_plain(asdict(found)), indent=2) + "\n").encode())


def convert_quickly(
    weights: NetworkWeights, calibration: Path | None, output: Path, progress: Progress
) -> Deployment:
    """Convert by TensorFlow Lite's own quantization, without a search."""
    options = ConvertOptions(weights.variant, weights, calibration, quantizer=PLAIN)
    return convert(options, output, progress)


class Teacher:
    """Embeddings of the teacher on the sample, computed when they are first needed.

    Parameters
    ----------
    weights : NetworkWeights
    precision : {'float', 'int8'}
    sample : Sample
    """

    def __init__(self, weights: NetworkWeights, precision: str, sample: Sample) -> None:
        self.weights = weights
        self.precision = precision
        self._sample = sample
        self._features: Features | None = None

    def describe(self) -> dict[str, str]:
        """Return which network it is, as plain data."""
        return {
            "network": self.weights.variant.name,
            "weights": self.weights.provenance.description,
            "sha256": self.weights.provenance.sha256,
            "precision": self.precision,
        }

    def take(self, weights: NetworkWeights, features: Features) -> None:
        """Take int8 embeddings of the sample, if they are of this very network."""
        if weights is self.weights and self.precision == "int8":
            self._features = features

    def embed(self, progress: Progress) -> Features:
        """Return the embeddings of the sample's windows."""
        if self._features is None:
            with tempfile.TemporaryDirectory() as scratch:
                deployment = convert_quickly(
                    self.weights, self._sample.calibration, Path(scratch) / "teacher", progress
                )
                self._features = _embed(deployment, self.precision, self._sample, progress)
        return self._features


def measure(
    candidate: Candidate, digest: str, sample: Sample, teacher: Teacher, progress: Progress
) -> Measurement:
    """Convert a candidate and measure it.

    Raises
    ------
    EdgeL3Error
        If a clip cannot be read, or the engine cannot run the network.
    """
    with tempfile.TemporaryDirectory() as scratch:
        deployment = convert_quickly(
            candidate.weights, sample.calibration, Path(scratch) / "candidate", progress
        )
        footprint, work = plan_footprint(deployment), estimate_work(deployment)
        own = _embed(deployment, "int8", sample, progress)
        progress("compare with float", 0, 0)
        int8, device = _measure_drift(deployment, sample, progress)
    teacher.take(candidate.weights, own)
    theirs = teacher.embed(progress)
    progress("fit and test the classifier", 0, 0)
    folds = sample.test_folds
    layers = deployment.manifest["layers"]
    weights = deployment.manifest["weights"]
    zeros, size = (sum(layer[name] for layer in layers) for name in ("zeros", "weights"))
    return Measurement(
        digest,
        candidate.name,
        candidate.origin,
        candidate.is_given,
        weights["kind"],
        weights["description"],
        100 * zeros / size,
        replace(footprint, flash=dict(footprint.flash), ram=dict(footprint.ram)),
        work,
        probe(sample.clips, own, folds) if sample.is_labelled else [],
        map_cosine(sample.clips, own, theirs, folds),
        int8,
        device,
    )


def _embed(deployment: Deployment, precision: str, sample: Sample, progress: Progress) -> Features:
    embed = deployment.embedder(precision).embed_log_mel
    return extract_features(sample.clips, deployment.variant.frontend, embed, progress)


def _measure_drift(
    deployment: Deployment, sample: Sample, progress: Progress
) -> tuple[EmbeddingDrift, EmbeddingDrift | None]:
    """Compare int8 with float, and a device with float, on a few clips."""
    count = min(_DRIFT_CLIPS, len(sample.clips))
    spread = np.linspace(0, len(sample.clips) - 1, count).round().astype(int)
    paths = [sample.clips[at].path for at in spread]
    report = compare(deployment, paths, hop_s=_DRIFT_HOP_S, progress=progress)
    drift = report.runtimes[0]
    figures = drift.groups.get("sounding", drift.overall)
    int8 = EmbeddingDrift(figures.cosine_mean, figures.cosine_worst, figures.sqnr_db)
    return int8, None if report.frontend is None else report.frontend.both
