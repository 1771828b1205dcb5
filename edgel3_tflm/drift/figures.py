"""The figures of a comparison, and the plain data of drift.json."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgel3_tflm._version import __version__
from edgel3_tflm.device.estimate import BoardEstimate
from edgel3_tflm.drift.downstream import Downstream
from edgel3_tflm.drift.layers import LayerReport
from edgel3_tflm.drift.runtimes import Runtime
from edgel3_tflm.drift.scale import Scale
from edgel3_tflm.drift.windows import SampledWindows, Windows
from edgel3_tflm.metrics import METRICS, cosine_similarity, sqnr_db
from edgel3_tflm.notebook import html_table
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import FLOAT_PREFIX
from edgel3_tflm.types import BoolArray, FloatArray, Format, JsonFloat, RealArray

JSON_NAME = "drift.json"
# In version 1 the last window of every clip was padded with zeros and counted with the others.
FORMAT = Format("edgel3-tflm drift", 2, remedy="run compare again")

NEAR_SILENCE_DBFS = -70.0
"""A window with a lower RMS is nearly silent: its 16-bit samples span about a dozen values."""


@dataclass(frozen=True)
class DriftFigures:
    """Drift over a set of windows: one field for each of :data:`edgel3_tflm.metrics.METRICS`.

    The fields repeat the metrics' names so that a type checker knows them; :func:`measure` fails if
    the two differ. All silent windows have the same embedding, because their log-mel is all zeros.
    """

    windows: int
    silent_windows: int
    cosine_mean: JsonFloat
    cosine_p5: JsonFloat
    cosine_worst: JsonFloat
    centred_cosine_mean: JsonFloat
    centred_cosine_p5: JsonFloat
    centred_cosine_worst: JsonFloat
    sqnr_db: JsonFloat
    mean_squared_error: JsonFloat
    mean_absolute_error: JsonFloat
    relative_l2: JsonFloat


@dataclass(frozen=True)
class EmbeddingDrift:
    """Drift of embeddings."""

    cosine_mean: JsonFloat
    cosine_worst: JsonFloat
    sqnr_db: JsonFloat

    @classmethod
    def of(cls, reference: FloatArray, other: FloatArray) -> "EmbeddingDrift":
        """Measure ``other`` against ``reference``, both of shape (n, d)."""
        cosine = cosine_similarity(reference, other)
        return cls(float(cosine.mean()), float(cosine.min()), sqnr_db(reference, other))


@dataclass(frozen=True)
class FrontendDrift:
    """What the device's frontend changes.

    Parameters
    ----------
    windows : int
        Windows that were measured.
    log_mel_mean_db, log_mel_worst_db : float
        Absolute difference of the device's log-mel from the host's, in dB.
    input_changed : float
        Share of the quantized model's input values that differ.
    input_steps : int
        Their largest difference, in quantization steps.
    sixteen_bits_alone : EmbeddingDrift
        Capture: the float model on the host's log-mel of 16-bit samples.
    frontend_alone : EmbeddingDrift
        Float model on the device's log-mel of 16-bit samples.
    quantization_alone : EmbeddingDrift
        Quantized model on the host's log-mel.
    both : EmbeddingDrift
        Quantized model on the device's log-mel of 16-bit samples: everything that a device does.
    frontend_step : EmbeddingDrift or None
        Float model: the device's log-mel against the host's log-mel of the same 16-bit samples.
        None in files of earlier versions, which do not have it.
    quantization_step : EmbeddingDrift or None
        On the device's log-mel: the quantized model against the float model. None likewise.

    All others have one reference: the float model on the host's log-mel of the samples as they are.
    """

    windows: int
    log_mel_mean_db: JsonFloat
    log_mel_worst_db: JsonFloat
    input_changed: JsonFloat
    input_steps: int
    sixteen_bits_alone: EmbeddingDrift
    frontend_alone: EmbeddingDrift
    quantization_alone: EmbeddingDrift
    both: EmbeddingDrift
    frontend_step: EmbeddingDrift | None = None
    quantization_step: EmbeddingDrift | None = None

    @property
    def steps(self) -> tuple[tuple[str, EmbeddingDrift], ...]:
        """Return capture, frontend and quantization, each against the step before it, and all."""
        found = (
            ("capture in 16 bits", self.sixteen_bits_alone),
            ("frontend", self.frontend_step),
            ("quantization", self.quantization_step),
            ("all", self.both),
        )
        return tuple((name, drift) for name, drift in found if drift is not None)


FRONTEND_FIGURES = {
    "log_mel_mean_db": False,
    "log_mel_worst_db": False,
    "input_changed": False,
    "input_steps": False,
}
"""Figures of :class:`FrontendDrift`, each with whether a higher value is better."""


@dataclass(frozen=True)
class ClipDrift:
    """Drift over the windows of one clip; ``label`` is its class, None if unknown."""

    clip: str
    label: str | None
    figures: DriftFigures


@dataclass(frozen=True)
class RuntimeDrift:
    """Drift of one runtime.

    Parameters
    ----------
    runtime : Runtime
    groups : dict of str to DriftFigures
        By ``GROUPS``; a group without windows is missing.
    classes : dict of str to DriftFigures
        By label, over the windows of its clips.
    clips : tuple of ClipDrift
    embeddings : numpy.ndarray, shape (n, d), float32
    reference : numpy.ndarray, shape (n, d), float32
        Embeddings of the float model: of the samples rounded to 16 bits if ``runtime`` rounds them.
    values_apart : float
        Share of the embedding values that differ from the first runtime's; NaN if the two have
        different quantization steps.
    steps_apart : float
        Their largest difference, in quantization steps; NaN likewise.
    """

    runtime: Runtime
    groups: Mapping[str, DriftFigures]
    classes: Mapping[str, DriftFigures]
    clips: tuple[ClipDrift, ...]
    embeddings: FloatArray
    reference: FloatArray
    values_apart: float
    steps_apart: float

    @property
    def name(self) -> str:
        """Name of the runtime."""
        return self.runtime.name

    @property
    def overall(self) -> DriftFigures:
        """Figures over all windows."""
        return self.groups["all"]


@dataclass(frozen=True)
class Spectrogram:
    """Log-mel of one of the first runtime's worst windows, shape (mels, frames)."""

    clip: str
    start_s: float
    cosine: float
    decibels: FloatArray


