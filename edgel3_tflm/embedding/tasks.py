"""The work on a corpus in tasks, one part each, and the function that a worker runs."""

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from edgel3_tflm.embedding.corpus import CorpusClip, CorpusModel
from edgel3_tflm.embedding.parquet import PartResult, write_part
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import EdgeL3Error, EdgeL3Warning
from edgel3_tflm.files import sha256_hex

# A crash loses at most one part for each worker. Smaller parts would make more files.
_MAX_CLIPS_PER_PART = 256
_POLL_S = 1


@dataclass(frozen=True)
class PartTask:
    """A part to write: its path, its clips and the model."""

    part: Path
    clips: tuple[CorpusClip, ...]
    model: CorpusModel


def divide(
    clips: Sequence[CorpusClip], done: set[str], model: CorpusModel, dataset: Path
) -> list[PartTask]:
    """Divide the clips that are not done into tasks.

    The result depends only on the list of clips and on ``done``. A worker that outlives its run
    therefore writes the same file that the next run would write.
    """
    size = min(_MAX_CLIPS_PER_PART, math.isqrt(max(len(clips) - 1, 0)) + 1)
    dataset = dataset.absolute()
    tasks = []
    for number, first in enumerate(range(0, len(clips), size)):
        missing = tuple(clip for clip in clips[first : first + size] if clip.name not in done)
        if missing:
            digest = sha256_hex("\0".join(clip.name for clip in missing).encode())
            part = dataset / f"part-{number:06}-{digest[:12]}.parquet"
            tasks.append(PartTask(part, missing, model))
    return tasks


def run_tasks(
    executor: Executor, tasks: Sequence[PartTask], check: Callable[[], None]
) -> Iterator[PartResult]:
    """Run tasks and yield their results in the order in which they finish.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    tasks : sequence of PartTask
    check : callable
        Called every second in which no task finishes. It may raise an exception to end the run.

    Raises
    ------
    EdgeL3Error
        If a task fails, or a worker process was killed.
    """
    try:
        waiting: set[Future[PartResult]] = {executor.submit(run_task, task) for task in tasks}
        while waiting:
            done, waiting = wait(waiting, _POLL_S, FIRST_COMPLETED)
            for future in done:
                yield future.result()
            if not done:
                check()
    except BrokenProcessPool as error:
        raise EdgeL3Error(
            "a worker process was killed, perhaps because memory was short; finished parts are"
            " kept: run the same command again, with fewer --workers if memory was short"
        ) from error


def run_task(task: PartTask) -> PartResult:
    """Embed the clips of a task and write their part; runs in a worker."""
    model = task.model
    return write_part(task.part, task.clips, _open(model), model.settings, model.provenance)


_opened = threading.local()


def _open(model: CorpusModel) -> StreamEmbedder:
    """Return the opened model of this thread: not every runtime allows two threads at a time."""
    if getattr(_opened, "model", None) != model:
        # A corpus may contain many silent and short clips, and the weights were reported before.
        warnings.simplefilter("ignore", EdgeL3Warning)
        _opened.embedder = model.open()
        _opened.model = model
    embedder: StreamEmbedder = _opened.embedder
    return embedder
