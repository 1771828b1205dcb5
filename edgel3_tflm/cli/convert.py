"""The command ``convert``: weights to a deployment."""

from pathlib import Path
from typing import Annotated

import typer

from edgel3_tflm.api.deploying import DEFAULT_SPARSITY, convert
from edgel3_tflm.cli.info import describe_deployment, files_table
from edgel3_tflm.cli.options import (
    WEIGHTS_HELP,
    CalibrationOption,
    EmbeddingSizeOption,
    ModelTypeOption,
    RetrainTypeOption,
    choices,
)
from edgel3_tflm.cli.screen import JsonOption, QuietOption, open_screen
from edgel3_tflm.networks.catalogue import PLANS, WIDTHS
from edgel3_tflm.runtime.artefacts import QUANTIZATIONS

_SPARSITIES = ", ".join(plan.label for plan in PLANS)


def convert_command(
    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help=f"Percent of zeros: {_SPARSITIES}. For --model-type sparse.",
            show_default=DEFAULT_SPARSITY,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with the percent of zeros of each layer, instead of --sparsity.",
        ),
    ] = None,
    embedding_layer: Annotated[
        str | None,
        typer.Option(
            metavar="conv1..conv8",
            help="Cut the network after this convolution; the embedding comes from there.",
        ),
    ] = None,
    filters: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...|NAME",
            help="Number of filters to keep in each convolution: those with the largest absolute"
            f" kernel weights. Or a published list: {', '.join(WIDTHS)}.",
        ),
    ] = None,
    retrain_type: RetrainTypeOption = "ft",
    model_type: ModelTypeOption = "sparse",
    embedding_size: EmbeddingSizeOption = 128,
    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto|published|bundled|generated",
            help=f"{WEIGHTS_HELP}; generated: untrained weights, for tests.",
        ),
    ] = "auto",
    calibration: CalibrationOption = None,
    quantization: Annotated[
        str,
        typer.Option(
            **choices(QUANTIZATIONS),
            help="int16x8: activations of 16 bits, weights of 8.",
        ),
    ] = "int8",
    calibration_method: Annotated[
        str,
        typer.Option(
            **choices(("auto", "minmax", "percentile", "mse")),
            help="How to choose the ranges of int8 activations. auto takes the best method on the"
            " calibration clips; so do the next three options if they are not given.",
        ),
    ] = "auto",
    equalize: Annotated[
        bool | None,
        typer.Option(
            "--equalize/--no-equalize", help="Equalize the ranges of the channels of a map."
        ),
    ] = None,
    bias_correction: Annotated[
        bool | None,
        typer.Option(
            "--bias-correction/--no-bias-correction",
            help="Subtract each channel's mean error from its bias.",
        ),
    ] = None,
    adaround: Annotated[
        bool | None,
        typer.Option(
            "--adaround/--no-adaround", help="Learn whether to round each weight up or down."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Directory to write."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prune, quantize and export a network: flatbuffers, packed model, C arrays, manifest."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        with screen.progress() as progress:
            deployment = convert(
                output,
                model_type=model_type,
                sparsity=sparsity,
                embedding_size=embedding_size,
                retrain_type=retrain_type,
                weights=weights,
                plan=plan,
                embedding_layer=embedding_layer,
                filters=filters,
                calibration=calibration,
                quantization=quantization,
                calibration_method=calibration_method,
                equalize=equalize,
                bias_correction=bias_correction,
                adaround=adaround,
                progress=progress,
                note=progress.note,
            )
        manifest = deployment.manifest
        screen.show(
            {"directory": str(deployment.directory), **manifest},
            *describe_deployment(deployment),
            files_table(deployment),
        )
