"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from edgel3_tflm.audio.resampling import RESAMPLERS
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.runtime.interpreters import RUNTIMES

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
ModelTypeOption = Annotated[str, typer.Option(help="sparse (EdgeL3), sea or dense (L3).")]
RetrainTypeOption = Annotated[
    str, typer.Option(help="Fine-tuned (ft) or distilled (kd). For --model-type sparse.")
]
EmbeddingSizeOption = Annotated[
    int,
    typer.Option(
        "--embedding-size",
        "--emb-dim",
        help="Embedding size: 512, 256, 128, 64. For --model-type sea.",
    ),
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
HopOption = Annotated[
    float, typer.Option(help="Seconds from the start of one window of 1 s to the next.")
]
ResamplerOption = Annotated[
    str,
    typer.Option(
        metavar="|".join(RESAMPLERS),
        help="Resampler for audio with another sample rate than the network's. kaiser_best:"
        " edgel3's; soxr: faster, and its embeddings differ slightly.",
    ),
]
