"""The command ``embed``: audio files to .npz files."""

import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from edgel3_tflm.audio.clips import find_clips, measure_seconds
from edgel3_tflm.audio.framing import DEFAULT_BATCH_SIZE, Framing
from edgel3_tflm.audio.resampling import KAISER_BEST
from edgel3_tflm.cli.options import (
    EMBEDDING_SIZE_HELP,
    EMBEDDING_SIZES,
    MODEL_TYPE_HELP,
    MODEL_TYPES,
    RETRAIN_TYPE_HELP,
    RETRAIN_TYPES,
    WEIGHTS_HELP,
    EmbedderRuntimeOption,
    ResamplerOption,
    choices,
)
from edgel3_tflm.cli.screen import (
    JsonOption,
    QuietOption,
    Screen,
    Steps,
    describe_weights,
    open_screen,
)
from edgel3_tflm.embedding.cluster import LOCAL
from edgel3_tflm.embedding.loading import find_network
from edgel3_tflm.embedding.models import QUANTIZATION_NAMES, EmbeddingModel, ModelChoice
from edgel3_tflm.embedding.npz import plan_outputs, write_embeddings
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.files import check_output_directory
from edgel3_tflm.networks.catalogue import PLANS
from edgel3_tflm.networks.sources import parse_weights_source

_MAX_LINES = 10
_CORPUS = "A corpus (needs the extra corpora; --scheduler dask the extra dask)"


