"""The command ``convert``: weights to a deployment."""

from pathlib import Path
from typing import Annotated, cast

import typer

from edgel3_tflm.cli.info import describe_deployment, files_table
from edgel3_tflm.cli.options import (
    WEIGHTS_HELP,
    CalibrationOption,
    EmbeddingSizeOption,
    ModelTypeOption,
    RetrainTypeOption,
)
from edgel3_tflm.cli.screen import JsonOption, QuietOption, open_screen
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import (
    PLANS,
    WIDTHS,
    find_depth,
    find_filters,
    find_variant,
)
from edgel3_tflm.networks.sources import parse_weights_source
from edgel3_tflm.networks.variants import CONVOLUTIONS, Plan
from edgel3_tflm.runtime.artefacts import QUANTIZATIONS

_SPARSITIES = ", ".join(plan.label for plan in PLANS)
_DEFAULT_SPARSITY = "95.45"


def convert_command(
    sparsity: Annotated[
        str | None,
        typer.Option(
            help=f"Percent of zeros: {_SPARSITIES}. For --model-type sparse.",
            show_default=_DEFAULT_SPARSITY,
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
    emb_dim: EmbeddingSizeOption = 128,
    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto|published|bundled|generated",
            help=f"{WEIGHTS_HELP}; generated: untrained weights, for tests.",
        ),
    ] = "auto",
    calibration: CalibrationOption = None,
    quantization: Annotated[str, typer.Option(help=" or ".join(QUANTIZATIONS) + ".")] = "int8",
    calibration_method: Annotated[
        str,
        typer.Option(
            metavar="auto|minmax|percentile|mse",
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
        if sparsity is not None and plan is not None:
            raise EdgeL3Error("expected one of --sparsity and --plan FILE, got both")
        variant = find_variant(
            model_type,
            sparsity=_DEFAULT_SPARSITY if sparsity is None else sparsity,
            retrain_type=retrain_type,
            embedding_size=emb_dim,
        )
        from edgel3_tflm.converters.pipeline import ConvertOptions, convert
        from edgel3_tflm.converters.pruning.plan_file import read_plan
        from edgel3_tflm.converters.quantization.quantizer import (
            CalibrationMethod,
            QuantizerOptions,
        )

        depth = None if embedding_layer is None else find_depth(embedding_layer)
        if plan is not None:
            percents = read_plan(plan).layers
            if len(percents) == depth:  # layers that are cut off need no percent
                percents += (0,) * (CONVOLUTIONS - depth)
            variant = variant.with_plan(Plan(0, percents))
        options = ConvertOptions(
            variant,
            weights=parse_weights_source(weights),
            calibration=calibration,
            quantization=quantization,
            quantizer=QuantizerOptions(
                cast(CalibrationMethod, calibration_method), equalize, bias_correction, adaround
            ),
            depth=depth,
            filters=None if filters is None else find_filters(filters),
        )
        directory = output or Path(f"{options.target.name}-{quantization}")
        with screen.progress() as progress:
            deployment = convert(options, directory, progress, progress.note)
        manifest = deployment.manifest
        screen.show(
            {"directory": str(directory), **manifest},
            *describe_deployment(deployment),
            files_table(deployment),
        )
