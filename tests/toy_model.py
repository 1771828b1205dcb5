"""A model of a corpus for tests, in a module of its own so that worker processes can import it."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgel3_tflm.audio import read_clip
from edgel3_tflm.errors import AudioError


@dataclass(frozen=True)
class ToyModel:
    """Four samples are an embedding. Notes which clips it is asked for, and by which process.

    In the middle of the clip ``fatal`` it kills its process, but once only; in the middle of
    ``torn`` it finds damage.
    """

    notes: Path
    name: str = "toy"
    seconds: float = 0
    fatal: str = ""
    torn: str = ""

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"model_sha256": self.name, "embedding_size": 4}

    @property
    def provenance(self) -> tuple[str, ...]:
        return ("no weights",)

    def open(self) -> "ToyModel":
        return self

    def embed_file(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with self.notes.open("a") as notes:
            notes.write(f"{path.name}\t{os.getpid()}\n")
        time.sleep(self.seconds)
        rows = read_clip(path, 8000).samples.reshape(-1, 4)
        for first in range(0, len(rows), 10):
            block = rows[first : first + 10]
            yield block, np.arange(first, first + len(block)) / 2000
            killed = self.notes.with_suffix(".killed")
            if path.name == self.fatal and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if path.name == self.torn:
                raise AudioError(f"{path}: torn")

    def noted(self) -> list[str]:
        """Clips in the order in which they were asked for."""
        if not self.notes.exists():
            return []
        return [line.split("\t")[0] for line in self.notes.read_text().splitlines()]
