"""The commands about drift reports: ``report diff``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.cli.screen import JsonOption, new_table, open_screen
from edgel3_tflm.drift.diff import Change, diff_drift, read_drift
from edgel3_tflm.drift.figures import GROUPS

report_app = typer.Typer(help="Compare drift reports.")

_MAX_CLIP_ROWS = 10
_KEY_METRIC = "sqnr_db"
"""The only metric that the tables of groups, classes and clips show."""


@report_app.callback()
def _report() -> None:
    """Keep ``report`` a group: typer turns a group of one command into that command."""


@report_app.command("diff")
def diff_command(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="The earlier drift.json, or its directory.")
    ],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The later one.")],
    as_json: JsonOption = False,
) -> None:
    """Show the changes between two drift reports, largest first; --json has every figure."""
    with open_screen(as_json=as_json) as screen:
        found = diff_drift(read_drift(before), read_drift(after))
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
            found.to_json(),
            *(Text(f"NOTICE: {each}", style="bold yellow") for each in found.warnings),
            *(_changes_table(title, changes) for title, changes in moved.items() if changes),
            *(Text(f"moved most: {changes[0].where}") for changes in [moved["layer"]] if changes),
            *(Text(note) for note in found.notes),
            *([] if any(moved.values()) else [Text("nothing moved")]),
        )


def _changes_table(title: str, changes: Sequence[Change]) -> Table:
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
