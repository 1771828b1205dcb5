"""The command ``export-app``: a project for a board."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edgel3_tflm.cli.options import BOARD_NAMES, HEAD_HELP, DeploymentArgument, choices
from edgel3_tflm.cli.screen import JsonOption, QuietOption, open_screen
from edgel3_tflm.device.boards import find_board
from edgel3_tflm.device.footprint import MemoryPlan
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.deployment import Deployment

_RUNTIMES = ("engine", "tflm", "tflm-builtin")
_PACKED = "packed"
"""What the engine without TFLM is called in exported projects, and was called here."""


def export_app_command(
    directory: DeploymentArgument,
    board: Annotated[str, typer.Option(metavar="BOARD", help=f"{BOARD_NAMES}.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Directory to write.")
    ],
    head: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help=HEAD_HELP),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            **choices(_RUNTIMES),
            help="What runs the network. engine: the C library alone; tflm: TensorFlow Lite Micro"
            " (TFLM) with the library as its operator; tflm-builtin: TFLM with its own dense"
            " kernels.",
        ),
    ] = _RUNTIMES[0],
    tflm: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Sources of TFLM for the project: a tree that its create_tflm_tree.py wrote, or an"
            " Arduino library of TFLM. Without them, PlatformIO downloads a library.",
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a project for a board: sketch, library and model. Building it needs no Python."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.converters.export.app import export_app
        from edgel3_tflm.converters.export.board_files import SKETCH_NAME

        engine = _PACKED if runtime == "engine" else runtime
        if engine not in (_PACKED, *_RUNTIMES):
            raise EdgeL3Error(
                f"unknown runtime {runtime!r}: expected one of {', '.join(_RUNTIMES)}"
            )
        chosen = find_board(board)
        deployment = Deployment.load(directory)
        exported = export_app(deployment, chosen, output, head, engine=engine, tflm=tflm)
        microphone, memory = chosen.microphone, exported.memory
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
            *([] if memory.coverage is None else [Text(_describe_hearing(memory))]),
            *(
                [
                    Text(f"next: cd {output} && pio run -t upload"),
                    Text(f"or open {output / SKETCH_NAME / SKETCH_NAME}.ino in the Arduino IDE"),
                ]
                if engine == _PACKED or tflm is not None
                else [Text(f"next: {output / 'README.md'} says how to get TensorFlow Lite Micro")]
            ),
        )


def _describe_hearing(memory: MemoryPlan) -> str:
    """Describe whether the node hears while its network runs, and what the board gives up."""
    hears = "hears" if memory.ears == "open" else "does not hear"
    reason = (
        ""
        if memory.gives_up is None
        else "; open ears and the fastest kernels do not both fit, so it gives up the"
        f" {memory.gives_up}"
    )
    return (
        f"the node {hears} while its network runs: about {100 * (memory.coverage or 0):.0f} % of"
        f" the sound is in windows{reason}"
    )
