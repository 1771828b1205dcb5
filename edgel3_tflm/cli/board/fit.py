"""The command ``fit``: the best network of the family for a board."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.audio.manifest import read_manifest, require_files
from edgel3_tflm.cli.options import BOARD_NAMES, MANIFEST_HELP, CalibrationOption
from edgel3_tflm.cli.screen import JsonOption, QuietOption, describe_weights, new_table, open_screen
from edgel3_tflm.converters.fit.budget import Budget, Limits
from edgel3_tflm.device.estimate import ACTIVE_MW, SLEEP_MW, Battery
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import WIDTHS, find_depth, find_filters, find_plan
from edgel3_tflm.networks.hints import Hints
from edgel3_tflm.networks.published import PUBLISHED_RESULTS
from edgel3_tflm.networks.sources import load_weights

if TYPE_CHECKING:
    from edgel3_tflm.converters.fit.choice import Judged
    from edgel3_tflm.converters.fit.fit import FitResult

_DEPTHS = [each.name for each in PUBLISHED_RESULTS if each.kind == "depth"]
_CELL_VOLTS = 3.7
_LEFT = "the candidates that were measured are kept; the same command continues"


def fit_command(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Directory of fit.json, fit.png, the winner's deployment and the measured"
            " candidates. A run that was interrupted there is continued.",
        ),
    ],
    board: Annotated[str | None, typer.Option(metavar="BOARD", help=f"{BOARD_NAMES}.")] = None,
    flash: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Most flash, instead of the board's.")
    ] = None,
    ram: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Most static RAM, instead of the board's.")
    ] = None,
    ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Most milliseconds of the network for the slowest window of the estimate;"
            " without --board at 480 MHz.",
        ),
    ] = None,
    battery_mwh: Annotated[
        float | None,
        typer.Option(metavar="MWH", help="Energy of a battery in mWh, for a board that sleeps."),
    ] = None,
    battery_mah: Annotated[
        float | None,
        typer.Option(
            metavar="MAH", help=f"Instead: its charge in mAh, of a cell of {_CELL_VOLTS:g} V."
        ),
    ] = None,
    days: Annotated[
        float, typer.Option(metavar="DAYS", help="Days that the battery must last.")
    ] = 30.0,
    windows_per_minute: Annotated[
        float, typer.Option(metavar="N", help="Windows a minute that the battery must allow.")
    ] = 1.0,
    active_mw: Annotated[
        float, typer.Option(metavar="MW", help="Power in mW of the board awake, an assumption.")
    ] = ACTIVE_MW,
    sleep_mw: Annotated[
        float, typer.Option(metavar="MW", help="Power in mW of the board asleep, an assumption.")
    ] = SLEEP_MW,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help=f"Labelled clips: {MANIFEST_HELP}. They add the accuracy of a linear probe."
            " Default: the calibration clips, without labels.",
        ),
    ] = None,
    fold: Annotated[
        list[int] | None,
        typer.Option(
            metavar="FOLD",
            help="Folds to test the probe on; repeatable. Default: all; with --distill the recipe's"
            " validation fold, because the students learn from the others.",
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Weights to try: sparse, dense L3 or SEA-UST; repeatable."
        ),
    ] = None,
    bundled: Annotated[
        bool, typer.Option("--bundled/--no-bundled", help="Try the package's stand-ins, too.")
    ] = True,
    sparsity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PERCENT",
            help="A published plan to which L3 networks with fewer zeros are pruned without"
            " retraining; repeatable.",
            show_default="95.45, 97, 98, 99",
        ),
    ] = None,
    embedding_layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="conv1..conv7",
            help="Cut the given networks after this convolution, without retraining; repeatable."
            f" Default: none; with --distill, {', '.join(_DEPTHS)} are trained.",
        ),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N,N,...|NAME",
            help="Cut the given networks to these filters, without retraining; repeatable."
            f" Default: none; with --distill, {', '.join(WIDTHS)} are trained.",
        ),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The teacher of the cosine, and of --distill. Default: of the networks tried as"
            " given, the one with the most weights that are not zero.",
        ),
    ] = None,
    distill: Annotated[
        bool,
        typer.Option(
            "--distill",
            help="Train the plans, depths and widths of which no weights are given. Each takes half"
            " an hour or more. SEA-UST is tried only as given.",
        ),
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recipe of --distill. Default: the stand-in's."),
    ] = None,
    curves: Annotated[
        bool,
        typer.Option(
            "--curves",
            help="Also write sparsity.png: accuracy against zeros, pruned alone and trained, with"
            " the teacher and the statistics of the log-mel as lines. Needs --manifest.",
        ),
    ] = False,
    calibration: CalibrationOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Choose the best network for a board or for limits, and convert it.

    Candidates are quantized without a search; the winner as convert does by default.
    """
    with open_screen(quiet=quiet, as_json=as_json, interrupted=_LEFT) as screen:
        if battery_mwh is not None and battery_mah is not None:
            raise EdgeL3Error("expected --battery-mwh or --battery-mah, got both")
        if battery_mah is not None:
            battery_mwh = _CELL_VOLTS * battery_mah
        if recipe is not None and not distill:
            raise EdgeL3Error("expected --recipe together with --distill")
        if curves and manifest is None:
            raise EdgeL3Error("expected --curves together with --manifest")
        plans = [find_plan(each) for each in sparsity or []]
        depths = [find_depth(each) for each in embedding_layer or []]
        widths = [find_filters(each) for each in filters or []]
        labelled = [] if manifest is None else read_manifest(manifest)
        if manifest is not None:
            require_files(labelled, manifest)
        from edgel3_tflm.converters.fit.candidates import DEFAULT_PLANS, Members, load_candidates
        from edgel3_tflm.converters.fit.fit import FitOptions, fit
        from edgel3_tflm.converters.fit.measurement import Sample
        from edgel3_tflm.converters.fit.missing import Distillation, read_fit_recipe
        from edgel3_tflm.networks.weight_files import inspect_weights

        battery = None
        if battery_mwh is not None:
            battery = Battery(battery_mwh, days, active_mw, sleep_mw)
        budget = Budget.of(Limits(board, flash, ram, ms, battery, windows_per_minute))
        distillation = None
        if distill:
            settings = read_fit_recipe(recipe)
            hints = Hints("--teacher-weights", recipe_table="teacher")
            teacher = load_weights(settings.teacher.variant, teacher_weights, hints=hints)
            distillation = Distillation(settings, teacher)
            if not depths and not widths and not plans:
                depths = [find_depth(each) for each in _DEPTHS]
                widths = list(WIDTHS.values())
            if fold is None and settings.validation.fold is not None and labelled:
                fold = [settings.validation.fold]
        elif teacher_weights is not None:
            teacher = inspect_weights(teacher_weights)
        members = Members(tuple(plans) or DEFAULT_PLANS, tuple(depths), tuple(widths))
        options = FitOptions(
            budget,
            tuple(load_candidates(weights or [], bundled=bundled)),
            members,
            Sample.of(labelled, calibration, fold),
            teacher if distill or teacher_weights is not None else None,
            distillation,
            curves,
        )
        with screen.progress() as progress:
            result = fit(options, output, progress, progress.note)
        screen.show({"directory": str(output), **result.record}, *_describe(result))
        if result.winner is None:
            raise EdgeL3Error(_explain(result))


