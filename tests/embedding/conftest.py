"""Fixtures of the corpus tests."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from helpers.toy_corpus import CLIPS, ROWS
from helpers.toy_model import ToyModel


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Twenty short clips. One of them, 07.wav, is not audio."""
    directory = tmp_path / "archive"
    directory.mkdir()
    generator = np.random.default_rng(4)
    for number in range(CLIPS):
        samples = generator.normal(0, 0.1, 4 * ROWS)
        soundfile.write(directory / f"{number:02}.wav", samples, 8000, subtype="FLOAT")
    (directory / "07.wav").write_bytes(b"RIFF, but no more than that")
    return directory


@pytest.fixture
def toy(tmp_path: Path) -> ToyModel:
    return ToyModel(tmp_path / "notes")


@pytest.fixture
def expected(archive: Path) -> pa.Table:
    """The rows that the dataset must contain, in order."""
    names = [f"{number:02}.wav" for number in range(CLIPS) if number != 7]
    values = np.concatenate([soundfile.read(archive / name, dtype="float32")[0] for name in names])
    return pa.table(
        {
            "clip": np.repeat(names, ROWS),
            "time": np.tile(np.arange(ROWS) / 2000, len(names)),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values), 4),
            "model": ["toy"] * ROWS * len(names),
        }
    )
