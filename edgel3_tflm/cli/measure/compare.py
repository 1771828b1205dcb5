"""The command ``compare``: int8 embeddings against float embeddings."""

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.api.deploying import compare
from edgel3_tflm.audio.resampling import SOXR
from edgel3_tflm.cli.measure.gates import describe_gates
from edgel3_tflm.cli.options import (
    FASTEST,
    MANIFEST_HELP,
    DeploymentArgument,
    HopOption,
    ResamplerOption,
)
from edgel3_tflm.cli.screen import (
    JsonOption,
    QuietOption,
    describe_provenance,
    new_table,
    open_screen,
)
from edgel3_tflm.drift.downstream import Interval
from edgel3_tflm.drift.figures import JSON_NAME, DriftFigures, DriftReport
from edgel3_tflm.drift.gates import (
    GATE_NAMES,
    check_gates,
    read_gates,
    to_junit,
)
from edgel3_tflm.drift.report.verdict import (
    Verdict,
    describe_boards,
    describe_classifiers,
    describe_survival,
    judge,
)
from edgel3_tflm.drift.runtimes import (
    COMPARABLE_RUNTIMES,
    FLOAT_RUNTIMES,
    KERAS,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import check_directory, check_file, write_whole

_MAX_CLIP_ROWS = 10


def compare_command(
    directory: DeploymentArgument,
    clips: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CLIPS", help="Audio files, or directories of them."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help=f"Labelled clips to compare on: {MANIFEST_HELP}.",
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Runtime of the model under test; repeatable: {', '.join(COMPARABLE_RUNTIMES)}.",
            show_default=FASTEST,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"The float model that is the reference: {', '.join(FLOAT_RUNTIMES)}.",
            show_default="the fastest, measured once",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"With {KERAS}: the weight file that DEPLOYMENT was converted from; not needed for"
            " the stand-in and for published weights.",
        ),
    ] = None,
    hop: HopOption = 0.5,
    resampler: ResamplerOption = SOXR,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            "-k",
            help="Leave out clips that cannot be read, list them, and exit with status 1 at the"
            " end.",
        ),
    ] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LIMIT",
            help="Exit with status 2 if a metric is below its limit in any runtime; repeatable."
            " Metrics:"
            f" {', '.join(name for name in GATE_NAMES if '.' not in name)}.",
        ),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LIMIT",
            help="Exit with status 2 if a metric is above its limit; repeatable.",
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write these checks as JUnit XML."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Directory of the report. Default: DEPLOYMENT-drift.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write embeddings, log-mel and layer outputs of both sides as .npz files.",
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the drift of quantized embeddings from float embeddings on your clips."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        gates = read_gates(fail_under or [], fail_over or [])
        if junit is not None and not gates:
            raise EdgeL3Error("expected --fail-under or --fail-over with --junit, got neither")
        from edgel3_tflm.drift.report.export import EMBEDDINGS_NAME, export_arrays
        from edgel3_tflm.drift.report.write import HTML_NAME, report_json, write_report

        target = output or directory.resolve().with_name(f"{directory.resolve().name}-drift")
        check_directory(target, JSON_NAME)
        if export is not None:
            check_directory(export, EMBEDDINGS_NAME)
        if junit is not None:
            check_file(junit)
        with screen.progress() as progress:
            report = compare(
                directory,
                clips or [],
                manifest=manifest,
                runtime=runtime or [],
                reference=reference,
                weights=weights,
                hop_s=hop,
                resampler=resampler,
                keep_going=keep_going,
                progress=progress,
                note=progress.note,
            )
            results = check_gates(report, gates)
            progress("write report", 0, 0)
            write_report(report, target, results)
            if export is not None:
                export_arrays(report, export)
            if junit is not None:
                write_whole(junit, to_junit(results, report.deployment.variant.name).encode())
        screen.show(
            report_json(report, results),
            describe_provenance(report.deployment),
            _drift_table(report),
            *_drift_lines(report),
            *_verdict_lines(report, judge(report)),
            *describe_gates(results),
            Text(f"report: {target / HTML_NAME}, {target / JSON_NAME}"),
            *([] if export is None else [Text(f"arrays: {export}")]),
        )
        for reason in report.damaged.values():
            screen.error(reason)
    if not all(result.passed for result in results):
        raise typer.Exit(2)
    if report.damaged:
        raise typer.Exit(1)


