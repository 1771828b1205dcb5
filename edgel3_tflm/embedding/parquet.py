"""Embeddings of a whole corpus as a Parquet dataset, on one machine or on a Dask cluster.

The dataset is a directory of parts, Parquet files with a row a window. A part holds whole clips, is
written under a temporary name and then renamed, and says in its metadata which clips it holds and
which of them are damaged. So the parts themselves are the record of what is done: a run that was
ended in the middle goes on where it stopped, and a part that two workers made is there once.

Needs the extra ``corpora``; on a cluster ``dask``.
"""

import csv
import io
import json
import logging
import math
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.framing import Framing
from edgel3_tflm.audio.manifest import read_files
from edgel3_tflm.embedding.models import ModelChoice
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import (
    AudioError,
    EdgeL3Error,
    EdgeL3Warning,
    RuntimeUnavailableError,
    install_hint,
)
from edgel3_tflm.files import sha256_hex, write_whole
from edgel3_tflm.networks.sources import Note
from edgel3_tflm.types import FloatArray, Progress

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise RuntimeUnavailableError(
        f"a Parquet dataset needs the package pyarrow, which cannot be loaded here ({error});"
        f" {install_hint('corpora')}"
    ) from error
from edgel3_tflm.embedding.cluster import _POLL_S, EngineName, open_executor

_log = logging.getLogger(__name__)

ERRORS_NAME = "_errors.tsv"
"""Names the damaged clips. Readers of datasets pass over what begins with an underscore."""
_KEY = b"edgel3_tflm"
_CLIPS_KEY = b"edgel3_tflm_clips"
# What a crash costs at most is a part for each worker; what a million clips cost is files.
_MOST_CLIPS_A_PART = 256
# Of one clip in memory; a longer one goes to the disk while it is computed.
_ROWS_IN_MEMORY = 4096

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusModel:
    """What embeds a corpus: small enough to travel to a worker, and opened there.

    Parameters
    ----------
    choice : ModelChoice
    framing : Framing
    settings : mapping
        What the embeddings follow from: a dataset holds those of one choice. ``model_sha256`` and
        ``embedding_size`` are among them.
    provenance : sequence of str
        What else there is to say, weights first.
    """

    choice: ModelChoice
    framing: Framing
    settings: Mapping[str, Any]
    provenance: Sequence[str]

    @classmethod
    def of(
        cls, choice: ModelChoice, framing: Framing, progress: Progress, note: Note = _log.warning
    ) -> "CorpusModel":
        """Open a model once, to learn what it is.

        ``progress`` and ``note`` are those of :meth:`ModelChoice.settle`.

        Raises
        ------
        EdgeL3Error
            If it cannot be opened.
        """
        choice = choice.settle(progress, note)
        model = choice.open(threads=1)
        # Workers elsewhere have another directory of their own, and perhaps other runtimes.
        choice = replace(
            choice,
            source=_absolute(choice.source),
            weights=_absolute(choice.weights),
            quantization=model.quantization,
            runtime=model.runtime,
        )
        framing.hop_samples(model.variant.frontend.sample_rate_hz)
        settings = {
            "variant": model.variant.name,
            "embedding_size": model.variant.embedding_size,
            "model_sha256": model.sha256,
            "quantization": model.quantization,
            "runtime": model.runtime,
            "weights_kind": model.weights_kind,
            "hop_s": float(framing.hop_size),
            "center": bool(framing.center),
            "resampler": framing.resampler,
        }
        return cls(choice, framing, settings, StreamEmbedder(model, framing).provenance)

    def open(self) -> StreamEmbedder:
        """Open the model in a worker, on one thread: workers share the cores.

        Raises
        ------
        EdgeL3Error
            If it cannot be opened there, or is another one there.
        """
        model = self.choice.open(threads=1)
        if model.sha256 != self.settings["model_sha256"]:
            raise EdgeL3Error(
                f"expected the model {self.settings['model_sha256'][:12]}... in every worker, one"
                f" found {model.sha256[:12]}... at {self.choice.source}; give all of them the same"
            )
        return StreamEmbedder(model, self.framing)


T = TypeVar("T")


def _absolute(source: T | Path) -> T | Path:
    return source.absolute() if isinstance(source, Path) else source


