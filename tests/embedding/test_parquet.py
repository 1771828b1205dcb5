"""Corpora: a Parquet dataset that is whole whatever happens to the run or to a worker."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import soundfile
from distributed import LocalCluster
from helpers.toy_model import ToyModel
from typer.testing import CliRunner

from edgel3_tflm.audio.framing import Framing
from edgel3_tflm.audio.manifest import read_rows
from edgel3_tflm.cli.commands import app
from edgel3_tflm.embedding import cluster as executors
from edgel3_tflm.embedding import parquet as corpora
from edgel3_tflm.embedding.api import get_embedding
from edgel3_tflm.embedding.models import ModelChoice
from edgel3_tflm.embedding.parquet import (
    ERRORS_NAME,
    CorpusClip,
    CorpusModel,
    CorpusRun,
    embed_corpus,
    read_clip_list,
)
from edgel3_tflm.errors import (
    AudioError,
    EdgeL3Error,
    EdgeL3Warning,
    RuntimeUnavailableError,
    install_hint,
)
from edgel3_tflm.runtime.deployment import Deployment

CLIPS = 20
ROWS = 25


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Twenty short clips, one of them no audio."""
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


def embed(archive: Path, model: Any, dataset: Path, **options: Any) -> CorpusRun:
    options = {"workers": 1, "progress": lambda *_: None} | options
    return embed_corpus(read_clip_list(archive), model, dataset, **options)


@pytest.fixture
def expected(archive: Path) -> pa.Table:
    """What the dataset must hold, in order."""
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


def read(dataset: Path) -> pa.Table:
    """Rows in the clips' order: runs that were interrupted leave other parts."""
    return pq.read_table(dataset).sort_by([("clip", "ascending"), ("time", "ascending")])


def assert_whole(dataset: Path, expected: pa.Table) -> None:
    found = read(dataset)
    assert found.select(expected.column_names).cast(expected.schema).equals(expected)
    assert not list(dataset.glob(".*")), "something temporary is left"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


def test_a_dataset_holds_every_window_of_every_clip(
    archive: Path, toy: ToyModel, tmp_path: Path, expected: pa.Table
) -> None:
    run = embed(archive, toy, tmp_path / "dataset", workers=2)
    assert (run.clips, run.done_before, run.embedded) == (CLIPS, 0, CLIPS - 1)
    assert run.windows == ROWS * (CLIPS - 1)
    assert_whole(tmp_path / "dataset", expected)
    assert pq.read_table(tmp_path / "dataset").column("clip").equals(expected.column("clip"))


@pytest.fixture(scope="module")
def sea_corpus(tiny_int8: Deployment) -> CorpusModel:
    choice = ModelChoice(tiny_int8.directory)
    return CorpusModel.of(choice, Framing(hop_size=0.25), lambda *_: None)


def test_a_dataset_of_a_network_has_what_get_embedding_returns(
    archive: Path, tiny_int8: Deployment, sea_corpus: CorpusModel, tmp_path: Path
) -> None:
    clips = read_clip_list(archive)[:3]
    embed_corpus(clips, sea_corpus, tmp_path / "dataset", workers=1, progress=lambda *_: None)
    table = pq.read_table(tmp_path / "dataset")
    for clip in clips:
        samples, rate_hz = soundfile.read(clip.path)
        with pytest.warns(EdgeL3Warning, match="shorter"):
            expected, times = get_embedding(samples, rate_hz, tiny_int8, hop_size=0.25)
        rows = table.filter(pc.equal(table["clip"], clip.name))
        np.testing.assert_array_equal(np.stack(rows["embedding"].to_numpy()), expected)
        np.testing.assert_array_equal(rows["time"], times)
    digest = tiny_int8.manifest["artefacts"]["int8.tflite"]["sha256"]
    assert table["model"].unique().to_pylist() == [digest]
    provenance = json.loads(table.schema.metadata[b"edgel3_tflm"])["provenance"]
    assert tiny_int8.manifest["weights"]["description"] in provenance


def test_a_worker_with_another_model_is_refused(
    archive: Path, sea_corpus: CorpusModel, tmp_path: Path
) -> None:
    other = replace(sea_corpus, settings={**sea_corpus.settings, "model_sha256": "0" * 64})
    with pytest.raises(EdgeL3Error, match="expected the model 000000000000"):
        embed(archive, other, tmp_path / "dataset")
    assert not list((tmp_path / "dataset").glob("*"))


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


