"""The engine: byte for byte what TensorFlow Lite's reference kernels compute, within its memory."""

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tflite
from helpers.engine_networks import (
    Int8Array,
    changed,
    clip_windows,
    draw_network,
    draw_windows,
    seal,
)
from helpers.int8_network import Int8Network, Quantization, build, with_layer

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.runtime import engine as engine_module
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.engine import (
    Engine,
    EngineInterpreter,
    Kernels,
    arena_bytes,
    describe,
)
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.native import import_tensorflow
from edgel3_tflm.runtime.packed import Encoding, plan_memory, read_packed

SOURCES = Path(__file__).parents[2] / "micro_app" / "lib" / "edgel3" / "src"
BOTH_KERNELS: tuple[Kernels, ...] = ("best", "portable")


class Reference:
    """BUILTIN_REF with all of its tensors."""

    def __init__(self, model: bytes) -> None:
        tf = import_tensorflow()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf.lite announces its own end at every use
            self._interpreter = tf.lite.Interpreter(
                model_content=model,
                experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF,
                experimental_preserve_all_tensors=True,
            )
        self._interpreter.allocate_tensors()
        root = tflite.Model.GetRootAsModel(model, 0)
        graph = root.Subgraphs(0)
        self._input, self._output = graph.Inputs(0), graph.Outputs(0)
        self._entering = []
        for position in range(graph.OperatorsLength()):
            operation = graph.Operators(position)
            code = root.OperatorCodes(operation.OpcodeIndex()).BuiltinCode()
            if code == tflite.BuiltinOperator.CONV_2D:
                self._entering.append(operation.Inputs(0))

    def run(self, window: Int8Array) -> tuple[list[Int8Array], Int8Array]:
        """What enters each convolution, (rows, columns, channels), and the embedding."""
        self._interpreter.set_tensor(self._input, window[np.newaxis])
        self._interpreter.invoke()
        maps = [self._interpreter.get_tensor(tensor)[0] for tensor in self._entering]
        return maps, self._interpreter.get_tensor(self._output)[0]


def assert_equals_reference(network: Int8Network, windows: Int8Array) -> None:
    model = build(network)
    blob = pack(model)
    assert_same_values(blob, model, windows)
    assert arena_bytes(blob, "portable") == plan_memory(blob).arena_bytes


def assert_same_values(blob: bytes, model: bytes, windows: Int8Array) -> None:
    """Every value that enters a convolution, and every embedding."""
    reference = Reference(model)
    engines = {kernels: Engine(blob, kernels) for kernels in BOTH_KERNELS}
    for window in windows:
        maps, embedding = reference.run(window)
        for kernels, engine in engines.items():
            found = engine.trace(window[:, :, 0])
            assert len(found) == len(maps)
            for position, (ours, theirs) in enumerate(zip(found, maps, strict=True)):
                np.testing.assert_array_equal(ours, theirs, f"{kernels}, conv{position + 1}")
            # Without the hook.
            np.testing.assert_array_equal(engine.run(window[:, :, 0]), embedding, kernels)


# Whole networks --------------------------------------------------------------------------------


def test_sea_64_gives_the_reference_s_bytes(sea_generated: Deployment, sounds: Path) -> None:
    windows = clip_windows(sea_generated, find_clips([sounds]), 100)
    expected = open_interpreter(sea_generated.read_model("int8"), "reference").run(windows)
    blob = sea_generated.read_model("int8", "engine")
    for kernels in BOTH_KERNELS:
        np.testing.assert_array_equal(EngineInterpreter(blob, kernels).run(windows), expected)


def test_the_95_45_network_gives_the_reference_s_bytes(standin: Deployment, sounds: Path) -> None:
    windows = clip_windows(standin, find_clips([sounds / "tone"])[:1], 5)
    expected = open_interpreter(standin.read_model("int8"), "reference").run(windows)
    blob = standin.read_model("int8", "engine")
    for kernels in BOTH_KERNELS:
        np.testing.assert_array_equal(EngineInterpreter(blob, kernels).run(windows), expected)