@dataclass(frozen=True)
class DriftReport:
    """A comparison of runtimes with the float model.

    Parameters
    ----------
    deployment : Deployment
    reference : Runtime
        The float model that all runtimes are compared with.
    hop_s : float
        Seconds between the starts of two windows.
    resampler : str
    windows : Windows
    float_embeddings : numpy.ndarray, shape (n, d), float32
        Embeddings of ``reference``, of the samples as they are.
    runtimes : tuple of RuntimeDrift
        The plots of the report show the first.
    worst : tuple of Spectrogram
    layers : LayerReport or None
    frontend : FrontendDrift or None
        None if not measured; ``notes`` says why.
    downstream : Downstream
        Of the first runtime.
    notes : tuple of str
        Sentences that a reader needs to judge the figures.
    damaged : dict of str to str
        Clips that were left out, with the reason.
    device : DriftFigures or None
        The device's path from 16-bit samples to int8 embeddings, against the float model on the
        samples as they are, over the sounding windows. None if not measured.
    scale : Scale or None
        The distance of the device's embeddings, beside other distances. None if not measured.
    boards : tuple of BoardEstimate
        Empty if not estimated.
    device_embeddings : numpy.ndarray, shape (n, d), float32, or None
        Embeddings of the device's path, of all windows.
    sample : SampledWindows or None
    """

    deployment: Deployment
    reference: Runtime
    hop_s: float
    resampler: str
    windows: Windows
    float_embeddings: FloatArray
    runtimes: tuple[RuntimeDrift, ...]
    worst: tuple[Spectrogram, ...]
    layers: LayerReport | None
    frontend: FrontendDrift | None
    downstream: Downstream
    notes: tuple[str, ...]
    damaged: Mapping[str, str]
    device: DriftFigures | None = None
    scale: Scale | None = None
    boards: tuple[BoardEstimate, ...] = ()
    device_embeddings: FloatArray | None = None
    sample: SampledWindows | None = None

    @property
    def float_runtime(self) -> str:
        """Name of the runtime of the float model."""
        return self.reference.name.removeprefix(FLOAT_PREFIX)

    @property
    def first(self) -> RuntimeDrift:
        """Drift of the first runtime."""
        return self.runtimes[0]

    @property
    def overall(self) -> DriftFigures:
        """The first runtime's figures over all windows."""
        return self.first.overall

    @property
    def clips(self) -> tuple[ClipDrift, ...]:
        """The first runtime's clips."""
        return self.first.clips

    @property
    def model_names(self) -> tuple[str, ...]:
        """Files of the deployment that were run, the float model first."""
        ran = [self.reference, *(each.runtime for each in self.runtimes)]
        return tuple(dict.fromkeys(each.model for each in ran if each.model))

    def _repr_html_(self) -> str:
        """Return a table of the runtimes for a notebook."""
        return html_table(
            f"{self.deployment.variant.name}: {self.overall.windows:,} windows of"
            f" {len(self.clips):,} clips beside the float model in {self.float_runtime}",
            ("runtime", "mean cosine", "5th percentile", "worst window", "SQNR, dB"),
            [
                (
                    each.name,
                    f"{each.overall.cosine_mean:.4f}",
                    f"{each.overall.cosine_p5:.4f}",
                    f"{each.overall.cosine_worst:.4f}",
                    f"{each.overall.sqnr_db:.2f}",
                )
                for each in self.runtimes
            ],
            (self.deployment.manifest["weights"]["description"], *self.notes),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data; None stands for infinite values and NaN."""
        manifest = self.deployment.manifest
        found = {
            "format": FORMAT.name,
            "format_version": FORMAT.version,
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
                    "runtime": each.name,
                    "model": each.runtime.model,
                    "reference_samples": "16-bit" if each.runtime.rounds else "float",
                    "groups": {name: asdict(figures) for name, figures in each.groups.items()},
                    "classes": {name: asdict(figures) for name, figures in each.classes.items()},
                    "clips": [
                        {"clip": drift.clip, "label": drift.label, **asdict(drift.figures)}
                        for drift in each.clips
                    ],
                    "values_apart": each.values_apart,
                    "steps_apart": each.steps_apart,
                }
                for each in self.runtimes
            ],
            "layers": None if self.layers is None else asdict(self.layers),
            "costliest_layer": None if self.layers is None else self.layers.costliest.name,
            "frontend": None if self.frontend is None else asdict(self.frontend),
            "downstream": asdict(self.downstream),
            "device": None if self.device is None else asdict(self.device),
            "scale": None if self.scale is None else asdict(self.scale),
            "boards": [each.to_json() for each in self.boards],
            "notes": list(self.notes),
            "damaged": dict(self.damaged),
        }
        plain: dict[str, Any] = to_plain(found)
        return plain


def to_plain(value: Any) -> Any:
    """Return data with None in place of numbers that JSON does not have: NaN and infinity."""
    if isinstance(value, dict):
        return {key: to_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def measure(
    reference: FloatArray,
    other: FloatArray,
    silent: BoolArray,
    mean: RealArray | None = None,
) -> DriftFigures:
    """Compute every metric of ``other`` against ``reference``.

    Parameters
    ----------
    reference, other : numpy.ndarray, shape (n, d)
    silent : numpy.ndarray, shape (n,), bool
    mean : numpy.ndarray, shape (d,), optional
        The mean that centred metrics remove; by default that of ``reference``.
    """
    mean = reference.mean(axis=0, dtype=np.float64) if mean is None else mean
    values = {metric.name: metric.compute(reference, other, mean) for metric in METRICS}
    return DriftFigures(windows=len(reference), silent_windows=int(silent.sum()), **values)


@dataclass(frozen=True)
class ModelSize:
    """Memory that a form of the quantized model needs on a board, without the firmware."""

    flash_bytes: int
    arena_bytes: int


SIZE_FIGURES = {"flash_bytes": False, "arena_bytes": False}
"""Figures of :class:`ModelSize`, each with whether a higher value is better."""


def measure_sizes(deployment: Deployment) -> dict[str, ModelSize]:
    """Return the size of each form that a deployment has, ``dense`` and ``packed``."""
    manifest = deployment.manifest
    sizes = {}
    if (arena_bytes := manifest["arena_bytes"]) is not None:
        dense = manifest["artefacts"][quantized_model_name(deployment.quantization)]
        sizes["dense"] = ModelSize(dense["bytes"], arena_bytes)
    if (packed := deployment.read_packed_model()) is not None:
        sizes["packed"] = ModelSize(len(packed), plan_memory(packed).arena_bytes)
    return sizes
