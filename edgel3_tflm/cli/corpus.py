"""``embed --manifest``: embeds the clips of a corpus into a Parquet dataset."""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.text import Text

from edgel3_tflm.audio.framing import Framing
from edgel3_tflm.cli.screen import Screen, describe_weights
from edgel3_tflm.embedding.cluster import has_own_workers
from edgel3_tflm.embedding.corpus import CorpusModel, read_clip_list
from edgel3_tflm.embedding.corpus_run import CorpusRun, embed_corpus
from edgel3_tflm.embedding.models import ModelChoice
from edgel3_tflm.embedding.parquet import ERRORS_NAME
from edgel3_tflm.errors import EdgeL3Error, EdgeL3Warning
from edgel3_tflm.networks.weights import SUBSTITUTE_KINDS

_MAX_DAMAGED = 20


@dataclass(frozen=True)
class CorpusOptions:
    """The options of the command that concern a corpus."""

    manifest: Path
    dataset: Path | None
    scheduler: str
    workers: int | None
    retry_damaged: bool

    def check(self) -> Path:
        """Check that the options fit together; return the dataset's directory.

        Raises
        ------
        EdgeL3Error
            If --output is missing, or --workers is given for a cluster that has its own.
        """
        if self.dataset is None:
            raise EdgeL3Error("expected --output DATASET with --manifest, got none")
        if has_own_workers(self.scheduler) and self.workers is not None:
            raise EdgeL3Error(
                "expected one of the address of a cluster, which has its own workers, and"
                " --workers, got both"
            )
        return self.dataset


def embed_into_dataset(
    screen: Screen, options: CorpusOptions, choice: ModelChoice, framing: Framing
) -> None:
    """Embed a corpus; show progress and the result.

    Raises
    ------
    typer.Exit
        With status 1 if clips are damaged.
    """
    dataset = options.check()
    clips = read_clip_list(options.manifest)
    with screen.progress() as progress:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EdgeL3Warning)  # the note says it
            model = CorpusModel.of(choice, framing, progress, progress.note)
        if model.settings["weights_kind"] in SUBSTITUTE_KINDS:
            progress.note(f"NOTICE: {model.provenance[0]}")
        run = embed_corpus(
            clips,
            model,
            dataset,
            workers=options.workers,
            scheduler=options.scheduler,
            retry_damaged=options.retry_damaged,
            progress=progress,
            note=progress.note,
        )
    result = asdict(run) | {"dataset": str(dataset), "model": dict(model.settings)}
    screen.show(result | {"provenance": list(model.provenance)}, *_summary(run, model))
    for reason in list(run.damaged.values())[:_MAX_DAMAGED]:
        screen.error(reason)
    if run.damaged:
        more = len(run.damaged) - _MAX_DAMAGED
        screen.error(
            (f"and {more:,} more; " if more > 0 else "")
            + f"{len(run.damaged):,} of {run.clips:,} clips are damaged; see"
            f" {dataset / ERRORS_NAME}"
        )
        raise typer.Exit(1)


def _summary(run: CorpusRun, model: CorpusModel) -> list[Text]:
    lines = [describe_weights(str(model.settings["weights_kind"]), model.provenance[0])]
    if run.done_before == run.clips:
        damaged = " or known to be damaged" if run.damaged else ""
        line = f"nothing to do: all {run.clips:,} clips are in {run.dataset}{damaged}"
        return [*lines, Text(line)]
    before = f"; {run.done_before:,} were embedded before" if run.done_before else ""
    return [
        *lines,
        Text(
            f"{run.embedded:,} of {run.clips:,} clips embedded: {run.windows:,} windows in"
            f" {run.seconds:.1f} s{before}"
        ),
        Text(f"dataset: {run.dataset}"),
    ]