# Generated networks ----------------------------------------------------------------------------

SPARSITIES = (0, 0.15, 0.5, 0.85, 0.98, 1)


WIDTHS = (7, 33, 63, 64, 65, 127, 129, 199)
"""Around the 64 and 128 columns that AVX-512 kernels take at once."""


def sweep(
    sparsity: float, widths: tuple[int, ...] = WIDTHS
) -> Iterator[tuple[np.random.Generator, Int8Network]]:
    """Networks of odd sizes."""
    for seed, columns in enumerate(widths):
        rng = np.random.default_rng([seed, int(100 * sparsity)])
        network = draw_network(
            rng,
            rows=int(rng.choice([5, 9, 13])),
            columns=columns,
            filters=[15, 33, 24, 11],
            pools=["none", "2x2", "none", "global"],
            sparsity=sparsity,
            activations=["relu", "none", "relu6", "none"],
        )
        yield rng, network


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_networks_of_any_sparsity_give_the_reference_s_bytes(sparsity: float) -> None:
    for rng, network in sweep(sparsity):
        assert_equals_reference(network, draw_windows(rng, network))


def test_the_sweep_has_every_encoding() -> None:
    found = {
        conv.encoding
        for sparsity in SPARSITIES
        for _, network in sweep(sparsity)
        for conv in read_packed(pack(build(network))).convolutions
    }
    assert found == set(Encoding)


@pytest.mark.parametrize(
    ("rows", "columns", "filters", "pools"),
    [
        (1, 1, [1], ["global"]),
        (1, 1, [5, 3], ["none", "global"]),
        (2, 2, [3, 7], ["2x2", "global"]),
        (3, 3, [2, 9], ["2x2", "global"]),
        (1, 37, [4, 6], ["none", "global"]),
        (37, 1, [4, 6], ["none", "global"]),
        (2, 3, [1, 1, 1], ["none", "2x2", "global"]),
        (17, 19, [3, 5, 7, 9], ["2x2", "2x2", "2x2", "global"]),
        (4, 300, [2, 3], ["none", "global"]),
        (9, 8, [1, 2, 3, 4, 5, 6, 7, 8], ["none"] * 7 + ["global"]),
        (3, 5, [70, 65], ["none", "global"]),
    ],
)
def test_maps_of_any_size_give_the_reference_s_bytes(
    rows: int, columns: int, filters: list[int], pools: list[Any]
) -> None:
    rng = np.random.default_rng([rows, columns, *filters])
    network = draw_network(rng, rows=rows, columns=columns, filters=filters, pools=pools)
    assert_equals_reference(network, draw_windows(rng, network))


@pytest.mark.parametrize("values", [[-128], [127], [-128, 127], [-128, 0, 0, 0, 0, 127], [-1, 1]])
def test_extreme_weights_give_the_reference_s_bytes(values: list[int]) -> None:
    rng = np.random.default_rng(len(values) + values[0] + 128)
    network = draw_network(
        rng, rows=6, columns=66, filters=[4, 9, 5], pools=["none", "2x2", "global"]
    )
    for position, conv in enumerate(network.layers):
        kernel = rng.choice(np.array(values, np.int8), conv.kernel.shape)
        # Some 16 steps of output again, for other weights than were drawn.
        scales = (conv.scales * np.float32(0.3)).astype(np.float32)
        network = with_layer(network, position, kernel=kernel, scales=scales)
    assert_equals_reference(network, draw_windows(rng, network))


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("zero_point", [-128, -127, -3, 0, 90, 127])
def test_output_zero_points_give_the_reference_s_bytes(activation: str, zero_point: int) -> None:
    rng = np.random.default_rng([zero_point + 128, len(activation)])
    network = draw_network(
        rng,
        rows=7,
        columns=70,
        filters=[6, 7, 8],
        pools=["2x2", "none", "global"],
        activations=[activation] * 3,
    )
    for position in range(3):
        output = Quantization(network.layers[position].output.scale, zero_point)
        network = with_layer(network, position, output=output)
    assert_equals_reference(network, draw_windows(rng, network))


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_input_zero_points_at_the_ends_give_the_reference_s_bytes(zero_point: int) -> None:
    rng = np.random.default_rng(zero_point + 128)
    network = draw_network(rng, rows=8, columns=40, filters=[5, 4], pools=["none", "global"])
    network = Int8Network(8, 40, Quantization(network.input.scale, zero_point), network.layers)
    assert_equals_reference(network, draw_windows(rng, network))


