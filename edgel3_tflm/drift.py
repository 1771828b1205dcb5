"""Accuracy drift: how far a quantized model's embeddings lie from the float model's."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio import ReadingLog, find_clips, hop_in_samples, read_windows
from edgel3_tflm.corpus import LabelledClip
from edgel3_tflm.deployment import PACKED_MODEL_NAME, Deployment, quantized_model_name
from edgel3_tflm.downstream import Downstream, measure_downstream
from edgel3_tflm.errors import AudioError, EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.frontend import is_silent, log_mel
from edgel3_tflm.interpreters import DEFAULT_RUNTIME, RUNTIMES, TensorSpec, runs_packed_models
from edgel3_tflm.layers import LayerReport, analyse_layers
from edgel3_tflm.metrics import METRICS, cosine_similarity
from edgel3_tflm.packed import plan_memory
from edgel3_tflm.resampling import SOXR

if TYPE_CHECKING:
    from edgel3_tflm.frontend_drift import FrontendDrift

_log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]
_Found = TypeVar("_Found")
Progress = Callable[[str, int, int], None]

FORMAT = "edgel3-tflm drift"
FORMAT_VERSION = 1

NEAR_SILENCE_DBFS = -70.0
"""Windows with a lower RMS are nearly silent: their 16-bit samples span a dozen steps or so."""
SAMPLED_WINDOWS = 8
"""Windows that layers and frontend are measured on: the loudest of evenly spread clips."""
_WORST_WINDOWS = 4

NODE = "node"
FLOAT_PREFIX = "float:"
_DEVICE_PREFIX = "device:"
KERAS = f"{FLOAT_PREFIX}keras"
FLOAT_SUBJECTS = (
    *(f"{FLOAT_PREFIX}{name}" for name in RUNTIMES if not runs_packed_models(name)),
    KERAS,
)
"""Those that run the float model."""
SUBJECTS = (*RUNTIMES, NODE, f"{_DEVICE_PREFIX}PORT", *FLOAT_SUBJECTS)
"""Names of what is compared; :func:`open_subject` takes all but Keras."""
DEFAULT_REFERENCE = f"{FLOAT_PREFIX}{DEFAULT_RUNTIME}"

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


def _leave_open() -> None:
    pass


@dataclass(frozen=True)
class Subject:
    """What is compared, or what the others are compared with.

    Parameters
    ----------
    name : str
        As the report calls it.
    model : str
        The file of the deployment that it runs; empty for what is no file of it.
    embed : callable
        Takes samples (n, window_samples) and the host's log-mel (n, mels, frames) of the same
        windows, and returns embeddings (n, d), float32. What runs elsewhere, on a board for
        example, takes the samples.
    output_scale : float
        Step of the embeddings; 0 for floats.
    close : callable
        Gives back what it holds, a port for example.
    """

    name: str
    model: str
    embed: Callable[[FloatArray, FloatArray], FloatArray]
    output_scale: float
    close: Callable[[], None] = _leave_open


def open_subject(deployment: Deployment, name: str) -> Subject:
    """Open a runtime to compare.

    Parameters
    ----------
    deployment : Deployment
    name : str
        A runtime, for the quantized model; ``float:`` and a runtime, for the float one; ``node``,
        the C library whole, here: its frontend, from 16-bit samples, and its engine; or
        ``device:`` and a port as :func:`edgel3_tflm.device.open_transport` takes it, for a node.

    Raises
    ------
    RuntimeUnavailableError, ModelFileError
        As :meth:`Deployment.embedder`.
    DeviceError
        If there is no node at the port.
    """
    if name.startswith(_DEVICE_PREFIX):
        return _open_device(deployment, name)
    if name not in SUBJECTS:
        raise RuntimeUnavailableError(
            f"unknown runtime {name!r}: expected one of {', '.join(SUBJECTS)}"
        )
    if name == KERAS:
        raise RuntimeUnavailableError(
            f"{KERAS} needs the weights: open it with edgel3_tflm.converters.keras_model.open_keras"
        )
    if name == NODE:
        from edgel3_tflm.frontend_drift import open_frontend, to_16_bits

        engine = deployment.embedder(deployment.quantization, "engine")
        frontend = open_frontend(deployment)

        def embed(windows: FloatArray, _: FloatArray) -> FloatArray:
            decibels = [frontend.log_mel(each) for each in to_16_bits(windows)]
            return engine.embed_log_mel(np.stack(decibels))

        return Subject(name, PACKED_MODEL_NAME, embed, engine.output.scale)
    precision = "float" if name.startswith(FLOAT_PREFIX) else deployment.quantization
    runtime = name.removeprefix(FLOAT_PREFIX)
    embedder = deployment.embedder(precision, runtime)
    return Subject(
        name,
        deployment.model_name(precision, runtime),
        lambda _, decibels: embedder.embed_log_mel(decibels),
        embedder.output.scale,
    )


def _open_device(deployment: Deployment, name: str) -> Subject:
    from edgel3_tflm.device import Device, open_transport
    from edgel3_tflm.frontend_drift import to_16_bits

    device = Device(open_transport(name.removeprefix(_DEVICE_PREFIX)))
    dense = deployment.manifest["artefacts"][quantized_model_name(deployment.quantization)]
    if not dense["sha256"].startswith(device.info.source_sha256.hex()):
        device.close()
        raise EdgeL3Error(
            f"{name}: expected a node with the model of {deployment.directory}, it has another;"
            " flash it again"
        )
    scale, zero_point = device.info.embedding_scale, device.info.embedding_zero_point
    spec = TensorSpec((1, device.info.embedding_size), np.dtype(np.int8), scale, zero_point)

    def embed(windows: FloatArray, _: FloatArray) -> FloatArray:
        return spec.dequantize(np.stack([device.embed_pcm(each) for each in to_16_bits(windows)]))

    return Subject(name, PACKED_MODEL_NAME, embed, scale, device.close)


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


class _Sample:
    """The loudest windows of evenly spread clips, at most ``SAMPLED_WINDOWS`` of them."""

    def __init__(self, clips: int) -> None:
        spread = np.linspace(0, clips - 1, min(SAMPLED_WINDOWS, clips)).round().astype(int)
        self._per_clip = dict.fromkeys(spread.tolist(), SAMPLED_WINDOWS // len(spread))
        self._kept: list[tuple[FloatArray, ...]] = []

    def add(self, clip: int, level: FloatArray, *arrays: FloatArray) -> None:
        """Keep what belongs to a clip's loudest windows, of arrays with a row for each."""
        loudest = np.sort(np.argsort(-level, kind="stable")[: self._per_clip.get(clip, 0)])
        self._kept.append(tuple(each[loudest] for each in arrays))

    def take(self) -> tuple[FloatArray, ...]:
        return tuple(np.concatenate(each) for each in zip(*self._kept, strict=True))


