"""The figures of a comparison, and drift.json."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.drift.downstream import Downstream
from edgel3_tflm.drift.layers import LayerReport
from edgel3_tflm.metrics import METRICS
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.packed import plan_memory
from edgel3_tflm.types import FloatArray

if TYPE_CHECKING:
    from edgel3_tflm.drift.frontend import FrontendDrift
from edgel3_tflm.drift.subjects import FLOAT_PREFIX, Subject

FORMAT = "edgel3-tflm drift"
FORMAT_VERSION = 1

NEAR_SILENCE_DBFS = -70.0
"""Windows with a lower RMS are nearly silent: their 16-bit samples span a dozen steps or so."""

GROUPS = ("all", "sounding", "near_silent", "silent", "padded")
"""Sets of windows that figures are given for; all is the sum of the others."""


@dataclass(frozen=True)
class DriftFigures:
    """Drift over a set of windows: one field for every metric of :mod:`edgel3_tflm.metrics`.

    A silent window's log-mel is all zeros, so that all silent windows have one and the same
    embedding.
    """

    windows: int
    silent_windows: int
    cosine_mean: float
    cosine_p5: float
    cosine_worst: float
    centred_cosine_mean: float
    centred_cosine_p5: float
    centred_cosine_worst: float
    sqnr_db: float
    mean_squared_error: float
    mean_absolute_error: float
    relative_l2: float


@dataclass(frozen=True)
class ClipDrift:
    """Drift over the windows of one clip; ``label`` is its class, where one is known."""

    clip: str
    label: str | None
    figures: DriftFigures


@dataclass(frozen=True)
class Windows:
    """The windows of a comparison, in the order of the clips.

    ``clip``, ``start_s``, ``silent``, ``near_silent`` and ``padded`` have shape (n,): the index of
    the window's clip, where in it the window begins, and which group the window is in. A padded
    window has zeros at its end because its clip is shorter than a window. Of the others, a silent
    window has a log-mel of zeros, and a nearly silent one a level under ``NEAR_SILENCE_DBFS``.
    """

    clip: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.float64]
    silent: npt.NDArray[np.bool_]
    near_silent: npt.NDArray[np.bool_]
    padded: npt.NDArray[np.bool_]

    @property
    def sounding(self) -> npt.NDArray[np.bool_]:
        """Whole windows that are neither silent nor nearly so; shape (n,)."""
        return ~(self.silent | self.near_silent | self.padded)

    def groups(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Which windows each of ``GROUPS`` has."""
        everything = np.ones(len(self.clip), bool)
        masks = everything, self.sounding, self.near_silent, self.silent, self.padded
        return dict(zip(GROUPS, masks, strict=True))


@dataclass(frozen=True)
class SubjectDrift:
    """Drift of one subject.

    Parameters
    ----------
    subject : Subject
    groups : dict of str to DriftFigures
        By ``GROUPS``; those without windows are missing.
    classes : dict of str to DriftFigures
        By label, over the windows of its clips.
    clips : tuple of ClipDrift
    embeddings : numpy.ndarray, shape (n, d), float32
    values_apart : float
        Share of the embedding values that are others than the first subject's; NaN where the
        two have not the same steps.
    steps_apart : float
        By how many steps at most; NaN likewise.
    """

    subject: Subject
    groups: Mapping[str, DriftFigures]
    classes: Mapping[str, DriftFigures]
    clips: tuple[ClipDrift, ...]
    embeddings: FloatArray
    values_apart: float
    steps_apart: float

    @property
    def overall(self) -> DriftFigures:
        """Over all windows."""
        return self.groups["all"]


@dataclass(frozen=True)
class Spectrogram:
    """The log-mel of a window, shape (mels, frames), of the first subject's worst."""

    clip: str
    start_s: float
    cosine: float
    decibels: FloatArray