def test_a_cluster_gives_what_one_machine_gives(
    archive: Path, toy: ToyModel, tmp_path: Path, cluster: LocalCluster
) -> None:
    embed(archive, toy, tmp_path / "local")
    run = embed(archive, toy, tmp_path / "dask", engine="dask", scheduler=cluster.scheduler_address)
    assert list(run.damaged) == ["07.wav"]
    parts = {part.name: part.read_bytes() for part in (tmp_path / "local").glob("*.parquet")}
    assert parts == {part.name: part.read_bytes() for part in (tmp_path / "dask").glob("*.parquet")}
    again = embed(
        archive, toy, tmp_path / "dask", engine="dask", scheduler=cluster.scheduler_address
    )
    assert (again.done_before, again.embedded) == (CLIPS, 0)


def test_a_cluster_loses_nothing_when_a_worker_is_killed(
    archive: Path, tmp_path: Path, cluster: LocalCluster, expected: pa.Table
) -> None:
    toy = ToyModel(tmp_path / "notes", fatal="12.wav")
    address = cluster.scheduler_address
    run = embed(archive, toy, tmp_path / "dataset", engine="dask", scheduler=address)
    assert (tmp_path / "notes.killed").exists()
    assert toy.noted().count("12.wav") == 2
    assert (run.embedded, list(run.damaged)) == (CLIPS - 1, ["07.wav"])
    assert_whole(tmp_path / "dataset", expected)


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
from edgel3_tflm.embedding.parquet import embed_corpus, read_clip_list
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
    # Two workers take parts of five clips in order: one part was done before 12.wav was met.
    assert held
    assert "12.wav" not in held
    asked = toy.noted()
    embed(archive, toy, dataset)
    again = toy.noted()[len(asked) :]
    assert len(again) == len(set(again))
    damaged = {"07.wav"}  # in no part's rows, whether its part was done or not
    assert set(again) - damaged == {f"{number:02}.wav" for number in range(CLIPS)} - held - damaged
    assert_whole(dataset, expected)


def test_a_clip_damaged_after_many_windows_leaves_no_row(
    archive: Path, tmp_path: Path, expected: pa.Table
) -> None:
    # More rows than wait in memory: some are in the file when the damage is found.
    samples = np.zeros(4 * (corpora._ROWS_IN_MEMORY + 20))
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
    monkeypatch.setattr(corpora, "_ROWS_IN_MEMORY", 7)
    clips = [clip for clip in read_clip_list(archive) if clip.name != "07.wav"]
    task = corpora._Task(tmp_path / "part-0.parquet", tuple(clips), toy)
    result = corpora._embed_part(task)
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


def test_a_file_name_that_is_no_text_is_refused(archive: Path) -> None:
    path = archive / os.fsdecode(b"caf\xe9.wav")
    path.touch()
    with pytest.raises(
        AudioError, match=r"expected file names in UTF-8, found .*caf\\xe9.* rename"
    ):
        read_clip_list(archive)


def test_damaged_clips_are_a_table_whatever_they_are_called(
    archive: Path, toy: ToyModel, tmp_path: Path
) -> None:
    name = 'a\t"b"\nc.wav'
    (archive / name).write_bytes(b"no audio")
    embed(archive, toy, tmp_path / "dataset")
    path = tmp_path / "dataset" / ERRORS_NAME
    rows = read_rows(path, ("clip", "error"), delimiter="\t")
    assert [row["clip"] for row in rows] == ["07.wav", name]


def test_a_worker_process_killed_while_parts_are_submitted_is_said_in_a_line() -> None:
    class Broken(Executor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise BrokenProcessPool

    with pytest.raises(EdgeL3Error, match="run the same command again"):
        list(corpora._run(Broken(), [corpora._Task(Path("p"), (), None)], lambda: None))


def test_a_scheduler_that_is_not_there_is_named(
    archive: Path, toy: ToyModel, tmp_path: Path
) -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(EdgeL3Error, match=r"tcp://127\.0\.0\.1:1, cannot reach it"),
    ):
        embed(archive, toy, tmp_path / "d", engine="dask", scheduler="tcp://127.0.0.1:1")


@pytest.fixture
def empty_cluster() -> Iterator[LocalCluster]:
    """A scheduler without workers."""
    with LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        yield cluster


def test_a_cluster_without_workers_is_waited_for_and_then_given_up(
    archive: Path,
    toy: ToyModel,
    tmp_path: Path,
    empty_cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "WORKERS_TIMEOUT_S", 0)
    address = empty_cluster.scheduler_address
    notes: list[str] = []
    with pytest.raises(EdgeL3Error, match=f"{address}: no worker came within 0 s; start some"):
        embed(archive, toy, tmp_path / "d", engine="dask", scheduler=address, note=notes.append)
    assert notes == [f"{address} has no worker: waiting for one, up to 0 s"]
    assert not list((tmp_path / "d").iterdir())


