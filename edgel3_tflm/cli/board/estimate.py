"""The command ``estimate``: what a deployment needs on a board."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.api.deploying import estimate
from edgel3_tflm.cli.options import BOARD_NAMES, DeploymentArgument
from edgel3_tflm.cli.screen import JsonOption, new_table, open_screen
from edgel3_tflm.device.estimate import ACTIVE_MW, SLEEP_MW, Battery, BoardEstimate, Range
from edgel3_tflm.device.footprint import Footprint


def estimate_command(
    directory: DeploymentArgument,
    board: Annotated[
        str | None, typer.Option(metavar="BOARD", help=f"{BOARD_NAMES}. Default: all.")
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="bench.json with the cycles that `make bench` modelled."),
    ] = None,
    build: Annotated[
        bool,
        typer.Option(
            help="Take the sizes from a build of the emulated board's firmware, if its compiler is"
            " installed; otherwise from the converter."
        ),
    ] = True,
    battery_mwh: Annotated[
        float | None,
        typer.Option(
            metavar="MWH",
            help="Energy of a battery in mWh; adds the windows a minute that it allows.",
        ),
    ] = None,
    days: Annotated[
        float, typer.Option(metavar="DAYS", help="Days that the battery must last.")
    ] = 30.0,
    active_mw: Annotated[
        float,
        typer.Option(
            metavar="MW", help="Power in mW while the board listens or computes, an assumption."
        ),
    ] = ACTIVE_MW,
    awake_s: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Seconds awake for a window, as `device bench` reports them. Default: 1 s of"
            " listening and the network.",
        ),
    ] = None,
    sleep_mw: Annotated[
        float, typer.Option(metavar="MW", help="Power in mW while the board sleeps, an assumption.")
    ] = SLEEP_MW,
    as_json: JsonOption = False,
) -> None:
    """Estimate flash, RAM and time of a deployment on boards, and windows from a battery."""
    with open_screen(as_json=as_json) as screen:
        battery = None
        if battery_mwh is not None:
            battery = Battery(battery_mwh, days, active_mw, sleep_mw)
        with screen.progress() as progress:
            found = estimate(
                directory,
                board,
                bench=bench,
                build=build,
                battery=battery,
                awake_s=awake_s,
                progress=progress,
            )
        screen.show(
            found.to_json(),
            Text(found.deployment.manifest["weights"]["description"]),
            _parts_table(found.footprint),
            _estimates_table(found.boards),
            *(Text(line) for line in found.assumptions),
        )


def _parts_table(footprint: Footprint) -> Table:
    table = new_table("part", "flash\nbytes", "RAM\nbytes")
    for name, size in footprint.flash.items():
        table.add_row(name, f"{size:,}", "")
    for name, size in footprint.ram.items():
        table.add_row(name, "", f"{size:,}")
    table.add_section()
    totals = [sum(part.values()) for part in (footprint.flash, footprint.ram)]
    table.add_row("all", *(f"{total:,}" for total in totals))
    if footprint.spare_arena_bytes:
        least = totals[1] - footprint.spare_arena_bytes
        table.add_row("all, with the least arena", f"{totals[0]:,}", f"{least:,}")
    return table


def _format_range(values: Range, digits: int) -> str:
    low, high = (f"{value:,.{digits}f}" for value in (values.low, values.high))
    return low if low == high else f"{low} to {high}"


def _estimates_table(estimates: Sequence[BoardEstimate]) -> Table:
    rates = any(each.windows_per_minute for each in estimates)
    table = new_table(
        "board",
        "fits",
        "flash KiB\nof budget",
        "RAM KiB\nof budget",
        "arena",
        "log-mel\nms",
        "network\ns",
        *(["windows\na minute"] if rates else []),
    )
    for each in estimates:
        rate = each.windows_per_minute
        table.add_row(
            each.board.title,
            Text("yes", "green") if each.fits else Text("no", "red"),
            f"{each.flash_bytes / 1024:,.0f} of {each.board.flash_budget_bytes // 1024:,}",
            f"{each.memory.ram_bytes / 1024:,.0f} of {each.board.ram_budget_bytes // 1024:,}",
            each.memory.arena,
            f"{each.frontend_seconds * 1000:,.0f}",
            _format_range(each.seconds, 2),
            *(["no sleep" if rate is None else _format_range(rate, 1)] if rates else []),
        )
    return table