def embed_command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUTS", help="Audio files, or directories of them."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--output-dir",
            "-o",
            metavar="DIR",
            help="Directory to write to; with --manifest that of the dataset's Parquet files."
            " Default: the directory of each file.",
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            "--suffix", "-x", metavar="SUFFIX", help="Write NAME_SUFFIX.npz instead of NAME.npz."
        ),
    ] = None,
    model_type: Annotated[
        str,
        typer.Option("--model-type", "-mtype", **choices(MODEL_TYPES), help=MODEL_TYPE_HELP),
    ] = "sparse",
    embedding_size: Annotated[
        int,
        typer.Option(
            "--embedding-size",
            "--emb-dim",
            "-e",
            **choices(EMBEDDING_SIZES),
            help=EMBEDDING_SIZE_HELP,
        ),
    ] = 128,
    retrain_type: Annotated[
        str,
        typer.Option(
            "--retrain-type", "-retrain", **choices(RETRAIN_TYPES), help=RETRAIN_TYPE_HELP
        ),
    ] = "ft",
    model_sparsity: Annotated[
        float,
        typer.Option(
            "--sparsity",
            "--model-sparsity",
            "-sp",
            metavar="PERCENT",
            help=f"Percent of zeros: {', '.join(plan.label for plan in PLANS)}. For --model-type"
            " sparse.",
        ),
    ] = 95.45,
    no_centering: Annotated[
        bool,
        typer.Option(
            "--no-centering",
            "-n",
            help="Do not put half a window of zeros before the audio. A timestamp is then the"
            " start of"
            " its window, not its centre.",
        ),
    ] = False,
    hop: Annotated[
        float,
        typer.Option(
            "--hop",
            "--hop-size",
            "-t",
            metavar="SECONDS",
            help="Seconds from the start of one window of 1 s to the next.",
        ),
    ] = 0.1,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite/--no-overwrite",
            help="Embed files whose embeddings exist, or skip them.",
        ),
    ] = True,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DEPLOYMENT",
            help="A directory that convert wrote, instead of a network by its name.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto|published|bundled",
            help=f"{WEIGHTS_HELP}.",
        ),
    ] = "auto",
    quantization: Annotated[
        str | None,
        typer.Option(
            **choices(QUANTIZATION_NAMES),
            help="int8 converts the network once, which needs the extra convert.",
            show_default="float; with --model: as it was converted",
        ),
    ] = None,
    runtime: EmbedderRuntimeOption = None,
    batch_size: Annotated[
        int,
        typer.Option(metavar="N", help="Windows in one call of the runtime. Changes no result."),
    ] = DEFAULT_BATCH_SIZE,
    resampler: ResamplerOption = KAISER_BEST,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            "-k",
            help="Leave out files that cannot be read, list them, and exit with status 1 at the"
            " end.",
        ),
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Embed a corpus into a dataset: a tab-separated table with the column file, a list"
            " with one file on each line, or a directory.",
            rich_help_panel=_CORPUS,
        ),
    ] = None,
    scheduler: Annotated[
        str,
        typer.Option(
            metavar="local|dask|ADDRESS",
            help="Run in processes of this machine, in a Dask cluster on this machine, or in the"
            " one at an address, tcp://HOST:8786 for example. Its machines must have the clips, the"
            " dataset and the model under the same paths.",
            rich_help_panel=_CORPUS,
        ),
    ] = LOCAL,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of processes.",
            show_default="one for each core",
            rich_help_panel=_CORPUS,
        ),
    ] = None,
    retry_damaged: Annotated[
        bool,
        typer.Option(
            "--retry-damaged",
            help="Try again the clips that an earlier run found damaged.",
            rich_help_panel=_CORPUS,
        ),
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Embed audio files of any length: NAME.npz with embedding, timestamps and provenance."""
    interrupted = "embeddings of finished files are kept"
    with open_screen(quiet=quiet, as_json=as_json, interrupted=interrupted) as screen:
        framing = Framing(hop, not no_centering, batch_size, resampler)
        network = find_network(model_type, embedding_size, retrain_type, model_sparsity)
        if model is not None and weights != "auto":
            raise EdgeL3Error("expected one of --model and --weights, got both")
        choice = ModelChoice(model or network, quantization, runtime, parse_weights_source(weights))
        if manifest is not None:
            if inputs or suffix or keep_going or not overwrite:
                raise EdgeL3Error(
                    "expected --manifest without INPUTS, --suffix, --no-overwrite and"
                    " --keep-going: a dataset contains all clips and lists the damaged ones"
                )
            from edgel3_tflm.cli.corpus import CorpusOptions, embed_into_dataset

            options = CorpusOptions(manifest, output, scheduler, workers, retry_damaged)
            embed_into_dataset(screen, options, choice, framing)
            return
        if workers or retry_damaged or scheduler != LOCAL:
            raise EdgeL3Error(
                "expected --manifest with --scheduler, --workers and --retry-damaged, got none"
            )
        if not inputs:
            raise EdgeL3Error("expected INPUTS or --manifest, got neither")
        plan = plan_outputs(find_clips(inputs), output, suffix)
        wanted = {
            source: target for source, target in plan.items() if overwrite or not target.exists()
        }
        run = _Run(skipped=len(plan) - len(wanted))
        for folder in {target.parent for target in wanted.values()}:
            check_output_directory(folder)
        if wanted:
            with screen.progress() as progress, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the note says it
                opened = choice.open(progress=progress, note=progress.note)
                if opened.is_substitute:
                    progress.note(f"NOTICE: {opened.description}")
                _embed(StreamEmbedder(opened, framing), wanted, run, progress, keep_going)
            run.model = opened
        _show(screen, run)
        if run.damaged:
            raise typer.Exit(1)


class _Run:
    """The result of a run, by source file."""

    def __init__(self, skipped: int) -> None:
        self.skipped = skipped
        self.windows: dict[Path, int] = {}
        self.outputs: dict[Path, Path] = {}
        self.damaged: dict[Path, str] = {}
        self.seconds = 0.0
        self.model: EmbeddingModel | None = None


def _embed(
    embedder: StreamEmbedder,
    wanted: dict[Path, Path],
    run: _Run,
    progress: Steps,
    keep_going: bool,
) -> None:
    started_s = time.monotonic()
    lengths = {source: measure_seconds(source) for source in wanted}
    total = round(sum(lengths.values()))
    done_s = 0.0

    def report(seconds: float) -> None:
        progress("embed (seconds of audio)", min(round(done_s + seconds), total), total)

    for source, target in wanted.items():
        report(0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                run.windows[source] = write_embeddings(embedder, source, target, report)
                run.outputs[source] = target
            except AudioError as error:
                if not keep_going:
                    raise
                run.damaged[source] = str(error)
        for each in caught:
            progress.note(f"{source}: {each.message}")
        done_s += lengths[source]
    run.seconds = time.monotonic() - started_s


def _show(screen: Screen, run: _Run) -> None:
    lines: list[Text] = []
    result: dict[str, Any] = {
        "files": [
            {"file": str(source), "output": str(target), "windows": run.windows[source]}
            for source, target in run.outputs.items()
        ],
        "skipped": run.skipped,
        "damaged": {str(source): reason for source, reason in run.damaged.items()},
        "seconds": run.seconds,
    }
    if run.model is not None:
        result["model"] = {
            "variant": run.model.variant.name,
            "quantization": run.model.quantization,
            "runtime": run.model.runtime,
            "sha256": run.model.sha256,
            "weights": {"kind": run.model.weights_kind, "description": run.model.description},
        }
        lines.append(describe_weights(run.model.weights_kind, run.model.description))
    for target in list(run.outputs.values())[:_MAX_LINES]:
        lines.append(Text(f"{target}"))
    if (more := len(run.outputs) - _MAX_LINES) > 0:
        lines.append(Text(f"and {more:,} more"))
    files = len(run.outputs) + len(run.damaged)
    parts = [
        f"{len(run.outputs):,} of {files:,} files embedded: {sum(run.windows.values()):,} windows"
        f" in {run.seconds:.1f} s"
    ]
    if run.skipped:
        parts.append(f"{run.skipped:,} skipped because their embeddings exist")
    screen.show(result, *lines, Text("; ".join(parts)))
    for reason in run.damaged.values():
        screen.error(reason)
    if run.damaged:
        screen.error(f"{len(run.damaged):,} of {files:,} files cannot be read")
