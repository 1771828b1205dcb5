"""Functions that embed and read a corpus of short clips."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgel3_tflm.embedding.corpus import read_clip_list
from edgel3_tflm.embedding.corpus_run import CorpusRun, embed_corpus

CLIPS = 20
ROWS = 25
"""Rows of each clip."""


def embed(archive: Path, model: Any, dataset: Path, **options: Any) -> CorpusRun:
    """Embed the clips of a directory; by default in one worker process."""
    options = {"workers": 1, "progress": lambda *_: None} | options
    return embed_corpus(read_clip_list(archive), model, dataset, **options)


def read(dataset: Path) -> pa.Table:
    """Return the rows in the order of the clips. It does not depend on how they are divided."""
    return pq.read_table(dataset).sort_by([("clip", "ascending"), ("time", "ascending")])


def assert_whole(dataset: Path, expected: pa.Table) -> None:
    """Assert that a dataset contains the expected rows and no temporary files."""
    found = read(dataset)
    assert found.select(expected.column_names).cast(expected.schema).equals(expected)
    assert not list(dataset.glob(".*")), "temporary files are left"
