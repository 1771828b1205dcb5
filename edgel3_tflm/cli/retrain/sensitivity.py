"""The command ``sensitivity``: the error that pruning each layer causes, and a plan."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.audio.clips import bundled_clips_directory, find_clips
from edgel3_tflm.audio.manifest import LabelledClip, read_manifest, require_files
from edgel3_tflm.cli.options import (
    BOARD_NAMES,
    MANIFEST_HELP,
    EmbeddingSizeOption,
    ModelTypeOption,
    RetrainTypeOption,
)
from edgel3_tflm.cli.screen import (
    JsonOption,
    QuietOption,
    describe_weights,
    new_table,
    open_screen,
)
from edgel3_tflm.device.boards import find_board
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import parse_weights_source

if TYPE_CHECKING:
    from edgel3_tflm.converters.compression.report import SensitivityStudy
    from edgel3_tflm.converters.compression.sensitivity import Score, Sensitivity

_DEFAULT_SPARSITIES = "50,70,80,90,95,98"


def sensitivity_command(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Directory to write to. Curves that were measured there before are reused.",
        ),
    ],
    model_type: ModelTypeOption = "dense",
    sparsity: Annotated[
        str,
        typer.Option(
            metavar="PERCENT",
            help="Percent of zeros of the given weights. For --model-type sparse.",
        ),
    ] = "95.45",
    retrain_type: RetrainTypeOption = "ft",
    embedding_size: EmbeddingSizeOption = 128,
    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto|published|bundled|generated",
            help="Weights to prune, as for convert.",
        ),
    ] = "auto",
    clips: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Clips to measure on: a file or a directory; repeatable. Default: those of the"
            " package.",
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="Labelled clips instead of --clips; they add the accuracy of a linear probe:"
            f" {MANIFEST_HELP}.",
        ),
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of windows of 1 s to measure on: the loudest of evenly spread clips."
            " Default: 64, or one for each clip of the manifest.",
        ),
    ] = None,
    sparsities: Annotated[
        str, typer.Option(metavar="LIST", help="Percents of zeros to measure in each layer.")
    ] = _DEFAULT_SPARSITIES,
    layers: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Layers to prune, such as conv1,conv8. Default: all."),
    ] = None,
    target_sparsity: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", help="Propose a plan with this percent of zeros over all kernels."
        ),
    ] = None,
    target_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            help="Propose a plan whose packed model has at most this number of bytes.",
        ),
    ] = None,
    target_cycles: Annotated[
        int | None,
        typer.Option(
            metavar="CYCLES",
            help="Propose a plan whose window takes at most this number of modelled cycles of a"
            " Cortex-M7.",
        ),
    ] = None,
    target_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="The same in milliseconds on --board, without log-mel."),
    ] = None,
    board: Annotated[
        str | None, typer.Option(metavar="BOARD", help=f"For --target-ms: {BOARD_NAMES}.")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the error that pruning each layer alone causes; propose a plan for a target."""

    def describe_what_is_left() -> str:
        from edgel3_tflm.converters.compression.report import describe_partial_study

        return describe_partial_study(output)

    with open_screen(quiet=quiet, as_json=as_json, interrupted=describe_what_is_left) as screen:
        variant = find_variant(
            model_type, sparsity=sparsity, retrain_type=retrain_type, embedding_size=embedding_size
        )
        percents = _read_percents(sparsities)
        if clips and manifest is not None:
            raise EdgeL3Error("expected --clips or --manifest, got both")
        targets = {
            "--target-sparsity": target_sparsity,
            "--target-bytes": target_bytes,
            "--target-cycles": target_cycles,
            "--target-ms": target_ms,
        }
        if len(named := [name for name, value in targets.items() if value is not None]) > 1:
            raise EdgeL3Error(f"expected one target, got {' and '.join(named)}")
        if (target_ms is None) != (board is None):
            raise EdgeL3Error(
                "expected --target-ms MILLISECONDS and --board BOARD, got one of them"
            )
        if target_ms is not None and board is not None:
            target_cycles = math.floor(target_ms / 1000 * find_board(board).clock_hz)
        from edgel3_tflm.converters.compression.allocation import Target
        from edgel3_tflm.converters.compression.report import (
            HTML_NAME,
            PLAN_NAME,
            PLOT_NAME,
            SCORE_TITLES,
            study_sensitivity,
        )
        from edgel3_tflm.converters.compression.sensitivity import load_network, sample_clips

        target = None
        if target_sparsity is not None:
            target = Target("sparsity", target_sparsity)
        elif target_bytes is not None:
            target = Target("bytes", target_bytes)
        elif target_cycles is not None:
            target = Target("cycles", target_cycles)
        source = parse_weights_source(weights)
        chosen: list[Path | LabelledClip] = []
        if manifest is not None:
            labelled = read_manifest(manifest)
            require_files(labelled, manifest)
            chosen += labelled
        else:
            chosen += find_clips(clips or [bundled_clips_directory()])
        with screen.progress() as progress:
            network = load_network(variant, source, progress)
            sample = sample_clips(chosen, network.variant.frontend, windows, progress)
            names = [layer.name for layer in network.variant.layers]
            study = study_sensitivity(
                network,
                sample,
                sparsities=percents,
                layers=names if layers is None else [each.strip() for each in layers.split(",")],
                target=target,
                output=output,
                progress=progress,
            )
        found = study.sensitivity
        given = found.layers[0].points[0].score
        tables = [
            _scores_table(found, name, title)
            for name, title in SCORE_TITLES.items()
            if getattr(given, name) is not None
        ]
        names = [HTML_NAME, PLOT_NAME, *([PLAN_NAME] if study.proposal else [])]
        written = [output / name for name in names]
        screen.show(
            {"directory": str(output), **study.to_json()},
            *_describe(found),
            *tables,
            *_describe_plan(study),
            Text(f"written: {', '.join(map(str, written))}"),
        )


