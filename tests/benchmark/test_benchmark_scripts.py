"""What is wrong with the benchmarks' input is one line."""

from pathlib import Path

import bench
import pytest
import throughput

from edgel3_tflm.runtime.deployment import Deployment


def assert_one_line(
    capsys: pytest.CaptureFixture[str], status: int, expected: int, part: str
) -> None:
    assert status == expected
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("error: ")
    assert part in error


def test_an_output_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for main in (bench.main, throughput.main):
        status = main(["-o", str(tmp_path / "file")])
        assert_one_line(capsys, status, 1, "cannot write")


def test_bench_takes_deployments_of_int8_only(
    tiny_int16x8: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for directory, part in (
        (tiny_int16x8.directory, "expected an int8 deployment, got int16x8"),
        (tmp_path / "none", "expected a directory that `edgel3-tflm convert` wrote"),
    ):
        status = bench.main([str(directory), "-o", str(tmp_path / "bench")])
        assert_one_line(capsys, status, 1, part)
    assert not (tmp_path / "bench" / "bench.json").exists()


@pytest.mark.parametrize("option", ["--windows", "--turns"])
def test_throughput_measures_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        throughput.main([option, "0", "-o", str(tmp_path)])
    assert "expected 1 or more, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("script", [bench, throughput])
def test_ctrl_c_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    script: object,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "build", interrupt)
    monkeypatch.setattr(throughput, "describe_machine", interrupt)
    status = script.main(["-o", str(tmp_path)])  # type: ignore[attr-defined]
    assert_one_line(capsys, status, 130, "interrupted; no figures were written")
