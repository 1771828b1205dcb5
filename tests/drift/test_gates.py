"""Gates: which values pass, fail or are refused, and the JUnit XML of the results."""

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from helpers.command_line import assert_one_error_line, run
from helpers.networks.spoil import double_kernel_scales, with_quantized_model
from helpers.progress import ignore_progress

from edgel3_tflm.drift.compare import compare
from edgel3_tflm.drift.downstream import ClassifierDrift, Interval
from edgel3_tflm.drift.figures import DriftReport
from edgel3_tflm.drift.gates import (
    GATE_NAMES,
    Gate,
    GateResult,
    check_gates,
    read_gates,
    to_junit,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.deployment import Deployment


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(3)
    for number in range(2):
        soundfile.write(directory / f"{number}.wav", rng.normal(0, 0.1, 12_000), 8000)
    return directory


@pytest.fixture(scope="module")
def report(tiny_int8: Deployment, clips: Path) -> DriftReport:
    runtimes = ["litert-builtin", "engine"]
    return compare(tiny_int8, [clips], runtimes=runtimes, hop_s=0.5, progress=ignore_progress)


def test_a_gate_is_checked_in_every_runtime_and_every_layer(report: DriftReport) -> None:
    gates = read_gates(["cosine_p5=0.9", "layer_sqnr_db=5"], ["mean_squared_error=1"])
    results = check_gates(report, gates)
    assert all(result.passed for result in results)
    layers = ["input", *(f"conv{number}" for number in range(1, 9))]
    runtimes = ["litert-builtin", "engine"]
    assert [result.where for result in results] == [*runtimes, *layers, *runtimes]


def test_every_gate_has_something_to_check_and_can_fail(report: DriftReport) -> None:
    points = Interval(0.0, -1.0, 1.0)
    judged = ClassifierDrift("linear probe", 2, points, points, points)
    report = replace(report, downstream=replace(report.downstream, classifiers=(judged,)))
    for name in (name for name in GATE_NAMES if "silent." not in name and "padded." not in name):
        under = check_gates(report, read_gates([f"{name}=1e99"], []))
        over = check_gates(report, read_gates([], [f"{name}=-1e99"]))
        assert under, name
        assert not any(result.passed for result in [*under, *over]), name


def test_the_limit_itself_passes_and_nan_fails() -> None:
    for kind in ("under", "over"):
        gate = Gate("sqnr_db", kind, 28.0)
        assert GateResult(gate, "a", 28.0).passed
        assert not GateResult(gate, "a", math.nan).passed
    assert GateResult(Gate("sqnr_db", "under", 28.0), "a", math.inf).passed


@pytest.mark.parametrize(
    ("under", "parts"),
    [
        (["cosine=0.9"], ["'cosine'", "cosine_p5", "sqnr_db", "layer_sqnr_db", "sounding."]),
        (["sounding.layer_sqnr_db=1"], ["'sounding.layer_sqnr_db'"]),
        (["sqnr_db"], ["sqnr_db=NUMBER", "'sqnr_db'"]),
        (["sqnr_db=much"], ["sqnr_db=NUMBER", "'sqnr_db=much'"]),
        (["sqnr_db=nan"], ["sqnr_db=NUMBER"]),
    ],
)
def test_malformed_gates_are_refused(under: list[str], parts: list[str]) -> None:
    with pytest.raises(EdgeL3Error) as raised:
        read_gates(under, [])
    for part in parts:
        assert part in str(raised.value)


def test_a_gate_without_windows_to_check_is_refused(report: DriftReport) -> None:
    with pytest.raises(EdgeL3Error, match="nothing to check"):
        check_gates(report, read_gates(["silent.cosine_mean=0.9"], []))


def test_junit_counts_and_names_what_failed(report: DriftReport) -> None:
    gates = read_gates(["cosine_mean=0.9", "sqnr_db=99"], [])
    suite = ElementTree.fromstring(to_junit(check_gates(report, gates), "a<b"))  # noqa: S314 - ours
    assert (suite.get("tests"), suite.get("failures"), suite.get("name")) == ("4", "2", "a<b")
    failed = [case for case in suite if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["sqnr_db >= 99"] * 2
    assert "sqnr_db of engine is" in failed[1].find("failure").get("message")


def test_the_exit_status_is_2_if_a_limit_is_exceeded(
    tiny_int8: Deployment, clips: Path, tmp_path: Path
) -> None:
    chosen = ["--runtime", "litert-builtin"]
    command = ["compare", tiny_int8.directory, clips, *chosen, "-o", tmp_path / "r"]
    passed = run(*command, "--fail-under", "cosine_p5=0.9", "--json")
    assert passed.returncode == 0, passed.stderr
    assert [each["passed"] for each in json.loads(passed.stdout)["gates"]] == [True]
    junit = tmp_path / "junit.xml"
    failed = run(*command, "--fail-over", "relative_l2=1e-9", "--junit", junit)
    assert failed.returncode == 2
    assert "FAIL: relative_l2 of litert-builtin" in failed.stdout
    assert 'failures="1"' in junit.read_text()
    assert "Fails 1 of 1" in (tmp_path / "r" / "drift.html").read_text()
    assert_one_error_line(run(*command, "--fail-under", "sqnr=3"), "'sqnr'", "sqnr_db")
    assert_one_error_line(run(*command, "--junit", junit), "--fail-under")


def test_the_exit_status_is_1_for_damaged_clips_and_2_for_a_limit(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(3).normal(0, 0.1, 12_000), 8000)
    (tmp_path / "b.wav").write_text("no audio")
    command = ["compare", tiny_int8.directory, tmp_path / "a.wav", tmp_path / "b.wav", "-k"]
    done = run(*command, "-o", tmp_path / "r")
    assert_one_error_line(done, "b.wav")
    assert "1 clips" in done.stdout
    assert list(json.loads((tmp_path / "r" / "drift.json").read_text())["damaged"]) == [
        str(tmp_path / "b.wav")
    ]
    assert run(*command, "-o", tmp_path / "r", "--fail-under", "cosine_mean=2").returncode == 2


def test_a_spoilt_layer_fails_the_gate_and_is_named(
    tiny_int8: Deployment, clips: Path, tmp_path: Path
) -> None:
    model = double_kernel_scales(tiny_int8.read_model("int8"), 5)
    spoilt = with_quantized_model(tiny_int8, model, tmp_path / "d")
    done = run(
        "compare", spoilt.directory, clips, "-o", tmp_path / "r", "--fail-under", "sqnr_db=20"
    )
    assert done.returncode == 2
    assert "conv5 adds most error" in done.stdout