@dataclass(frozen=True, slots=True)  # there may be a million
class CorpusClip:
    """A clip by its name in the manifest, which is its name in the dataset.

    It is relative to ``root``, an absolute path: workers have directories of their own.
    """

    name: str
    root: Path

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.root / self.name


@dataclass(frozen=True)
class CorpusRun:
    """What a run did.

    ``damaged`` maps every clip of the corpus that cannot be embedded to the reason, whichever run
    found it.
    """

    dataset: Path
    clips: int
    done_before: int
    embedded: int
    windows: int
    seconds: float
    damaged: Mapping[str, str] = field(default_factory=dict)


def read_clip_list(path: Path) -> list[CorpusClip]:
    """Read what there is to embed.

    Parameters
    ----------
    path : pathlib.Path
        A directory, searched through for audio files; or a manifest as
        :func:`edgel3_tflm.audio.manifest.read_files` reads it. Files are relative to where it lies.

    Raises
    ------
    AudioError
        If it cannot be read, names no clip, or names one twice.
    """
    root = path.absolute()
    if path.is_dir():
        names = [clip.relative_to(path).as_posix() for clip in find_clips([path])]
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise AudioError(
                    f"{path}: expected file names in UTF-8, found {os.fsencode(name)!r}; rename it"
                ) from error
        return [CorpusClip(name, root) for name in names]
    return [CorpusClip(name, root.parent) for name in read_files(path)]


def embed_corpus(
    clips: Sequence[CorpusClip],
    model: CorpusModel,
    dataset: Path,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
    scheduler: str | None = None,
    retry_damaged: bool = False,
    progress: Progress,
    note: Callable[[str], None] = _log.warning,
) -> CorpusRun:
    """Embed the clips that a dataset does not hold yet.

    On a cluster the clips, the dataset and the model must lie under the same paths on all machines.

    Parameters
    ----------
    clips : sequence of CorpusClip
    model : CorpusModel
    dataset : pathlib.Path
        A directory: new, empty or of an earlier run with the same settings.
    engine : {'local', 'dask'}
        Processes of this machine, or Dask workers.
    workers : int, optional
        Processes; one a core if not given. Not for a scheduler, which has its own.
    scheduler : str, optional
        Address of a Dask scheduler; a cluster on this machine if not given.
    retry_damaged : bool
        Try the clips again that an earlier run found damaged.
    progress : callable
        Takes a step's name, how many clips are done and how many there are.
    note : callable
        Takes a line on what the run waits for.

    Raises
    ------
    EdgeL3Error
        If the dataset holds something else, a cluster has no worker for ``WORKERS_TIMEOUT_S``, or
        the workers are lost. What was done stays done.
    """
    started_s = time.monotonic()
    held = _read_done(dataset, model.settings)
    known = held.embedded if retry_damaged else held.embedded | held.damaged.keys()
    tasks = _divide(clips, known, model, dataset)
    done_before = sum(clip.name in known for clip in clips)
    embedded = windows = 0
    damaged = dict(held.damaged)
    if tasks:
        _make_directory(dataset)
        done = done_before
        progress("embed clips", done, len(clips))
        with open_executor(engine, workers, scheduler, note) as (executor, check):
            for result in _run(executor, tasks, check):
                embedded += len(result.embedded)
                windows += result.windows
                for name in result.embedded:
                    damaged.pop(name, None)
                damaged |= result.damaged
                done += len(result.embedded) + len(result.damaged)
                progress("embed clips", done, len(clips))
    names = {clip.name for clip in clips}
    if damaged or (dataset / ERRORS_NAME).exists():
        _write_errors(dataset, damaged)
    return CorpusRun(
        dataset=dataset,
        clips=len(clips),
        done_before=done_before,
        embedded=embedded,
        windows=windows,
        seconds=time.monotonic() - started_s,
        damaged={name: reason for name, reason in sorted(damaged.items()) if name in names},
    )


@dataclass(frozen=True)
class _Done:
    embedded: set[str]
    damaged: dict[str, str]