def _level_dbfs(windows: FloatArray) -> FloatArray:
    mean_square = np.square(windows, dtype=np.float64).mean(axis=1)
    with np.errstate(divide="ignore"):
        level: FloatArray = (10 * np.log10(mean_square)).astype(np.float32)
    return level


def compare(
    deployment: Deployment,
    paths: Sequence[Path],
    *,
    runtimes: Sequence[str | Subject] = (DEFAULT_RUNTIME,),
    reference: str | Subject = DEFAULT_REFERENCE,
    labelled: Sequence[LabelledClip] = (),
    hop_s: float,
    keep_going: bool = False,
    resampler: str = SOXR,
    progress: Progress,
) -> DriftReport:
    """Run the float model and whatever is compared with it on the same windows.

    Parameters
    ----------
    deployment : Deployment
    paths : sequence of pathlib.Path
        Clips, or directories of clips.
    runtimes : sequence of str or Subject
        What to compare: names that :func:`open_subject` takes, or subjects of the caller's own.
        Those opened here are closed in the end.
    reference : str or Subject
        The float model that they are compared with: one of ``FLOAT_SUBJECTS``, or the caller's own.
    labelled : sequence of LabelledClip
        Clips to compare on as well; those in ``paths`` have their label. Where there are any, and
        they have folds, classifiers are judged too.
    hop_s : float
        Seconds from one window of 1 s to the next.
    resampler : str
        One of ``resampling.RESAMPLERS``, for clips of another sample rate than the network's.
    keep_going : bool
        Leave out clips that cannot be read, and name them in the report.
    progress : callable
        Called with the name of the step, clips done and clips in all.

    Raises
    ------
    EdgeL3Error
        If a clip (with ``keep_going``, every clip) cannot be read, a runtime is missing or the hop
        is not positive.
    """
    spec = deployment.variant.frontend
    hop_in_samples(hop_s, spec.sample_rate_hz)  # refuses a hop that goes nowhere
    if not runtimes or len({str(getattr(each, "name", each)) for each in runtimes}) < len(runtimes):
        raise EdgeL3Error("expected runtimes that differ, at least one")
    if isinstance(reference, str) and reference not in FLOAT_SUBJECTS:
        raise RuntimeUnavailableError(
            f"expected a float model to compare with, one of {', '.join(FLOAT_SUBJECTS)}, got"
            f" {reference!r}"
        )
    with ExitStack() as opened:

        def open_each(each: str | Subject) -> Subject:
            if isinstance(each, Subject):
                return each
            subject = open_subject(deployment, each)
            opened.callback(subject.close)
            return subject

        in_float, *subjects = map(open_each, (reference, *runtimes))
        log = ReadingLog(keep_going)
        return _compare(
            deployment, paths, in_float, subjects, labelled, hop_s, resampler, log, progress
        )


