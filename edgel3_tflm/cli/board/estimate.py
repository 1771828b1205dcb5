"""The command ``estimate``: what a deployment needs on a board."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.cli.options import BOARD_NAMES, DeploymentArgument
from edgel3_tflm.cli.screen import JsonOption, new_table, open_screen
from edgel3_tflm.device import estimate
from edgel3_tflm.device.boards import BOARDS, find_board
from edgel3_tflm.device.firmware import build_node, has_compiler
from edgel3_tflm.device.footprint import Footprint, measure_footprint, plan_footprint
from edgel3_tflm.runtime.deployment import Deployment


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
        typer.Option(help="Energy of a battery in mWh; adds the windows a minute that it allows."),
    ] = None,
    days: Annotated[float, typer.Option(help="Days that the battery must last.")] = 30.0,
    active_mw: Annotated[
        float,
        typer.Option(help="Power in mW while the board listens or computes, an assumption."),
    ] = estimate.ACTIVE_MW,
    awake_s: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Seconds awake for a window, as `device bench` reports them. Default: 1 s of"
            " listening and the network.",
        ),
    ] = None,
    sleep_mw: Annotated[
        float, typer.Option(help="Power in mW while the board sleeps, an assumption.")
    ] = estimate.SLEEP_MW,
    as_json: JsonOption = False,
) -> None:
    """Estimate flash, RAM and time of a deployment on boards, and windows from a battery."""
    with open_screen(as_json=as_json) as screen:
        boards = BOARDS if board is None else [find_board(board)]
        deployment = Deployment.load(directory)
        battery = None
        if battery_mwh is not None:
            battery = estimate.Battery(battery_mwh, days, active_mw, sleep_mw)
        footprint = plan_footprint(deployment)
        work = (
            estimate.estimate_work(deployment)
            if bench is None
            else estimate.read_bench(bench, deployment)
        )
        if build and has_compiler():
            with tempfile.TemporaryDirectory() as scratch, screen.progress() as progress:
                progress("build firmware", 0, 0)
                firmware = build_node(directory, Path(scratch))
                footprint = measure_footprint(firmware, deployment)
        estimates = [
            estimate.estimate_board(each, footprint, work, battery=battery, awake_s=awake_s)
            for each in boards
        ]
        assumptions = [
            f"sizes: {footprint.source}",
            f"cycles: {work.source}",
            "time: cycles by the board's clock, without waits for flash, RAM and mispredicted"
            " branches; nothing was measured on a board",
            *_describe_hearing(estimates),
            "budgets: the RAM left by the Arduino core with its stack, as boards.py says; the flash"
            " reserved for the core is an allowance",
        ]
        if battery is not None:
            awake = (
                "while the board listens (1 s) and the network runs"
                if awake_s is None
                else f"for {awake_s:g} s a window"
            )
            assumptions.append(
                f"battery: {battery.energy_mwh:g} mWh for {battery.days:g} days;"
                f" {battery.active_mw:g} mW {awake}, {battery.sleep_mw:g} mW otherwise: assumptions"
            )
        screen.show(
            {
                "model": deployment.variant.name,
                "flash": dict(footprint.flash),
                "ram": dict(footprint.ram),
                "spare_arena_bytes": footprint.spare_arena_bytes,
                "cycles": {
                    "frontend": work.frontend,
                    "engine": [work.engine.low, work.engine.high],
                    "engine_least_arena": [work.engine_least.low, work.engine_least.high],
                },
                "boards": [each.to_json() for each in estimates],
                "assumptions": assumptions,
            },
            Text(deployment.manifest["weights"]["description"]),
            _parts_table(footprint),
            _estimates_table(estimates),
            *(Text(line) for line in assumptions),
        )


def _describe_hearing(estimates: list[estimate.BoardEstimate]) -> list[str]:
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


def _format_range(values: estimate.Range, digits: int) -> str:
    low, high = (f"{value:,.{digits}f}" for value in (values.low, values.high))
    return low if low == high else f"{low} to {high}"


def _estimates_table(estimates: list[estimate.BoardEstimate]) -> Table:
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
