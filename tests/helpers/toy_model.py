"""A model for the tests of corpora. Worker processes import this module."""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgel3_tflm.audio.clips import read_clip
from edgel3_tflm.errors import AudioError


@dataclass(frozen=True)
class ToyModel:
    """A model whose embeddings are four samples each. It records the clips that it embeds.

    Parameters
    ----------
    notes : pathlib.Path
        File to which the names of the clips are appended.
    name : str
        Digest of the model.
    fatal : str
        Clip in the middle of which the process kills itself, the first time only.
    kills_run : bool
        Whether it kills its parent process, too, before itself.
    torn : str
        Clip that proves to be damaged after its last row.
    """

    notes: Path
    name: str = "toy"
    fatal: str = ""
    kills_run: bool = False
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
            notes.write(f"{path.name}\n")
        rows = read_clip(path, 8000).samples.reshape(-1, 4)
        for first in range(0, len(rows), 10):
            block = rows[first : first + 10]
            yield block, np.arange(first, first + len(block)) / 2000
            killed = self.notes.with_suffix(".killed")
            if path.name == self.fatal and not killed.exists():
                killed.touch()
                if self.kills_run:
                    os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
        if path.name == self.torn:
            raise AudioError(f"{path}: torn")

    def noted(self) -> list[str]:
        """Return the clips in the order in which they were embedded."""
        if not self.notes.exists():
            return []
        return self.notes.read_text().splitlines()