def _compare(
    deployment: Deployment,
    paths: Sequence[Path],
    in_float: Subject,
    subjects: Sequence[Subject],
    labelled: Sequence[LabelledClip],
    hop_s: float,
    resampler: str,
    log: ReadingLog,
    progress: Progress,
) -> DriftReport:
    spec = deployment.variant.frontend
    found = [*find_clips(list(paths)), *(clip.path for clip in labelled)]
    clips = list({path.resolve(): path for path in found}.values())
    by_path = {clip.path.resolve(): clip for clip in labelled}
    sample, worst = _Sample(len(clips)), list[Spectrogram]()
    read, rows, references = list[Path](), [], []
    others: list[list[FloatArray]] = [[] for _ in subjects]
    for path, windows in read_windows(
        clips,
        sample_rate_hz=spec.sample_rate_hz,
        window_samples=spec.window_samples,
        hop_s=hop_s,
        resampler=resampler,
        log=log,
    ):
        number = len(read)
        read.append(path)
        padded = np.full(len(windows), log.short[-1:] == [path])
        decibels, level = log_mel(windows, spec), _level_dbfs(windows)
        silent = is_silent(decibels)
        row = Windows(
            np.full(len(windows), number),
            np.arange(len(windows)) * hop_s,
            silent & ~padded,
            (level < NEAR_SILENCE_DBFS) & ~silent & ~padded,
            padded,
        )
        references.append(in_float.embed(windows, decibels))
        for embeddings, subject in zip(others, subjects, strict=True):
            embeddings.append(subject.embed(windows, decibels))
        rows.append(row)
        sample.add(number, level, windows, decibels, references[-1])
        cosine = cosine_similarity(references[-1], others[0][-1])
        worst += [
            Spectrogram(str(path), float(row.start_s[at]), float(cosine[at]), decibels[at].copy())
            for at in np.flatnonzero(row.sounding)
        ]
        worst = sorted(worst, key=lambda each: each.cosine)[:_WORST_WINDOWS]
        progress("embed clips, float and quantized", len(read) + len(log.damaged), len(clips))
    if not read:
        reason = next(iter(log.damaged.values()), "none was named")
        raise AudioError(f"expected at least one clip that can be read, found none: {reason}")
    table = Windows(
        *(np.concatenate([getattr(row, f.name) for row in rows]) for f in fields(Windows))
    )
    reference = np.concatenate(references)
    embeddings_of = [np.concatenate(each) for each in others]
    known = [by_path.get(path.resolve()) for path in read]
    names = [
        (str(path), None if each is None else each.label)
        for path, each in zip(read, known, strict=True)
    ]
    notes: list[str] = []
    if log.short:
        notes.append(f"{log.describe_short()}; their windows are the group padded")
    if log.damaged:
        notes.append(f"{len(log.damaged)} of {len(clips)} clips cannot be read and are left out")
    sampled = sample.take()
    progress("compare layers and frontends", 0, 0)
    layers = _try("layer by layer", notes, lambda: analyse_layers(deployment, sampled[1]))
    frontend = _try("frontend", notes, lambda: _measure_frontend(deployment, in_float, *sampled))
    downstream = measure_downstream(
        reference, embeddings_of[0], table.clip, table.sounding, known, progress
    )
    if downstream.note:
        notes.append(downstream.note)
    return DriftReport(
        deployment,
        in_float,
        hop_s,
        resampler,
        table,
        reference,
        tuple(
            _drift_of(subject, embeddings, subjects[0], embeddings_of[0], reference, table, names)
            for subject, embeddings in zip(subjects, embeddings_of, strict=True)
        ),
        tuple(worst),
        layers,
        frontend,
        downstream,
        tuple(notes),
        {str(path): reason for path, reason in log.damaged.items()},
    )


def _measure_frontend(
    deployment: Deployment, in_float: Subject, *sampled: FloatArray
) -> "FrontendDrift":
    from edgel3_tflm.frontend_drift import measure_frontend

    return measure_frontend(deployment, in_float.embed, *sampled)


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


def _try(what: str, notes: list[str], measure_it: Callable[[], _Found]) -> _Found | None:
    """Measure what a report can do without; say in it why it does."""
    try:
        return measure_it()
    except EdgeL3Error as error:
        notes.append(f"{what}: not measured: {error}")
        _log.warning("%s", notes[-1])
        return None


def _drift_of(
    subject: Subject,
    embeddings: FloatArray,
    first: Subject,
    first_embeddings: FloatArray,
    reference: FloatArray,
    windows: Windows,
    names: Sequence[tuple[str, str | None]],
) -> SubjectDrift:
    mean = reference.mean(axis=0, dtype=np.float64)

    def figures(mask: npt.NDArray[np.bool_]) -> DriftFigures:
        return measure(reference[mask], embeddings[mask], windows.silent[mask], mean)

    steps = np.array([math.nan])
    if subject.output_scale == first.output_scale > 0:
        steps = np.rint(np.abs(embeddings - first_embeddings) / subject.output_scale)
    labels = np.array([label or "" for _, label in names])[windows.clip]
    return SubjectDrift(
        subject,
        {name: figures(mask) for name, mask in windows.groups().items() if mask.any()},
        {
            label: figures(labels == label)
            for label in sorted({label for _, label in names if label is not None})
        },
        tuple(
            ClipDrift(name, label, figures(windows.clip == number))
            for number, (name, label) in enumerate(names)
        ),
        embeddings,
        float(np.mean(steps > 0)) if np.isfinite(steps).all() else math.nan,
        float(steps.max()),
    )
