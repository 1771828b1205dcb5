"""Runs over a corpus: what a dataset contains, and how an interrupted run continues."""

import os
import signal
import subprocess
import sys
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from helpers.toy_corpus import CLIPS, ROWS, assert_whole, embed, read
from helpers.toy_model import ToyModel

from edgel3_tflm.embedding import tasks
from edgel3_tflm.embedding.corpus import read_clip_list
from edgel3_tflm.embedding.corpus_run import embed_corpus
from edgel3_tflm.embedding.parquet import ERRORS_NAME
from edgel3_tflm.errors import EdgeL3Error


def test_a_dataset_holds_every_window_of_every_clip(
    archive: Path, toy: ToyModel, tmp_path: Path, expected: pa.Table
) -> None:
    run = embed(archive, toy, tmp_path / "dataset", workers=2)
    assert (run.clips, run.done_before, run.embedded) == (CLIPS, 0, CLIPS - 1)
    assert run.windows == ROWS * (CLIPS - 1)
    assert_whole(tmp_path / "dataset", expected)
    assert pq.read_table(tmp_path / "dataset").column("clip").equals(expected.column("clip"))


def test_damaged_clips_are_named(archive: Path, toy: ToyModel, tmp_path: Path) -> None:
    run = embed(archive, toy, tmp_path / "dataset")
    assert list(run.damaged) == ["07.wav"]
    assert "libsndfile" in run.damaged["07.wav"]
    header, line = (tmp_path / "dataset" / ERRORS_NAME).read_text().splitlines()
    assert header == "clip\terror"
    assert line.startswith("07.wav\t")


def test_a_second_run_does_no_work(archive: Path, toy: ToyModel, tmp_path: Path) -> None:
    embed(archive, toy, tmp_path / "dataset")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "dataset").glob("*.parquet")}
    asked = toy.noted()
    run = embed(archive, toy, tmp_path / "dataset")
    assert (run.done_before, run.embedded) == (CLIPS, 0)
    assert list(run.damaged) == ["07.wav"]
    assert toy.noted() == asked
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "dataset").glob("*.parquet")}
    assert before == after


def test_damaged_clips_are_tried_again_when_asked(
    archive: Path, toy: ToyModel, tmp_path: Path
) -> None:
    embed(archive, toy, tmp_path / "dataset")
    soundfile.write(archive / "07.wav", np.ones(4 * ROWS), 8000)
    run = embed(archive, toy, tmp_path / "dataset", retry_damaged=True)
    assert (run.done_before, run.embedded, run.damaged) == (CLIPS - 1, 1, {})
    assert toy.noted().count("07.wav") == 2
    assert len(toy.noted()) == CLIPS + 1
    assert len(pq.read_table(tmp_path / "dataset")) == ROWS * CLIPS
    assert (tmp_path / "dataset" / ERRORS_NAME).read_text().splitlines() == ["clip\terror"]


def test_clips_added_later_are_all_that_is_embedded(
    archive: Path, toy: ToyModel, tmp_path: Path
) -> None:
    clips = read_clip_list(archive)
    quiet: dict[str, Any] = {"workers": 1, "progress": lambda *_: None}
    embed_corpus(clips[:9], toy, tmp_path / "dataset", **quiet)
    run = embed_corpus(clips, toy, tmp_path / "dataset", **quiet)
    assert (run.done_before, run.embedded) == (9, CLIPS - 9)
    assert sorted(toy.noted()) == [clip.name for clip in clips]


def test_a_run_goes_on_after_a_worker_process_was_killed(
    archive: Path, tmp_path: Path, expected: pa.Table
) -> None:
    toy = ToyModel(tmp_path / "notes", fatal="12.wav")
    with pytest.raises(EdgeL3Error, match="run the same command again"):
        embed(archive, toy, tmp_path / "dataset")
    held = {name for name in toy.noted() if name < "10.wav"}
    run = embed(archive, toy, tmp_path / "dataset")
    assert run.done_before == len(held)
    assert all(toy.noted().count(name) == 1 for name in held)
    assert_whole(tmp_path / "dataset", expected)


RUN = """
import sys
from pathlib import Path
from helpers.toy_model import ToyModel
from typer.testing import CliRunner
from edgel3_tflm.embedding.corpus import read_clip_list
from edgel3_tflm.embedding.corpus_run import embed_corpus
if __name__ == "__main__":
    archive, notes, dataset = map(Path, sys.argv[1:])
    toy = ToyModel(notes, fatal="12.wav", kills_run=True)
    clips = read_clip_list(archive)
    embed_corpus(clips, toy, dataset, workers=2, progress=lambda *_: None)
"""


def test_a_run_that_was_killed_goes_on(
    archive: Path, toy: ToyModel, tmp_path: Path, expected: pa.Table
) -> None:
    dataset = tmp_path / "dataset"
    script = tmp_path / "run.py"
    script.write_text(RUN)
    killed = subprocess.run(
        [sys.executable, script, archive, toy.notes, dataset],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        # Its workers inherit the pipe: reading ends when all of them have ended.
        stdout=subprocess.PIPE,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    held = {row for part in dataset.glob("part-*") for row in read(part)["clip"].to_pylist()}
    # Two workers take parts of five clips in order: one part was done before 12.wav was reached.
    assert held
    assert "12.wav" not in held
    asked = toy.noted()
    embed(archive, toy, dataset)
    again = toy.noted()[len(asked) :]
    assert len(again) == len(set(again))
    damaged = {"07.wav"}  # has no rows, whether its part was done or not
    assert set(again) - damaged == {f"{number:02}.wav" for number in range(CLIPS)} - held - damaged
    assert_whole(dataset, expected)


def test_a_worker_process_killed_while_parts_are_submitted_is_said_in_a_line() -> None:
    class Broken(Executor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise BrokenProcessPool

    with pytest.raises(EdgeL3Error, match="run the same command again"):
        list(tasks.run_tasks(Broken(), [tasks.PartTask(Path("p"), (), None)], lambda: None))
