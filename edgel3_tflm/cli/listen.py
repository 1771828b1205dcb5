"""The command ``listen``: embeddings and class scores of live sound, without a board."""

import json
import warnings
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from edgel3_tflm.api.sounds import Stream
from edgel3_tflm.audio.live import Microphone, play_blocks
from edgel3_tflm.cli.board.monitor import MAX_NAMED, draw_window
from edgel3_tflm.cli.options import (
    HEAD_HELP,
    DeploymentArgument,
    EmbedderRuntimeOption,
    HopOption,
)
from edgel3_tflm.cli.screen import QuietOption, describe_provenance, open_screen
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import FloatArray, Int8Array

if TYPE_CHECKING:
    from edgel3_tflm.converters.export.head import Head


def listen_command(
    directory: DeploymentArgument,
    clip: Annotated[
        Path | None,
        typer.Argument(metavar="CLIP", help="An audio file to play instead of the microphone."),
    ] = None,
    hop: HopOption = 0.5,
    head: Annotated[Path | None, typer.Option(metavar="FILE|DIR", help=HEAD_HELP)] = None,
    runtime: EmbedderRuntimeOption = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Number or name of the microphone, as `python -m sounddevice` lists them.",
            show_default="the system's",
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help="Play CLIP this number of times faster; 0: as fast as it can be embedded.",
        ),
    ] = 1.0,
    windows: Annotated[
        int, typer.Option(min=0, metavar="N", help="Stop after this number of windows; 0: never.")
    ] = 0,
    quiet: QuietOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print an object of JSON for each window.")
    ] = False,
) -> None:
    """Show class scores, or the embedding, of what this computer hears; Ctrl-C ends it."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        deployment = Deployment.load(directory)
        trained = _find_head(head, deployment)
        blocks: Iterable[FloatArray]
        if clip is None:
            microphone = Microphone(device)
            stream = _open(deployment, hop, runtime, microphone.sample_rate_hz)
            blocks, heard = microphone.blocks(), microphone.name
        else:
            stream = _open(deployment, hop, runtime, None)
            blocks = play_blocks(clip, round(stream.sample_rate_hz), speed)
            heard = str(clip)
        console = Console(highlight=False, quiet=screen.quiet)
        if not as_json:
            console.print(describe_provenance(deployment), Text(f"hears {heard}"), sep="\n")
        with suppress(KeyboardInterrupt):  # the user ends the command this way
            _listen(stream, blocks, trained, windows or None, console, as_json=as_json)


def _find_head(given: Path | None, deployment: Deployment) -> "Head | None":
    from edgel3_tflm.converters.export.head import find_head

    head = find_head(given, deployment)
    if head is not None and deployment.quantization != "int8":
        raise EdgeL3Error(
            f"expected an int8 deployment for a classifier, got {deployment.quantization}"
        )
    return head


def _open(
    deployment: Deployment, hop: float, runtime: str | None, sample_rate_hz: int | None
) -> Stream:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first line on the screen says it
        return Stream(deployment, sample_rate_hz=sample_rate_hz, hop_s=hop, runtime=runtime)


def _listen(
    stream: Stream,
    blocks: Iterable[FloatArray],
    head: "Head | None",
    windows: int | None,
    console: Console,
    *,
    as_json: bool,
) -> None:
    """Print a line for each window, or draw it on a terminal."""
    spec = stream.model.embedder.output
    labels = () if head is None else head.labels
    previous: FloatArray | None = None
    with (
        warnings.catch_warnings(),
        Live(console=console, auto_refresh=False, transient=True) as live,
    ):
        warnings.simplefilter("ignore")  # silence, and a clip shorter than a window
        for embedding, time_s in islice(stream.embed(blocks), windows):
            quantized: Int8Array = np.zeros(len(embedding), np.int8)
            scores = np.empty(0)
            if spec.scale and spec.dtype == np.int8:
                quantized = (np.rint(embedding / spec.scale) + spec.zero_point).astype(np.int8)
            if head is not None:
                scores = head.scores(quantized[np.newaxis])[0]
            similarity = (
                None
                if previous is None
                else float(cosine_similarity(previous[np.newaxis], embedding[np.newaxis])[0])
            )
            previous = embedding
            if as_json:
                found: dict[str, Any] = {
                    "time_s": time_s,
                    "embedding": embedding.tolist(),
                    "scores": dict(zip(labels, scores.tolist(), strict=True)),
                }
                typer.echo(json.dumps(found))
                continue
            line = _describe(time_s, similarity, labels, scores.tolist())
            if console.is_terminal:
                live.update(draw_window(line, labels, scores.tolist(), quantized), refresh=True)
            else:
                console.print(line, soft_wrap=True)


def _describe(
    time_s: float, similarity: float | None, labels: tuple[str, ...], scores: list[float]
) -> Text:
    best = sorted(zip(scores, labels, strict=True), reverse=True)[:MAX_NAMED]
    named = "".join(f"  {label} {score:.2f}" for score, label in best)
    cosine = "-" if similarity is None else f"{similarity:.3f}"
    return Text(f"{time_s:9.2f} s  cosine to the window before {cosine}{named}")
