"""Flatbuffers that the engine cannot run are not packed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tflite
from helpers.networks.int8_network import (
    Int8Network,
    Quantization,
    build,
    pool_options,
    random_network,
    with_layer,
)
from helpers.networks.packing import assert_round_trip

from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
)
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.packed import HEADER, read_packed


def tiny(**changes: object) -> Int8Network:
    """Two convolutions and both pools, with fields of the second one replaced."""
    network = random_network(
        np.random.default_rng(5), rows=6, columns=8, filters=[3, 4], pools=["2x2", "global"]
    )
    return with_layer(network, 1, **changes)


def change_tensor(name: str, **changes: object) -> Callable[..., None]:
    def edit(tensors: list[WrittenTensor], operators: list[WrittenOperator]) -> None:
        del operators
        (place,) = (n for n, tensor in enumerate(tensors) if tensor.name == name)
        tensors[place] = replace(tensors[place], **changes)

    return edit


def change_operator(position: int, **changes: object) -> Callable[..., None]:
    def edit(tensors: list[WrittenTensor], operators: list[WrittenOperator]) -> None:
        del tensors
        operators[position] = replace(operators[position], **changes)

    return edit


def drop_operator(position: int) -> Callable[..., None]:
    def edit(tensors: list[WrittenTensor], operators: list[WrittenOperator]) -> None:
        del tensors
        del operators[position]

    return edit


def scale_by(count: int) -> dict[str, object]:
    return {"scales": (0.01,) * count, "zero_points": (0,) * count}


class TestRefusals:
    def test_the_network_they_start_from_is_packed(self) -> None:
        assert_round_trip(build(tiny()))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"stride": (1, 2)}, "conv2: expected stride 1"),
            ({"stride": (2, 1)}, "conv2: expected stride 1"),
            ({"dilation": (1, 2)}, "conv2: expected stride 1, dilation 1"),
            ({"dilation": (2, 1)}, "conv2: expected stride 1, dilation 1"),
            ({"padding": "valid"}, "conv2: .*padding 'same'"),
            ({"kernel": np.ones((4, 1, 1, 3), np.int8)}, r"conv2, kernel: expected 108 bytes"),
            ({"kernel": np.ones((4, 5, 5, 3), np.int8)}, r"conv2, kernel: expected 108 bytes"),
            ({"kernel": np.ones((4, 3, 3, 1), np.int8)}, r"conv2, kernel: expected 108 bytes"),
            ({"activation": "relu_n1_to_1"}, "conv2: .*found RELU_N1_TO_1"),
            ({"activation": "tanh"}, "conv2: .*found TANH"),
            ({"scales": np.array([0.1], np.float32)}, "conv2, kernel: expected 4 scales"),
            ({"scales": np.array([0.1, 0, 1, 1], np.float32)}, "conv2, kernel: expected positive"),
            ({"scales": np.full(4, np.inf, np.float32)}, "conv2, kernel: expected positive"),
            ({"scales": np.full(4, np.nan, np.float32)}, "conv2, kernel: expected positive"),
            ({"scales": np.full(4, 1e20, np.float32)}, r"conv2: expected scales .* below 2\^30"),
            ({"bias": np.zeros(3, np.int32)}, "conv2, bias: expected 16 bytes"),
            ({"output": Quantization(0.1, 128)}, "zero point in int8, found 128"),
            ({"output": Quantization(0.1, -129)}, "zero point in int8, found -129"),
            ({"output": Quantization(-0.1, 0)}, "expected positive scales"),
            ({"pool_output": Quantization(0.7, 0)}, "MAX_POOL_2D.*quantization of its input"),
            ({"pool": "2x2"}, "expected a maximum over 3x4"),
            ({"pool": "none"}, "expected a global MAX_POOL_2D before"),
        ],
    )
    def test_layers_the_engine_does_not_compute(
        self, changes: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ModelFileError, match=message):
            pack(build(tiny(**changes)))

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (change_tensor("map0", type_code=tflite.TensorType.INT16), "INT8, found INT16"),
            (change_tensor("map0", type_code=tflite.TensorType.FLOAT32), "INT8, found FLOAT32"),
            (change_tensor("conv1/kernel", type_code=tflite.TensorType.UINT8), "found UINT8"),
            (change_tensor("conv1/bias", type_code=tflite.TensorType.INT64), "found INT64"),
            (change_tensor("conv1/kernel", quantized_dimension=3), "one scale for each output"),
            (change_tensor("conv1/kernel", zero_points=(0, 0, 1)), "expected zero points of 0"),
            (change_tensor("conv1/kernel", data=bytes(26)), "conv1, kernel: expected 27 bytes"),
            (change_tensor("conv1/kernel", data=None), "conv1, kernel: expected 27 bytes"),
            (change_tensor("map0", scales=(), zero_points=()), "input: expected 1 scales"),
            (change_tensor("map0", **scale_by(2)), "input: expected 1 scales and zero points"),
            (change_tensor("map0", shape=(1, 6, 8)), "the input: expected one map"),
            (change_tensor("map0", shape=(1, 48)), r"input of shape \(1, rows, columns, 1\)"),
            (change_tensor("map0", shape=(2, 6, 8, 1)), "the input: expected one map"),
            (change_tensor("map0", shape=(1, 6, 8, 3)), r"input of shape \(1, rows, columns, 1\)"),
            (change_tensor("map0", shape=(1, 70000, 8, 1)), "sizes up to 65535"),
            (change_tensor("map0", shape=(1, 5, 8, 1)), "conv1: expected an output map"),
            (change_tensor("map3", shape=(1, 6, 8, 2)), "conv1, kernel: expected 18 bytes"),
            (change_tensor("map4", shape=(1, 3, 5, 3)), "expected a maximum over 2x2"),
            (change_tensor("map10", shape=(1, 5)), r"expected an output of shape \(1, 4\)"),
            (change_tensor("map10", scales=(0.5,)), "RESHAPE.*quantization of its input"),
            (change_operator(1, builtin=tflite.BuiltinOperator.AVERAGE_POOL_2D), "AVERAGE_POOL_2D"),
            (change_operator(4, builtin=tflite.BuiltinOperator.SOFTMAX), "SOFTMAX"),
            (change_operator(1, write_options=pool_options((3, 3))), "window of 3x3"),
            (
                change_operator(1, write_options=pool_options((2, 2), stride=(1, 1))),
                "strides 1x1",
            ),
            (change_operator(1, write_options=pool_options((2, 2), padding="same")), "'valid'"),
            (
                change_operator(1, write_options=pool_options((2, 2), activation="relu")),
                "no activation",
            ),
            (change_operator(2, inputs=(0, 5, 6)), "expected a chain"),
            (drop_operator(4), "expected a maximum over 2x2|expected a chain"),
            (drop_operator(0), "expected a chain"),
            (change_operator(0, write_options=None), "cut or damaged"),
            (change_operator(0, inputs=(0, 99, 2)), "cut or damaged"),
            (change_operator(0, inputs=(0,)), "cut or damaged"),
        ],
    )
    def test_graphs_that_are_no_such_chain(self, edit: Callable[..., None], message: str) -> None:
        with pytest.raises(ModelFileError, match=message):
            pack(build(tiny(), edit=edit))

    def test_two_pools_in_a_row(self) -> None:
        def edit(tensors: list[WrittenTensor], operators: list[WrittenOperator]) -> None:
            pooled = replace(tensors[4], name="again", shape=(1, 1, 2, 3))
            tensors.insert(len(tensors) - 1, pooled)
            extra = replace(operators[1], inputs=(4,), outputs=(len(tensors) - 2,))
            operators[2:] = [extra, *operators[2:]]

        with pytest.raises(ModelFileError, match="expected each pool directly after a convolution"):
            pack(build(tiny(), edit=edit))

    def test_a_pool_in_front_of_all(self) -> None:
        def edit(tensors: list[WrittenTensor], operators: list[WrittenOperator]) -> None:
            tensors.insert(1, replace(tensors[0], name="pooled", shape=(1, 3, 4, 1)))
            operators[:] = [replace(operators[1], inputs=(0,), outputs=(1,)), *operators]

        with pytest.raises(ModelFileError, match="expected each pool directly after a convolution"):
            pack(build(tiny(), edit=edit))

    def test_nine_convolutions(self) -> None:
        rng = np.random.default_rng(0)

        def model(count: int) -> bytes:
            pools = ["none"] * (count - 1) + ["global"]
            return build(random_network(rng, rows=2, columns=2, filters=[2] * count, pools=pools))

        assert len(assert_round_trip(model(8)).convolutions) == 8
        with pytest.raises(ModelFileError, match="at most 8 convolutions"):
            pack(model(9))

    def test_rings_beyond_16_bit_offsets(self) -> None:
        def model(channels: int, columns: int) -> bytes:
            rng = np.random.default_rng(0)
            return build(
                random_network(
                    rng,
                    rows=1,
                    columns=columns,
                    filters=[channels, 1],
                    pools=["none", "global"],
                    sparsity=0.99,
                )
            )

        # Three slots of channels * (columns + 1) + 1 bytes, and 64.
        packed = assert_round_trip(model(6, 3636))
        assert plan_memory(pack(model(6, 3636))).rings[1] == 65536  # 65,533 on 16-byte boundaries
        assert packed.convolutions[1].columns == 3636
        with pytest.raises(ModelFileError, match=r"conv2: expected rows .* take 65,536"):
            pack(model(139, 156))

    def test_int16_activations(self, tiny_int16x8: Deployment) -> None:
        with pytest.raises(ModelFileError, match="the input: expected INT8, found INT16"):
            pack(tiny_int16x8.read_model("int16x8"))

    def test_float_models(self, tiny_int8: Deployment) -> None:
        with pytest.raises(ModelFileError, match="the input: expected INT8, found FLOAT32"):
            pack(tiny_int8.read_model("float"))

    def test_cut_flatbuffers(self) -> None:
        model = build(tiny())
        for size in range(len(model)):
            try:
                packed = pack(model[:size])
            except ModelFileError:
                continue
            # The end belongs to the empty buffer, which nothing refers to.
            assert len(model) - size < 24
            assert packed[HEADER.size :] == pack(model)[HEADER.size :]

    def test_damaged_flatbuffers_are_refused_or_packed_but_never_more(self) -> None:
        model = build(tiny())
        rng = np.random.default_rng(6)
        refused = 0
        for _ in range(2000):
            damaged = bytearray(model)
            for place in rng.integers(8, len(model), rng.integers(1, 4)):
                damaged[place] = rng.integers(256)
            try:
                read_packed(pack(bytes(damaged)))
            except ModelFileError:
                refused += 1
        assert refused > 500
