"""The command ``train-head``: a small int8 classifier for a board."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edgel3_tflm.cli.options import (
    MANIFEST_HELP,
    OldModelOption,
    OptionalDeploymentArgument,
    RuntimeOption,
    choices,
    settle_manifest,
)
from edgel3_tflm.cli.screen import JsonOption, QuietOption, new_table, open_screen
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.artefacts import HEAD_NAME
from edgel3_tflm.runtime.deployment import Deployment


def train_head_command(
    directory: OptionalDeploymentArgument = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help=f"Labelled clips: {MANIFEST_HELP}. Several labels of a clip are separated by"
            " semicolons.",
        ),
    ] = None,
    model: OldModelOption = None,
    kind: Annotated[
        str | None,
        typer.Option(
            **choices(("softmax", "sigmoid")),
            help="softmax: one class a clip; sigmoid: any number of classes. Default: what the"
            " labels"
            " need.",
        ),
    ] = None,
    runtime: RuntimeOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Directory to write to. Default: the model's."
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a small int8 classifier on the embeddings of labelled clips, for a board."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.converters.export.head_source import HEADER_NAME, SOURCE_NAME
        from edgel3_tflm.converters.export.head_training import train_head

        directory, manifest = settle_manifest(directory, manifest, model)
        if directory is None:
            raise EdgeL3Error("expected DEPLOYMENT, a directory that convert wrote, got none")
        deployment = Deployment.load(directory)
        with screen.progress() as progress:
            head, figures = train_head(manifest, deployment, progress, kind=kind, runtime=runtime)
        target = output or directory
        head.write(target)
        table = new_table("fold", "decisions", "correct\nfloat", "correct\nint8")
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
            Text(
                "each fold: a head trained on the other folds; the head written: trained on all"
                " folds"
            ),
            Text(f"{target}: {HEAD_NAME}, {SOURCE_NAME}, {HEADER_NAME}"),
        )