def _read_done(dataset: Path, settings: Mapping[str, Any]) -> _Done:
    """Read from a dataset's parts which clips they hold."""
    done = _Done(set(), {})
    if not dataset.exists():
        return done
    if not dataset.is_dir():
        raise EdgeL3Error(f"{dataset}: expected a directory to write to, it is a file")
    parts = sorted(dataset.glob("part-*.parquet"))
    if not parts and any(not name.name.startswith((".", "_")) for name in dataset.iterdir()):
        raise EdgeL3Error(
            f"{dataset}: expected a new, empty or earlier dataset, it holds other files;"
            " choose another"
        )
    for part in parts:
        try:
            found, embedded, damaged = _read_part(part)
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
            raise EdgeL3Error(
                f"{part}: expected a part that `edgel3-tflm embed` wrote, it is damaged or of"
                f" something else ({type(error).__name__}); remove it, and its clips are embedded"
                " again"
            ) from error
        for key in dict.fromkeys([*settings, *found]):
            if settings.get(key) != found.get(key):
                raise EdgeL3Error(
                    f"{dataset}: it holds embeddings with {key} {found.get(key)}, expected"
                    f" {settings.get(key)}; write to another dataset, or embed as it was begun"
                )
        done.embedded.update(embedded)
        done.damaged.update(damaged)
    for name in done.embedded:
        done.damaged.pop(name, None)
    return done


def _read_part(part: Path) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Read a part's settings, which clips it holds, and which are damaged and why."""
    metadata = pq.read_metadata(part).metadata or {}
    settings = json.loads(metadata[_KEY])["settings"]
    clips = json.loads(metadata[_CLIPS_KEY])
    embedded, damaged = clips["embedded"], clips["damaged"]
    for value, kind in ((settings, dict), (embedded, list), (damaged, dict)):
        if not isinstance(value, kind):
            raise TypeError(f"expected a {kind.__name__} in the metadata")
    if not all(isinstance(text, str) for text in (*embedded, *damaged.values())):
        raise TypeError("expected text in the metadata")
    return settings, embedded, damaged


@dataclass(frozen=True)
class _Task:
    """A part to write."""

    part: Path
    clips: tuple[CorpusClip, ...]
    model: CorpusModel


@dataclass(frozen=True)
class _Result:
    embedded: tuple[str, ...]
    damaged: Mapping[str, str]
    windows: int


def _divide(
    clips: Sequence[CorpusClip], known: set[str], model: CorpusModel, dataset: Path
) -> list[_Task]:
    """Divide what is missing into parts.

    How clips fall into parts, and what a part is called, follows from the list of clips and what is
    missing of it: a worker that outlives a run writes what the next run would write there.
    """
    size = min(_MOST_CLIPS_A_PART, math.isqrt(max(len(clips) - 1, 0)) + 1)
    dataset = dataset.absolute()
    tasks = []
    for number, first in enumerate(range(0, len(clips), size)):
        missing = tuple(clip for clip in clips[first : first + size] if clip.name not in known)
        if missing:
            digest = sha256_hex("\0".join(clip.name for clip in missing).encode())
            part = dataset / f"part-{number:06}-{digest[:12]}.parquet"
            tasks.append(_Task(part, missing, model))
    return tasks


def _make_directory(dataset: Path) -> None:
    try:
        dataset.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeL3Error(f"cannot write {dataset}: {error.strerror or error}") from error


def _run(
    executor: Executor, tasks: Sequence[_Task], check: Callable[[], None]
) -> Iterator[_Result]:
    """Embed parts; ``check`` is called while none is done, and may raise."""
    try:
        waiting: set[Future[_Result]] = {executor.submit(_embed_part, task) for task in tasks}
        while waiting:
            done, waiting = wait(waiting, _POLL_S, FIRST_COMPLETED)
            for future in done:
                yield future.result()
            if not done:
                check()
    except BrokenProcessPool as error:
        raise EdgeL3Error(
            "a worker process was ended from outside, perhaps for want of memory; what was done is"
            " kept: run the same command again, with fewer --workers if memory was short"
        ) from error


_opened = threading.local()


def _open(model: CorpusModel) -> StreamEmbedder:
    """Open a model once a thread: not every runtime may be used by two at a time."""
    if getattr(_opened, "model", None) != model:
        # Silent clips and short ones are no news in a corpus, and the weights are known by now.
        warnings.simplefilter("ignore", EdgeL3Warning)
        _opened.embedder = model.open()
        _opened.model = model
    embedder: StreamEmbedder = _opened.embedder
    return embedder