@dataclass(frozen=True)
class DriftReport:
    """A comparison, with what a reader needs to judge it.

    Of ``subjects``, the first is the one that the page is about. ``float_embeddings`` are those of
    ``reference``, shape (n, d), float32. ``layers`` and ``frontend`` are None where they could not
    be measured; ``notes`` says why. ``downstream`` is of the first subject. ``damaged`` has the
    clips that were left out, with the reason.
    """

    deployment: Deployment
    reference: Subject
    hop_s: float
    resampler: str
    windows: Windows
    float_embeddings: FloatArray
    subjects: tuple[SubjectDrift, ...]
    worst: tuple[Spectrogram, ...]
    layers: LayerReport | None
    frontend: "FrontendDrift | None"
    downstream: Downstream
    notes: tuple[str, ...]
    damaged: Mapping[str, str]

    @property
    def float_runtime(self) -> str:
        """What the float model ran in."""
        return self.reference.name.removeprefix(FLOAT_PREFIX)

    @property
    def first(self) -> SubjectDrift:
        """The first subject."""
        return self.subjects[0]

    @property
    def overall(self) -> DriftFigures:
        """The first subject's figures over all windows."""
        return self.first.overall

    @property
    def clips(self) -> tuple[ClipDrift, ...]:
        """The first subject's clips."""
        return self.first.clips

    @property
    def model_names(self) -> tuple[str, ...]:
        """Files of the deployment that were run, the float model first."""
        ran = [self.reference, *(each.subject for each in self.subjects)]
        return tuple(dict.fromkeys(each.model for each in ran if each.model))

    def to_json(self) -> dict[str, Any]:
        """Turn the figures into plain data; what is infinite or not a number is None."""
        manifest = self.deployment.manifest
        found = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "generator": f"edgel3-tflm {__version__}",
            "variant": self.deployment.variant.name,
            "quantization": self.deployment.quantization,
            "weights": manifest["weights"],
            "models_sha256": {
                name: manifest["artefacts"][name]["sha256"] for name in self.model_names
            },
            "sizes": {form: asdict(size) for form, size in measure_sizes(self.deployment).items()},
            "float_runtime": self.float_runtime,
            "hop_s": self.hop_s,
            "resampler": self.resampler,
            "near_silence_dbfs": NEAR_SILENCE_DBFS,
            "runtimes": [
                {
                    "runtime": each.subject.name,
                    "model": each.subject.model,
                    "groups": {name: asdict(figures) for name, figures in each.groups.items()},
                    "classes": {name: asdict(figures) for name, figures in each.classes.items()},
                    "clips": [
                        {"clip": drift.clip, "label": drift.label, **asdict(drift.figures)}
                        for drift in each.clips
                    ],
                    "values_apart": each.values_apart,
                    "steps_apart": each.steps_apart,
                }
                for each in self.subjects
            ],
            "layers": None if self.layers is None else asdict(self.layers),
            "costliest_layer": None if self.layers is None else self.layers.costliest.name,
            "frontend": None if self.frontend is None else asdict(self.frontend),
            "downstream": asdict(self.downstream),
            "notes": list(self.notes),
            "damaged": dict(self.damaged),
        }
        plain: dict[str, Any] = _plain(found)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def measure(
    reference: FloatArray,
    other: FloatArray,
    silent: npt.NDArray[np.bool_],
    mean: npt.NDArray[np.floating[Any]] | None = None,
) -> DriftFigures:
    """Drift of ``other`` against ``reference``.

    Parameters
    ----------
    reference, other : numpy.ndarray, shape (n, d)
    silent : numpy.ndarray, shape (n,), bool
    mean : numpy.ndarray, shape (d,), optional
        What centred metrics remove; the mean of ``reference`` if not given.
    """
    mean = reference.mean(axis=0, dtype=np.float64) if mean is None else mean
    values = {metric.name: metric.compute(reference, other, mean) for metric in METRICS}
    return DriftFigures(windows=len(reference), silent_windows=int(silent.sum()), **values)


@dataclass(frozen=True)
class ModelSize:
    """What a form of the quantized model takes on a board, in bytes; its firmware not counted."""

    flash_bytes: int
    arena_bytes: int


def measure_sizes(deployment: Deployment) -> dict[str, ModelSize]:
    """Sizes of the forms that a deployment has, ``dense`` and ``packed``."""
    manifest = deployment.manifest
    sizes = {}
    if (arena_bytes := manifest["arena_bytes"]) is not None:
        dense = manifest["artefacts"][quantized_model_name(deployment.quantization)]
        sizes["dense"] = ModelSize(dense["bytes"], arena_bytes)
    if (packed := deployment.read_packed_model()) is not None:
        sizes["packed"] = ModelSize(len(packed), plan_memory(packed).arena_bytes)
    return sizes
