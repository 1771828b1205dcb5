"""Recordings of a device's windows: what they hold, and when there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.boards.scripted_node import write_info

from edgel3_tflm.device.recording import Recording
from edgel3_tflm.device.wire import Info, LiveEvent
from edgel3_tflm.errors import EdgeL3Error

INFO = replace(Info.parse(write_info()), classes=("dog", "cat", "été"))
EVENT = LiveEvent(
    *(7, 1234, 56000, 99, 11, 22),
    embedding=np.arange(64, dtype=np.int8),
    scores=np.array([0.5, 0.25, 0.25], np.float32),
)


@pytest.mark.parametrize("suffix", ["csv", "npz"])
@pytest.mark.parametrize("count", [1, 2])
def test_recordings_hold_what_they_were_given(tmp_path: Path, suffix: str, count: int) -> None:
    path = tmp_path / f"a.{suffix}"
    with Recording(path, INFO) as recording:
        for _ in range(count):
            recording.add(1.7e9 + 0.125, EVENT)
    assert list(tmp_path.iterdir()) == [path]
    if suffix == "csv":
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        figures = "number,first_sample,missed_samples,frontend_ticks,engine_ticks"
        assert head.startswith(f"time_s,milliseconds,{figures},e0,e1,")
        assert head.endswith(",e63,dog,cat,été")
        assert len(lines) == count
        assert all(line.startswith("1700000000.125,1234,7,56000,99,11,22,0,1,2,") for line in lines)
        return
    with np.load(path) as data:
        assert data["embedding"].shape == (count, 64)
        assert data["scores"].shape == (count, 3)
        assert data["time_s"].tolist() == [1.7e9 + 0.125] * count
        assert data["zero_point"] == INFO.embedding_zero_point
        for name in ("milliseconds", "number", "first_sample", "missed_samples", "engine_ticks"):
            assert data[name].tolist() == [getattr(EVENT, name)] * count
        assert data["window_samples"] == INFO.window_samples
        assert data["ticks_per_second"] == INFO.ticks_per_second


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_a_recording_without_windows_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    old, new = tmp_path / f"old.{suffix}", tmp_path / f"new.{suffix}"
    old.write_text("an hour of sound")
    for path in (old, new):
        Recording(path, INFO).close()
    assert old.read_text() == "an hour of sound"
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.txt", r"expected a name that ends in \.csv or \.npz"),
        ("no/such/a.csv", "cannot write .*: No such file or directory"),
        ("no/such/a.npz", "cannot write .*: No such file or directory"),
        ("file/a.npz", "cannot write .*: Not a directory"),
        ("directory.npz", "cannot write .*: it is a directory"),
        ("directory.csv", "cannot write .*: it is a directory"),
    ],
)
def test_a_recording_that_cannot_be_written_is_an_error_at_once(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory.npz").mkdir()
    (tmp_path / "directory.csv").mkdir()
    with pytest.raises(EdgeL3Error, match=message):
        Recording(tmp_path / name, INFO)


def test_a_full_disk_is_an_error_and_closing_it_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.symlink_to("/dev/full")
    recording = Recording(path, INFO)
    with pytest.raises(EdgeL3Error, match="No space left on device"):
        recording.add(0, EVENT)
    with pytest.raises(EdgeL3Error, match="No space left on device"):
        recording.close()
