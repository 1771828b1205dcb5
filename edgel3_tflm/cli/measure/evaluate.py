"""The command ``evaluate``: downstream accuracy of float and quantized embeddings."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.audio.datasets import DATASETS, MANIFEST_NAME, load_dataset
from edgel3_tflm.audio.manifest import HOP_S
from edgel3_tflm.cli.options import MANIFEST_HELP, DeploymentArgument, RuntimeOption
from edgel3_tflm.cli.screen import (
    JsonOption,
    QuietOption,
    describe_provenance,
    new_table,
    open_screen,
)
from edgel3_tflm.files import check_file, write_whole
from edgel3_tflm.runtime.deployment import Deployment

if TYPE_CHECKING:
    from edgel3_tflm.evaluation.evaluate import Evaluation


def evaluate_command(
    directory: DeploymentArgument,
    dataset: Annotated[
        str,
        typer.Option(
            metavar="|".join((*DATASETS, "DIR")),
            help=f"A published dataset with official folds, or a directory with a {MANIFEST_NAME}:"
            f" {MANIFEST_HELP}. Several labels of a clip are separated by semicolons.",
        ),
    ],
    data_home: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Directory of the unpacked dataset. Default: ~/sound_datasets/ and the dataset's"
            " name.",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download the dataset by soundata first.")
    ] = False,
    hop: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Seconds from the start of one window of 1 s to the next; L3-Net's authors: 0.1.",
        ),
    ] = HOP_S,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", help="Number of trainings, each with its own seed; figures are their mean."
        ),
    ] = 1,
    runtime: RuntimeOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write the result as JSON."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the result as an HTML page."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate embeddings by L3-Net's downstream classifier, an MLP, on a dataset's folds."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.evaluation.evaluate import Protocol, evaluate

        if page is not None:
            from edgel3_tflm.evaluation.page import render_evaluation

            check_file(page)
        if output is not None:
            check_file(output)
        deployment = Deployment.load(directory)
        with screen.progress() as progress:
            progress("find clips", 0, 0)
            found = evaluate(
                deployment,
                load_dataset(dataset, data_home, download=download),
                progress,
                protocol=Protocol(hop_s=hop, seeds=seeds),
                runtime=runtime,
            )
        result = found.to_json()
        lines = []
        if output is not None:
            write_whole(output, (json.dumps(result, indent=2) + "\n").encode())
            lines = [Text(f"result: {output}")]
        if page is not None:
            write_whole(page, render_evaluation(found).encode())
            lines.append(Text(f"page: {page}"))
        screen.show(
            result,
            describe_provenance(deployment),
            Text(
                f"{found.dataset}: {found.clips:,} clips, {found.windows:,} windows,"
                f" {len(found.labels)} classes; float, and {found.quantization} in {found.runtime};"
                f" resampled by {found.resampler}"
            ),
            *(Text(line) for line in found.protocol.describe()),
            _splits_table(found),
            _measures_table(found),
            *([_published_table(found)] if found.published else []),
            *(Text(note, style="yellow") for note in found.notes),
            *lines,
        )


def _splits_table(found: "Evaluation") -> Table:
    measure = found.measures[0].name
    table = new_table(
        "test",
        "clips\ntraining",
        "clips\nvalidation",
        "clips\ntest",
        f"float\n{measure}",
        f"{found.quantization}\n{measure}",
        "change",
    )
    for each in found.splits:
        table.add_row(
            each.name,
            f"{each.train_clips:,}",
            f"{each.validation_clips:,}",
            f"{each.test_clips:,}",
            _figure(measure, each.float_score),
            _figure(measure, each.quantized_score),
            _figure(measure, each.quantized_score - each.float_score, signed=True),
        )
    return table


def _measures_table(found: "Evaluation") -> Table:
    table = new_table("all test clips", "estimate", "from", "to")
    for each in found.measures:
        sides = {"float": each.in_float, found.quantization: each.quantized, "change": each.change}
        for side, interval in sides.items():
            bounds = (interval.estimate, interval.low, interval.high)
            table.add_row(
                f"{each.name}, {side}",
                *(_figure(each.name, value, signed=side == "change") for value in bounds),
            )
    return table


def _published_table(found: "Evaluation") -> Table:
    table = new_table("published, float", found.published[0].measure, "source")
    table.columns[-1].justify = "left"
    for each in found.published:
        table.add_row(each.title, _figure(each.measure, each.value), each.source)
    return table


def _figure(measure: str, value: float, *, signed: bool = False) -> str:
    digits = 2 if measure.endswith("%") else 4
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
