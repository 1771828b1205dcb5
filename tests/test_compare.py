"""Drift reports: figures, JSON, and the page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import ignore_progress

from edgel3_tflm.corpus import LabelledClip
from edgel3_tflm.deployment import Deployment
from edgel3_tflm.drift import DriftReport, Subject, compare
from edgel3_tflm.errors import AudioError, EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.report import render_html, write_report


@pytest.fixture(scope="module")
def report(sea_int8: Deployment, esc10: Path) -> DriftReport:
    clips = sorted(esc10.glob("dog_bark/1-*.ogg"))[:3]
    return compare(sea_int8, clips, hop_s=0.5, progress=ignore_progress)


def test_overall_figures_are_those_of_all_windows(report: DriftReport) -> None:
    windows = [drift.figures.windows for drift in report.clips]
    assert report.overall.windows == sum(windows) == len(report.float_embeddings)
    worst = min(drift.figures.cosine_worst for drift in report.clips)
    assert report.overall.cosine_worst == worst
    mean = np.average([drift.figures.cosine_mean for drift in report.clips], weights=windows)
    assert report.overall.cosine_mean == pytest.approx(mean, abs=1e-12)


def test_the_float_model_compared_with_itself_does_not_drift(
    sea_int8: Deployment, esc10: Path
) -> None:
    same = compare(
        sea_int8,
        sorted(esc10.glob("rain/1-*.ogg"))[:1],
        runtimes=["float:tflite-runtime"],
        hop_s=1,
        progress=ignore_progress,
    )
    assert same.overall.cosine_worst == pytest.approx(1, abs=1e-12)
    assert same.overall.mean_squared_error == 0
    assert same.to_json()["runtimes"][0]["groups"]["all"]["sqnr_db"] is None
    assert "no drift" in render_html(same)


def test_silence_and_near_silence_are_counted_apart(sea_int8: Deployment, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 1, 8000)
    samples = np.concatenate([np.zeros(8000), 1e-4 * noise, 1e-3 * noise, np.zeros(8000)])
    soundfile.write(tmp_path / "late.wav", samples, 8000, subtype="FLOAT")
    late = compare(sea_int8, [tmp_path], hop_s=1, progress=ignore_progress)
    assert (late.overall.windows, late.overall.silent_windows) == (4, 2)
    # 1e-4 is -80 dBFS, 1e-3 is -60: the limit is -70.
    windows = {name: figures.windows for name, figures in late.first.groups.items()}
    assert windows == {"all": 4, "sounding": 1, "near_silent": 1, "silent": 2}
    silent = late.first.groups["silent"]
    assert silent.cosine_mean == pytest.approx(silent.cosine_worst, abs=1e-12)
    assert [window.start_s for window in late.worst] == [2]
    parts = [late.first.groups[name] for name in ("sounding", "near_silent", "silent")]
    counts = [part.windows for part in parts]
    together = np.average([part.mean_squared_error for part in parts], weights=counts)
    assert late.overall.mean_squared_error == pytest.approx(together, rel=1e-12)


def test_every_runtime_has_its_row_and_says_how_far_its_bytes_are(
    sea_int8: Deployment, esc10: Path
) -> None:
    runtimes = ["reference", "engine", "litert", "node", "float:litert"]
    clips = sorted(esc10.glob("rooster/1-*.ogg"))[:1]
    found = compare(sea_int8, clips, runtimes=runtimes, hop_s=1, progress=ignore_progress)
    assert [drift.subject.name for drift in found.subjects] == runtimes
    reference, engine, litert, node, in_float = found.subjects
    assert (engine.values_apart, engine.steps_apart) == (0, 0)
    np.testing.assert_array_equal(engine.embeddings, reference.embeddings)
    assert litert.steps_apart >= 1
    assert node.overall.sqnr_db > 15
    assert np.isnan(in_float.steps_apart)
    # Float kernels add in another order: each of 8 layers rounds sums of up to 2304 products.
    assert in_float.overall.relative_l2 < 1e-4
    page = render_html(found)
    for name in runtimes:
        assert f"<td>{name}</td>" in page


def test_a_subject_of_the_caller_s_own_takes_the_samples(
    sea_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    embedder = sea_int8.embedder("float")
    subject = Subject("own", "", lambda windows, _: -embedder.embed(windows), 0.0)
    own = compare(sea_int8, [tmp_path], runtimes=[subject], hop_s=1, progress=ignore_progress)
    assert own.overall.cosine_mean == pytest.approx(-1, abs=1e-6)
    assert own.model_names == ("float.tflite",)


def test_a_node_at_a_port_is_compared_if_it_has_this_model(
    sea_int8: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the client, whose tests are elsewhere: it answers as the engine does."""
    engine = sea_int8.embedder("int8", "engine")
    digest = bytes.fromhex(sea_int8.manifest["artefacts"]["int8.tflite"]["sha256"])

    class Node:
        def __init__(self, port: str) -> None:
            assert port == "tcp:here:1"
            self.info = SimpleNamespace(
                source_sha256=digest[:16],
                embedding_size=64,
                embedding_scale=engine.output.scale,
                embedding_zero_point=engine.output.zero_point,
            )

        def embed_pcm(self, window: np.ndarray) -> np.ndarray:
            (real,) = engine.embed(window[np.newaxis] / np.float32(32768))
            return np.rint(real / engine.output.scale + engine.output.zero_point).astype(np.int8)

        def close(self) -> None:
            pass

    monkeypatch.setattr("edgel3_tflm.device.open_transport", lambda port: port)
    monkeypatch.setattr("edgel3_tflm.device.Device", Node)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 8000)
    runtimes = ["engine", "device:tcp:here:1"]
    found = compare(sea_int8, [tmp_path], runtimes=runtimes, hop_s=1, progress=ignore_progress)
    # 16-bit samples that the file holds are the same floats.
    assert found.subjects[1].values_apart == 0
    digest = bytes(32)
    with pytest.raises(EdgeL3Error, match="it has another"):
        compare(sea_int8, [tmp_path], runtimes=runtimes, hop_s=1, progress=ignore_progress)


