"""The verdict by thresholds, and the finding and remedy for spoilt deployments."""

import html
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.networks.spoil import double_kernel_scales, double_output_scale, with_quantized_model
from helpers.progress import ignore_progress

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.drift.downstream import ClassifierDrift, Interval
from edgel3_tflm.drift.figures import DriftReport, FrontendDrift
from edgel3_tflm.drift.report.verdict import (
    LIMITS,
    describe_boards,
    describe_classifiers,
    describe_survival,
    judge,
)
from edgel3_tflm.drift.report.write import render_html
from edgel3_tflm.drift.scale import measure_scale, shift_windows
from edgel3_tflm.runtime.artefacts import HEAD_NAME
from edgel3_tflm.runtime.deployment import Deployment

CLIPS = ("street", "rain_heavy", "siren_wail", "dog_bark", "voice_low")


def compare_on_clips(deployment: Deployment) -> DriftReport:
    paths = [bundled_clips_directory() / f"{name}.flac" for name in CLIPS]
    return compare(deployment, paths, hop_s=0.5, progress=ignore_progress)


@pytest.fixture(scope="module")
def report(tiny_int8: Deployment) -> DriftReport:
    return compare_on_clips(tiny_int8)


def first_finding(report: DriftReport) -> tuple[str, str, str]:
    """Return the verdict's level, and the first finding's rule and remedy, which the page shows."""
    verdict = judge(report)
    found = verdict.findings[0]
    page = render_html(report)
    assert verdict.summary.partition(":")[0] in page
    first_screen = page[page.index('id="answers"') : page.index('id="verdict"')]
    for text in (found.text, found.remedy, found.command):
        assert html.escape(text, quote=False) in first_screen.replace("&#39;", "'")
    return verdict.level, found.rule, found.command


def test_a_sound_deployment_is_good_and_the_next_step_is_a_board(report: DriftReport) -> None:
    verdict = judge(report)
    assert verdict.level == "good", verdict
    assert {each.level for each in verdict.findings} == {"good"}
    assert describe_boards(report).startswith("It fits 5 of 5 boards.")
    assert "16 ms later" in describe_survival(report)
    assert describe_classifiers(()).startswith("Unknown: ")


def test_a_verdict_is_in_the_json_and_needs_no_limits(report: DriftReport) -> None:
    level, *_ = first_finding(report)
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["device"]["windows"] == len(report.windows.clip)
    assert plain["boards"][0]["fits"] is True
    assert plain["scale"]["runtime"] == "node"
    assert level == "good"


@pytest.mark.parametrize(
    ("spoil", "layer"),
    # The bias of conv6 is in units of the scale of conv5's output.
    [(double_kernel_scales, "conv5"), (double_output_scale, "conv6")],
)
def test_a_doubled_scale_is_found(
    tiny_int8: Deployment, tmp_path: Path, spoil: Callable[[bytes, int], bytes], layer: str
) -> None:
    model = spoil(tiny_int8.read_model("int8"), 5)
    found = compare_on_clips(with_quantized_model(tiny_int8, model, tmp_path / "d"))
    level, rule, remedy = first_finding(found)
    assert (level, rule) == ("poor", "scale")
    assert layer in judge(found).findings[0].text
    assert remedy == "edgel3-tflm convert"


def test_calibration_on_silence_is_found(
    tiny_weights: Path, tmp_path: Path, convert_to, tiny_int8: Deployment
) -> None:
    (tmp_path / "silence").mkdir()
    soundfile.write(tmp_path / "silence" / "a.wav", np.zeros(16_000), 8000)
    options = ConvertOptions(tiny_int8.variant, tiny_weights, tmp_path / "silence")
    level, rule, remedy = first_finding(compare_on_clips(convert_to(options)))
    assert (level, rule) == ("poor", "calibration")
    assert "--calibration" in remedy


@pytest.mark.parametrize("head", [json.dumps({"model_sha256": "0" * 64}), "damaged"])
def test_a_head_of_another_model_is_found(tiny_int8: Deployment, tmp_path: Path, head: str) -> None:
    shutil.copytree(tiny_int8.directory, tmp_path / "d")
    (tmp_path / "d" / HEAD_NAME).write_text(head)
    level, rule, remedy = first_finding(compare_on_clips(Deployment.load(tmp_path / "d")))
    assert (level, rule) == ("poor", "head")
    assert "train-head" in remedy


