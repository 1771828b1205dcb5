"""``report diff --fail-over``: which changes fail, and what the command returns."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from helpers.command_line import assert_one_error_line, run
from helpers.drift_json import make_drift_json, read

from edgel3_tflm.drift.gates import GATE_NAMES, GateResult, check_changes, read_change_gates
from edgel3_tflm.errors import EdgeL3Error


def check(before: dict[str, Any], after: dict[str, Any], *gates: str) -> tuple[GateResult, ...]:
    return check_changes(read(before), read(after), read_change_gates(gates))


@pytest.mark.parametrize("direction", [1, -1])
def test_a_metric_may_get_better_and_worse_by_the_limit(direction: int) -> None:
    """Higher is better for a cosine and worse for an error; 1/16 and 1/8 are exact."""
    before, after = make_drift_json(), make_drift_json()
    engine = after["runtimes"][1]["groups"]["sounding"]
    engine["cosine_p5"] -= direction / 8
    engine["relative_l2"] += direction / 8
    for name in ("cosine_p5", "relative_l2"):
        first, second = check(before, after, f"sounding.{name}=0.0625")
        assert (first.where, first.value, first.passed) == ("litert-builtin", 0, True)
        assert (second.where, second.value) == ("engine", direction / 8)
        assert second.passed == (direction < 0)
        assert all(each.passed for each in check(before, after, f"sounding.{name}=0.125"))
        assert all(each.passed for each in check(before, after, f"{name}=0"))  # all windows


@pytest.mark.parametrize(
    "name", [n for n in GATE_NAMES if n.split(".")[0] not in ("silent", "padded")]
)
def test_every_figure_can_be_checked(name: str) -> None:
    same = check(make_drift_json(), make_drift_json(), f"{name}=0")
    assert same
    assert all(each.passed and each.value == 0 for each in same)


@pytest.mark.parametrize(
    ("gate", "keys", "worse"),
    [
        ("steps_apart=0.5", ("runtimes", 1, "steps_apart"), 2),
        ("layer_cost=0.5", ("layers", "layers", 1, "cost"), 1.5),
        ("layer_range_use=0.5", ("layers", "layers", 1, "range_use"), 0.1),
        ("frontend_log_mel_worst_db=0.5", ("frontend", "log_mel_worst_db"), 3),
        ("frontend_input_steps=0.5", ("frontend", "input_steps"), 3),
        ("neighbour_agreement=0.5", ("downstream", "neighbour_agreement"), 0),
        (
            "accuracy_change_points=0.5",
            ("downstream", "classifiers", 0, "change_points", "estimate"),
            0,
        ),
    ],
)
def test_layers_frontend_and_downstream_fail_too(
    gate: str, keys: tuple[str | int, ...], worse: float
) -> None:
    before, after = make_drift_json(), make_drift_json()
    part: Any = after
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = worse
    failed = [each for each in check(before, after, gate) if not each.passed]
    assert len(failed) == 1
    assert not any(not each.passed for each in check(after, before, gate))


def test_a_figure_that_is_a_number_in_one_report_only_fails() -> None:
    """Null is no drift, no signal or nothing measured: which one cannot be known."""
    before, after = make_drift_json(), make_drift_json()
    after["runtimes"][0]["groups"]["all"]["sqnr_db"] = None
    for pair in ((before, after), (after, before)):
        first, second = check(*pair, "sqnr_db=1000")
        assert (first.passed, second.passed) == (False, True)
        assert "a number in one report only" in str(first)
    assert all(each.passed for each in check(after, after, "sqnr_db=0"))


def test_a_figure_that_is_missing_from_a_report_is_refused() -> None:
    data = make_drift_json()
    with pytest.raises(
        EdgeL3Error, match=r"silent\.sqnr_db worse by at most 1 has nothing to check"
    ):
        check(data, data, "silent.sqnr_db=1")
    without = make_drift_json() | {"layers": None}
    with pytest.raises(EdgeL3Error, match="layer_cost in both reports"):
        check(data, without, "layer_cost=1")


def test_a_runtime_that_is_missing_from_the_second_report_fails() -> None:
    both, alone = make_drift_json(), make_drift_json()
    del alone["runtimes"][1]
    first, second = check(both, alone, "cosine_p5=1")
    assert (first.where, first.passed) == ("litert-builtin", True)
    assert (second.where, second.passed) == ("engine", False)
    assert "cosine_p5 of engine is a number in one report only" in str(second)
    (only,) = check(alone, both, "cosine_p5=1")  # a runtime more has no value to compare with
    assert only.passed


@pytest.mark.parametrize(
    ("gate", "part"),
    [
        ("cosine=1", "unknown metric 'cosine'"),
        ("sqnr_db", "expected sqnr_db=NUMBER, got 'sqnr_db'"),
        ("sqnr_db=nan", "expected sqnr_db=NUMBER"),
        ("sqnr_db=-1", "a change of at least 0, got -1"),
    ],
)
def test_a_gate_that_says_nothing_is_refused(gate: str, part: str) -> None:
    with pytest.raises(EdgeL3Error) as refusal:
        read_change_gates([gate])
    assert part in str(refusal.value)


def test_the_command_exits_with_2_and_names_what_got_worse(tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    data = make_drift_json()
    before.write_text(json.dumps(data))
    data["runtimes"][1]["groups"]["sounding"]["cosine_p5"] -= 0.125
    after.write_text(json.dumps(data))
    command = ["report", "diff", before, after, "--fail-over"]
    junit = tmp_path / "junit.xml"
    failed = run(*command, "sounding.cosine_p5=0.001", "--junit", junit, COLUMNS="200")
    assert failed.returncode == 2, failed.stderr
    assert (
        "FAIL: sounding.cosine_p5 of engine got worse by 0.125, expected sounding.cosine_p5 worse"
        " by at most 0.001"
    ) in failed.stdout
    suite = ElementTree.fromstring(junit.read_text())  # noqa: S314 - ours
    assert (suite.get("tests"), suite.get("failures"), suite.get("name")) == ("2", "1", "sea-64")
    passed = run(*command, "sounding.cosine_p5=0.2", "--fail-over", "cosine_p5=0", "--json")
    assert passed.returncode == 0, passed.stderr
    gates = json.loads(passed.stdout)["gates"]
    assert [each["value"] for each in gates] == [0, 0.125, 0, 0]
    assert_one_error_line(run(*command, "sqnr=3"), "'sqnr'", "sqnr_db")
    assert_one_error_line(run("report", "diff", before, after, "--junit", junit), "--fail-over")
