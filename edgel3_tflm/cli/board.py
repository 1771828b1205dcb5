"""Commands about the application on a board: a head for it, the project, what it will need."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.cli.screen import JsonOption, QuietOption, new_table, open_screen
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME, RUNTIMES

if TYPE_CHECKING:
    from edgel3_tflm.device.estimate import BoardEstimate, Footprint, Range

_BOARD_NAMES = ", ".join(board.name for board in BOARDS)

HEAD_HELP = (
    "the file or directory that train-head wrote. Without this option: the deployment's own head,"
    " if it has one."
)

DeploymentArgument = Annotated[
    Path, typer.Argument(metavar="DEPLOYMENT", help="What convert wrote.")
]


def train_head_command(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="CLIPS",
            help="Tab-separated: columns file, label and fold; semicolons between several labels of"
            " a clip.",
        ),
    ],
    directory: Annotated[Path, typer.Option("--model", metavar="DIR", help="What convert wrote.")],
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="softmax|sigmoid",
            help="One class a clip, or any number of them; as the labels are if not given.",
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help=f"Runtime of the model: {', '.join(RUNTIMES)}.")
    ] = DEFAULT_RUNTIME,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where to write; into the model's own."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a small int8 classifier on the embeddings of labelled clips, for a board."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.converters.export.head import (
            HEAD_NAME,
            HEADER_NAME,
            SOURCE_NAME,
            train_head,
        )

        deployment = Deployment.load(directory)
        with screen.progress() as progress:
            head, figures = train_head(manifest, deployment, progress, kind=kind, runtime=runtime)
        target = output or directory
        head.write(target)
        table = new_table("fold", "decisions", "right\nfloat", "right\nint8")
        for each in figures:
            table.add_row(
                str(each.fold), str(each.decisions), str(each.right_float), str(each.right_int8)
            )
        table.add_section()
        percents = [head.provenance[f"accuracy_{name}_percent"] for name in ("float", "int8")]
        table.add_row(
            "all",
            str(sum(each.decisions for each in figures)),
            *(f"{percent:.2f} %" for percent in percents),
        )
        screen.show(
            {
                "directory": str(target),
                "kind": head.kind,
                "labels": head.labels,
                **head.provenance,
            },
            Text(head.provenance["weights"]),
            Text(f"{head.kind}, {len(head.labels)} classes: {', '.join(head.labels)}"),
            table,
            *(Text(note, style="yellow") for note in head.provenance["notes"]),
            Text("each fold judged by a head trained on the others; the one written, on all"),
            Text(f"{target}: {HEAD_NAME}, {SOURCE_NAME}, {HEADER_NAME}"),
        )


def export_app_command(
    directory: DeploymentArgument,
    board: Annotated[str, typer.Option(metavar="BOARD", help=f"{_BOARD_NAMES}.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Directory to write.")
    ],
    head: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help=HEAD_HELP),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="packed|tflm|tflm-builtin",
            help="What runs the network: the library alone, or TensorFlow Lite Micro with the"
            " library as its operator, or with its own dense kernels. TFLM is not part of the"
            " project.",
        ),
    ] = "packed",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a project for a board: sketch, library and model, to build without Python."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.converters.export.app import SKETCH_NAME, export_app, find_board

        chosen = find_board(board)
        deployment = Deployment.load(directory)
        exported = export_app(deployment, chosen, output, head, engine=engine)
        microphone = chosen.microphone
        screen.show(
            exported.to_json(),
            Text(deployment.manifest["weights"]["description"]),
            Text(
                f"{output}: {exported.model} for {chosen.title}, {exported.files} files,"
                + (f" a head of {exported.classes} classes" if exported.classes else " no head")
            ),
            Text(
                f"microphone: {microphone.where}"
                if microphone
                else "no microphone: audio comes from the host"
            ),
            *(
                [
                    Text(f"next: cd {output} && pio run -t upload"),
                    Text(f"or open {output / SKETCH_NAME / SKETCH_NAME}.ino in the Arduino IDE"),
                ]
                if engine == "packed"
                else [Text(f"next: {output / 'README.md'} says where TensorFlow Lite Micro goes")]
            ),
        )


def estimate_command(
    directory: DeploymentArgument,
    board: Annotated[
        str | None, typer.Option(metavar="BOARD", help=f"{_BOARD_NAMES}; all if none is named.")
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instructions that `make bench` counted: bench.json."),
    ] = None,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Count a window's instructions in QEMU, here and now.")
    ] = False,
    build: Annotated[
        bool,
        typer.Option(
            help="Build the emulated board's firmware where a compiler is at hand, and look into"
            " it; else take the converter's figures."
        ),
    ] = True,
    per_cycle: Annotated[
        tuple[float, float],
        typer.Option(metavar="LEAST MOST", help="Instructions per cycle: an assumption."),
    ] = (0.6, 1.2),
    battery_mwh: Annotated[
        float | None, typer.Option(help="Energy of a battery: how often can it embed?")
    ] = None,
    days: Annotated[float, typer.Option(help="How long the battery is to last.")] = 30.0,
    active_mw: Annotated[
        float, typer.Option(help="Power of the board while it listens or computes: an assumption.")
    ] = 600.0,
    sleep_mw: Annotated[
        float, typer.Option(help="Power of the board asleep: an assumption.")
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Estimate flash, RAM and time of a deployment on the boards, and what a battery allows."""
    with open_screen(as_json=as_json) as screen:
        from edgel3_tflm.device import estimate
        from edgel3_tflm.device.firmware import build_node, has_compiler

        boards = [each for each in BOARDS if board in (None, each.name)]
        if not boards:
            raise EdgeL3Error(f"unknown board {board!r}: expected one of {_BOARD_NAMES}")
        if bench is not None and emulate:
            raise EdgeL3Error("expected one of --bench FILE and --emulate, got both")
        deployment = Deployment.load(directory)
        battery = None
        if battery_mwh is not None:
            battery = estimate.Battery(battery_mwh, days, active_mw, sleep_mw)
        footprint = estimate.plan_footprint(deployment)
        work = (
            estimate.estimate_work(deployment)
            if bench is None
            else estimate.read_bench(bench, deployment)
        )
        if emulate or (build and has_compiler()):
            with tempfile.TemporaryDirectory() as scratch, screen.progress() as progress:
                progress("build firmware", 0, 0)
                firmware = build_node(directory, Path(scratch))
                footprint = estimate.measure_footprint(firmware)
                if emulate:
                    progress("count instructions", 0, 0)
                    work = estimate.measure_work(firmware, deployment)
        estimates = [
            estimate.estimate_board(each, footprint, work, per_cycle=per_cycle, battery=battery)
            for each in boards
        ]
        assumptions = [
            f"sizes: {footprint.source}",
            f"instructions: {work.source}",
            f"time: {per_cycle[0]:g} to {per_cycle[1]:g} instructions per cycle, an assumption;"
            " nothing was measured on a board",
            "memory to spare: what boards.py keeps free for the Arduino core is an allowance",
        ]
        if battery is not None:
            assumptions.append(
                f"battery: {battery.energy_mwh:g} mWh for {battery.days:g} days;"
                f" {battery.active_mw:g} mW for the second of listening and while the network runs,"
                f" {battery.sleep_mw:g} mW otherwise: assumptions"
            )
        screen.show(
            {
                "model": deployment.variant.name,
                "flash": dict(footprint.flash),
                "ram": dict(footprint.ram),
                "instructions": {
                    "frontend": [work.frontend.low, work.frontend.high],
                    "engine": [work.engine.low, work.engine.high],
                },
                "boards": [each.to_json() for each in estimates],
                "assumptions": assumptions,
            },
            Text(deployment.manifest["weights"]["description"]),
            _parts_table(footprint),
            _estimates_table(estimates),
            *(Text(line) for line in assumptions),
        )


def _parts_table(footprint: "Footprint") -> Table:
    table = new_table("part", "flash\nbytes", "RAM\nbytes")
    for name, size in footprint.flash.items():
        table.add_row(name, f"{size:,}", "")
    for name, size in footprint.ram.items():
        table.add_row(name, "", f"{size:,}")
    table.add_section()
    totals = [sum(part.values()) for part in (footprint.flash, footprint.ram)]
    table.add_row("all", *(f"{total:,}" for total in totals))
    return table


def _span(values: "Range", digits: int) -> str:
    low, high = (f"{value:,.{digits}f}" for value in (values.low, values.high))
    return low if low == high else f"{low} to {high}"


def _estimates_table(estimates: "list[BoardEstimate]") -> Table:
    rates = any(each.windows_per_minute for each in estimates)
    table = new_table(
        "board",
        "fits",
        "flash KiB\nof budget",
        "RAM KiB\nof budget",
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
            f"{each.ram_bytes / 1024:,.0f} of {each.board.ram_budget_bytes // 1024:,}",
            _span(each.frontend_seconds * 1000, 0),
            _span(each.seconds, 2),
            *([] if rate is None else [_span(rate, 1)]),
        )
    return table