def test_a_worker_that_comes_late_embeds_the_corpus(
    archive: Path, toy: ToyModel, tmp_path: Path, empty_cluster: LocalCluster, expected: pa.Table
) -> None:
    notes: list[str] = []

    def start_worker(note: str) -> None:
        notes.append(note)
        empty_cluster.scale(1)

    address = empty_cluster.scheduler_address
    embed(archive, toy, tmp_path / "d", engine="dask", scheduler=address, note=start_worker)
    assert len(notes) == 1
    assert_whole(tmp_path / "d", expected)


def test_a_scheduler_that_gives_up_first_ends_the_run_in_a_line(
    archive: Path, toy: ToyModel, tmp_path: Path
) -> None:
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "1ms"}),
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(EdgeL3Error, match=r"Dask gave up: .* without any running workers\..* again"),
    ):
        embed(archive, toy, tmp_path / "d", engine="dask", scheduler=cluster.scheduler_address)


def test_a_scheduler_that_is_lost_is_named(
    archive: Path, toy: ToyModel, tmp_path: Path, empty_cluster: LocalCluster
) -> None:
    address = empty_cluster.scheduler_address
    with pytest.raises(EdgeL3Error, match=f"lost the Dask scheduler at {address}; .* again"):
        embed(
            archive,
            toy,
            tmp_path / "d",
            engine="dask",
            scheduler=address,
            note=lambda _: empty_cluster.close(),
        )


def test_missing_packages_name_the_extra(
    archive: Path, toy: ToyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeUnavailableError, match=re.escape(install_hint("dask"))):
        embed(archive, toy, tmp_path / "dataset", engine="dask")
    code = "import sys; sys.modules['pyarrow'] = None; import edgel3_tflm.embedding.parquet"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert install_hint("corpora").encode() in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    ["a.wav\nb c.wav\n", "\ufefflabel\tfile\nx\ta.wav\ny\tb c.wav\n"],
    ids=["lines", "table"],
)
def test_a_manifest_is_a_table_or_a_list(tmp_path: Path, text: str) -> None:
    manifest = tmp_path / "clips.txt"
    manifest.write_text(text, encoding="utf-8")
    assert read_clip_list(manifest) == [CorpusClip(name, tmp_path) for name in ("a.wav", "b c.wav")]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no rows"), ("file\n", "no rows"), ("a.wav\na.wav\n", "in lines 1 and 2")],
)
def test_a_manifest_that_says_nothing_or_twice_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "clips.txt").write_text(text)
    with pytest.raises(AudioError, match=message):
        read_clip_list(tmp_path / "clips.txt")
    with pytest.raises(AudioError, match="cannot read"):
        read_clip_list(tmp_path / "none.txt")


def run_embed(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("edgel3-tflm")
    words = [str(command), "embed", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_command_names_damaged_clips_and_goes_on_where_it_was(
    archive: Path, tiny_int8: Deployment, tmp_path: Path
) -> None:
    manifest = archive / "clips.tsv"
    manifest.write_text("label\tfile\nnoise\t06.wav\nno\t07.wav\nnoise\t08.wav\n")
    options = ("--manifest", manifest, "--model", tiny_int8.directory, "--out", tmp_path / "set")
    first = run_embed(*options, "--workers", 1)
    assert first.returncode == 1
    assert "2 of 3 clips embedded" in first.stdout
    assert "weights file tiny.h5.gz" in first.stdout
    assert "07.wav: expected an audio file" in first.stderr
    assert "1 of 3 clips are damaged" in first.stderr
    soundfile.write(archive / "07.wav", np.ones(9000), 8000)
    second = run_embed(*options, "--json")
    assert second.returncode == 1
    assert json.loads(second.stdout)["embedded"] == 0
    third = run_embed(*options, "--workers", 1, "--retry-damaged")
    assert third.returncode == 0
    assert "1 of 3 clips embedded" in third.stdout
    assert "nothing to do" in run_embed(*options).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--manifest", "."], "expected --out DATASET"),
        (["--manifest", ".", "--out", "d", "--engine", "spark"], "unknown engine 'spark'"),
        (["--manifest", ".", "--out", "d", "--scheduler", "a:1"], "expected --engine dask"),
        (
            [
                "--manifest",
                ".",
                "--out",
                "d",
                "--engine",
                "dask",
                "--scheduler",
                "a",
                "--workers=2",
            ],
            "expected one of --scheduler",
        ),
        (["--manifest", ".", "--out", "d", "a.wav"], "expected --manifest without INPUTS"),
        (["a.wav", "--out", "d"], "expected --manifest with --out"),
        ([], "expected INPUTS or --manifest"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_a_line(
    options: list[str], message: str
) -> None:
    result = CliRunner().invoke(app, ["embed", *options])
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.splitlines()) == 1
