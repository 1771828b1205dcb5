"""A corpus of short clips, and its dataset, for the tests of corpora."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgel3_tflm.embedding.corpus import read_clip_list
from edgel3_tflm.embedding.corpus_run import CorpusRun, embed_corpus

CLIPS = 20
ROWS = 25


def embed(archive: Path, model: Any, dataset: Path, **options: Any) -> CorpusRun:
    options = {"workers": 1, "progress": lambda *_: None} | options
    return embed_corpus(read_clip_list(archive), model, dataset, **options)


def read(dataset: Path) -> pa.Table:
    """Rows in the clips' order: runs that were interrupted leave other parts."""
    return pq.read_table(dataset).sort_by([("clip", "ascending"), ("time", "ascending")])


def assert_whole(dataset: Path, expected: pa.Table) -> None:
    found = read(dataset)
    assert found.select(expected.column_names).cast(expected.schema).equals(expected)
    assert not list(dataset.glob(".*")), "something temporary is left"