def _embed_part(task: _Task) -> _Result:
    """Embed clips and write their part; runs in a worker."""
    embedder = _open(task.model)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{task.part.name}.", dir=task.part.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            damaged: dict[str, str] = {}
            while (result := _write_part(task, embedder, temporary, damaged)) is None:
                pass
            temporary.chmod(0o644)  # mkstemp makes it private
            temporary.replace(task.part)
        finally:
            temporary.unlink(missing_ok=True)
        # Left by workers that were ended in the middle of the same part.
        for left in task.part.parent.glob(f".{task.part.name}.*"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise EdgeL3Error(
            f"cannot write {task.part}: {error.strerror or error}; what was done is kept"
        ) from error
    return result


def _write_part(
    task: _Task, embedder: StreamEmbedder, path: Path, damaged: dict[str, str]
) -> _Result | None:
    """Write the clips of a part that are not in ``damaged``, and add those that turn out to be.

    Returns
    -------
    _Result, optional
        None if a clip turned out to be damaged after some of its rows were written: the part must
        be written again.
    """
    settings = task.model.settings
    columns = pa.schema(
        [
            pa.field("clip", pa.string(), nullable=False),
            pa.field("time", pa.float64(), nullable=False),
            pa.field(
                "embedding", pa.list_(pa.float32(), settings["embedding_size"]), nullable=False
            ),
            pa.field("model", pa.string(), nullable=False),
        ],
        metadata={
            _KEY: json.dumps(
                {
                    "version": __version__,
                    "settings": dict(settings),
                    "provenance": list(task.model.provenance),
                },
                sort_keys=True,
            )
        },
    )
    embedded: list[str] = []
    windows = 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, columns, compression="zstd") as writer:
            rows = _Rows(writer, columns, settings["model_sha256"])
            for clip in task.clips:
                if clip.name in damaged:
                    continue
                try:
                    for embeddings, times in embedder.embed_file(clip.path):
                        rows.add(clip.name, embeddings, times)
                except AudioError as error:
                    damaged[clip.name] = str(error)
                    if rows.drop(clip.name):
                        continue
                    return None
                embedded.append(clip.name)
            rows.write()
            windows = rows.written
            clips = json.dumps({"embedded": embedded, "damaged": damaged})
            writer.add_key_value_metadata({_CLIPS_KEY: clips})
        os.fsync(file.fileno())
    return _Result(tuple(embedded), damaged, windows)


class _Rows:
    """Rows on their way to a part: whole clips wait here, but for those of very many rows."""

    def __init__(self, writer: Any, columns: Any, model_sha256: str) -> None:
        self._writer = writer
        self._columns = columns
        self._model_sha256 = model_sha256
        self._waiting: list[tuple[str, FloatArray, npt.NDArray[np.float64]]] = []
        self._count = 0
        self._begun = ""
        self.written = 0

    def add(self, clip: str, embeddings: FloatArray, times: npt.NDArray[np.float64]) -> None:
        if self._count + len(times) > _ROWS_IN_MEMORY:
            self.write()
        self._waiting.append((clip, embeddings, times))
        self._count += len(times)

    def drop(self, clip: str) -> bool:
        """Take back the rows of a clip; False if some are written."""
        self._waiting = [rows for rows in self._waiting if rows[0] != clip]
        self._count = sum(len(times) for _, _, times in self._waiting)
        return self._begun != clip

    def write(self) -> None:
        if not self._waiting:
            return
        names = np.concatenate([np.repeat(clip, len(times)) for clip, _, times in self._waiting])
        values = np.concatenate([embeddings for _, embeddings, _ in self._waiting])
        size = self._columns.field("embedding").type
        table = pa.table(
            [
                pa.array(names, pa.string()),
                pa.array(np.concatenate([times for _, _, times in self._waiting]), pa.float64()),
                pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=size),
                pa.array([self._model_sha256] * self._count, pa.string()),
            ],
            schema=self._columns,
        )
        self._writer.write_table(table)
        self._begun = self._waiting[-1][0]
        self.written += self._count
        self._waiting, self._count = [], 0


def _write_errors(dataset: Path, damaged: Mapping[str, str]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(("clip", "error"))
    writer.writerows((name, " ".join(reason.split())) for name, reason in sorted(damaged.items()))
    write_whole(dataset / ERRORS_NAME, table.getvalue().encode())
