"""The commands about drift reports: ``report diff``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.cli.command import HELP_NAMES, Command, Group, make_epilog
from edgel3_tflm.cli.measure.gates import describe_gates
from edgel3_tflm.cli.screen import JsonOption, new_table, open_screen
from edgel3_tflm.drift.gates import check_changes, gates_json, read_change_gates, to_junit
from edgel3_tflm.drift.windows import GROUPS
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import check_file, write_whole

if TYPE_CHECKING:
    from edgel3_tflm.drift.diff import Change

report_app = typer.Typer(cls=Group, help="Compare drift reports.")

_MAX_CLIP_ROWS = 10
_MAX_RANKED_ROWS = 6
_KEY_METRIC = "sqnr_db"
"""The only metric that the tables of groups, classes and clips show."""


@report_app.callback()
def _report() -> None:
    """Keep ``report`` a group: typer turns a group of one command into that command."""


@report_app.command(
    "diff", cls=Command, context_settings=HELP_NAMES, epilog=make_epilog("report diff")
)
def diff_command(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="The earlier drift.json, or its directory.")
    ],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The later one.")],
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CHANGE",
            help="Exit with 2 if a metric got worse by more than CHANGE; repeatable. The metrics"
            " are those of compare --fail-under.",
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write these checks as JUnit XML."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Also write the changes as an HTML page."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the changes between two drift reports, largest first; --json has every figure."""
    with open_screen(as_json=as_json) as screen:
        gates = read_change_gates(fail_over or [])
        if junit is not None and not gates:
            raise EdgeL3Error("expected --fail-over with --junit, got none")
        from edgel3_tflm.drift.diff import diff_drift
        from edgel3_tflm.drift.drift_json import read_drift

        if output is not None:
            from edgel3_tflm.drift.report.diff_page import render_diff

            check_file(output)
        old, new = read_drift(before), read_drift(after)
        if junit is not None:
            check_file(junit)
        found = diff_drift(old, new)
        results = check_changes(old, new, gates)
        if junit is not None:
            write_whole(junit, to_junit(results, new.variant).encode())
        if output is not None:
            title = f"Drift of {new.variant}: before and after"
            page = render_diff(title, found, results, str(before), str(after))
            write_whole(output, page.encode())
        metrics = [
            change
            for change in found.metrics
            if change.name == _KEY_METRIC or change.where.endswith(f", {GROUPS[0]}")
        ]
        classes, clips = (
            [change for change in changes if change.name == _KEY_METRIC][:_MAX_CLIP_ROWS]
            for changes in (found.classes, found.clips)
        )
        tables = {
            "runtime, windows": metrics,
            "layer": found.layers,
            "class": classes,
            "clip": clips,
            "frontend": found.frontend,
            "downstream": found.downstream,
            "size": found.sizes,
        }
        moved = {
            title: [change for change in changes if change.has_moved]
            for title, changes in tables.items()
        }
        screen.show(
            {**found.to_json(), "gates": gates_json(results)},
            *(Text(f"NOTICE: {each}", style="bold yellow") for each in found.warnings),
            *([_ranked_table(ranked)] if (ranked := found.rank()[:_MAX_RANKED_ROWS]) else []),
            *(_changes_table(title, changes) for title, changes in moved.items() if changes),
            *(Text(f"moved most: {changes[0].where}") for changes in [moved["layer"]] if changes),
            *(Text(note) for note in found.notes),
            *([] if output is None else [Text(f"page: {output}")]),
            *([] if any(moved.values()) else [Text("nothing moved")]),
            *describe_gates(results),
        )
    if not all(result.passed for result in results):
        raise typer.Exit(2)


def _ranked_table(changes: "Sequence[Change]") -> Table:
    table = new_table("what matters: worse first", "figure", "before", "after", "error\ndB")
    table.columns[1].justify = "left"
    for change in changes:
        table.add_row(
            change.where,
            change.name,
            *("-" if value is None else f"{value:.6g}" for value in (change.before, change.after)),
            Text(f"{change.error_db:+.2f}", "red" if change.error_db > 0 else "green"),
        )
    return table


def _changes_table(title: str, changes: "Sequence[Change]") -> Table:
    table = new_table(title, "figure", "before", "after", "moved")
    table.columns[1].justify = "left"
    colours = {True: "red", False: "green", None: "yellow"}
    for change in changes:
        table.add_row(
            change.where,
            change.name,
            *("-" if value is None else f"{value:.6g}" for value in (change.before, change.after)),
            Text("?" if change.moved is None else f"{change.moved:+.3g}", colours[change.is_worse]),
        )
    return table
