"""The deployments that ``convert`` writes, of weights from a file and of generated weights."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tflite
from helpers.deployments import DEPLOYMENT_FILES
from helpers.networks.keras_hdf5 import random_weights, write_hdf5
from helpers.progress import ignore_progress

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.converters.export.app import export_app
from edgel3_tflm.converters.export.c_array import write_banner
from edgel3_tflm.converters.pipeline import ConvertOptions, convert
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.networks.catalogue import VARIANTS, find_variant
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.runtime import interpreters
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.flatbuffer import summarize
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.tensors import TensorSpec

SEA = find_variant("sea", embedding_size=64)
PLAN_95 = (0, 85, 85, 85, 75, 95, 98, 98)


def clip_decibels(variant: Variant, clips: list[Path], count: int) -> np.ndarray:
    spec = variant.frontend
    windows = read_windows(
        clips, sample_rate_hz=spec.sample_rate_hz, window_samples=spec.window_samples, hop_s=0.5
    )
    decibels = np.concatenate([log_mel(batch[1:4], spec) for _, batch in windows])
    assert len(decibels) >= count
    return decibels[:count]


def run_integers(deployment: Deployment, decibels: np.ndarray, runtime: str) -> np.ndarray:
    interpreter = open_interpreter(deployment.read_model(deployment.quantization), runtime)
    return interpreter.run(deployment.input_map.apply(decibels, interpreter.input))


def kept_by_plan(variant: Variant, percents: tuple[float, ...]) -> list[int]:
    sizes = [layer.kernel_size for layer in variant.layers]
    return [round(size * (1 - p / 100)) for size, p in zip(sizes, percents, strict=True)]


@pytest.fixture(scope="module")
def dense_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense L3 weights in the layout of the published sparse files."""
    path = tmp_path_factory.mktemp("weights") / "l3.h5.gz"
    write_hdf5(path, random_weights(find_variant("dense"), seed=3))
    return path


@pytest.fixture(scope="module")
def edgel3_from_file(
    convert_to: Callable[[ConvertOptions], Deployment], dense_file: Path, short_calibration: Path
) -> Deployment:
    variant = find_variant(sparsity="95.45")
    return convert_to(ConvertOptions(variant, dense_file, calibration=short_calibration))


def test_a_dense_file_is_pruned_exactly_to_the_plan(edgel3_from_file: Deployment) -> None:
    layers = edgel3_from_file.manifest["layers"]
    kept = [layer["weights"] - layer["zeros"] for layer in layers]
    assert kept == kept_by_plan(edgel3_from_file.variant, PLAN_95)
    assert sum(kept) == 213_281
    assert edgel3_from_file.manifest["weights"]["pruned_layers"] == [
        f"conv{n}" for n in range(2, 9)
    ]


def test_zeros_of_the_plan_are_zeros_of_both_flatbuffers(edgel3_from_file: Deployment) -> None:
    planned = [layer["zeros"] for layer in edgel3_from_file.manifest["layers"]]
    for precision in ("float", "int8"):
        summary = summarize(edgel3_from_file.read_model(precision))
        zeros = [layer.zeros for layer in summary.layers if layer.weights]
        # Quantization rounds some small weights to zero as well, but no zero to another value.
        assert all(found >= plan for found, plan in zip(zeros, planned, strict=True)), precision
    assert [
        layer.zeros
        for layer in summarize(edgel3_from_file.read_model("float")).layers
        if layer.weights
    ] == planned


@pytest.fixture(scope="module")
def edgel3_generated(
    convert_to: Callable[[ConvertOptions], Deployment], sounds: Path
) -> Deployment:
    """The 95.45 network with generated weights, for which three clips are enough."""
    clips = sounds / "tone"
    return convert_to(ConvertOptions(find_variant(), "generated", calibration=clips))


def test_every_file_says_that_weights_are_generated(edgel3_generated: Deployment) -> None:
    manifest = edgel3_generated.manifest
    assert manifest["weights"]["kind"] == "generated"
    texts = [manifest["weights"]["description"]]
    for precision in ("float", "int8"):
        texts.append(summarize(edgel3_generated.read_model(precision)).description)
    for name in ("edgel3_model.h", "edgel3_model.cc"):
        with (edgel3_generated.directory / name).open() as file:
            texts.append(file.read(1000))
    for text in texts:
        assert "GENERATED weights" in text
        assert "never trained" in text


def test_embeddings_of_generated_networks_vary(edgel3_generated: Deployment, sounds: Path) -> None:
    clips = sorted(sounds.glob("chirp/1-*.wav"))[:1]
    decibels = clip_decibels(edgel3_generated.variant, clips, 3)
    embeddings = edgel3_generated.embedder("float").embed_log_mel(decibels)
    assert (embeddings.std(axis=0) > 0).mean() > 0.9


