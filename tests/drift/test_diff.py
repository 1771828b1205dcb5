"""The differences between two drift reports."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.browser import Browser
from helpers.command_line import assert_one_error_line, run
from helpers.drift_json import read
from helpers.networks.spoil import double_kernel_scales, with_quantized_model
from helpers.progress import ignore_progress

from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.drift.diff import Change, DriftDiff, diff_drift
from edgel3_tflm.drift.drift_json import read_drift
from edgel3_tflm.drift.report.write import write_report
from edgel3_tflm.metrics import METRICS
from edgel3_tflm.runtime.deployment import Deployment


@pytest.fixture(scope="module")
def reports(tiny_int8: Deployment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A report, and one of the same deployment with a spoilt layer and a runtime more."""
    directory = tmp_path_factory.mktemp("reports")
    clips = directory / "clips"
    clips.mkdir()
    rng = np.random.default_rng(7)
    labelled = []
    for number in range(4):
        path = clips / f"{number}.wav"
        tone = np.sin(np.arange(8000) * (0.05 + 0.05 * (number % 2)))
        soundfile.write(path, 0.1 * tone + rng.normal(0, 0.05, 8000), 8000)
        labelled.append(LabelledClip(path, ("low", "high")[number % 2], number // 2))
    model = double_kernel_scales(tiny_int8.read_model("int8"), 2)
    spoilt = with_quantized_model(tiny_int8, model, directory / "deployment")
    for deployment, name, runtimes in (
        (tiny_int8, "before", ["litert-builtin"]),
        (spoilt, "after", ["litert-builtin", "litert"]),
    ):
        report = compare(
            deployment,
            [],
            runtimes=runtimes,
            labelled=labelled,
            hop_s=1,
            progress=ignore_progress,
        )
        write_report(report, directory / name)
    return directory / "before", directory / "after"


@pytest.fixture
def before(reports: tuple[Path, Path]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((reports[0] / "drift.json").read_bytes())
    return data


def every_change(found: DriftDiff) -> list[Change]:
    return [
        *(*found.metrics, *found.layers, *found.classes, *found.clips),
        *(*found.frontend, *found.downstream, *found.sizes),
    ]


def test_every_part_of_the_reports_is_compared(reports: tuple[Path, Path]) -> None:
    found = diff_drift(*map(read_drift, reports))
    assert [each.name for each in found.metrics] == 3 * [metric.name for metric in METRICS]
    assert {each.where for each in found.metrics} == {
        "litert-builtin, all",
        "litert-builtin, sounding",
        "the device's path, sounding",
    }
    assert all(each.is_worse for each in found.metrics if "centred" not in each.name)
    assert {each.where for each in found.classes} == {"low, litert-builtin", "high, litert-builtin"}
    assert all(each.is_worse for each in found.classes if each.name == "sqnr_db")
    assert len({each.where for each in found.clips}) == 4
    frontend = {(each.where, each.name): each for each in found.frontend}
    assert frontend["quantization alone", "sqnr_db"].is_worse
    assert not frontend["frontend alone", "sqnr_db"].has_moved
    assert {each.where for each in found.downstream} == {
        "litert-builtin",
        "linear probe",
        "MLP 512-128",
    }
    assert {(each.where, each.name) for each in found.sizes} == {
        (form, name) for form in ("dense", "packed") for name in ("flash_bytes", "arena_bytes")
    }
    notes = "\n".join(found.notes)
    assert "int8.tflite is not the same" in notes
    assert "float.tflite" not in notes
    assert "1 runtimes only after, for example litert" in notes
    assert "then conv2" in notes


def test_the_largest_change_comes_first(reports: tuple[Path, Path]) -> None:
    """One layer is spoilt. Later layers drift as well, but add less error."""
    found = diff_drift(*map(read_drift, reports))
    assert found.layers[0].where == "conv2"
    weights = {c.where: c.moved for c in found.layers if c.name == "weights_sqnr_db"}
    assert weights["conv2"] < -30
    assert {layer: move for layer, move in weights.items() if move} == {"conv2": weights["conv2"]}
    for changes in (found.metrics, found.classes, found.clips):
        moves = [abs(change.moved) for change in changes if change.name == "sqnr_db"]
        assert moves == sorted(moves, reverse=True)
        assert moves[0] > 10


@pytest.mark.parametrize("layer", range(9))
def test_a_single_layer_that_got_worse_is_named(before: dict[str, Any], layer: int) -> None:
    after = copy.deepcopy(before)
    after["layers"]["layers"][layer]["cost"] += 0.01
    found = diff_drift(read(before), read(after))
    (only,) = [change for change in every_change(found) if change.has_moved]
    assert only is found.layers[0]
    assert only.where == ("input" if layer == 0 else f"conv{layer}")
    assert only.is_worse


def test_a_larger_model_and_new_drift_are_changes(before: dict[str, Any]) -> None:
    after = copy.deepcopy(before)
    after["sizes"]["packed"]["arena_bytes"] += 32
    before["runtimes"][0]["groups"]["sounding"]["sqnr_db"] = None
    found = diff_drift(read(before), read(after))
    moved = [change for change in every_change(found) if change.has_moved]
    assert [(each.where, each.name, each.moved) for each in moved] == [
        ("litert-builtin, sounding", "sqnr_db", None),
        ("packed", "arena_bytes", 32),
    ]
    assert found.metrics[0].where == "litert-builtin, sounding"
    assert [each.is_worse for each in moved] == [None, True]
    before["sizes"] = {}
    assert diff_drift(read(before), read(after)).sizes == ()


def test_a_report_and_itself_have_no_difference(reports: tuple[Path, Path]) -> None:
    same = diff_drift(read_drift(reports[0]), read_drift(reports[0]))
    assert not any(change.has_moved for change in every_change(same))
    assert same.notes == ()


def test_different_conditions_of_measurement_are_warnings(
    reports: tuple[Path, Path], before: dict[str, Any], tmp_path: Path
) -> None:
    after = copy.deepcopy(before)
    after |= {"variant": "l3-dense", "hop_s": 0.25}
    after |= {"float_runtime": "keras", "resampler": "kaiser_best"}
    after["weights"]["sha256"] = "0" * 64
    after["runtimes"][0]["clips"][0]["clip"] = "another.wav"
    (tmp_path / "after.json").write_text(json.dumps(after))
    arguments = ["report", "diff", reports[0], tmp_path / "after.json"]
    warnings = json.loads(run(*arguments, "--json").stdout)["warnings"]
    differ = ["variant", "float_runtime", "hop_s", "resampler", "weights", "clips"]
    assert [each.split(" ")[0] for each in warnings] == differ
    shown = run(*arguments).stdout
    assert all(f"NOTICE: {each}" in shown for each in warnings)
    assert diff_drift(*map(read_drift, reports)).warnings == ()


def test_the_command_shows_the_changes(reports: tuple[Path, Path], tmp_path: Path) -> None:
    done = run("report", "diff", *reports)
    assert done.returncode == 0, done.stderr
    assert "sqnr_db" in done.stdout
    assert "moved most: conv2" in done.stdout
    assert "nothing moved" in run("report", "diff", reports[0], reports[0]).stdout
    data = json.loads(run("report", "diff", "--json", reports[0] / "drift.json", reports[1]).stdout)
    assert len(data["metrics"]) == 3 * len(METRICS)
    assert data["layers"][0]["moved"] > 0.1
    (tmp_path / "old.json").write_text('{"overall": {}}')
    for bad in (tmp_path / "old.json", tmp_path / "nowhere.json", Path(__file__)):
        assert_one_error_line(run("report", "diff", reports[0], bad), bad.name)


@pytest.mark.parametrize(
    ("name", "before", "after", "error_db"),
    [
        ("cosine_p5", 0.99, 0.999, -10.0),
        ("sqnr_db", 30.0, 27.0, 3.0),
        ("mean_squared_error", 1.0, 2.0, 10 * math.log10(2)),
        ("relative_l2", 1.0, 2.0, 20 * math.log10(2)),
        ("cosine_mean", 1.0, 0.5, math.inf),
        ("cosine_mean", 0.5, 1.0, -math.inf),
        ("cosine_mean", 0.5, 0.5, 0.0),
        ("saturation", 0.0, 0.5, 0.0),
        ("sqnr_db", None, 30.0, 0.0),
    ],
)
def test_changes_of_different_metrics_are_comparable(
    name: str, before: float | None, after: float, error_db: float
) -> None:
    assert Change("engine", name, before, after, True).error_db == pytest.approx(error_db)


def test_what_got_worse_comes_before_what_got_better(reports: tuple[Path, Path]) -> None:
    ranked = diff_drift(*map(read_drift, reports)).rank()
    grew = [each.error_db for each in ranked]
    worse = [each for each in grew if each > 0]
    assert worse
    assert grew == sorted(worse, reverse=True) + sorted(each for each in grew if each < 0)


def test_the_page_of_the_changes_is_coloured_accessible_and_whole(
    browser: Browser, reports: tuple[Path, Path], tmp_path: Path
) -> None:
    target = tmp_path / "diff.html"
    done = run("report", "diff", *reports, "-o", target, "--fail-over", "sqnr_db=0.5")
    assert done.returncode == 2, done.stderr
    assert str(target) in done.stdout
    for theme in ("light", "dark"):
        assert browser.find_violations(target, theme=theme, width=1200) == []
    assert browser.measure_print(target)["outside"] == []
    browser.screenshot(target, "diff", width=1200, height=1800)
    found = browser.evaluate(
        target,
        """
        return {
          charts: document.querySelectorAll("figure.chart .live .point").length,
          tones: ["better", "worse"].map((each) => document.querySelectorAll(`td.${each}`).length),
          text: document.querySelector(".verdict").textContent,
        };
        """,
    )
    assert found["charts"] > 0
    assert min(found["tones"]) > 0
    assert "got worse" in found["text"]
    assert "FAIL" in found["text"]
