"""Comparisons: figures, drift.json and the page."""

import html
import json
import math
import re
import socket
import threading
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.boards.ports import pump
from helpers.networks.keras_hdf5 import random_weights, write_hdf5
from helpers.networks.spoil import double_kernel_scales, with_quantized_model
from helpers.progress import ignore_progress

from edgel3_tflm.audio.clips import read_clip
from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.audio.pcm import FULL_SCALE, round_to_int16
from edgel3_tflm.converters.keras.model import open_keras
from edgel3_tflm.cores import available_cores
from edgel3_tflm.device.emulation import Emulator
from edgel3_tflm.device.firmware import build_node
from edgel3_tflm.drift.compare import _announce_slow, compare
from edgel3_tflm.drift.figures import DriftReport
from edgel3_tflm.drift.report.write import render_html, write_report
from edgel3_tflm.drift.runtimes import Runtime
from edgel3_tflm.errors import (
    AudioError,
    EdgeL3Error,
    RuntimeUnavailableError,
    WeightsError,
)
from edgel3_tflm.metrics import sqnr_db
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_bundled_weights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.types import FloatArray


@pytest.fixture(scope="module")
def report(tiny_int8: Deployment, sounds: Path) -> DriftReport:
    clips = sorted(sounds.glob("tone/1-*.wav")) + sorted(sounds.glob("chirp/1-0.wav"))
    return compare(tiny_int8, clips, hop_s=0.5, progress=ignore_progress)


@pytest.fixture(scope="module")
def page(report: DriftReport) -> str:
    return render_html(report)


def without_scripts(page: str) -> str:
    """Return a page without its scripts; the data of its charts stays."""
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_overall_figures_are_those_of_all_windows(report: DriftReport) -> None:
    windows = [drift.figures.windows for drift in report.clips]
    assert report.overall.windows == sum(windows) == len(report.float_embeddings)
    worst = min(drift.figures.cosine_worst for drift in report.clips)
    assert report.overall.cosine_worst == worst
    mean = np.average([drift.figures.cosine_mean for drift in report.clips], weights=windows)
    assert report.overall.cosine_mean == pytest.approx(mean, abs=1e-12)


def test_the_float_model_compared_with_itself_does_not_drift(
    tiny_int8: Deployment, sounds: Path
) -> None:
    same = compare(
        tiny_int8,
        sorted(sounds.glob("noise/1-*.wav"))[:1],
        runtimes=["float:litert"],
        hop_s=1,
        progress=ignore_progress,
    )
    assert same.overall.cosine_worst == pytest.approx(1, abs=1e-12)
    assert same.overall.mean_squared_error == 0
    assert same.to_json()["runtimes"][0]["groups"]["all"]["sqnr_db"] is None
    assert "no drift" in render_html(same)


def test_silent_and_nearly_silent_windows_are_groups_of_their_own(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 1, 8000)
    samples = np.concatenate([np.zeros(8000), 1e-4 * noise, 1e-3 * noise, np.zeros(8000)])
    soundfile.write(tmp_path / "late.wav", samples, 8000, subtype="FLOAT")
    late = compare(tiny_int8, [tmp_path], hop_s=1, progress=ignore_progress)
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


def test_only_a_clip_shorter_than_a_window_is_padded_and_its_windows_are_a_group(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 19_000)
    soundfile.write(tmp_path / "long.wav", noise, 8000)
    soundfile.write(tmp_path / "short.wav", noise[:5000], 8000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(5000), 8000)
    found = compare(tiny_int8, [tmp_path], hop_s=0.5, progress=ignore_progress)
    windows = {name: figures.windows for name, figures in found.first.groups.items()}
    assert windows == {"all": 5, "sounding": 3, "padded": 2}
    assert [drift.figures.windows for drift in found.clips] == [3, 1, 1]
    (note,) = [note for note in found.to_json()["notes"] if "padded" in note]
    assert "2 clips: short.wav, silent.wav" in note
    assert note in render_html(found)
    alone = compare(tiny_int8, [tmp_path / "long.wav"], hop_s=0.5, progress=ignore_progress)
    assert alone.overall.sqnr_db == found.first.groups["sounding"].sqnr_db
    assert not any("padded" in note for note in alone.notes)
    short = compare(tiny_int8, [tmp_path / "short.wav"], hop_s=0.5, progress=ignore_progress)
    assert set(short.first.groups) == {"all", "padded"}
    assert not re.search(r"\bnan\b", without_scripts(render_html(short)))