def test_channels_and_rows_of_zeros_give_the_reference_s_bytes() -> None:
    """ReLUs with zero point -128, every second channel closed: kernels skip rows of zeros."""
    rng = np.random.default_rng(5)
    network = draw_network(
        rng, rows=10, columns=33, filters=[8, 8, 6], pools=["none", "2x2", "global"]
    )
    network = Int8Network(10, 33, Quantization(network.input.scale, -128), network.layers)
    for position in range(2):
        conv = network.layers[position]
        assert conv.bias is not None
        bias = np.where(np.arange(8) % 2, np.int32(-(10**7)), conv.bias).astype(np.int32)
        output = Quantization(conv.output.scale, -128)
        network = with_layer(network, position, bias=bias, output=output, activation="relu")
    windows = draw_windows(rng, network)
    entering = Engine(pack(build(network))).trace(windows[-1, :, :, 0])
    assert (entering[0][1::2] == -128).all()
    assert (entering[1][:, :, 1::2] == -128).all()
    assert (entering[1] != -128).any()
    assert_equals_reference(network, windows)


@pytest.fixture
def small() -> Int8Network:
    """Four convolutions, pools over odd rows and columns, all encodings."""
    return draw_network(
        np.random.default_rng(1),
        rows=13,
        columns=11,
        filters=[12, 24, 24, 10],
        pools=["none", "2x2", "2x2", "global"],
        sparsity=[0.1, 0.8, 0.97, 0.5],
    )


def test_a_small_network_gives_the_reference_s_bytes(small: Int8Network) -> None:
    assert_equals_reference(small, draw_windows(np.random.default_rng(2), small))


def test_the_comparison_fails_when_it_should(small: Int8Network) -> None:
    """The packed model's third convolution has one weight more than the reference's."""
    kernel = small.layers[2].kernel.copy()
    first_zero = np.unravel_index(np.argmin(abs(kernel.astype(int))), kernel.shape)
    kernel[first_zero] = 127
    other = pack(build(with_layer(small, 2, kernel=kernel)))
    with pytest.raises(AssertionError, match="best, conv4"):
        assert_same_values(other, build(small), draw_windows(np.random.default_rng(2), small))


# The interface ---------------------------------------------------------------------------------


@pytest.fixture
def blob(small: Int8Network) -> bytes:
    return pack(build(small))


def test_a_model_is_described(small: Int8Network, blob: bytes) -> None:
    info = describe(blob)
    model = read_packed(blob)
    assert (info.rows, info.columns, info.embedding_size) == (13, 11, 10)
    assert info.input_scale == small.input.scale == model.input_scale
    assert info.input_zero_point == small.input.zero_point
    assert info.output_scale == small.layers[-1].output.scale
    assert info.output_zero_point == small.layers[-1].output.zero_point
    assert info.convolutions == 4
    assert info.source_sha256 == model.source_sha256


