"""Embed a corpus into a Parquet dataset, on one machine or on a Dask cluster.

Needs the extra ``corpora``; on a cluster ``dask``.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgel3_tflm.embedding.cluster import LOCAL, open_executor
from edgel3_tflm.embedding.corpus import CorpusClip, CorpusModel
from edgel3_tflm.embedding.parquet import ERRORS_NAME, read_done, write_errors
from edgel3_tflm.embedding.tasks import divide, run_tasks
from edgel3_tflm.files import make_directory
from edgel3_tflm.types import Progress

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusRun:
    """The result of a run.

    Parameters
    ----------
    dataset : pathlib.Path
    clips : int
        Clips of the corpus.
    done_before : int
        Clips that an earlier run embedded or found damaged.
    embedded, windows : int
        Clips and windows that this run embedded.
    seconds : float
        Duration of the run.
    damaged : mapping
        Every clip of the corpus that cannot be embedded, with the reason. Clips that an earlier
        run found damaged are included.
    """

    dataset: Path
    clips: int
    done_before: int
    embedded: int
    windows: int
    seconds: float
    damaged: Mapping[str, str] = field(default_factory=dict)


def embed_corpus(
    clips: Sequence[CorpusClip],
    model: CorpusModel,
    dataset: Path,
    *,
    scheduler: str = LOCAL,
    workers: int | None = None,
    retry_damaged: bool = False,
    progress: Progress,
    note: Callable[[str], None] = _log.warning,
) -> CorpusRun:
    """Embed the clips that a dataset does not contain yet.

    On a cluster, all machines must have the clips, the dataset and the model at the same paths.

    Parameters
    ----------
    clips : sequence of CorpusClip
    model : CorpusModel
    dataset : pathlib.Path
        A directory that does not exist, is empty or was written by a run with the same settings.
    scheduler : str
        'local': processes of this machine. 'dask': a Dask cluster that is started on this machine.
        Or the address of a Dask scheduler, 'tcp://HOST:8786' for example.
    workers : int, optional
        Number of processes; by default one for each core. A cluster at an address has its own.
    retry_damaged : bool
        Try the clips again that an earlier run found damaged.
    progress : callable
        Called with the step, the number of clips that are done and the number of clips.
    note : callable
        Called with a line of text when the run has to wait.

    Returns
    -------
    CorpusRun

    Raises
    ------
    EdgeL3Error
        If the dataset contains something else, a cluster has no worker for ``WORKERS_TIMEOUT_S``,
        the workers are lost, or a part cannot be written. Finished parts are kept.
    """
    started_s = time.monotonic()
    earlier = read_done(dataset, model.settings)
    known = earlier.embedded if retry_damaged else earlier.embedded | earlier.damaged.keys()
    tasks = divide(clips, known, model, dataset)
    done_before = sum(clip.name in known for clip in clips)
    embedded = windows = 0
    damaged = dict(earlier.damaged)
    if tasks:
        make_directory(dataset)
        done = done_before
        progress("embed clips", done, len(clips))
        with open_executor(scheduler, workers, note) as (executor, check):
            for result in run_tasks(executor, tasks, check):
                embedded += len(result.embedded)
                windows += result.windows
                for name in result.embedded:
                    damaged.pop(name, None)
                damaged |= result.damaged
                done += len(result.embedded) + len(result.damaged)
                progress("embed clips", done, len(clips))
    if damaged or (dataset / ERRORS_NAME).exists():
        write_errors(dataset, damaged)
    names = {clip.name for clip in clips}
    return CorpusRun(
        dataset=dataset,
        clips=len(clips),
        done_before=done_before,
        embedded=embedded,
        windows=windows,
        seconds=time.monotonic() - started_s,
        damaged={name: reason for name, reason in sorted(damaged.items()) if name in names},
    )
