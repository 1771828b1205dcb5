"""Writes a device's embeddings and their times to a file."""

import csv
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edgel3_tflm.device.transports import Closing
from edgel3_tflm.device.wire import Info, LiveEvent
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import write_whole

SUFFIXES = (".csv", ".npz")
# The figures of a window, and their types in an .npz file.
_COLUMNS: dict[str, type[np.unsignedinteger[Any]]] = {
    "milliseconds": np.uint32,
    "number": np.uint32,
    "first_sample": np.uint64,
    "missed_samples": np.uint32,
    "frontend_ticks": np.uint32,
    "engine_ticks": np.uint32,
}


@dataclass
class Recording(Closing):
    """A file with the results of a device's windows.

    A ``.csv`` file is written line by line. Its columns are time_s (host's clock, seconds since
    1970), milliseconds (node's clock, since its start), number, first_sample (position in the
    microphone's sound), missed_samples (lost since the node's start), frontend_ticks and
    engine_ticks (time of the window), e0, e1 and so on (int8 values of the embedding), and a score
    for each class. A ``.npz`` file is written at the end. Its arrays have the same names;
    ``embedding`` has shape (n, d), int8, and ``scores`` has shape (n, classes), float32. It also
    contains ``classes``, ``scale``, ``zero_point`` (``real = scale * (embedding - zero_point)``),
    ``window_samples`` and ``ticks_per_second``. If no window was added, no file is written and an
    existing file is kept.

    Parameters
    ----------
    path : pathlib.Path
        The suffix determines the format.
    info : Info
        The device that the windows come from.

    Raises
    ------
    EdgeL3Error
        If the suffix is another one, or the file cannot be written.
    """

    path: Path
    info: Info
    _events: list[tuple[float, LiveEvent]] = field(default_factory=list)
    _file: TextIO | None = None

    def __post_init__(self) -> None:
        if self.path.suffix not in SUFFIXES:
            raise EdgeL3Error(f"{self.path}: expected a name that ends in {' or '.join(SUFFIXES)}")
        with self._report_errors():
            if self.path.is_dir():
                raise IsADirectoryError(None, "it is a directory")
            # If the directory cannot be written, fail now and not after the recording.
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass

    def add(self, time_s: float, event: LiveEvent) -> None:
        """Add a window that the host received at this time, in seconds since 1970."""
        if self.path.suffix != ".csv":
            self._events.append((time_s, event))
            return
        with self._report_errors():
            if self._file is None:
                self._file = self.path.open("w", newline="", encoding="utf-8")
                values = (f"e{position}" for position in range(self.info.embedding_size))
                self._write_row("time_s", *_COLUMNS, *values, *self.info.classes)
            scores = (f"{score:.6g}" for score in event.scores)
            figures = (getattr(event, name) for name in _COLUMNS)
            self._write_row(f"{time_s:.3f}", *figures, *event.embedding.tolist(), *scores)

    def close(self) -> None:
        """Close a CSV file, or write an NPZ file."""
        if self._file is not None:
            with self._report_errors():
                self._file.close()
        if not self._events:
            return
        events = [event for _, event in self._events]
        data = io.BytesIO()
        np.savez(
            data,
            time_s=np.array([time_s for time_s, _ in self._events], np.float64),
            **{
                name: np.array([getattr(event, name) for event in events], dtype)
                for name, dtype in _COLUMNS.items()
            },
            embedding=np.array([event.embedding for event in events], np.int8).reshape(
                len(events), self.info.embedding_size
            ),
            scores=np.array([event.scores for event in events], np.float32).reshape(
                len(events), len(self.info.classes)
            ),
            classes=np.array(self.info.classes, np.str_),
            scale=np.float32(self.info.embedding_scale),
            zero_point=np.int32(self.info.embedding_zero_point),
            window_samples=np.uint32(self.info.window_samples),
            ticks_per_second=np.uint32(self.info.ticks_per_second),
        )
        write_whole(self.path, data.getvalue())

    def _write_row(self, *values: object) -> None:
        assert self._file is not None  # noqa: S101 - narrows for the type checker
        csv.writer(self._file, lineterminator="\n").writerow(values)
        self._file.flush()

    @contextmanager
    def _report_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EdgeL3Error(f"cannot write {self.path}: {error.strerror or error}") from error
