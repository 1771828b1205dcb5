"""Drift reports: figures, JSON, and the page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ignore_progress

from edgel3_tflm.deployment import Deployment
from edgel3_tflm.drift import DriftReport, compare
from edgel3_tflm.errors import AudioError, EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.report import render_html, write_report


@pytest.fixture(scope="module")
def report(sea_int8: Deployment, esc10: Path) -> DriftReport:
    clips = sorted(esc10.glob("dog_bark/1-*.ogg"))[:3]
    return compare(sea_int8, clips, runtime="tflite-runtime", hop_s=0.5, progress=ignore_progress)


def test_overall_figures_are_those_of_all_windows(report: DriftReport) -> None:
    windows = [drift.figures.windows for drift in report.clips]
    assert report.overall.windows == sum(windows) == len(report.float_embeddings)
    worst = min(drift.figures.cosine_worst for drift in report.clips)
    assert report.overall.cosine_worst == worst
    mean = np.average([drift.figures.cosine_mean for drift in report.clips], weights=windows)
    assert report.overall.cosine_mean == pytest.approx(mean, abs=1e-12)


def test_a_model_compared_with_itself_does_not_drift(
    sea_int8: Deployment, esc10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deployment, "read_model", lambda self, *_: self_float(self))

    def self_float(deployment: Deployment) -> bytes:
        return (deployment.directory / "float.tflite").read_bytes()

    same = compare(
        sea_int8,
        sorted(esc10.glob("rain/1-*.ogg"))[:1],
        runtime="tflite-runtime",
        hop_s=1,
        progress=ignore_progress,
    )
    assert same.overall.cosine_worst == pytest.approx(1, abs=1e-12)
    assert same.overall.mean_squared_error == 0
    assert same.to_json()["overall"]["sqnr_db"] is None
    assert "no drift" in render_html(same)


def test_silence_is_counted(sea_int8: Deployment, tmp_path: Path) -> None:
    samples = np.zeros(24_000)
    samples[20_000:] = np.random.default_rng(0).normal(0, 0.1, 4000)
    soundfile.write(tmp_path / "late.wav", samples, 8000)
    late = compare(
        sea_int8, [tmp_path], runtime="tflite-runtime", hop_s=1, progress=ignore_progress
    )
    assert (late.overall.windows, late.overall.silent_windows) == (3, 2)


def test_json_is_valid_and_carries_provenance(report: DriftReport, tmp_path: Path) -> None:
    write_report(report, tmp_path / "drift")
    text = (tmp_path / "drift" / "drift.json").read_text()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert data["overall"]["windows"] == report.overall.windows
    assert len(data["clips"]) == 3
    assert data["weights"]["kind"] == "published"
    assert set(data["models_sha256"]) == {"float.tflite", "int8.tflite"}


def test_a_report_names_the_models_and_the_runtimes_that_ran(
    sea_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 48_000), 48_000)
    in_engine = compare(sea_int8, [tmp_path], runtime="engine", hop_s=1, progress=ignore_progress)
    data = in_engine.to_json()
    assert set(data["models_sha256"]) == {"float.tflite", "packed.edgel3"}
    assert (data["float_runtime"], data["runtime"]) == ("tflite-runtime", "engine")
    page = render_html(in_engine)
    assert "float: tflite-runtime; int8: engine" in page
    assert "<dt>packed.edgel3</dt>" in page
    assert "<dt>int8.tflite</dt>" not in page


class References(HTMLParser):
    """Collects whatever a page would fetch from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            outside = value and not value.startswith(("#", "data:"))
            if name in {"src", "href", "xlink:href", "data"} and outside:
                self.found.append(f"{tag} {name}={value}")


def test_the_page_stands_alone_and_shows_figures(report: DriftReport) -> None:
    page = render_html(report)
    parser = References()
    parser.feed(page)
    assert parser.found == []
    assert parser.tags.count("svg") == 3
    assert not re.search(r"url\((?!#)", page)
    assert f"{report.overall.cosine_mean:.4f}" in page
    assert f"{report.overall.sqnr_db:.2f}" in page
    assert "git blob id verified" in page


def test_pages_are_the_same_when_made_again(report: DriftReport) -> None:
    assert render_html(report) == render_html(report)


def test_a_clip_s_name_is_text_on_the_page(sea_int8: Deployment, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.wav"
    soundfile.write(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    page = render_html(
        compare(sea_int8, [tmp_path], runtime="tflite-runtime", hop_s=1, progress=ignore_progress)
    )
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_generated_weights_are_a_notice_on_the_page(
    edgel3_generated: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 48_000), 48_000)
    page = render_html(
        compare(
            edgel3_generated,
            [tmp_path],
            runtime="tflite-runtime",
            hop_s=1,
            progress=ignore_progress,
        )
    )
    assert re.search(r'class="notice">[^<]*GENERATED weights', page)


@pytest.mark.parametrize("hop_s", [0, -1, 1e-9, float("nan"), float("inf")])
def test_a_hop_that_goes_nowhere_is_refused(sea_int8: Deployment, hop_s: float) -> None:
    with pytest.raises(EdgeL3Error, match="hop"):
        compare(sea_int8, [], runtime="tflite-runtime", hop_s=hop_s, progress=ignore_progress)


def test_an_unknown_runtime_and_an_empty_clip_are_refused(
    sea_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    with pytest.raises(RuntimeUnavailableError, match="tflite-runtime, litert, reference, tflm"):
        compare(sea_int8, [tmp_path], runtime="onnx", hop_s=1, progress=ignore_progress)
    with pytest.raises(AudioError, match="0 samples"):
        compare(sea_int8, [tmp_path], runtime="litert", hop_s=1, progress=ignore_progress)
