"""Commands about the application on a board: a head for it, the project, what it will need."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edgel3_tflm.boards import BOARDS
from edgel3_tflm.deployment import Deployment
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.interpreters import DEFAULT_RUNTIME, RUNTIMES
from edgel3_tflm.screen import JsonOption, QuietOption, new_table, open_screen

_BOARD_NAMES = ", ".join(board.name for board in BOARDS)

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
        from edgel3_tflm.converters.head import HEAD_NAME, HEADER_NAME, SOURCE_NAME, train_head

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
        typer.Option(
            metavar="FILE", help="What train-head wrote; the deployment's own, if it has one."
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a project for a board: sketch, library and model, to build without Python."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.converters.app import SKETCH_NAME, export_app, find_board
        from edgel3_tflm.converters.head import HEAD_NAME

        chosen = find_board(board)
        deployment = Deployment.load(directory)
        if output.resolve() == directory.resolve():
            raise EdgeL3Error(f"{output}: expected another directory than the deployment's own")
        if head is None and (directory / HEAD_NAME).is_file():
            head = directory / HEAD_NAME
        exported = export_app(deployment, chosen, output, head)
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
            Text(f"next: cd {output} && pio run -t upload"),
            Text(f"or open {output / SKETCH_NAME / SKETCH_NAME}.ino in the Arduino IDE"),
        )