def test_a_head_of_this_model_is_no_finding(
    tiny_int8: Deployment, report: DriftReport, tmp_path: Path
) -> None:
    shutil.copytree(tiny_int8.directory, tmp_path / "d")
    digest = tiny_int8.manifest["artefacts"]["int8.tflite"]["sha256"]
    (tmp_path / "d" / HEAD_NAME).write_text(json.dumps({"model_sha256": digest}))
    with_head = replace(report, deployment=Deployment.load(tmp_path / "d"))
    assert all(each.rule != "head" for each in judge(with_head).findings)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_each_limit_decides_the_verdict(report: DriftReport, limit) -> None:
    for value, level in (
        (limit.good, "good"),
        (np.nextafter(limit.good, -1), "fair"),
        (limit.fair, "fair"),
        (np.nextafter(limit.fair, -1), "poor"),
        (float("nan"), "poor"),
    ):
        assert report.device is not None
        moved = replace(report, device=replace(report.device, **{limit.name: float(value)}))
        verdict = judge(moved)
        assert verdict.level == level
        # A check that fails never stands alone: a finding says what to do.
        assert level == "good" or verdict.findings[0].level == level


def test_a_certain_loss_of_a_classifier_and_a_model_without_a_board_are_found(
    report: DriftReport,
) -> None:
    loss = ClassifierDrift(
        "linear probe",
        40,
        Interval(90, 80, 95),
        Interval(80, 70, 85),
        Interval(-10, -15, -5),
    )
    moved = replace(report, downstream=replace(report.downstream, classifiers=(loss,)))
    assert judge(moved).level == "poor"
    assert "classifier" in {each.rule for each in judge(moved).findings}
    assert "loses 10.0 points of accuracy (95 % interval -15.0 to -5.0)" in describe_classifiers(
        (loss,)
    )
    too_large = tuple(replace(each, flash_bytes=10**9) for each in report.boards)
    moved = replace(report, boards=too_large)
    assert judge(moved).findings[0].rule == "boards"
    assert describe_boards(moved) == "It fits none of 5 boards."


def test_capture_that_dominates_is_found(report: DriftReport) -> None:
    assert isinstance(report.frontend, FrontendDrift)
    coarse = replace(report.frontend.sixteen_bits_alone, sqnr_db=10.0)
    moved = replace(report, frontend=replace(report.frontend, sixteen_bits_alone=coarse))
    assert "capture" in {each.rule for each in judge(moved).findings}


def test_shifted_windows_are_the_samples_that_follow() -> None:
    samples = np.arange(100, dtype=np.float32)
    windows = np.stack([samples[start : start + 40] for start in (0, 20, 40)])
    moved = shift_windows(windows, 20, 3)
    np.testing.assert_array_equal(moved[0], samples[3:43])
    np.testing.assert_array_equal(moved[1], samples[23:63])
    np.testing.assert_array_equal(moved[2], samples[37:77])  # the last one listens earlier
    assert np.isnan(shift_windows(windows[:1], 20, 3)).all()
    assert np.isnan(shift_windows(windows, 41, 3)).all()


def test_on_the_scale_chance_is_one_and_equal_embeddings_are_zero() -> None:
    values = np.random.default_rng(0).normal(5, 1, (400, 64)).astype(np.float32)
    clip = np.repeat(np.arange(100), 4)
    labels: list[str | None] = ["a", "b"] * 50
    scale = measure_scale("node", values, values, clip, labels, np.ones(400, bool), lambda _: None)
    assert scale is not None
    assert scale.device.mean == pytest.approx(0, abs=1e-9)
    # The cosine of two independent normal vectors of 64 values has a standard deviation of 1/8.
    assert scale.chance is not None
    assert scale.chance.mean == pytest.approx(1, abs=5 / 8 / np.sqrt(400))
    assert scale.later is None
    alone = measure_scale(
        "node", values, values, 0 * clip, ["a"], np.ones(400, bool), lambda _: None
    )
    assert alone is None
