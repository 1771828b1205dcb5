"""The parts of a dataset: complete files, and one clear error for everything else."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import soundfile
from helpers.toy_corpus import CLIPS, assert_whole, embed
from helpers.toy_model import ToyModel

from edgel3_tflm.audio.manifest import read_rows
from edgel3_tflm.embedding import parquet, tasks
from edgel3_tflm.embedding.corpus import read_clip_list
from edgel3_tflm.embedding.parquet import ERRORS_NAME
from edgel3_tflm.errors import EdgeL3Error


def test_a_clip_damaged_after_many_windows_leaves_no_row(
    archive: Path, tmp_path: Path, expected: pa.Table
) -> None:
    # More rows than the buffer has: some are in the file when the damage is found.
    samples = np.zeros(4 * (parquet.MAX_BUFFERED_ROWS + 20))
    soundfile.write(archive / "03.wav", samples, 8000)
    toy = ToyModel(tmp_path / "notes", torn="03.wav")
    run = embed(archive, toy, tmp_path / "dataset")
    assert toy.noted().count("02.wav") == 2  # the part was written again
    assert list(run.damaged) == ["03.wav", "07.wav"]
    kept = expected.filter(pc.not_equal(expected["clip"], "03.wav"))
    assert_whole(tmp_path / "dataset", kept)
    assert run.windows == len(kept)
    for part in sorted((tmp_path / "dataset").glob("part-*")):
        file = pq.ParquetFile(part)
        names = file.read(["clip"])["clip"].unique().to_pylist()
        assert json.loads(file.metadata.metadata[b"edgel3_tflm_clips"])["embedded"] == names
    assert embed(archive, toy, tmp_path / "dataset").done_before == CLIPS


def test_a_clip_longer_than_memory_is_written_in_row_groups(
    archive: Path,
    toy: ToyModel,
    tmp_path: Path,
    expected: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "MAX_BUFFERED_ROWS", 7)
    clips = [clip for clip in read_clip_list(archive) if clip.name != "07.wav"]
    task = tasks.PartTask(tmp_path / "part-0.parquet", tuple(clips), toy)
    result = tasks.run_task(task)
    found = pq.ParquetFile(task.part)
    assert found.read().cast(expected.schema).equals(expected)
    assert found.num_row_groups > 10
    assert result.windows == len(expected)


def test_another_model_is_refused(archive: Path, toy: ToyModel, tmp_path: Path) -> None:
    embed(archive, toy, tmp_path / "dataset")
    other = ToyModel(toy.notes, name="other")
    with pytest.raises(EdgeL3Error, match="model_sha256 toy, expected other"):
        embed(archive, other, tmp_path / "dataset")


def test_a_directory_of_other_files_is_refused(archive: Path, toy: ToyModel) -> None:
    with pytest.raises(EdgeL3Error, match="holds other files"):
        embed(archive, toy, archive)
    with pytest.raises(EdgeL3Error, match="it is a file"):
        embed(archive, toy, archive / "00.wav")
    assert not toy.noted()


def test_a_damaged_part_is_named(archive: Path, toy: ToyModel, tmp_path: Path) -> None:
    embed(archive, toy, tmp_path / "dataset")
    part = sorted((tmp_path / "dataset").glob("*.parquet"))[1]
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(EdgeL3Error, match=rf"{part.name}: .* remove it"):
        embed(archive, toy, tmp_path / "dataset")
    part.unlink()
    assert embed(archive, toy, tmp_path / "dataset").embedded == 4  # and one is no audio


CLIPS_KEY, MODEL_KEY = b"edgel3_tflm_clips", b"edgel3_tflm"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (CLIPS_KEY, {"embedded": "00.wav", "damaged": {}}),
        (CLIPS_KEY, {"embedded": [0], "damaged": {}}),
        (CLIPS_KEY, {"embedded": ["00.wav"], "damaged": ["01.wav"]}),
        (CLIPS_KEY, {"embedded": ["00.wav"], "damaged": {"01.wav": None}}),
        (CLIPS_KEY, []),
        (MODEL_KEY, {"settings": ["toy"]}),
        (MODEL_KEY, {"settings": None}),
        (MODEL_KEY, 7),
    ],
)
def test_a_part_whose_metadata_is_of_another_shape_is_named(
    archive: Path, toy: ToyModel, tmp_path: Path, key: bytes, value: object
) -> None:
    part = tmp_path / "dataset" / "part-000000-0.parquet"
    part.parent.mkdir()
    found: dict[bytes, object] = {
        CLIPS_KEY: {"embedded": ["00.wav"], "damaged": {}},
        MODEL_KEY: {"settings": toy.settings},
        key: value,
    }
    metadata = {each: json.dumps(text) for each, text in found.items()}
    pq.write_table(pa.table({"clip": ["00.wav"]}).replace_schema_metadata(metadata), part)
    with pytest.raises(EdgeL3Error, match=rf"{part.name}: expected a part .* remove it"):
        embed(archive, toy, tmp_path / "dataset")


def test_damaged_clips_are_a_table_whatever_they_are_called(
    archive: Path, toy: ToyModel, tmp_path: Path
) -> None:
    name = 'a\t"b"\nc.wav'
    (archive / name).write_bytes(b"no audio")
    embed(archive, toy, tmp_path / "dataset")
    path = tmp_path / "dataset" / ERRORS_NAME
    rows = read_rows(path, ("clip", "error"), delimiter="\t")
    assert [row["clip"] for row in rows] == ["07.wav", name]