def test_a_batch_in_threads_gives_what_single_runs_give(
    blob: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "available_cores", lambda: 5)
    windows = np.random.default_rng(3).integers(-128, 128, (64, 13, 11, 1)).astype(np.int8)
    alone = Engine(blob)
    expected = np.stack([alone.run(window[:, :, 0]) for window in windows])
    assert len(np.unique(expected, axis=0)) == 64
    interpreter = EngineInterpreter(blob)
    for count in (0, 1, 2, 3, 64):
        found = interpreter.run(windows[:count])
        assert found.shape == (count, 10)
        np.testing.assert_array_equal(found, expected[:count])
    # Several threads may share an interpreter, too.
    with ThreadPoolExecutor(4) as executor:
        for found in executor.map(interpreter.run, [windows] * 8):
            np.testing.assert_array_equal(found, expected)


def test_rows_may_be_pushed_as_they_come(blob: bytes) -> None:
    window = np.random.default_rng(4).integers(-128, 128, (13, 11)).astype(np.int8)
    pushed = Engine(blob)
    for row in window[:6]:
        pushed.push_row(-row)
    pushed.begin()  # forgets them
    for row in window:
        pushed.push_row(row)
    expected = Engine(blob).run(window)
    np.testing.assert_array_equal(pushed.finish(), expected)
    np.testing.assert_array_equal(pushed.finish(), expected)


def test_rows_behind_the_last_and_early_embeddings_are_refused(blob: bytes) -> None:
    engine = Engine(blob)
    row = np.zeros(11, np.int8)
    with pytest.raises(EdgeL3Error, match="the embedding read before it; begin a window"):
        engine.finish()
    for _ in range(13):
        engine.push_row(row)
    expected = engine.finish()
    with pytest.raises(EdgeL3Error, match="a row after the last one"):
        engine.push_row(row)
    np.testing.assert_array_equal(engine.finish(), expected)


def test_windows_may_lie_in_any_order_in_memory(blob: bytes) -> None:
    windows = np.random.default_rng(5).integers(-128, 128, (2, 13, 11, 1)).astype(np.int8)
    expected = EngineInterpreter(blob).run(windows)
    turned = np.asfortranarray(windows)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(EngineInterpreter(blob).run(turned), expected)


@pytest.mark.parametrize(
    "windows",
    [
        np.zeros((2, 13, 11, 1), np.uint8),
        np.zeros((2, 13, 11, 1), np.float32),
        np.zeros((2, 13, 10, 1), np.int8),
        np.zeros((2, 13, 11), np.int8),
    ],
)
def test_windows_of_another_type_or_shape_are_refused(
    blob: bytes, windows: npt.NDArray[Any]
) -> None:
    with pytest.raises(ValueError, match=r"expected int8 of shape \(2, 13, 11, 1\)"):
        EngineInterpreter(blob).run(windows)


def test_damaged_models_are_refused_and_say_what_to_do(blob: bytes) -> None:
    cases = {
        "truncated.*; convert again": [b"", blob[:4], blob[:63], blob[:64], blob[:-1]],
        r"not a packed model; give it the packed\.edgel3": [b"TFL3" + blob[4:], bytes(len(blob))],
        "another version of the format; convert again, with this": [changed(blob, 4, 2)],
        "its checksum differs; convert again": [
            changed(blob, len(blob) - 5, blob[-5] ^ 1),
            changed(blob, 70, blob[70] ^ 1),
        ],
        "inconsistent or out of range; convert again": [
            seal(changed(blob, 6, 3)),
            changed(blob, 6, 0),
            changed(blob, 6, 9),
            seal(changed(blob, 20, 11)),
            seal(changed(blob, 56, 1)),
            seal(changed(blob, 64 + 2, 13)),
            seal(changed(blob, 64 + 9, 3)),
        ],
    }
    for message, models in cases.items():
        for model in models:
            for refuse in (describe, arena_bytes, Engine, EngineInterpreter):
                with pytest.raises(ModelFileError, match=rf"^the engine refuses[^\n]*{message}"):
                    refuse(model)


def test_bytes_behind_a_model_do_not_matter(blob: bytes) -> None:
    assert describe(blob + b"more") == describe(blob)