@pytest.mark.parametrize("fixture", ["tiny_int8", "tiny_int16x8"])
def test_models_have_builtin_operators_only_and_integer_inputs_and_outputs(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    deployment: Deployment = request.getfixturevalue(fixture)
    summary = summarize(deployment.read_model(deployment.quantization))
    operators = [layer.operator for layer in summary.layers]
    assert set(operators) == {"CONV_2D", "MAX_POOL_2D", "RESHAPE"}
    assert operators.count("CONV_2D") == 8
    interpreter = open_interpreter(deployment.read_model(deployment.quantization))
    dtype = np.dtype("int8" if deployment.quantization == "int8" else "int16")
    assert interpreter.input.dtype == interpreter.output.dtype == dtype


def test_the_input_covers_the_range_of_the_frontend(tiny_int8: Deployment) -> None:
    spec = open_interpreter(tiny_int8.read_model("int8")).input
    ends = np.array([-80.0, 0.0], np.float32).reshape(1, 2, 1)
    quantized = tiny_int8.input_map.apply(ends, spec).ravel()
    factor, offset = tiny_int8.input_map.steps(spec)
    np.testing.assert_allclose(ends.ravel() * factor + offset, quantized, atol=0.5 + 1e-4)
    # The range is no wider than needed: its ends are int8's ends, up to the rounding of zero.
    assert quantized[0] <= -127
    assert quantized[1] >= 126


def test_input_map_equals_batch_norm_then_quantization() -> None:
    input_map = InputMap(slope=0.08, offset=2.1)
    spec = TensorSpec((1, 2, 3, 1), np.dtype(np.int8), scale=0.0251, zero_point=-3)
    decibels = np.linspace(-80, 0, 600, dtype=np.float32).reshape(100, 2, 3)
    exact = (0.08 * decibels.astype(np.float64) + 2.1) / 0.0251 - 3
    quantized = input_map.apply(decibels, spec)
    assert quantized.shape == (100, 2, 3, 1)
    # Rounding to integers adds 0.5, and two float32 roundings apply to numbers below 512.
    inside = (exact > -128) & (exact < 127)
    assert abs(quantized[..., 0] - exact)[inside].max() <= 0.5 + 2 * 512 * 2.0**-24


def test_tflm_returns_the_reference_bytes_on_windows_of_clips(
    tiny_int8: Deployment, sounds: Path
) -> None:
    clips = find_clips([sounds])[::2]
    decibels = clip_decibels(tiny_int8.variant, clips, 24)
    reference = run_integers(tiny_int8, decibels, "reference")
    np.testing.assert_array_equal(run_integers(tiny_int8, decibels, "tflm"), reference)
    assert len(np.unique(reference, axis=0)) > 12  # the windows differ


def test_tflm_returns_the_reference_bytes_of_the_95_45_network(
    edgel3_generated: Deployment, sounds: Path
) -> None:
    decibels = clip_decibels(edgel3_generated.variant, sorted(sounds.glob("tone/1-*.wav"))[:1], 1)
    reference = run_integers(edgel3_generated, decibels, "reference")
    np.testing.assert_array_equal(run_integers(edgel3_generated, decibels, "tflm"), reference)
    assert len(np.unique(reference)) > 20


def test_int16x8_runs_in_tflm_as_in_the_reference(tiny_int16x8: Deployment, sounds: Path) -> None:
    decibels = clip_decibels(tiny_int16x8.variant, sorted(sounds.glob("tone/1-*.wav"))[:1], 3)
    reference = run_integers(tiny_int16x8, decibels, "reference")
    np.testing.assert_array_equal(run_integers(tiny_int16x8, decibels, "tflm"), reference)


@pytest.mark.parametrize(("runtime", "steps"), [("litert-builtin", 0), ("litert", 2)])
def test_other_runtimes_stay_close_to_the_reference(
    tiny_int8: Deployment, sounds: Path, runtime: str, steps: int
) -> None:
    decibels = clip_decibels(tiny_int8.variant, sorted(sounds.glob("tone/1-*.wav"))[:3], 6)
    reference = run_integers(tiny_int8, decibels, "reference").astype(int)
    # XNNPACK, in litert, rounds once where the reference rounds twice.
    assert abs(run_integers(tiny_int8, decibels, runtime) - reference).max() <= steps


def test_the_same_inputs_give_the_same_bytes(tiny_int8: Deployment, tiny_weights: Path) -> None:
    again = tiny_int8.directory.with_name("again")
    options = ConvertOptions(SEA, tiny_weights, quantizer=PLAIN)
    convert(options, again, ignore_progress)
    files = sorted(path.name for path in again.iterdir())
    assert files == sorted(path.name for path in tiny_int8.directory.iterdir())
    assert files == DEPLOYMENT_FILES
    for name in files:
        assert (again / name).read_bytes() == (tiny_int8.directory / name).read_bytes(), name


def test_a_conversion_without_tflm_says_that_the_arena_was_not_measured(
    tiny_weights: Path, short_calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> object:
        return None if name == "tflite_micro" else importlib.util.find_spec(name)

    monkeypatch.setattr(interpreters, "find_spec", find_spec)
    notes: list[str] = []
    options = ConvertOptions(SEA, tiny_weights, calibration=short_calibration, quantizer=PLAIN)
    deployment = convert(options, tmp_path / "out", ignore_progress, notes.append)
    (note,) = notes
    assert note.startswith("TFLM's arena of the flatbuffer was not measured: ")
    assert deployment.manifest["arena_bytes"] is None
    assert deployment.manifest["packed"]["arena_bytes"] > 0
    header = (deployment.directory / "edgel3_model.h").read_text()
    assert "EDGEL3_MODEL_ARENA_BYTES" not in header
    assert "EDGEL3_MODEL_BYTES" in header
    with pytest.raises(EdgeL3Error, match="expected an arena that convert measured"):
        export_app(deployment, BOARDS[0], tmp_path / "app", engine="tflm-builtin")


def test_the_manifest_records_the_inputs(tiny_int8: Deployment) -> None:
    manifest = tiny_int8.manifest
    assert (manifest["weights"]["kind"], manifest["weights"]["name"]) == ("file", "tiny.h5.gz")
    assert len(manifest["calibration"]["clips"]) == 51
    assert all(
        re.fullmatch("[0-9a-f]{64}", clip["sha256"]) for clip in manifest["calibration"]["clips"]
    )
    assert {"tensorflow", "tensorflow-model-optimization", "numpy", "python"} <= set(
        manifest["tools"]
    )
    assert str(Path.home()) not in json.dumps(dict(manifest))
    assert [layer["dense_macs"] for layer in manifest["layers"]] == [
        layer.rows * layer.columns * layer.kernel_size for layer in tiny_int8.variant.layers
    ]


def test_own_clips_can_calibrate(
    convert_to: Callable[[ConvertOptions], Deployment],
    tiny_weights: Path,
    sounds: Path,
) -> None:
    own = sounds / "tone"
    deployment = convert_to(ConvertOptions(SEA, tiny_weights, calibration=own))
    assert {clip["file"] for clip in deployment.manifest["calibration"]["clips"]} == {
        path.name for path in own.iterdir()
    }
    assert not deployment.manifest["calibration"]["bundled"]


def test_the_c_array_compiles_to_the_flatbuffer(tiny_int8: Deployment, tmp_path: Path) -> None:
    (tmp_path / "main.cc").write_text("""
#include <cstdint>
#include <cstdio>
#include "edgel3_model.h"
static_assert(sizeof(edgel3_model) == EDGEL3_MODEL_BYTES, "size");
static_assert(EDGEL3_MODEL_MELS == 64 && EDGEL3_MODEL_FRAMES == 50, "input");
static_assert(EDGEL3_MODEL_EMBEDDING_SIZE == 4, "output");
int main() {
  if (reinterpret_cast<std::uintptr_t>(edgel3_model) % 16 != 0) return 1;
  if (!(EDGEL3_MODEL_INPUT_FACTOR > 0 && EDGEL3_MODEL_OUTPUT_SCALE > 0)) return 2;
  return std::fwrite(edgel3_model, 1, sizeof edgel3_model, stdout) == sizeof edgel3_model ? 0 : 3;
}
""")
    program = tmp_path / "main"
    subprocess.run(
        [
            "g++",
            "-std=c++11",
            "-Wall",
            "-Wextra",
            "-Wconversion",
            "-Werror",
            "-pedantic",
            f"-I{tiny_int8.directory}",
            str(tmp_path / "main.cc"),
            str(tiny_int8.directory / "edgel3_model.cc"),
            "-o",
            str(program),
        ],
        check=True,
    )
    printed = subprocess.run([str(program)], check=True, capture_output=True).stdout
    assert printed == tiny_int8.read_model("int8")


def test_the_header_states_the_model_s_own_quantization(tiny_int8: Deployment) -> None:
    header = (tiny_int8.directory / "edgel3_model.h").read_text()
    interpreter = open_interpreter(tiny_int8.read_model("int8"))

    def constant(name: str) -> float:
        found = re.search(rf"#define EDGEL3_MODEL_{name} (\S+)", header)
        assert found, name
        return float(found[1].rstrip("f"))

    factor, offset = tiny_int8.input_map.steps(interpreter.input)
    # Ten significant digits are printed; float32 has fewer than eight.
    assert np.float32(constant("INPUT_FACTOR")) == np.float32(factor)
    assert np.float32(constant("INPUT_OFFSET")) == np.float32(offset)
    assert np.float32(constant("OUTPUT_SCALE")) == np.float32(interpreter.output.scale)
    assert constant("OUTPUT_ZERO_POINT") == interpreter.output.zero_point
    assert constant("ARENA_BYTES") >= tiny_int8.manifest["arena_bytes"]


def test_a_file_name_cannot_end_the_banner_s_comment() -> None:
    banner = write_banner(b"", find_variant(), "weights file a\n#error b\\\n\u2028c")
    assert all(line.startswith("//") for line in banner.splitlines())
    assert not any(line.endswith("\\") for line in banner.splitlines())


@pytest.mark.parametrize("name", ["l3-dense", "sea-ust-512", "sea-ust-256", "sea-ust-128"])
def test_every_kind_of_network_converts(
    name: str, convert_to: Callable[[ConvertOptions], Deployment], tmp_path: Path
) -> None:
    variant = VARIANTS[name]
    write_hdf5(tmp_path / "w.h5", random_weights(variant, seed=4))
    clip = np.random.default_rng(0).normal(0, 0.1, variant.frontend.window_samples)
    soundfile.write(tmp_path / "hiss.wav", clip, variant.frontend.sample_rate_hz)
    deployment = convert_to(ConvertOptions(variant, tmp_path / "w.h5", calibration=tmp_path))
    embedding = deployment.embedder("int8").embed(clip[np.newaxis].astype(np.float32))
    assert embedding.shape == (1, variant.embedding_size)
    assert sum(layer["zeros"] for layer in deployment.manifest["layers"]) == 0


def test_an_unknown_quantization_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeL3Error, match="int4"):
        convert(
            ConvertOptions(find_variant(), quantization="int4"), tmp_path / "d", ignore_progress
        )
    assert not any(tmp_path.iterdir())


class TestDeploymentChecks:
    @pytest.fixture
    def copy(self, tiny_int8: Deployment, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_int8.directory, tmp_path / "copy"))

    def test_a_changed_model_is_named(self, copy: Path) -> None:
        model = bytearray((copy / "int8.tflite").read_bytes())
        model[1000] ^= 1
        (copy / "int8.tflite").write_bytes(model)
        with pytest.raises(ModelFileError, match=r"int8\.tflite: expected SHA-256"):
            Deployment.load(copy)

    def test_a_missing_file_is_named(self, copy: Path) -> None:
        (copy / "edgel3_model.h").unlink()
        with pytest.raises(ModelFileError, match=r"edgel3_model\.h"):
            Deployment.load(copy)

    @pytest.mark.parametrize("keep", [0, 1, 100, 2000])
    def test_a_cut_manifest_is_refused(self, copy: Path, keep: int) -> None:
        text = (copy / "manifest.json").read_bytes()
        (copy / "manifest.json").write_bytes(text[:keep])
        with pytest.raises(ModelFileError, match=r"manifest\.json"):
            Deployment.load(copy)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("format_version", 99),
            ("quantization", "int4"),
            ("variant", {"name": "other"}),
            ("input", {"slope_per_db": "x", "offset": 0}),
            ("artefacts", {}),
            ("artefacts", []),
            ("artefacts", {"../x": {"sha256": "0"}}),
            ("weights", None),
        ],
    )
    def test_a_manifest_of_another_shape_is_refused(
        self, copy: Path, key: str, value: object
    ) -> None:
        manifest = json.loads((copy / "manifest.json").read_bytes())
        manifest[key] = value
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ModelFileError, match=r"manifest\.json"):
            Deployment.load(copy)

    def test_a_directory_of_something_else_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match="edgel3-tflm convert"):
            Deployment.load(tmp_path)

    def test_a_model_of_another_network_is_refused(self, tiny_int8: Deployment) -> None:
        other = replace(tiny_int8, variant=find_variant())
        with pytest.raises(ModelFileError, match="256, 199"):
            other.embedder("int8")


def test_weights_and_biases_are_aligned_to_words(tiny_int8: Deployment) -> None:
    """TFLM reads them in place. The array is 16-byte aligned, and a Cortex-M loads 4-byte words."""
    model = np.frombuffer(tiny_int8.read_model("int8"), np.uint8)
    root = tflite.Model.GetRootAsModel(model, 0)
    graph = root.Subgraphs(0)
    for position in range(graph.TensorsLength()):
        data = root.Buffers(graph.Tensors(position).Buffer()).DataAsNumpy()
        if not isinstance(data, int):  # 0 means a tensor without constant data
            offset = data.__array_interface__["data"][0] - model.__array_interface__["data"][0]
            assert offset % 4 == 0
