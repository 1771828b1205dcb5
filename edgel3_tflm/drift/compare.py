"""Compares models in their runtimes with the float model, on the same windows of real clips."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgel3_tflm.audio.clips import find_clips, measure_seconds
from edgel3_tflm.audio.framing import ReadingLog, hop_in_samples, read_windows
from edgel3_tflm.audio.log_mel import is_silent, log_mel
from edgel3_tflm.audio.manifest import (
    LabelledClip,
    list_folds,
    note_unlearned_classes,
    split_by_fold,
)
from edgel3_tflm.audio.resampling import SOXR
from edgel3_tflm.cores import available_cores
from edgel3_tflm.device.estimate import estimate_boards
from edgel3_tflm.drift.downstream import measure_downstream
from edgel3_tflm.drift.figures import (
    NEAR_SILENCE_DBFS,
    ClipDrift,
    DriftFigures,
    DriftReport,
    RuntimeDrift,
    Spectrogram,
    measure,
)
from edgel3_tflm.drift.frontend import embed_rounded, measure_frontend
from edgel3_tflm.drift.layers import analyse_layers
from edgel3_tflm.drift.runtimes import FLOAT_RUNTIMES, Runtime, open_runtime
from edgel3_tflm.drift.scale import LaterWindows, measure_scale
from edgel3_tflm.drift.windows import LoudestWindows, SampledWindows, Windows
from edgel3_tflm.errors import AudioError, EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import FLOAT_PREFIX, NODE
from edgel3_tflm.types import BoolArray, FloatArray, Progress

_log = logging.getLogger(__name__)

_Measured = TypeVar("_Measured")
_WORST_WINDOWS = 4
_EMBED_STEP = "embed clips, float and quantized"
# A runtime that is expected to take longer is announced.
_LONG_S = 120


def _level_dbfs(windows: FloatArray) -> FloatArray:
    mean_square = np.square(windows, dtype=np.float64).mean(axis=1)
    with np.errstate(divide="ignore"):
        level: FloatArray = (10 * np.log10(mean_square)).astype(np.float32)
    return level


def compare(
    deployment: Deployment,
    paths: Sequence[Path],
    *,
    runtimes: Sequence[str | Runtime] = (),
    reference: str | Runtime | None = None,
    labelled: Sequence[LabelledClip] = (),
    hop_s: float,
    keep_going: bool = False,
    resampler: str = SOXR,
    progress: Progress,
    note: Callable[[str], None] = _log.warning,
) -> DriftReport:
    """Run the float model and the runtimes to compare on the same windows.

    A runtime with a frontend of its own takes 16-bit samples. Its figures compare it with the float
    model on the same 16-bit samples; the report's ``frontend`` shows what the 16 bits cost.

    Parameters
    ----------
    deployment : Deployment
    paths : sequence of pathlib.Path
        Clips, or directories of clips.
    runtimes : sequence of str or Runtime
        The runtimes to compare. A name is opened by :func:`open_runtime` and closed at the end; the
        caller closes a Runtime. By default the fastest with the exact result.
    reference : str or Runtime, optional
        The float model to compare with: one of ``FLOAT_RUNTIMES``, or a Runtime. By default the
        fastest.
    labelled : sequence of LabelledClip
        Further clips. A clip that is in ``paths`` as well gets its label from here. If the labelled
        clips have two folds or more, classifiers are trained and tested too.
    hop_s : float
        Seconds between the starts of two windows of 1 s.
    keep_going : bool
        Leave out clips that cannot be read, and list them in the report.
    resampler : str
        One of ``resampling.RESAMPLERS``. It resamples clips that have another sample rate than the
        network.
    progress : callable
    note : callable
        Called with a line of text for each runtime that is expected to take minutes.

    Returns
    -------
    DriftReport

    Raises
    ------
    EdgeL3Error
        If a clip (with ``keep_going``, every clip) cannot be read, a runtime is not available, two
        runtimes have the same name, or the hop is not positive.
    """
    spec = deployment.variant.frontend
    hop_in_samples(hop_s, spec.sample_rate_hz)  # raises if the hop is not positive
    runtimes = runtimes or [deployment.fastest_runtime(deployment.quantization)]
    reference = reference or FLOAT_PREFIX + deployment.fastest_runtime("float")
    if len({str(getattr(each, "name", each)) for each in runtimes}) < len(runtimes):
        raise EdgeL3Error("expected no runtime twice")
    if isinstance(reference, str) and reference not in FLOAT_RUNTIMES:
        raise RuntimeUnavailableError(
            "expected the name of a float model as the reference, one of"
            f" {', '.join(FLOAT_RUNTIMES)}, got {reference!r}"
        )
    with ExitStack() as opened:

        def open_each(each: str | Runtime) -> Runtime:
            if isinstance(each, Runtime):
                return each
            runtime = open_runtime(deployment, each)
            opened.callback(runtime.close)
            return runtime

        in_float, *runtimes = map(open_each, (reference, *runtimes))
        notes: list[str] = []
        device = next((each for each in runtimes if each.rounds), None) or _try(
            "the device's path", notes, lambda: open_each(NODE)
        )
        log = ReadingLog(keep_going)
        return _compare(
            deployment,
            paths,
            in_float,
            runtimes,
            device,
            labelled,
            hop_s,
            resampler,
            log,
            notes,
            progress,
            note,
        )


def _compare(
    deployment: Deployment,
    paths: Sequence[Path],
    in_float: Runtime,
    runtimes: Sequence[Runtime],
    device: Runtime | None,
    labelled: Sequence[LabelledClip],
    hop_s: float,
    resampler: str,
    log: ReadingLog,
    notes: list[str],
    progress: Progress,
    note: Callable[[str], None],
) -> DriftReport:
    spec = deployment.variant.frontend
    found = [*find_clips(list(paths)), *(clip.path for clip in labelled)]
    clips = list({path.resolve(): path for path in found}.values())
    by_path = {clip.path.resolve(): clip for clip in labelled}
    sample, worst = LoudestWindows(len(clips)), list[Spectrogram]()
    later = LaterWindows(len(clips), hop_in_samples(hop_s, spec.sample_rate_hz), spec)
    read, rows = list[Path](), []
    # Of the samples as they are, and of those rounded to 16 bits if a runtime rounds them.
    references: dict[bool, list[FloatArray]] = {
        rounds: [] for rounds in {False, *(each.rounds for each in runtimes)}
    }
    count = sum(max(1, round((measure_seconds(clip) - 1) / hop_s) + 1) for clip in clips)
    _announce_slow([in_float, *runtimes], count, spec, note)
    progress(_EMBED_STEP, 0, len(clips))
    others: list[list[FloatArray]] = [[] for _ in runtimes]
    on_device = next((o for o, each in zip(others, runtimes, strict=True) if each is device), [])
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
        exact = in_float.embed(windows, decibels)
        references[False].append(exact)
        if True in references:
            references[True].append(embed_rounded(in_float.embed, windows, exact, spec))
        for embeddings, runtime in zip(others, runtimes, strict=True):
            embeddings.append(runtime.embed(windows, decibels))
        if device is not None and device not in runtimes:
            on_device.append(device.embed(windows, decibels))
        rows.append(row)
        later.add(number, level, windows, exact)
        sample.add(number, level, row.clip, row.start_s, windows, decibels, exact)
        cosine = cosine_similarity(references[runtimes[0].rounds][-1], others[0][-1])
        worst += [
            Spectrogram(str(path), float(row.start_s[at]), float(cosine[at]), decibels[at].copy())
            for at in np.flatnonzero(row.sounding)
        ]
        worst = sorted(worst, key=lambda each: each.cosine)[:_WORST_WINDOWS]
        progress(_EMBED_STEP, len(read) + len(log.damaged), len(clips))
    if not read:
        reason = next(iter(log.damaged.values()), "no clip was given")
        raise AudioError(f"expected at least one clip that can be read, found none: {reason}")
    table = Windows(
        *(np.concatenate([getattr(row, f.name) for row in rows]) for f in fields(Windows))
    )
    reference_of = {rounds: np.concatenate(each) for rounds, each in references.items()}
    reference = reference_of[False]
    embeddings_of = [np.concatenate(each) for each in others]
    known = [by_path.get(path.resolve()) for path in read]
    names = [
        (str(path), None if each is None else each.label)
        for path, each in zip(read, known, strict=True)
    ]
    if log.short:
        notes.append(f"{log.describe_short()}; their windows are in the group padded")
    if log.damaged:
        notes.append(f"{len(log.damaged)} of {len(clips)} clips cannot be read and are left out")
    clip, start_s, *sampled = sample.join()
    progress("compare layers and frontends", 0, 0)
    layers = _try("layer by layer", notes, lambda: analyse_layers(deployment, sampled[1]))
    frontend = _try(
        "frontend", notes, lambda: measure_frontend(deployment, in_float.embed, *sampled)
    )
    downstream = measure_downstream(
        reference, embeddings_of[0], table.clip, table.sounding, known, progress
    )
    if downstream.note:
        notes.append(downstream.note)
    scale = from_device = None
    if device is not None:
        from_device = np.concatenate(on_device)
        scale = measure_scale(
            device.name,
            reference,
            from_device,
            table.clip,
            [label for _, label in names],
            table.sounding,
            lambda mean: later.measure(in_float.embed, mean),
        )
    boards = _try("boards", notes, lambda: estimate_boards(deployment))
    if downstream.classifiers:
        judged = [each for each in known if each is not None]
        splits = split_by_fold(judged, list_folds(judged))
        notes += note_unlearned_classes([{each.label} for each in judged], splits)
    return DriftReport(
        deployment,
        in_float,
        hop_s,
        resampler,
        table,
        reference,
        tuple(
            _drift_of(
                runtime,
                embeddings,
                runtimes[0],
                embeddings_of[0],
                reference_of[runtime.rounds],
                table,
                names,
            )
            for runtime, embeddings in zip(runtimes, embeddings_of, strict=True)
        ),
        tuple(worst),
        layers,
        frontend,
        downstream,
        tuple(notes),
        {str(path): reason for path, reason in log.damaged.items()},
        None
        if from_device is None or not table.sounding.any()
        else measure(
            reference[table.sounding],
            from_device[table.sounding],
            table.silent[table.sounding],
        ),
        scale,
        boards or (),
        from_device,
        SampledWindows(clip, start_s, *sampled[:2]),
    )


def _announce_slow(
    runtimes: Sequence[Runtime],
    count: int,
    spec: FrontendSpec,
    note: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Time one window of noise on each core, and announce the runtimes that will take minutes."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (available_cores(), spec.window_samples)).astype(np.float32)
    decibels = log_mel(noise, spec)
    for runtime in runtimes:
        if runtime.is_remote:
            continue
        started_s = clock()
        runtime.embed(noise, decibels)
        window_s = (clock() - started_s) / len(noise)
        if (expected_s := window_s * count) > _LONG_S:
            note(
                f"{runtime.name}: {count:,} windows are expected to take"
                f" {expected_s / 60:.0f} minutes, {window_s:.3g} s a window"
            )


def _try(what: str, notes: list[str], measure_it: Callable[[], _Measured]) -> _Measured | None:
    """Measure an optional part of the report; on an error return None and add a note."""
    try:
        return measure_it()
    except EdgeL3Error as error:
        notes.append(f"{what}: not measured: {error}")
        _log.warning("%s", notes[-1])
        return None


def _drift_of(
    runtime: Runtime,
    embeddings: FloatArray,
    first: Runtime,
    first_embeddings: FloatArray,
    reference: FloatArray,
    windows: Windows,
    names: Sequence[tuple[str, str | None]],
) -> RuntimeDrift:
    mean = reference.mean(axis=0, dtype=np.float64)

    def figures(mask: BoolArray) -> DriftFigures:
        return measure(reference[mask], embeddings[mask], windows.silent[mask], mean)

    steps = np.array([math.nan])
    if runtime.output_scale == first.output_scale > 0:
        steps = np.rint(np.abs(embeddings - first_embeddings) / runtime.output_scale)
    labels = np.array([label or "" for _, label in names])[windows.clip]
    return RuntimeDrift(
        runtime,
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
        reference,
        float(np.mean(steps > 0)) if np.isfinite(steps).all() else math.nan,
        float(steps.max()),
    )