def test_damaged_clips_are_left_out_and_listed_if_the_comparison_keeps_going(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, label in (("a", "x"), ("c", "y")):
        samples = np.random.default_rng(ord(label)).normal(0, 0.1, 16_000)
        soundfile.write(clips / f"{name}.wav", samples, 8000)
    whole = compare(tiny_int8, [clips], hop_s=0.5, progress=ignore_progress)
    labelled = [LabelledClip(clips / "c.wav", "y", 1), LabelledClip(clips / "missing.wav", "z", 2)]
    (clips / "b.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"b\.wav"):
        compare(tiny_int8, [clips], hop_s=0.5, progress=ignore_progress)
    found = compare(
        tiny_int8, [clips], labelled=labelled, hop_s=0.5, keep_going=True, progress=ignore_progress
    )
    assert [(Path(each.clip).name, each.label) for each in found.clips] == [
        ("a.wav", None),
        ("c.wav", "y"),
    ]
    assert found.overall == whole.overall
    assert list(found.to_json()["damaged"]) == [str(clips / "b.wav"), str(clips / "missing.wav")]
    assert "2 of 4 clips cannot be read and are left out" in found.notes
    page = render_html(found)
    for reason in found.damaged.values():
        assert f"<li>{html.escape(reason)}</li>" in page
    with pytest.raises(AudioError, match=r"at least one clip that can be read.*b\.wav"):
        compare(tiny_int8, [clips / "b.wav"], hop_s=0.5, keep_going=True, progress=ignore_progress)


def test_the_resampler_is_chosen_and_named(tiny_int8: Deployment, tmp_path: Path) -> None:
    sound = np.random.default_rng(4).normal(0, 0.1, 3 * 44_100)
    soundfile.write(tmp_path / "a.wav", sound, 44_100)
    embeddings = {}
    for resampler in ("soxr", "kaiser_best"):
        found = compare(
            tiny_int8, [tmp_path], hop_s=0.5, resampler=resampler, progress=ignore_progress
        )
        assert found.to_json()["resampler"] == resampler
        assert f"resampled by {resampler}" in render_html(found)
        embeddings[resampler] = found.float_embeddings
    assert not np.array_equal(embeddings["soxr"], embeddings["kaiser_best"])
    windows = read_clip(tmp_path / "a.wav", 8000, "kaiser_best").samples.reshape(3, 8000)
    expected = tiny_int8.embedder("float").embed(windows)
    np.testing.assert_array_equal(embeddings["kaiser_best"][::2], expected)


def test_every_runtime_has_a_row_and_its_difference_in_quantization_steps(
    tiny_int8: Deployment, sounds: Path
) -> None:
    runtimes = ["reference", "engine", "litert", "node", "float:litert"]
    clips = sorted(sounds.glob("chirp/1-*.wav"))[:1]
    found = compare(tiny_int8, clips, runtimes=runtimes, hop_s=1, progress=ignore_progress)
    assert [drift.runtime.name for drift in found.runtimes] == runtimes
    reference, engine, litert, node, in_float = found.runtimes
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


def test_a_runtime_of_the_caller_takes_the_samples(tiny_int8: Deployment, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    embedder = tiny_int8.embedder("float")
    runtime = Runtime("own", "", lambda windows, _: -embedder.embed(windows), 0.0)
    own = compare(tiny_int8, [tmp_path], runtimes=[runtime], hop_s=1, progress=ignore_progress)
    assert own.overall.cosine_mean == pytest.approx(-1, abs=1e-6)
    assert own.model_names == ("float.tflite",)


def test_a_board_at_a_port_is_compared_if_it_has_this_model(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    """The emulated board is reached through a TCP port, by two hosts one after the other."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 8000)
    spoilt = double_kernel_scales(tiny_int8.read_model("int8"), 2)
    other = with_quantized_model(tiny_int8, spoilt, tmp_path / "other")
    firmware = build_node(tiny_int8.directory, tmp_path / "firmware")
    with Emulator(firmware) as board, socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                client, _ = server.accept()
                with client, board._connect(board._host) as node:
                    pump(lambda node=node: node.recv(4096), client.sendall)
                    pump(lambda client=client: client.recv(4096), node.sendall).join()
                    node.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=serve, daemon=True).start()
        port = f"device:tcp:127.0.0.1:{server.getsockname()[1]}"
        found = compare(
            tiny_int8,
            [tmp_path / "a.wav"],
            runtimes=["node", port],
            hop_s=1,
            progress=ignore_progress,
        )
        # The same library, here and there.
        assert (found.runtimes[1].values_apart, found.runtimes[1].steps_apart) == (0, 0)
        assert found.runtimes[1].overall.windows == 2
        assert found.overall.sqnr_db > 15
        with pytest.raises(EdgeL3Error, match="it has another"):
            compare(other, [tmp_path], runtimes=[port], hop_s=1, progress=ignore_progress)


def test_the_float_network_in_keras_and_its_flatbuffer_are_the_same(
    tiny_int8: Deployment, tiny_weights: Path, sounds: Path
) -> None:
    found = compare(
        tiny_int8,
        sorted(sounds.glob("chirp/1-*.wav"))[:1],
        runtimes=["float:litert", "litert-builtin"],
        reference=open_keras(tiny_int8, tiny_weights),
        hop_s=2,
        progress=ignore_progress,
    )
    in_float, in_int8 = found.runtimes
    # Keras adds n products in another order. Each partial sum is rounded by at most 2^-24 of its
    # value, which is a random walk of n steps in each of the two. The errors of the layers add up.
    bound = 2 * sum(math.sqrt(size) for size in fan_ins(tiny_int8)) * 2**-24
    assert 0 < in_float.overall.relative_l2 < bound < 0.01 * in_int8.overall.relative_l2
    assert found.float_runtime == "keras"
    assert found.to_json()["models_sha256"].keys() == {"float.tflite", "int8.tflite"}
    assert "float: keras; compared: float:litert, litert-builtin" in render_html(found)
    assert found.frontend is not None
    assert found.frontend.sixteen_bits_alone.sqnr_db > found.frontend.both.sqnr_db


def fan_ins(deployment: Deployment) -> list[int]:
    layers = deployment.variant.layers
    return [layer.kernel_size // layer.out_channels for layer in layers]


def test_keras_accepts_only_the_weights_in_the_manifest(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    other = tmp_path / "other.h5"
    write_hdf5(other, random_weights(tiny_int8.variant))
    with pytest.raises(WeightsError, match=r"other.h5: expected the weights of .* found "):
        open_keras(tiny_int8, other)
    for kind, message in (
        ("file", "expected --weights with mine.h5"),
        ("generated", "were generated; convert with --weights FILE"),
    ):
        given = {**tiny_int8.manifest["weights"], "kind": kind, "name": "mine.h5"}
        deployment = replace(tiny_int8, manifest={**tiny_int8.manifest, "weights": given})
        with pytest.raises(WeightsError, match=message):
            open_keras(deployment)


def test_keras_finds_the_stand_in_by_itself(tiny_int8: Deployment) -> None:
    variant = find_variant()
    weights = load_bundled_weights(variant)
    manifest = {**tiny_int8.manifest, "weights": asdict(weights.provenance)}
    runtime = open_keras(
        replace(tiny_int8, variant=variant, input_map=InputMap.of(weights), manifest=manifest)
    )
    spec = variant.frontend
    silence = np.zeros((1, spec.mels, spec.frames), np.float32)
    embedding = runtime.embed(np.zeros((1, spec.window_samples), np.float32), silence)
    assert embedding.shape == (1, 512)
    assert np.ptp(embedding) > 0


@pytest.mark.parametrize("reference", ["engine", "litert-builtin", "float:none"])
def test_only_a_float_model_can_be_compared_with(tiny_int8: Deployment, reference: str) -> None:
    with pytest.raises(RuntimeUnavailableError, match="float:tflm, float:keras"):
        compare(tiny_int8, [], reference=reference, hop_s=1, progress=ignore_progress)


def test_classes_are_those_of_the_labelled_clips(tiny_int8: Deployment, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, 8000), 8000)
    labelled = [
        LabelledClip(tmp_path / "a.wav", "dog", 1),
        LabelledClip(tmp_path / "b.wav", "rain", 2),
    ]
    found = compare(
        tiny_int8,
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


def test_the_drift_of_the_frontend_is_separate_from_that_of_quantization(
    report: DriftReport,
) -> None:
    frontend = report.frontend
    assert frontend is not None
    assert frontend.windows == report.layers.windows == 6
    assert 0 < frontend.log_mel_mean_db < frontend.log_mel_worst_db
    assert 0 < frontend.input_changed < 1
    assert frontend.frontend_alone.sqnr_db > frontend.both.sqnr_db


def test_the_node_is_compared_with_the_float_model_on_the_same_sixteen_bits(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    # Sixteen bits leave a handful of levels of so quiet a sound.
    quiet = np.random.default_rng(0).normal(0, 2 / FULL_SCALE, 16_000)
    soundfile.write(tmp_path / "quiet.wav", quiet, 8000, subtype="FLOAT")
    runtimes = ["node", "litert-builtin"]
    found = compare(tiny_int8, [tmp_path], runtimes=runtimes, hop_s=1, progress=ignore_progress)
    node, in_int8 = found.runtimes
    windows = quiet.astype(np.float32).reshape(2, 8000)
    heard = round_to_int16(windows)
    embed = tiny_int8.embedder("float", found.float_runtime).embed
    np.testing.assert_array_equal(node.reference, embed(heard))
    np.testing.assert_array_equal(in_int8.reference, embed(windows))
    np.testing.assert_array_equal(in_int8.reference, found.float_embeddings)
    np.testing.assert_array_equal(
        [each["reference_samples"] for each in found.to_json()["runtimes"]], ["16-bit", "float"]
    )
    # The two windows are the sampled windows too: each step against the step before it.
    steps = dict(found.frontend.steps)
    assert list(steps) == ["capture in 16 bits", "frontend", "quantization", "all"]
    assert steps["capture in 16 bits"].sqnr_db == sqnr_db(found.float_embeddings, node.reference)
    assert steps["all"].sqnr_db == sqnr_db(found.float_embeddings, node.embeddings)
    assert steps["frontend"].sqnr_db > steps["quantization"].sqnr_db
    assert node.overall.sqnr_db > steps["all"].sqnr_db


def test_a_step_without_signal_or_without_noise_has_a_page(report: DriftReport) -> None:
    assert report.frontend is not None
    step = report.frontend.both
    frontend = replace(
        report.frontend,
        sixteen_bits_alone=replace(step, sqnr_db=math.inf),
        frontend_step=replace(step, sqnr_db=-math.inf),
        quantization_step=replace(step, sqnr_db=math.nan),
    )
    page = render_html(replace(report, frontend=frontend))
    for label in ("no drift", "no signal"):
        assert label in page


def test_json_is_valid_and_carries_provenance(report: DriftReport, tmp_path: Path) -> None:
    write_report(report, tmp_path / "drift")
    text = (tmp_path / "drift" / "drift.json").read_text()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (runtime,) = data["runtimes"]
    assert runtime["groups"]["all"]["windows"] == report.overall.windows
    assert len(runtime["clips"]) == 3
    assert data["weights"] == report.deployment.manifest["weights"]
    assert set(data["models_sha256"]) == {"float.tflite", "packed.edgel3"}


def test_runtimes_that_will_take_minutes_are_announced(
    tiny_int8: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_int8.variant.frontend
    embedded = []

    def embed(windows: FloatArray, _: FloatArray) -> FloatArray:
        embedded.append(len(windows))
        return windows

    slow, fast, remote = (
        Runtime(name, "", embed, 0, is_remote=name == "remote")
        for name in ("slow", "fast", "remote")
    )
    notes: list[str] = []
    cores = available_cores()
    clock = iter([0, 0.5 * cores, 10, 10 + 0.1 * cores])
    _announce_slow([slow, fast, remote], 600, spec, notes.append, lambda: next(clock))
    assert notes == ["slow: 600 windows are expected to take 5 minutes, 0.5 s a window"]
    assert embedded == [cores, cores]

    notes.clear()
    monkeypatch.setattr("edgel3_tflm.drift.compare._LONG_S", 0)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 96_000), 48_000)
    compare(tiny_int8, [tmp_path], hop_s=0.25, progress=ignore_progress, note=notes.append)
    assert [note.partition(" windows")[0] for note in notes] == ["float:litert: 5", "engine: 5"]


def test_a_report_names_the_models_and_the_runtimes_that_ran(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 48_000), 48_000)
    in_engine = compare(
        tiny_int8, [tmp_path], runtimes=["engine"], hop_s=1, progress=ignore_progress
    )
    data = in_engine.to_json()
    assert set(data["models_sha256"]) == {"float.tflite", "packed.edgel3"}
    assert (data["float_runtime"], data["runtimes"][0]["runtime"]) == ("litert", "engine")
    page = render_html(in_engine)
    assert "float: litert; compared: engine" in page
    assert "<dt>packed.edgel3</dt>" in page
    assert "<dt>int8.tflite</dt>" not in page


class References(HTMLParser):
    """Collects the references of a page to other files."""

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


def test_the_page_needs_no_other_file_and_shows_figures(report: DriftReport, page: str) -> None:
    parser = References()
    parser.feed(page)
    assert parser.found == []
    # The first screen, windows and clips, layers and steps, worst windows.
    assert parser.tags.count("svg") == 4 + 4 + 2 + len(report.worst)
    assert not re.search(r"url\((?!#)", without_scripts(page))
    assert f"{report.overall.cosine_mean:.4f}" in page
    assert f"{report.overall.sqnr_db:.2f}" in page
    assert html.escape(report.deployment.manifest["weights"]["description"]) in page


def test_pages_are_the_same_when_made_again(report: DriftReport, page: str) -> None:
    assert render_html(report) == page


def test_a_clip_s_name_is_text_on_the_page(tiny_int8: Deployment, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.wav"
    soundfile.write(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    page = render_html(compare(tiny_int8, [tmp_path], hop_s=1, progress=ignore_progress))
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_clips_named_by_absolute_and_by_relative_paths_share_a_page(
    tiny_int8: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        soundfile.write(f"{name}.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    paths = [tmp_path / "a.wav", Path("b.wav")]
    page = render_html(compare(tiny_int8, paths, hop_s=1, progress=ignore_progress))
    for path in paths:
        assert f"<td>{path}</td>" in page


def test_generated_weights_are_a_notice_on_the_page(report: DriftReport, page: str) -> None:
    weights = {"kind": "generated", "description": "GENERATED weights"}
    manifest = report.deployment.manifest
    manifest = {**manifest, "weights": {**manifest["weights"], **weights}}
    generated = replace(report, deployment=replace(report.deployment, manifest=manifest))
    notice = 'class="notice">GENERATED weights'
    assert notice in render_html(generated)
    assert notice not in page


@pytest.mark.parametrize("hop_s", [0, -1, 1e-9, float("nan"), float("inf")])
def test_a_hop_that_is_not_positive_is_refused(tiny_int8: Deployment, hop_s: float) -> None:
    with pytest.raises(EdgeL3Error, match="hop"):
        compare(tiny_int8, [], hop_s=hop_s, progress=ignore_progress)


def test_an_unknown_runtime_and_an_empty_clip_are_refused(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    with pytest.raises(RuntimeUnavailableError, match="litert, litert-builtin, reference"):
        compare(tiny_int8, [tmp_path], runtimes=["onnx"], hop_s=1, progress=ignore_progress)
    with pytest.raises(AudioError, match="0 samples"):
        compare(tiny_int8, [tmp_path], runtimes=["litert"], hop_s=1, progress=ignore_progress)
