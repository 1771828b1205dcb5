"""Convert a network, measure its drift, and estimate what a board needs for it."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import find_depth, find_filters, find_variant
from edgel3_tflm.networks.sources import Note, parse_weights_source
from edgel3_tflm.networks.variants import CONVOLUTIONS, Plan
from edgel3_tflm.notebook import html_table
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import Progress

if TYPE_CHECKING:  # at run time the functions import what loads TensorFlow or the C extension
    from edgel3_tflm.converters.quantization.quantizer import CalibrationMethod
    from edgel3_tflm.device.boards import Board
    from edgel3_tflm.device.estimate import Battery, BoardEstimate, Work
    from edgel3_tflm.device.footprint import Footprint
    from edgel3_tflm.drift.figures import DriftReport

AnyPath = str | PathLike[str]
DEFAULT_SPARSITY = "95.45"

_log = logging.getLogger(__name__)


def _ignore(step: str, done: int, total: int) -> None:
    del step, done, total


def convert(
    output: AnyPath | None = None,
    *,
    model_type: str = "sparse",
    sparsity: float | str | None = None,
    embedding_size: int = 128,
    retrain_type: str = "ft",
    weights: AnyPath = "auto",
    plan: AnyPath | None = None,
    embedding_layer: str | None = None,
    filters: str | Sequence[int] | None = None,
    calibration: AnyPath | None = None,
    quantization: str = "int8",
    calibration_method: str = "auto",
    equalize: bool | None = None,
    bias_correction: bool | None = None,
    adaround: bool | None = None,
    progress: Progress | None = None,
    note: Note = _log.warning,
) -> Deployment:
    """Prune, quantize and export a network, as the command ``convert`` does.

    Needs the extra ``convert``. The 95.45 % network takes a minute or two, most of it for the
    search for the best quantization.

    Parameters
    ----------
    output : str or pathlib.Path, optional
        The directory to write; after an error it does not exist, or is as it was. By default named
        after the network, in the current directory.
    model_type : {'sparse', 'sea', 'dense'}
        'sparse' is EdgeL3, 'sea' is SEA-UST and 'dense' is L3.
    sparsity : float or str, optional
        Percent of zeros, by default 95.45. Used only for 'sparse'.
    embedding_size : {512, 256, 128, 64}
        Number of values of an embedding. Used only for 'sea'.
    retrain_type : {'ft', 'kd'}
        Fine-tuned or distilled weights. Used only for 'sparse'.
    weights : str or pathlib.Path
        A weight file, or 'auto', 'published', 'bundled' or 'generated'.
    plan : str or pathlib.Path, optional
        A TOML file with the percent of zeros of each layer, instead of ``sparsity``.
    embedding_layer : str, optional
        'conv7' for example: cut the network after this convolution.
    filters : str or sequence of int, optional
        Number of filters to keep in each convolution, or the name of a published list.
    calibration : str or pathlib.Path, optional
        Directory of calibration clips; by default those of the package.
    quantization : {'int8', 'int16x8'}
    calibration_method : {'auto', 'minmax', 'percentile', 'mse'}
        How to choose the ranges of int8 activations. 'auto' takes what measures best.
    equalize, bias_correction, adaround : bool, optional
        Whether to take this step of the quantization. By default what measures best.
    progress : callable, optional
        Progress callback: ``(step, done, total)``; ``total`` is 0 if unknown.
    note : callable
        Called with a line of text that the user should see; by default it is logged.

    Returns
    -------
    Deployment
        The directory, read back and verified.

    Raises
    ------
    EdgeL3Error
        If an argument is unknown, or weights, clips or the directory cannot be used.

    Examples
    --------
    >>> deployment = convert("edgel3", sparsity=95.45)
    >>> embeddings = deployment.embedder().embed(windows)  # (n, 48000) to (n, 512)
    """
    if sparsity is not None and plan is not None:
        raise EdgeL3Error("expected one of --sparsity and --plan FILE, got both")
    variant = find_variant(
        model_type,
        sparsity=str(DEFAULT_SPARSITY if sparsity is None else sparsity),
        retrain_type=retrain_type,
        embedding_size=embedding_size,
    )
    from edgel3_tflm.converters import pipeline
    from edgel3_tflm.converters.pruning.plan_file import read_plan
    from edgel3_tflm.converters.quantization.quantizer import QuantizerOptions

    depth = None if embedding_layer is None else find_depth(embedding_layer)
    if plan is not None:
        percents = read_plan(Path(plan)).layers
        if len(percents) == depth:  # layers that are cut off need no percent
            percents += (0,) * (CONVOLUTIONS - depth)
        variant = variant.with_plan(Plan(0, percents))
    if filters is not None:
        filters = find_filters(filters if isinstance(filters, str) else ",".join(map(str, filters)))
    options = pipeline.ConvertOptions(
        variant,
        weights=parse_weights_source(Path(weights) if isinstance(weights, PathLike) else weights),
        calibration=None if calibration is None else Path(calibration),
        quantization=quantization,
        quantizer=QuantizerOptions(
            cast("CalibrationMethod", calibration_method), equalize, bias_correction, adaround
        ),
        depth=depth,
        filters=filters,
    )
    directory = Path(output or f"{options.target.name}-{quantization}")
    return pipeline.convert(options, directory, progress or _ignore, note)


def compare(
    deployment: Deployment | AnyPath,
    clips: AnyPath | Sequence[AnyPath] = (),
    *,
    manifest: AnyPath | None = None,
    runtime: str | Sequence[str] = (),
    reference: str | None = None,
    weights: AnyPath | None = None,
    hop_s: float = 0.5,
    resampler: str = "soxr",
    keep_going: bool = False,
    output: AnyPath | None = None,
    progress: Progress | None = None,
    note: Note = _log.warning,
) -> "DriftReport":
    """Measure the drift of quantized embeddings from float embeddings on clips.

    Parameters
    ----------
    deployment : Deployment, str or pathlib.Path
        A deployment or its directory.
    clips : path or sequence of paths
        Audio files, or directories of them.
    manifest : str or pathlib.Path, optional
        A table of labelled clips, which adds classes and classifiers.
    runtime : str or sequence of str
        What runs the model under test, by the names of ``compare --runtime``: 'engine', 'node' or
        'device:/dev/ttyACM0' for example. By default the fastest with the exact result.
    reference : str, optional
        The float model to compare with, 'float:keras' for example. By default the fastest.
    weights : str or pathlib.Path, optional
        For 'float:keras': the weight file that the deployment was converted from.
    hop_s : float
        Seconds from one window of 1 s to the next.
    resampler : {'soxr', 'kaiser_best'}
        For clips with another sample rate than the network's.
    keep_going : bool
        Leave out clips that cannot be read, and list them in the report.
    output : str or pathlib.Path, optional
        Also write ``drift.html`` and ``drift.json`` here; needs the extra ``report``.
    progress : callable, optional
        Progress callback: ``(step, done, total)``; ``total`` is 0 if unknown.
    note : callable
        Called with a line of text that the user should see; by default it is logged.

    Returns
    -------
    DriftReport
        ``overall`` has the figures of the first runtime; ``to_json()`` has all of them.

    Raises
    ------
    EdgeL3Error
        If there are no clips, a clip cannot be read, or a runtime is unknown or not installed.

    Examples
    --------
    >>> report = compare("edgel3", "recordings", runtime="node")
    >>> report.overall.cosine_p5
    0.9988
    """
    paths = [clips] if isinstance(clips, str | PathLike) else list(clips)
    if not paths and manifest is None:
        raise EdgeL3Error("expected clips to compare on: CLIPS or --manifest, got neither")
    names = [runtime] if isinstance(runtime, str) else list(runtime)
    from edgel3_tflm.drift.runtimes import KERAS, Runtime

    asked = [*names, *([reference] if reference else [])]
    if weights is not None and KERAS not in asked:
        raise EdgeL3Error(f"expected {KERAS} as --runtime or --reference with --weights")
    deployment = _load(deployment)
    from edgel3_tflm.audio.manifest import read_manifest
    from edgel3_tflm.drift import compare as comparison
    from edgel3_tflm.drift.figures import JSON_NAME
    from edgel3_tflm.files import check_directory

    if output is not None:
        check_directory(Path(output), JSON_NAME)
    progress = progress or _ignore
    known: dict[str, Runtime] = {}
    if KERAS in asked:
        from edgel3_tflm.converters.keras.model import open_keras

        progress("load TensorFlow", 0, 0)
        known[KERAS] = open_keras(deployment, None if weights is None else Path(weights))
    report = comparison.compare(
        deployment,
        [Path(path) for path in paths],
        runtimes=[known.get(name, name) for name in names],
        reference=known.get(reference, reference) if reference else None,
        labelled=read_manifest(Path(manifest)) if manifest else [],
        hop_s=hop_s,
        resampler=resampler,
        keep_going=keep_going,
        progress=progress,
        note=note,
    )
    if output is not None:
        from edgel3_tflm.drift.report.write import write_report

        progress("write report", 0, 0)
        write_report(report, Path(output), [])
    return report


@dataclass(frozen=True)
class Estimate:
    """What a deployment needs on boards. Nothing in it was measured on a board.

    Parameters
    ----------
    deployment : Deployment
    footprint : Footprint
        Flash and RAM in bytes by part.
    work : Work
        Modelled cycles of a window.
    boards : tuple of BoardEstimate
    assumptions : tuple of str
        Sentences that a reader needs to judge the figures.
    """

    deployment: Deployment
    footprint: "Footprint"
    work: "Work"
    boards: tuple["BoardEstimate", ...]
    assumptions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        work = self.work
        return {
            "model": self.deployment.variant.name,
            "flash": dict(self.footprint.flash),
            "ram": dict(self.footprint.ram),
            "spare_arena_bytes": self.footprint.spare_arena_bytes,
            "cycles": {
                "frontend": work.frontend,
                "engine": [work.engine.low, work.engine.high],
                "engine_least_arena": [work.engine_least.low, work.engine_least.high],
            },
            "boards": [each.to_json() for each in self.boards],
            "assumptions": list(self.assumptions),
        }

    def _repr_html_(self) -> str:
        """Return a table of the boards for a notebook."""
        return html_table(
            f"{self.deployment.variant.name} on boards",
            ("board", "fits", "flash, bytes", "RAM, bytes", "network, s"),
            [
                (
                    each.board.title,
                    "yes" if each.fits else "no",
                    f"{each.flash_bytes:,}",
                    f"{each.memory.ram_bytes:,}",
                    f"{each.seconds.low:.2f} to {each.seconds.high:.2f}",
                )
                for each in self.boards
            ],
            self.assumptions,
        )


def estimate(
    deployment: Deployment | AnyPath,
    board: str | None = None,
    *,
    bench: AnyPath | None = None,
    build: bool = True,
    battery: "Battery | None" = None,
    awake_s: float | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Estimate flash, RAM and time that a deployment needs on boards.

    Parameters
    ----------
    deployment : Deployment, str or pathlib.Path
        A deployment or its directory.
    board : str, optional
        A board, 'portenta_h7_m7' for example; by default all.
    bench : str or pathlib.Path, optional
        A file with the cycles that ``make bench`` modelled for this deployment.
    build : bool
        Take the sizes from a build of the emulated board's firmware, if the compiler is installed;
        otherwise from the converter.
    battery : edgel3_tflm.device.estimate.Battery, optional
        Adds the windows per minute that it allows.
    awake_s : float, optional
        Measured seconds that the board is awake for a window.
    progress : callable, optional
        Progress callback: ``(step, done, total)``; ``total`` is 0 if unknown.

    Returns
    -------
    Estimate

    Raises
    ------
    EdgeL3Error
        If the board is unknown, the deployment has no packed model, or the C library is missing.

    Examples
    --------
    >>> found = estimate("edgel3", "portenta_h7_m7").boards[0]
    >>> found.fits, found.seconds.high
    (True, 2.43)
    """
    from edgel3_tflm.device import boards, estimate, firmware
    from edgel3_tflm.device.footprint import measure_footprint, plan_footprint

    chosen: Sequence[Board] = boards.BOARDS if board is None else [boards.find_board(board)]
    deployment = _load(deployment)
    footprint = plan_footprint(deployment)
    work = (
        estimate.estimate_work(deployment)
        if bench is None
        else estimate.read_bench(Path(bench), deployment)
    )
    if build and firmware.has_compiler():
        with tempfile.TemporaryDirectory() as scratch:
            (progress or _ignore)("build firmware", 0, 0)
            built = firmware.build_node(deployment.directory, Path(scratch))
            footprint = measure_footprint(built, deployment)
    estimates = tuple(
        estimate.estimate_board(each, footprint, work, battery=battery, awake_s=awake_s)
        for each in chosen
    )
    return Estimate(
        deployment,
        footprint,
        work,
        estimates,
        (
            f"sizes: {footprint.source}",
            f"cycles: {work.source}",
            "time: cycles by the board's clock, without waits for flash, RAM and mispredicted"
            " branches; nothing was measured on a board",
            *_describe_hearing(estimates),
            "budgets: the RAM left by the Arduino core with its stack, as boards.py says; the flash"
            " reserved for the core is an allowance",
            *_describe_battery(battery, awake_s),
        ),
    )


def _describe_hearing(estimates: Sequence["BoardEstimate"]) -> list[str]:
    """Describe how much of the sound the boards with a microphone hear."""
    boards: dict[str, list[str]] = {}
    for each in estimates:
        if each.memory.coverage is not None:
            heard = f"ears {each.memory.ears}, {100 * each.memory.coverage:.0f} % of the sound"
            boards.setdefault(heard, []).append(each.board.title)
    return [
        f"while the network runs: {heard} is in windows at least ({', '.join(titles)})"
        for heard, titles in boards.items()
    ]


def _describe_battery(battery: "Battery | None", awake_s: float | None) -> list[str]:
    if battery is None:
        return []
    awake = (
        "while the board listens (1 s) and the network runs"
        if awake_s is None
        else f"for {awake_s:g} s a window"
    )
    return [
        f"battery: {battery.energy_mwh:g} mWh for {battery.days:g} days;"
        f" {battery.active_mw:g} mW {awake}, {battery.sleep_mw:g} mW otherwise: assumptions"
    ]


def _load(deployment: Deployment | AnyPath) -> Deployment:
    return deployment if isinstance(deployment, Deployment) else Deployment.load(deployment)
