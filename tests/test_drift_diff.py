"""What moved between two drift reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ignore_progress
from spoil import double_kernel_scales, with_quantized_model
from test_cli import assert_one_error_line, run

from edgel3_tflm.deployment import Deployment
from edgel3_tflm.drift import compare
from edgel3_tflm.drift_diff import diff_drift, read_drift
from edgel3_tflm.metrics import METRICS
from edgel3_tflm.report import write_report


@pytest.fixture(scope="module")
def reports(sea_int8: Deployment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A report, and one of the same deployment with a spoilt layer and a runtime more."""
    directory = tmp_path_factory.mktemp("reports")
    clips = directory / "clips"
    clips.mkdir()
    rng = np.random.default_rng(7)
    for number in range(3):
        soundfile.write(clips / f"{number}.wav", rng.normal(0, 0.1, 8000), 8000)
    model = double_kernel_scales(sea_int8.read_model("int8"), 2)
    spoilt = with_quantized_model(sea_int8, model, directory / "deployment")
    for deployment, name, runtimes in (
        (sea_int8, "before", ["tflite-runtime"]),
        (spoilt, "after", ["tflite-runtime", "litert"]),
    ):
        report = compare(deployment, [clips], runtimes=runtimes, hop_s=1, progress=ignore_progress)
        write_report(report, directory / name)
    return directory / "before", directory / "after"


def test_every_metric_layer_and_clip_is_compared(reports: tuple[Path, Path]) -> None:
    found = diff_drift(*map(read_drift, reports))
    assert [change.name for change in found.metrics] == [metric.name for metric in METRICS]
    assert all(change.is_worse for change in found.metrics if "centred" not in change.name)
    assert len(found.clips) == 3
    moves = [abs(change.moved) for change in found.clips]
    assert moves == sorted(moves, reverse=True)
    weights = {c.where: c.moved for c in found.layers if c.name == "weights_sqnr_db"}
    assert weights["conv2"] < -30
    assert {layer: move for layer, move in weights.items() if move} == {"conv2": weights["conv2"]}
    notes = "\n".join(found.notes)
    assert "int8.tflite is another" in notes
    assert "float.tflite" not in notes
    assert "1 runtimes after alone, litert" in notes
    assert "then conv2" in notes


def test_a_report_and_itself_have_no_difference(reports: tuple[Path, Path]) -> None:
    same = diff_drift(read_drift(reports[0]), read_drift(reports[0]))
    assert not any(change.moved for change in [*same.metrics, *same.layers, *same.clips])
    assert same.notes == ()


def test_the_command_shows_what_moved(reports: tuple[Path, Path], tmp_path: Path) -> None:
    done = run("report", "diff", *reports)
    assert done.returncode == 0, done.stderr
    assert "sqnr_db" in done.stdout
    assert "conv2" in done.stdout
    data = json.loads(run("report", "diff", "--json", reports[0] / "drift.json", reports[1]).stdout)
    assert len(data["metrics"]) == len(METRICS)
    (tmp_path / "old.json").write_text('{"overall": {}}')
    for bad in (tmp_path / "old.json", tmp_path / "nowhere.json", Path(__file__)):
        assert_one_error_line(run("report", "diff", reports[0], bad), bad.name)
