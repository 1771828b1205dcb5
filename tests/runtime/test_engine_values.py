"""The engine computes what TensorFlow Lite's reference kernels compute, byte for byte."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite
from helpers.networks.engine_networks import Int8Array, clip_windows, draw_network, draw_windows
from helpers.networks.engine_sweep import EXTREMES, KERNELS, SPARSITIES, draw_extreme, sweep
from helpers.networks.int8_network import Int8Network, Quantization, build, with_layer

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.c_library.engine import Engine, EngineInterpreter, arena_bytes
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.native import import_tensorflow
from edgel3_tflm.runtime.packed import Encoding, read_packed


class Reference:
    """A flatbuffer in TensorFlow Lite's reference kernels, with access to all tensors."""

    def __init__(self, model: bytes) -> None:
        tf = import_tensorflow()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf.lite warns at every use that it is deprecated
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
        """Return the input of each convolution, (rows, columns, channels), and the embedding."""
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
    """Assert that all inputs of convolutions and all embeddings are equal."""
    reference = Reference(model)
    engines = {kernels: Engine(blob, kernels) for kernels in KERNELS}
    for window in windows:
        maps, embedding = reference.run(window)
        for kernels, engine in engines.items():
            found = engine.trace(window[:, :, 0])
            assert len(found) == len(maps)
            for position, (ours, theirs) in enumerate(zip(found, maps, strict=True)):
                np.testing.assert_array_equal(ours, theirs, f"{kernels}, conv{position + 1}")
            # Without the hook.
            np.testing.assert_array_equal(engine.run(window[:, :, 0]), embedding, kernels)


def test_sea_64_gives_the_reference_s_bytes(sea_generated: Deployment, sounds: Path) -> None:
    windows = clip_windows(sea_generated, find_clips([sounds]), 100)
    expected = open_interpreter(sea_generated.read_model("int8"), "reference").run(windows)
    blob = sea_generated.read_model("int8", "engine")
    for kernels in KERNELS:
        np.testing.assert_array_equal(EngineInterpreter(blob, kernels).run(windows), expected)


def test_the_95_45_network_gives_the_reference_s_bytes(standin: Deployment, sounds: Path) -> None:
    windows = clip_windows(standin, find_clips([sounds / "tone"])[:1], 5)
    expected = open_interpreter(standin.read_model("int8"), "reference").run(windows)
    blob = standin.read_model("int8", "engine")
    for kernels in KERNELS:
        np.testing.assert_array_equal(EngineInterpreter(blob, kernels).run(windows), expected)


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


@pytest.mark.parametrize("values", EXTREMES)
def test_extreme_weights_give_the_reference_s_bytes(values: list[int]) -> None:
    rng, network = draw_extreme(values)
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
    """Every second channel is all zeros, so that the kernels skip its rows."""
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


def test_a_small_network_gives_the_reference_s_bytes(small: Int8Network) -> None:
    assert_equals_reference(small, draw_windows(np.random.default_rng(2), small))


def test_the_comparison_fails_when_it_should(small: Int8Network) -> None:
    """A packed model whose third convolution has an additional weight does not pass."""
    kernel = small.layers[2].kernel.copy()
    first_zero = np.unravel_index(np.argmin(abs(kernel.astype(int))), kernel.shape)
    kernel[first_zero] = 127
    other = pack(build(with_layer(small, 2, kernel=kernel)))
    with pytest.raises(AssertionError, match=f"{KERNELS[0]}, conv4"):
        assert_same_values(other, build(small), draw_windows(np.random.default_rng(2), small))