def test_classes_are_those_of_the_labelled_clips(sea_int8: Deployment, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, 8000), 8000)
    labelled = [
        LabelledClip(tmp_path / "a.wav", "dog", 1),
        LabelledClip(tmp_path / "b.wav", "rain", 2),
    ]
    found = compare(
        sea_int8,
        [tmp_path / "b.wav", tmp_path / "c.wav"],
        labelled=labelled,
        hop_s=1,
        progress=ignore_progress,
    )
    assert [(Path(drift.clip).stem, drift.label) for drift in found.clips] == [
        ("b", "rain"),
        ("c", None),
        ("a", "dog"),
    ]
    assert {label: figures.windows for label, figures in found.first.classes.items()} == {
        "dog": 1,
        "rain": 1,
    }


def test_the_frontend_is_told_apart_from_quantization(report: DriftReport) -> None:
    frontend = report.frontend
    assert frontend is not None
    assert frontend.windows == report.layers.windows == 6
    assert 0 < frontend.log_mel_mean_db < frontend.log_mel_worst_db
    assert 0 < frontend.input_changed < 1
    assert frontend.frontend_alone.sqnr_db > frontend.both.sqnr_db


def test_json_is_valid_and_carries_provenance(report: DriftReport, tmp_path: Path) -> None:
    write_report(report, tmp_path / "drift")
    text = (tmp_path / "drift" / "drift.json").read_text()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (runtime,) = data["runtimes"]
    assert runtime["groups"]["all"]["windows"] == report.overall.windows
    assert len(runtime["clips"]) == 3
    assert data["weights"]["kind"] == "published"
    assert set(data["models_sha256"]) == {"float.tflite", "int8.tflite"}


def test_a_report_names_the_models_and_the_runtimes_that_ran(
    sea_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 48_000), 48_000)
    in_engine = compare(
        sea_int8, [tmp_path], runtimes=["engine"], hop_s=1, progress=ignore_progress
    )
    data = in_engine.to_json()
    assert set(data["models_sha256"]) == {"float.tflite", "packed.edgel3"}
    assert (data["float_runtime"], data["runtimes"][0]["runtime"]) == ("tflite-runtime", "engine")
    page = render_html(in_engine)
    assert "float: tflite-runtime; compared: engine" in page
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
    assert parser.tags.count("svg") == 4 + 1 + len(report.worst)
    assert not re.search(r"url\((?!#)", page)
    assert f"{report.overall.cosine_mean:.4f}" in page
    assert f"{report.overall.sqnr_db:.2f}" in page
    assert "git blob id verified" in page


def test_pages_are_the_same_when_made_again(report: DriftReport) -> None:
    assert render_html(report) == render_html(report)


def test_a_clip_s_name_is_text_on_the_page(sea_int8: Deployment, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.wav"
    soundfile.write(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    page = render_html(compare(sea_int8, [tmp_path], hop_s=1, progress=ignore_progress))
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
            hop_s=1,
            progress=ignore_progress,
        )
    )
    assert re.search(r'class="notice">[^<]*GENERATED weights', page)


@pytest.mark.parametrize("hop_s", [0, -1, 1e-9, float("nan"), float("inf")])
def test_a_hop_that_goes_nowhere_is_refused(sea_int8: Deployment, hop_s: float) -> None:
    with pytest.raises(EdgeL3Error, match="hop"):
        compare(sea_int8, [], hop_s=hop_s, progress=ignore_progress)


def test_an_unknown_runtime_and_an_empty_clip_are_refused(
    sea_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    with pytest.raises(RuntimeUnavailableError, match="tflite-runtime, litert, reference, tflm"):
        compare(sea_int8, [tmp_path], runtimes=["onnx"], hop_s=1, progress=ignore_progress)
    with pytest.raises(AudioError, match="0 samples"):
        compare(sea_int8, [tmp_path], runtimes=["litert"], hop_s=1, progress=ignore_progress)