def _read_percents(words: str) -> list[float]:
    try:
        return [float(word) for word in words.split(",")]
    except ValueError as error:
        raise EdgeL3Error(
            f"expected percents separated by commas (--sparsities {_DEFAULT_SPARSITIES}), got"
            f" {words!r}"
        ) from error


def _describe(found: "Sensitivity") -> list[Text]:
    inputs = found.inputs
    weights, clips = inputs["weights"], inputs["clips"]
    lines = [
        describe_weights(weights["kind"], f"{inputs['variant']}: {weights['description']}"),
        Text(
            f"{inputs['windows'] - inputs['windows_kept']} windows of"
            f" {sum(not clip['is_kept'] for clip in clips)} clips measure the layers;"
            f" {inputs['windows_kept']} windows of other clips validate the plan"
        ),
    ]
    given = [
        f"{curve.name} {curve.points[0].percent:.4g} %"
        for curve in found.layers
        if curve.points[0].zeros
    ]
    if given:
        lines.append(Text(f"layers that had zeros, and were pruned to more: {', '.join(given)}"))
    if found.layers[0].points[0].score.probe_percent is not None:
        # The standard error of a share p of n clips, sqrt(p (1 - p) / n), is largest at p = 0.5.
        error = 50 / math.sqrt(len(clips))
        lines.append(
            Text(
                f"linear probe over the folds of all {len(clips)} clips: the standard error is at"
                f" most {error:.1f} points"
            )
        )
    return lines


def _scores_table(found: "Sensitivity", name: str, title: str) -> Table:
    """Return a table with a column for each layer, which 80 characters have room for."""
    percents = found.inputs["sparsities"]
    table = new_table(title, *(curve.name for curve in found.layers))
    columns = []
    for curve in found.layers:
        # A layer has no points for percents that it exceeded when given: the lowest ones.
        given, *cells = [_format(name, getattr(point.score, name)) for point in curve.points]
        columns.append([given, *["-"] * (len(percents) - len(cells)), *cells])
    rows = ["as given", *(f"{percent:g} %" for percent in percents)]
    for row, values in zip(rows, zip(*columns, strict=True), strict=True):
        table.add_row(row, *values)
    return table


def _format(name: str, value: float) -> str:
    if name == "mean_squared_error":
        return f"{value:.2g}"
    return f"{value:.1f}" if name == "probe_percent" else f"{value:.3f}"


def _describe_plan(study: "SensitivityStudy") -> list[Any]:
    if study.proposal is None or study.evaluation is None:
        return []
    plan, evaluation = study.proposal.plan, study.evaluation
    table = new_table("plan", *(f"conv{number}" for number in range(1, len(plan.layers) + 1)))
    table.add_row("zeros, %", *(f"{percent:g}" for percent in plan.layers))
    lines: list[Any] = [
        table,
        Text(
            f"{plan.total:g} % zeros, packed at most {study.proposal.packed_bytes:,} bytes, at most"
            f" {study.proposal.cycles / 1e6:,.1f} M modelled cycles; mean squared error"
            f" {evaluation.seen.mean_squared_error:.3g}; sum of the layers' errors"
            f" {study.proposal.predicted_error:.3g}"
        ),
    ]
    kept, uniform = evaluation.kept, evaluation.uniform_kept
    if kept is None or uniform is None:
        lines.append(Text("too few clips for a validation set for the plan", style="yellow"))
        return lines
    lines.append(
        Text(
            f"validation set: {_format_score(kept)}; {evaluation.uniform_percent:g} % in every"
            f" layer: {_format_score(uniform)}"
        )
    )
    if kept.mean_squared_error >= uniform.mean_squared_error:
        lines.append(
            Text(
                "the same percentage in every layer is no worse: at this size the layers' errors no"
                " longer add up, and only retraining helps",
                style="yellow",
            )
        )
    return lines


def _format_score(score: "Score") -> str:
    return (
        f"error {score.mean_squared_error:.3g}, cosine {score.cosine_mean:.4f}, centred"
        f" {score.centred_cosine_mean:.4f}"
    )
