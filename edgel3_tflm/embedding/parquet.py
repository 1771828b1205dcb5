"""The parts of a dataset: Parquet files with one row for each window.

A part contains whole clips. It is written under a temporary name and then renamed, so a part that
exists is complete. Its metadata lists the clips that it contains and the clips that are damaged.
The parts are therefore the only record of what has been done: a run that was interrupted continues
from them.

Needs the extra ``corpora``.
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.embedding.corpus import CorpusClip
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import AudioError, EdgeL3Error, RuntimeUnavailableError, install_hint
from edgel3_tflm.files import write_whole
from edgel3_tflm.types import DoubleArray, FloatArray

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise RuntimeUnavailableError(
        f"a Parquet dataset needs the package pyarrow, which cannot be loaded here ({error});"
        f" {install_hint('corpora')}"
    ) from error

ERRORS_NAME = "_errors.tsv"
"""File that lists the damaged clips. Readers of datasets skip names that begin with an
underscore."""
MAX_BUFFERED_ROWS = 4096
"""Rows that a writer keeps in memory. A longer clip is written while it is embedded."""
_KEY = b"edgel3_tflm"
_CLIPS_KEY = b"edgel3_tflm_clips"


@dataclass(frozen=True)
class DoneClips:
    """The clips that a dataset contains, and the damaged ones with the reason."""

    embedded: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)


def read_done(dataset: Path, settings: Mapping[str, Any]) -> DoneClips:
    """Read from a dataset's parts which clips are done.

    Parameters
    ----------
    dataset : pathlib.Path
        It need not exist.
    settings : mapping
        The settings that every part must have.

    Raises
    ------
    EdgeL3Error
        If the directory contains other files, a part is damaged, or a part has other settings.
    """
    done = DoneClips()
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
            found, embedded, damaged = _read_metadata(part)
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
                    f" {settings.get(key)}; write to another dataset, or use the settings of the"
                    " earlier run"
                )
        done.embedded.update(embedded)
        done.damaged.update(damaged)
    for name in done.embedded:
        done.damaged.pop(name, None)
    return done


def _read_metadata(part: Path) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Return a part's settings, its clips, and the damaged clips with the reason."""
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
class PartResult:
    """What a worker reports about a part that it wrote."""

    embedded: tuple[str, ...]
    damaged: Mapping[str, str]
    windows: int


def write_part(
    part: Path,
    clips: Sequence[CorpusClip],
    embedder: StreamEmbedder,
    settings: Mapping[str, Any],
    provenance: Sequence[str],
) -> PartResult:
    """Embed clips and write them as one part, completely or not at all.

    Raises
    ------
    EdgeL3Error
        If the part cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{part.name}.", dir=part.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            columns = _make_schema(settings, provenance)
            damaged: dict[str, str] = {}
            while (result := _try_to_write(temporary, columns, clips, embedder, damaged)) is None:
                pass
            temporary.chmod(0o644)  # mkstemp makes it private
            temporary.replace(part)
        finally:
            temporary.unlink(missing_ok=True)
        # Workers that were killed while they wrote the same part have left these files.
        for left in part.parent.glob(f".{part.name}.*"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise EdgeL3Error(
            f"cannot write {part}: {error.strerror or error}; finished parts are kept"
        ) from error
    return result


def _make_schema(settings: Mapping[str, Any], provenance: Sequence[str]) -> Any:
    """Return the columns of a part, with the metadata that is known before the clips are read."""
    description = {
        "version": __version__,
        "settings": dict(settings),
        "provenance": list(provenance),
    }
    embedding = pa.list_(pa.float32(), settings["embedding_size"])
    return pa.schema(
        [
            pa.field("clip", pa.string(), nullable=False),
            pa.field("time", pa.float64(), nullable=False),
            pa.field("embedding", embedding, nullable=False),
            pa.field("model", pa.string(), nullable=False),
        ],
        metadata={_KEY: json.dumps(description, sort_keys=True)},
    )


def _try_to_write(
    path: Path,
    columns: Any,
    clips: Sequence[CorpusClip],
    embedder: StreamEmbedder,
    damaged: dict[str, str],
) -> PartResult | None:
    """Write all clips except those in ``damaged``; add the clips that cannot be read to it.

    Returns
    -------
    PartResult, optional
        None if a clip proved to be damaged after some of its rows were written to the file. The
        part must then be written again without that clip.
    """
    embedded: list[str] = []
    with path.open("wb") as file:
        with pq.ParquetWriter(file, columns, compression="zstd") as writer:
            description = json.loads(columns.metadata[_KEY])
            rows = _RowBuffer(writer, columns, description["settings"]["model_sha256"])
            for clip in clips:
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
            lists = json.dumps({"embedded": embedded, "damaged": damaged})
            writer.add_key_value_metadata({_CLIPS_KEY: lists})
        os.fsync(file.fileno())
    return PartResult(tuple(embedded), damaged, rows.written)


class _RowBuffer:
    """Rows that wait to be written to a part.

    A clip's rows stay here until the clip is complete, unless there are more than
    ``MAX_BUFFERED_ROWS``.
    """

    def __init__(self, writer: Any, columns: Any, model_sha256: str) -> None:
        self._writer = writer
        self._columns = columns
        self._model_sha256 = model_sha256
        self._waiting: list[tuple[str, FloatArray, DoubleArray]] = []
        self._count = 0
        self._last_written_clip = ""
        self.written = 0

    def add(self, clip: str, embeddings: FloatArray, times: DoubleArray) -> None:
        if self._count + len(times) > MAX_BUFFERED_ROWS:
            self.write()
        self._waiting.append((clip, embeddings, times))
        self._count += len(times)

    def drop(self, clip: str) -> bool:
        """Remove the rows of a clip; return False if some of them are in the file already."""
        self._waiting = [rows for rows in self._waiting if rows[0] != clip]
        self._count = sum(len(times) for _, _, times in self._waiting)
        return self._last_written_clip != clip

    def write(self) -> None:
        if not self._waiting:
            return
        names = np.concatenate([np.repeat(clip, len(times)) for clip, _, times in self._waiting])
        values = np.concatenate([embeddings for _, embeddings, _ in self._waiting])
        times: npt.NDArray[Any] = np.concatenate([times for _, _, times in self._waiting])
        embedding = self._columns.field("embedding").type
        table = pa.table(
            [
                pa.array(names, pa.string()),
                pa.array(times, pa.float64()),
                pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=embedding),
                pa.array([self._model_sha256] * self._count, pa.string()),
            ],
            schema=self._columns,
        )
        self._writer.write_table(table)
        self._last_written_clip = self._waiting[-1][0]
        self.written += self._count
        self._waiting, self._count = [], 0


def write_errors(dataset: Path, damaged: Mapping[str, str]) -> None:
    """Write ``ERRORS_NAME``: a table of the damaged clips and the reasons."""
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(("clip", "error"))
    writer.writerows((name, " ".join(reason.split())) for name, reason in sorted(damaged.items()))
    write_whole(dataset / ERRORS_NAME, table.getvalue().encode())