def aligned_memory(size: int) -> npt.NDArray[np.uint8]:
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def has_vnni() -> bool:
    """Whether this processor has AVX-512 VNNI, which the host's kernels use."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and "avx512_vnni" in path.read_text().split()


@pytest.mark.skipif(not has_vnni(), reason="needs a processor with AVX-512 VNNI")
def test_the_extension_has_the_host_s_kernels(blob: bytes) -> None:
    # They keep expanded weights in the arena; the portable ones do not.
    assert arena_bytes(blob, "best") > arena_bytes(blob, "portable")


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_an_arena_that_is_too_small_or_misaligned_is_refused(blob: bytes, kernels: Kernels) -> None:
    needed = arena_bytes(blob, kernels)
    memory = aligned_memory(needed + 16)
    Engine(blob, kernels, arena=memory[:needed])
    Engine(blob, kernels, arena=memory[16:])
    for size in (0, 100, 2048, needed - 1):
        with pytest.raises(EdgeL3Error, match="too small; give it as many bytes as arena_bytes"):
            Engine(blob, kernels, arena=memory[:size])
    for start in (1, 4, 8):
        with pytest.raises(EdgeL3Error, match="align the arena to 16 bytes"):
            Engine(blob, kernels, arena=memory[start : start + needed])


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_bytes_around_the_arena_stay_as_they_are(kernels: Kernels) -> None:
    guard = 4096
    for sparsity in (0, 0.85, 0.98):
        for rng, network in sweep(sparsity, (7, 64, 65, 129)):
            blob = pack(build(network))
            size = arena_bytes(blob, kernels)
            memory = aligned_memory(size + 2 * guard)
            memory[:] = rng.integers(0, 256, len(memory))
            before = memory.copy()
            engine = Engine(blob, kernels, arena=memory[guard : guard + size])
            for window in draw_windows(rng, network):
                engine.run(window[:, :, 0])
            np.testing.assert_array_equal(memory[:guard], before[:guard])
            np.testing.assert_array_equal(memory[guard + size :], before[guard + size :])
            assert (memory != before).any()


def test_engines_do_not_change_their_model(blob: bytes) -> None:
    copy = bytes(bytearray(blob))
    Engine(blob).run(np.ones((13, 11), np.int8))
    assert blob == copy


# Toolchains ------------------------------------------------------------------------------------


def find_compiler(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"needs {name}; on Debian: apt-get install gcc g++ clang")
    return path


HOST_KERNELS = SOURCES.parents[2] / "host" / "edgel3_kernels_avx512.c"
EXTRA_KERNELS = f"-DEDGEL3_EXTRA_KERNELS={HOST_KERNELS.stem}"
C_FILES = (*sorted(SOURCES.glob("*.c")), HOST_KERNELS)
ENGINE_FILES = (
    SOURCES / "edgel3_engine.c",
    SOURCES / "edgel3_kernels.c",
    SOURCES / "edgel3_packed.c",
    HOST_KERNELS,
)


COMPILERS = {"gcc": ["-std=c99"], "clang": ["-std=c99"], "g++": ["-x", "c++", "-std=c++11"]}


@pytest.mark.parametrize(
    ("compiler", "file"),
    [
        pytest.param(compiler, file, id=f"{compiler}-{file.name}")
        for compiler in COMPILERS
        for file in C_FILES
        # GCC 12's own AVX-512 headers warn when they are compiled as C++.
        if (compiler, file) != ("g++", HOST_KERNELS)
    ],
)
def test_sources_compile_without_a_warning(compiler: str, file: Path, tmp_path: Path) -> None:
    # With optimisation: some warnings come of data flow.
    strict = ["-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    output = tmp_path / "out.o"
    done = subprocess.run(
        [
            find_compiler(compiler),
            *COMPILERS[compiler],
            *(*strict, EXTRA_KERNELS, f"-I{SOURCES}"),
            *("-c", file, "-o", output),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C library under AddressSanitizer and UndefinedBehaviorSanitizer."""
    path = tmp_path_factory.mktemp("driver") / "engine_driver"
    strict = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [Path(__file__).parents[1] / "native" / "engine_driver.c", *ENGINE_FILES]
    done = subprocess.run(
        [
            *(find_compiler("gcc"), "-std=c99", "-g", "-O1", *strict, *sanitizers),
            *(EXTRA_KERNELS, f"-I{SOURCES}", *sources, "-o", path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return path


def drive(
    driver: Path, kernels: Kernels, windows: Int8Array, models: list[bytes], folder: Path
) -> list[tuple[int, list[bytes]]]:
    """Status and embeddings for each model; a sanitizer's finding fails the test."""
    inputs = folder / "windows"
    inputs.write_bytes(windows.tobytes())
    paths = []
    for number, model in enumerate(models):
        paths.append(folder / f"model{number}")
        paths[-1].write_bytes(model)
    done = subprocess.run(
        [driver, kernels, inputs, *paths], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(models)
    return [(int(status), [bytes.fromhex(each) for each in rest]) for status, *rest in lines]


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_sanitizers_find_nothing_and_the_bytes_are_the_reference_s(
    driver: Path, tmp_path: Path, kernels: Kernels
) -> None:
    for sparsity in SPARSITIES:
        for rng, network in sweep(sparsity, (7, 65, 199)):
            windows = draw_windows(rng, network)[::3]
            model = build(network)
            expected = open_interpreter(model, "reference").run(windows)
            ((status, found),) = drive(driver, kernels, windows, [pack(model)], tmp_path)
            assert status == 0
            assert found == [embedding.tobytes() for embedding in expected]


def test_sanitizers_find_nothing_in_sea_64(
    driver: Path, sea_generated: Deployment, tmp_path: Path
) -> None:
    windows = np.random.default_rng(0).integers(-128, 128, (2, 64, 50, 1)).astype(np.int8)
    expected = open_interpreter(sea_generated.read_model("int8"), "reference").run(windows)
    blob = sea_generated.read_model("int8", "engine")
    for kernels in BOTH_KERNELS:
        ((status, found),) = drive(driver, kernels, windows, [blob], tmp_path)
        assert status == 0
        assert found == [embedding.tobytes() for embedding in expected]


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_sanitizers_find_nothing_in_damaged_models(
    driver: Path, blob: bytes, tmp_path: Path, kernels: Kernels
) -> None:
    """Bytes are changed under a checksum that is right: only the checks of every field protect."""
    rng = np.random.default_rng(7)
    records_end = 64 + 4 * 32
    models = []
    for _ in range(400):
        # Half of the changes strike the header and the records: without the checksum and the size.
        end = records_end if rng.random() < 0.5 else len(blob)
        spoiled = bytearray(blob)
        for position in rng.integers(16, end, rng.integers(1, 4)):
            spoiled[position] = rng.integers(256) if rng.random() < 0.5 else spoiled[position] ^ 1
        models.append(seal(bytes(spoiled)))
    models += [blob[:size] for size in range(0, 200, 7)]
    windows = rng.integers(-128, 128, (1, 13, 11, 1)).astype(np.int8)
    results = drive(driver, kernels, windows, models, tmp_path)
    statuses = {status for status, _ in results}
    accepted, truncated, inconsistent = 0, 2, 6
    assert statuses == {accepted, truncated, inconsistent}
    ran = 0
    for (status, embeddings), model in zip(results, models, strict=True):
        if status == accepted:
            assert read_packed(model).embedding_size == 10  # Python's reader takes it, too
            ran += len(embeddings)
            assert all(len(embedding) == 10 for embedding in embeddings)
    assert ran > 10


def test_sanitizers_find_an_arena_that_is_shorter_than_it_is_said_to_be(
    driver: Path, blob: bytes, tmp_path: Path
) -> None:
    (tmp_path / "windows").write_bytes(bytes(13 * 11))
    (tmp_path / "model").write_bytes(blob)
    done = subprocess.run(
        [driver, "short", tmp_path / "windows", tmp_path / "model"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
