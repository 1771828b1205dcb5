"""Corpora on a Dask cluster, with and without workers."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dask
import pyarrow as pa
import pytest
from distributed import LocalCluster
from helpers.toy_corpus import CLIPS, assert_whole, embed
from helpers.toy_model import ToyModel

from edgel3_tflm.embedding import cluster as cluster_module
from edgel3_tflm.embedding.cluster import WORKERS_TIMEOUT_S, WorkerCheck
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError, install_hint


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


def test_a_cluster_gives_what_one_machine_gives(
    archive: Path, toy: ToyModel, tmp_path: Path, cluster: LocalCluster
) -> None:
    embed(archive, toy, tmp_path / "local")
    run = embed(archive, toy, tmp_path / "dask", scheduler=cluster.scheduler_address)
    assert list(run.damaged) == ["07.wav"]
    parts = {part.name: part.read_bytes() for part in (tmp_path / "local").glob("*.parquet")}
    assert parts == {part.name: part.read_bytes() for part in (tmp_path / "dask").glob("*.parquet")}
    again = embed(archive, toy, tmp_path / "dask", scheduler=cluster.scheduler_address)
    assert (again.done_before, again.embedded) == (CLIPS, 0)


def test_a_cluster_loses_nothing_when_a_worker_is_killed(
    archive: Path, tmp_path: Path, cluster: LocalCluster, expected: pa.Table
) -> None:
    toy = ToyModel(tmp_path / "notes", fatal="12.wav")
    address = cluster.scheduler_address
    run = embed(archive, toy, tmp_path / "dataset", scheduler=address)
    assert (tmp_path / "notes.killed").exists()
    assert toy.noted().count("12.wav") == 2
    assert (run.embedded, list(run.damaged)) == (CLIPS - 1, ["07.wav"])
    assert_whole(tmp_path / "dataset", expected)


def test_a_scheduler_that_is_not_there_is_named(
    archive: Path, toy: ToyModel, tmp_path: Path
) -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(EdgeL3Error, match=r"tcp://127\.0\.0\.1:1, cannot reach it"),
    ):
        embed(archive, toy, tmp_path / "d", scheduler="tcp://127.0.0.1:1")


@pytest.fixture
def empty_cluster() -> Iterator[LocalCluster]:
    """A scheduler without workers.

    It rejects tasks after a minute without workers, because a run that does not look for workers
    would wait for ever.
    """
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "60s"}),
        LocalCluster(
            n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
    ):
        yield cluster


def test_a_cluster_without_workers_is_waited_for_and_then_given_up(
    archive: Path,
    toy: ToyModel,
    tmp_path: Path,
    empty_cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_module, "WORKERS_TIMEOUT_S", 0)
    address = empty_cluster.scheduler_address
    notes: list[str] = []
    with pytest.raises(EdgeL3Error, match=f"{address}: no worker came within 0 s; start workers"):
        embed(archive, toy, tmp_path / "d", scheduler=address, note=notes.append)
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
    embed(archive, toy, tmp_path / "d", scheduler=address, note=start_worker)
    assert len(notes) == 1
    assert_whole(tmp_path / "d", expected)


def test_the_wait_begins_again_each_time_that_all_workers_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, workers, notes = 0, dict[str, int](), list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    check = WorkerCheck(SimpleNamespace(nthreads=lambda: workers), "tcp://here:1", notes.append)
    check()
    now_s = WORKERS_TIMEOUT_S - 1
    check()
    assert len(notes) == 1
    workers["worker"] = 1
    now_s = WORKERS_TIMEOUT_S
    check()
    workers.clear()
    check()
    assert len(notes) == 2
    now_s = 2 * WORKERS_TIMEOUT_S
    with pytest.raises(EdgeL3Error, match="no worker came within 300 s"):
        check()


def test_a_scheduler_that_gives_up_first_ends_the_run_in_a_line(
    archive: Path, toy: ToyModel, tmp_path: Path
) -> None:
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "1ms"}),
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(EdgeL3Error, match=r"Dask gave up: .* without any running workers\..* again"),
    ):
        embed(archive, toy, tmp_path / "d", scheduler=cluster.scheduler_address)


def test_a_scheduler_that_is_lost_is_named(
    archive: Path, toy: ToyModel, tmp_path: Path, empty_cluster: LocalCluster
) -> None:
    address = empty_cluster.scheduler_address
    with pytest.raises(EdgeL3Error, match=f"lost the Dask scheduler at {address}; .* again"):
        embed(
            archive,
            toy,
            tmp_path / "d",
            scheduler=address,
            note=lambda _: empty_cluster.close(),
        )


def test_missing_packages_name_the_extra(
    archive: Path, toy: ToyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeUnavailableError, match=re.escape(install_hint("dask"))):
        embed(archive, toy, tmp_path / "dataset", scheduler="dask")
    code = "import sys; sys.modules['pyarrow'] = None; import edgel3_tflm.embedding.parquet"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert install_hint("corpora").encode() in result.stderr.splitlines()[-1]