def _describe(result: "FitResult") -> list[Table | Text]:
    record, ranked = result.record, sorted(result.candidates, key=lambda each: -each.quality)
    teacher = record["teacher"]
    lines: list[Table | Text] = [
        Text(record["budget"]["description"]),
        _table(ranked, result),
        *(
            Text(f"{number}: {each.figures.network}, {each.figures.origin}")
            for number, each in enumerate(ranked, start=1)
        ),
        Text(
            "+: on the Pareto front of accuracy (without labels, cosine), time, flash and RAM;"
            " candidates were quantized without a search"
        ),
        Text(
            f"cosine: of a linear map of the int8 embeddings to the {teacher['precision']}"
            f" embeddings of {teacher['network']}, {teacher['weights']}"
        ),
        Text(
            "time: modelled cycles, the range over windows of several sounds; nothing was measured"
            " on a board. SQNR: int8 against float, and all that a device does, from 16-bit samples"
            " on, against float"
        ),
        Text(f"rule: {record['rule']}"),
    ]
    if result.winner is not None and result.deployment is not None:
        winner = result.winner.figures
        lines += [
            Text(f"winner: {winner.network}, {winner.origin}: {record['reason']}", "bold"),
            describe_weights(winner.weights_kind, winner.weights),
            Text(f"deployment: {result.deployment.directory}, converted with a search"),
        ]
    return lines


def _table(ranked: "list[Judged]", result: "FitResult") -> Table:
    rates = any(each.needs.windows_per_minute is not None for each in ranked)
    table = new_table(
        "",
        "fits",
        "flash\nKiB",
        "RAM\nKiB",
        "time\nms",
        *(["windows\na minute"] if rates else []),
        "probe, %\n95 % interval",
        "cosine",
        "SQNR, dB\nint8, device",
    )
    front = result.front
    for number, each in enumerate(ranked, start=1):
        figures, needs = each.figures, each.needs
        low, high = (f"{1000 * end:,.0f}" for end in (needs.seconds.low, needs.seconds.high))
        rate = needs.windows_per_minute
        device = "-" if figures.device is None else f"{figures.device.sqnr_db:.1f}"
        table.add_row(
            Text(f"{number}{' +' if each in front else ''}"),
            Text("yes", "green") if each.fits else Text("no", "red"),
            f"{needs.flash_bytes / 1024:,.0f}",
            f"{needs.memory.ram_bytes / 1024:,.0f}",
            low if low == high else f"{low} to {high}",
            *(["-" if rate is None else f"{rate.low:.3g}"] if rates else []),
            _format_probe(figures.accuracy_percent, figures.interval_percent),
            f"{figures.cosine:.3f}",
            f"{figures.int8.sqnr_db:.1f}, {device}",
            style="bold" if each is result.winner else None,
        )
    return table


def _format_probe(accuracy: float | None, interval: tuple[float, float] | None) -> str:
    if accuracy is None or interval is None:
        return "-"
    return f"{accuracy:.1f} ({interval[0]:.1f} to {interval[1]:.1f})"


def _explain(result: "FitResult") -> str:
    """Return a line that says which limits the nearest candidate exceeds."""
    nearest = min(result.candidates, key=lambda each: (len(each.excesses), -each.quality))
    return (
        f"no candidate is within the budget; {nearest.figures.network} needs"
        f" {', '.join(nearest.excesses)}; raise a limit, or add networks by --weights, --sparsity,"
        " --embedding-layer or --filters"
    )