def _verdict_lines(report: DriftReport, verdict: Verdict) -> list[Text]:
    return [
        Text(describe_boards(report)),
        Text(describe_survival(report)),
        Text(describe_classifiers(report.downstream.classifiers)),
        Text(verdict.summary, style="bold"),
        *(Text(f"{each.text} {each.remedy} {each.command}".rstrip()) for each in verdict.findings),
    ]


def _drift_table(report: DriftReport) -> Table:
    table = new_table(
        f"worst {min(len(report.clips), _MAX_CLIP_ROWS)} clips",
        "windows",
        "cosine\nmean",
        "cosine\n5th pct",
        "cosine\nworst",
        "centred\nmean",
        "SQNR\ndB",
    )

    def add(name: str, figures: DriftFigures) -> None:
        table.add_row(
            name,
            f"{figures.windows:,}",
            f"{figures.cosine_mean:.4f}",
            f"{figures.cosine_p5:.4f}",
            f"{figures.cosine_worst:.4f}",
            f"{figures.centred_cosine_mean:.4f}",
            f"{figures.sqnr_db:.2f}",
        )

    worst_first = sorted(report.clips, key=lambda drift: drift.figures.cosine_worst)
    for drift in worst_first[:_MAX_CLIP_ROWS]:
        add(Path(drift.clip).name, drift.figures)
    if report.first.classes:
        table.add_section()
        for label, figures in report.first.classes.items():
            add(label, figures)
    for each in report.runtimes:
        table.add_section()
        add(each.name, each.overall)
        if len(each.groups) > 2:  # some windows are silent
            for group, figures in list(each.groups.items())[1:]:
                add(f"  {group.replace('_', ' ')}", figures)
    return table


def _drift_lines(report: DriftReport) -> list[Text]:
    names = ", ".join(each.name for each in report.runtimes)
    lines = [
        Text(
            f"{len(report.clips)} clips; reference: the float model in {report.float_runtime};"
            f" under test: {names}"
        ),
        Text(f"{report.overall.silent_windows:,} windows are silent"),
    ]
    first = report.first.name
    for drift in report.runtimes[1:]:
        name = drift.name
        if drift.values_apart == 0:
            lines.append(Text(f"{name}: the same values as {first}"))
        elif drift.values_apart > 0:
            share = f"{100 * drift.values_apart:.3g} % of the values differ from {first}"
            lines.append(Text(f"{name}: {share}, by at most {drift.steps_apart:.0f} steps"))
    if report.layers is not None:
        most = report.layers.costliest
        lines.append(
            Text(
                f"{most.name} adds most error: SQNR {most.sqnr_db:.1f} dB after it"
                f" ({report.layers.windows} windows in {report.layers.runtime})"
            )
        )
    if report.frontend is not None:
        steps = report.frontend.steps
        lines.append(
            Text(
                "SQNR on the way to a device's embedding: "
                + ", ".join(f"{name} {drift.sqnr_db:.1f} dB" for name, drift in steps)
                + f" ({report.frontend.windows} windows)"
            )
        )
    down = report.downstream
    agreement = (
        f"{100 * down.neighbour_agreement:.1f} % of the windows keep their nearest neighbour; "
    )
    if math.isnan(down.neighbour_agreement):
        agreement = ""  # there is only one clip
    lines.append(Text(f"{agreement}linear CKA {down.linear_cka:.5f}"))
    lines += [
        Text(
            f"{each.name}: {_interval(each.float_percent)} % correct in float,"
            f" {_interval(each.quantized_percent)} % in {first};"
            f" change {_interval(each.change_points)} points"
        )
        for each in down.classifiers
    ]
    return lines + [Text(note, style="yellow") for note in report.notes]


def _interval(interval: Interval) -> str:
    return f"{interval.estimate:.1f} ({interval.low:.1f} to {interval.high:.1f})"
