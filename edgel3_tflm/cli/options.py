"""Arguments and options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgel3_tflm.audio.resampling import RESAMPLERS
from edgel3_tflm.cli.command import notice
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.interpreters import EMBEDDER_RUNTIMES, RUNTIMES

MODEL_TYPES = ("sparse", "sea", "dense")
RETRAIN_TYPES = ("ft", "kd")
EMBEDDING_SIZES = ("512", "256", "128", "64")


def choices(names: Sequence[str]) -> dict[str, Any]:
    """Return arguments of ``typer.Option`` that show and complete the values of an option."""
    return {
        "metavar": "|".join(names),
        "autocompletion": lambda incomplete: [n for n in names if n.startswith(incomplete)],
    }


BOARD_NAMES = ", ".join(board.name for board in BOARDS)
HEAD_HELP = (
    "The file or directory that train-head wrote. Default: the deployment's own head, if it has"
    " one."
)
MANIFEST_HELP = "tab-separated, with the columns file, label and fold"
WEIGHTS_HELP = (
    "An .h5 or .h5.gz file; published: the authors' file, from the cache, an installed edgel3 or a"
    " download; bundled: a stand-in of this package (95.45 or 99 % of zeros); auto: published, or a"
    " stand-in if none are published or the authors' file cannot be reached"
)

DeploymentArgument = Annotated[
    Path, typer.Argument(metavar="DEPLOYMENT", help="A directory that convert wrote.")
]
OptionalDeploymentArgument = Annotated[
    Path | None, typer.Argument(metavar="DEPLOYMENT", help="A directory that convert wrote.")
]
LabelledOption = Annotated[
    Path | None, typer.Option(metavar="MANIFEST", help=f"Labelled clips: {MANIFEST_HELP}.")
]
OldModelOption = Annotated[Path | None, typer.Option("--model", hidden=True)]


def settle_manifest(
    deployment: Path | None, manifest: Path | None, model: Path | None
) -> tuple[Path | None, Path]:
    """Return deployment and manifest, also if they were given as in earlier versions.

    The manifest was the argument then, and the deployment was ``--model``.

    Raises
    ------
    EdgeL3Error
        If there is no manifest.
    """
    if manifest is None and deployment is not None and not deployment.is_dir():
        notice("MANIFEST --model DEPLOYMENT", "DEPLOYMENT --manifest MANIFEST")
        return model, deployment
    if manifest is None:
        raise EdgeL3Error(f"expected --manifest MANIFEST, labelled clips: {MANIFEST_HELP}")
    return deployment or model, manifest


MODEL_TYPE_HELP = "sparse: EdgeL3; sea: SEA-UST; dense: L3."
RETRAIN_TYPE_HELP = "Fine-tuned (ft) or distilled (kd). For --model-type sparse."
EMBEDDING_SIZE_HELP = "Number of values of an embedding. For --model-type sea."
ModelTypeOption = Annotated[str, typer.Option(**choices(MODEL_TYPES), help=MODEL_TYPE_HELP)]
RetrainTypeOption = Annotated[str, typer.Option(**choices(RETRAIN_TYPES), help=RETRAIN_TYPE_HELP)]
EmbeddingSizeOption = Annotated[
    int, typer.Option(**choices(EMBEDDING_SIZES), help=EMBEDDING_SIZE_HELP)
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Directory of the calibration clips. Default: those of the package."
    ),
]
FASTEST = "the fastest with the exact result, measured once"
"""The default of a runtime, for the help."""
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"Runtime of the model: {', '.join(RUNTIMES)}.", show_default=FASTEST
    ),
]
EmbedderRuntimeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Runtime of the model: {', '.join(EMBEDDER_RUNTIMES)}. node: what a board computes"
        " from 16-bit samples.",
        autocompletion=choices(EMBEDDER_RUNTIMES)["autocompletion"],
        show_default=FASTEST,
    ),
]
HopOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="Seconds from the start of one window of 1 s to the next."
    ),
]
ResamplerOption = Annotated[
    str,
    typer.Option(
        **choices(RESAMPLERS),
        help="Resampler for audio with another sample rate than the network's. kaiser_best:"
        " edgel3's; soxr: faster, and its embeddings differ slightly.",
    ),
]
