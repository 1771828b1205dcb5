"""Packed models: what is written, what is read back, what is refused."""

import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tflite
from helpers.int8_network import (
    Conv,
    Int8Network,
    Quantization,
    build,
    pool_options,
    random_network,
    with_layer,
)

from edgel3_tflm.converters import pipeline
from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
)
from edgel3_tflm.converters.export.pack import pack, quantize_multipliers
from edgel3_tflm.converters.export.packed_flatbuffer import wrap_packed
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.flatbuffer import find_packed_model, summarize
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.packed import (
    HEADER,
    RECORD,
    Encoding,
    PackedConvolution,
    PackedModel,
    Pooling,
    plan_memory,
    read_packed,
    unpack_kernel,
)

INT32_MAX = 2**31 - 1
UNIT = Quantization(1.0, 0)
COARSE = Quantization(256.0, 0)


def dense_kernels(model: bytes) -> list[np.ndarray]:
    root = tflite.Model.GetRootAsModel(model, 0)
    graph = root.Subgraphs(0)
    kernels = []
    for position in range(graph.OperatorsLength()):
        operation = graph.Operators(position)
        code = root.OperatorCodes(operation.OpcodeIndex()).BuiltinCode()
        if code == tflite.BuiltinOperator.CONV_2D:
            tensor = graph.Tensors(operation.Inputs(1))
            values = root.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int8)
            kernels.append(values.reshape(tensor.ShapeAsNumpy()))
    return kernels


def decode_by_the_book(conv: PackedConvolution) -> np.ndarray:
    """Decode as edgel3_packed.h says it, tap by tap."""
    taps = 9 * conv.input_channels
    kernel = np.zeros((conv.output_channels, taps), np.int64)
    data = conv.weights
    position = 0  # in bytes; of gap12 in half bytes
    for channel in range(conv.output_channels):
        if conv.encoding == Encoding.DENSE:
            kernel[channel] = np.frombuffer(data, np.int8, taps, position)
            position += taps
            assert (kernel[channel] < 0).sum() == conv.negatives[channel]
            assert (kernel[channel] > 0).sum() == conv.positives[channel]
            continue
        for sign, count in ((-1, conv.negatives[channel]), (1, conv.positives[channel])):
            tap = 0
            for _ in range(count):
                if conv.encoding == Encoding.GAP16:
                    entry = int.from_bytes(data[position : position + 2], "little")
                    position += 2
                else:
                    three = int.from_bytes(data[position // 2 : position // 2 + 2], "little")
                    entry = three >> 4 if position % 2 else three & 0xFFF
                    position += 3
                tap += entry >> 7
                kernel[channel, tap] += sign * (entry & 0x7F)
            if conv.encoding == Encoding.GAP12:
                assert count % 2 == 0
    used = position // 2 if conv.encoding == Encoding.GAP12 else position
    assert used == len(data)
    return kernel.astype(np.int8).reshape(conv.output_channels, 3, 3, conv.input_channels)


def assert_round_trip(model: bytes, by_the_book: bool = True) -> PackedModel:
    blob = pack(model)
    assert pack(model) == blob
    packed = read_packed(blob)
    kernels = dense_kernels(model)
    assert len(packed.convolutions) == len(kernels)
    for conv, kernel in zip(packed.convolutions, kernels, strict=True):
        np.testing.assert_array_equal(unpack_kernel(conv), kernel)
        if by_the_book:
            np.testing.assert_array_equal(decode_by_the_book(conv), kernel)
    return packed


def one_conv(
    kernel: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    source: Quantization = UNIT,
    output: Quantization = COARSE,
    activation: str = "none",
) -> bytes:
    """Flatbuffer in which a kernel is the second convolution, behind one that feeds it."""
    filters, channels = kernel.shape[0], kernel.shape[3]
    feed = Conv(
        np.ones((channels, 3, 3, 1), np.int8),
        np.zeros(channels, np.int32),
        np.ones(channels, np.float32),
        source,
    )
    conv = Conv(
        kernel,
        np.zeros(filters, np.int32) if bias is None else bias,
        np.ones(filters, np.float32) if scales is None else scales,
        output,
        activation,
        pool="global",
    )
    return build(Int8Network(3, 4, Quantization(1.0, 0), (feed, conv)))


def second(model: bytes) -> PackedConvolution:
    return assert_round_trip(model).convolutions[1]


class TestRoundTrip:
    def test_the_stand_in_within_450_000_bytes(self, standin: Deployment) -> None:
        packed = assert_round_trip(standin.read_model("int8"), by_the_book=False)
        assert packed.size_bytes <= 450_000
        assert packed.size_bytes == len(standin.read_packed_model() or b"")
        assert [conv.encoding for conv in packed.convolutions] == [
            Encoding.DENSE,
            *[Encoding.GAP16] * 3,
            Encoding.GAP12,
            *[Encoding.GAP16] * 3,
        ]
        zeros = [layer["quantized_zeros"] for layer in standin.manifest["layers"]]
        for conv, zero in zip(packed.convolutions, zeros, strict=True):
            nonzeros = conv.output_channels * conv.taps_per_channel - zero
            assert nonzeros <= conv.taps <= 1.05 * nonzeros

    def test_weights_without_zeros_stay_dense(self, tiny_int8: Deployment) -> None:
        packed = assert_round_trip(tiny_int8.read_model("int8"))
        assert {conv.encoding for conv in packed.convolutions} == {Encoding.DENSE}
        assert packed.size_bytes < len(tiny_int8.read_model("int8"))

    @pytest.mark.parametrize("percent", [0, 10, 33, 50, 75, 85, 95, 99, 100])
    def test_drawn_networks_of_any_sparsity(self, percent: int) -> None:
        rng = np.random.default_rng(percent)
        for _ in range(4):
            network = random_network(
                rng,
                rows=9,
                columns=11,
                filters=[int(width) for width in rng.integers(1, 40, 4)],
                pools=["none", "2x2", "none", "global"],
                sparsity=percent / 100,
            )
            packed = assert_round_trip(build(network))
            assert [conv.pooling for conv in packed.convolutions] == [
                Pooling.NONE,
                Pooling.MAX_2X2,
                Pooling.NONE,
                Pooling.GLOBAL,
            ]

    @pytest.mark.parametrize(("percent", "encoding"), [(0, "DENSE"), (75, "GAP12"), (90, "GAP16")])
    def test_each_encoding_is_chosen_where_it_pays(self, percent: int, encoding: str) -> None:
        rng = np.random.default_rng(1)
        kernel = rng.integers(-127, 128, (32, 3, 3, 128)).astype(np.int8)
        kernel[rng.random(kernel.shape) < percent / 100] = 0
        assert second(one_conv(kernel)).encoding == Encoding[encoding]

    @pytest.mark.parametrize("step", [1, 4, 700])
    def test_weights_of_minus_128_take_two_taps_in_a_list(self, step: int) -> None:
        kernel = np.zeros((3, 9 * 200), np.int8)
        kernel[0, ::step] = -128
        kernel[1, ::step] = 127
        kernel[2, step // 2 :: step] = -127
        conv = second(one_conv(kernel.reshape(3, 3, 3, 200)))
        assert conv.encoding == {1: Encoding.DENSE, 4: Encoding.GAP12, 700: Encoding.GAP16}[step]
        count = -(-1800 // step)
        fillers = 0 if step < 512 else count - 1
        listed = conv.encoding != Encoding.DENSE
        assert conv.negatives[0] == (2 * count if listed else count) + fillers
        assert conv.positives[1] == count + fillers

    def test_distances_beyond_the_field_are_covered_by_taps_of_magnitude_0(self) -> None:
        kernel = np.zeros((2, 9 * 200), np.int8)
        kernel[0, [0, 511, 511 + 512, 1799]] = [3, 4, 5, 6]
        kernel[1, 1799] = -7
        conv = second(one_conv(kernel.reshape(2, 3, 3, 200)))
        assert conv.encoding == Encoding.GAP16
        # 511 fits; 512 takes one more; 776 one; 1799 three.
        assert list(conv.positives) == [4 + 0 + 1 + 1, 0]
        assert list(conv.negatives) == [0, 1 + 3]

    def test_the_first_and_the_last_tap_alone(self) -> None:
        kernel = np.zeros((2, 9), np.int8)
        kernel[0, 0], kernel[1, 8] = 1, -1
        conv = second(one_conv(kernel.reshape(2, 3, 3, 1)))
        assert conv.taps == (4 if conv.encoding == Encoding.GAP12 else 2)

    def test_channels_without_weights(self) -> None:
        kernel = np.zeros((5, 3, 3, 7), np.int8)
        kernel[2, 1, 1, 3] = 100
        conv = second(one_conv(kernel))
        assert list(conv.negatives + conv.positives > 0) == [False, False, True, False, False]
        nothing = second(one_conv(np.zeros((5, 3, 3, 7), np.int8)))
        assert (nothing.taps, nothing.weights) == (0, b"")

    def test_a_convolution_without_bias(self) -> None:
        rng = np.random.default_rng(3)
        network = random_network(rng, rows=2, columns=2, filters=[3], pools=["global"])
        without = pack(build(with_layer(network, 0, bias=None)))
        zero = pack(build(with_layer(network, 0, bias=np.zeros(3, np.int32))))
        assert without[HEADER.size :] == zero[HEADER.size :]


class TestArithmetic:
    def oracle(self, factor: float) -> tuple[int, int]:
        """QuantizeMultiplier in exact arithmetic."""
        exact, shift = Fraction(factor), 0
        while exact >= 1:
            exact, shift = exact / 2, shift + 1
        while exact < Fraction(1, 2):
            exact, shift = exact * 2, shift - 1
        multiplier = int(exact * 2**31 + Fraction(1, 2))  # half away from zero: it is positive
        if multiplier == 2**31:
            multiplier, shift = multiplier // 2, shift + 1
        return (0, 0) if shift < -31 else (multiplier, shift)

    def test_multipliers_equal_exact_arithmetic(self) -> None:
        rng = np.random.default_rng(0)
        mantissas = rng.uniform(0.5, 1, 20_000)
        # Halves between two multipliers, and what lies next to them.
        ties = (np.floor(mantissas[:2000] * 2**31) + 0.5) / 2**31
        carries = 1 - 2.0 ** -np.arange(31, 54)
        mantissas = np.concatenate(
            [mantissas, ties, np.nextafter(ties, 0), np.nextafter(ties, 1), carries, [0.5]]
        )
        factors = np.ldexp(mantissas, rng.integers(-34, 31, len(mantissas)))
        found = np.stack(quantize_multipliers(factors), axis=1)
        expected = [self.oracle(float(factor)) for factor in factors]
        np.testing.assert_array_equal(found, expected)
        assert {0, 2**30} < {multiplier for multiplier, _ in expected}

    def test_the_factor_is_float32_scales_in_double_precision(self) -> None:
        rng = np.random.default_rng(1)
        kernel = rng.integers(-127, 128, (64, 3, 3, 2)).astype(np.int8)
        scales = rng.uniform(1e-4, 1e-2, 64).astype(np.float32)
        conv = second(
            one_conv(
                kernel, scales=scales, source=Quantization(0.1, 7), output=Quantization(0.3, -9)
            )
        )
        source, output = Fraction(float(np.float32(0.1))), Fraction(float(np.float32(0.3)))
        expected = [
            self.oracle(float(source * Fraction(float(scale)) / output)) for scale in scales
        ]
        np.testing.assert_array_equal(np.stack([conv.multiplier, conv.shift], axis=1), expected)

    def test_the_bias_takes_the_zero_point_in(self) -> None:
        rng = np.random.default_rng(2)
        kernel = rng.integers(-127, 128, (6, 3, 3, 5)).astype(np.int8)
        bias = rng.integers(-10_000, 10_000, 6).astype(np.int32)
        conv = second(one_conv(kernel, bias=bias, source=Quantization(1.0, -100)))
        sums = kernel.astype(int).sum((1, 2, 3))
        np.testing.assert_array_equal(conv.bias, bias - 28 * sums)

    @pytest.mark.parametrize(
        ("activation", "output", "clamps"),
        [
            ("none", Quantization(256, 5), (-128, 127)),
            ("relu", Quantization(256, 5), (5, 127)),
            ("relu", Quantization(256, -128), (-128, 127)),
            ("relu6", Quantization(0.1, -20), (-20, 40)),
            ("relu6", Quantization(4, -20), (-20, -18)),  # 1.5 steps, rounded away from zero
            ("relu6", Quantization(0.01, -128), (-128, 127)),
            ("relu6", Quantization(1e-3, 127), (127, 127)),
        ],
    )
    def test_clamps_of_the_fused_activation(
        self, activation: str, output: Quantization, clamps: tuple[int, int]
    ) -> None:
        conv = second(
            one_conv(np.ones((1, 3, 3, 1), np.int8), output=output, activation=activation)
        )
        assert (conv.lower_clamp, conv.upper_clamp) == clamps

    def test_a_channel_whose_factor_vanishes_puts_out_its_zero_point(self) -> None:
        kernel = np.ones((2, 3, 3, 2), np.int8)
        model = one_conv(
            kernel,
            bias=np.array([50, 60], np.int32),
            scales=np.array([1e-15, 0.01], np.float32),
            output=Quantization(1, 11),
        )
        conv = read_packed(pack(model)).convolutions[1]
        assert (conv.multiplier[0], conv.shift[0], conv.bias[0]) == (0, 0, 0)
        assert not unpack_kernel(conv)[0].any()
        np.testing.assert_array_equal(unpack_kernel(conv)[1], kernel[1])
        window = np.full((1, 3, 4, 1), 127, np.int8)
        assert open_interpreter(model, "reference").run(window)[0, 0] == 11

    @pytest.mark.parametrize("shift", [0, 1, 5])
    def test_accumulators_may_use_32_bits_and_not_one_more(self, shift: int) -> None:
        kernel = np.zeros((1, 3, 3, 1), np.int8)
        kernel[0, 0, 0, 0], kernel[0, 2, 2, 0], kernel[0, 1, 1, 0] = 100, -128, 27

        def model(bias: int) -> bytes:
            factor = np.array([2.0**shift * 0.75], np.float32)
            return one_conv(
                kernel,
                bias=np.array([bias], np.int32),
                scales=factor,
                source=Quantization(1, -128),
                output=Quantization(1, 0),
            )

        room = (INT32_MAX >> shift) - 255 * 128
        for sign in (1, -1):
            assert second(model(sign * room)).bias[0] == sign * room
            with pytest.raises(ModelFileError, match="conv2: expected accumulators of 32 bits"):
                pack(model(sign * (room + 1)))


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


def with_crc(blob: bytearray) -> bytes:
    struct.pack_into("<I", blob, 12, zlib.crc32(blob[16:]))
    return bytes(blob)


class TestReading:
    @pytest.fixture(scope="class")
    @classmethod
    def blob(cls) -> bytes:
        network = random_network(
            np.random.default_rng(8),
            rows=4,
            columns=6,
            filters=[8, 4, 2],
            pools=["none", "2x2", "global"],
            sparsity=[0.0, 0.7, 0.97],
        )
        blob = pack(build(network))
        encodings = [conv.encoding for conv in read_packed(blob).convolutions]
        assert encodings == [Encoding.DENSE, Encoding.GAP12, Encoding.GAP16]
        return blob

    def test_every_changed_byte_is_noticed(self, blob: bytes) -> None:
        for place in range(len(blob)):
            damaged = bytearray(blob)
            damaged[place] ^= 0x10
            with pytest.raises(ModelFileError, match="packed model"):
                read_packed(bytes(damaged))

    def test_every_cut_is_noticed_and_bytes_behind_are_ignored(self, blob: bytes) -> None:
        for size in range(len(blob)):
            with pytest.raises(ModelFileError, match="packed model"):
                read_packed(blob[:size])
        assert read_packed(blob + b"more").size_bytes == len(blob)

    def test_contradictions_under_a_true_checksum_are_refused_or_harmless(
        self, blob: bytes
    ) -> None:
        rng = np.random.default_rng(9)
        refused = 0
        for _ in range(3000):
            damaged = bytearray(blob)
            place = int(rng.integers(16, HEADER.size + 3 * RECORD.size + 100))
            damaged[place] = int(rng.integers(256))
            try:
                model = read_packed(with_crc(damaged))
                plan_memory(with_crc(damaged))
                for conv in model.convolutions:
                    unpack_kernel(conv)
            except ModelFileError:
                refused += 1
        assert refused > 1000

    @pytest.mark.parametrize(
        ("offset", "value", "message"),
        [
            (4, b"\2\0", "version 1, found 2"),
            (6, b"\0\0", "0 convolutions"),
            (6, b"\11\0", "9 convolutions"),
            (16, b"\0\0", "conv1 without a map"),
            (20, b"\5\0", "an output that is not the last"),
            (22, b"\1", "bytes of the header that must be zero"),
            (24, struct.pack("<f", 0), "a scale that is not positive"),
            (32, struct.pack("<f", np.nan), "a scale that is not positive"),
            (HEADER.size + 0, b"\2\0", "conv1 that does not take|bytes of weights"),
            (HEADER.size + 6, b"\x7f\x80", "conv1 with clamps 127 and -128"),
            (HEADER.size + 8, b"\2", "conv1 with pooling GLOBAL"),
            (HEADER.size + 8, b"\3", "conv1 with pooling 3"),
            (HEADER.size + 9, b"\3", "conv1 with encoding 3"),
            (HEADER.size + 10, b"\1", "record of conv1 that must be zero"),
            (HEADER.size + 12, b"\xff\xff\0\0", "channel table beyond the end"),
            (HEADER.size + 16, b"\xff\xff\0\0", "weights beyond the end"),
        ],
    )
    def test_contradictions_are_named(
        self, blob: bytes, offset: int, value: bytes, message: str
    ) -> None:
        damaged = bytearray(blob)
        damaged[offset : offset + len(value)] = value
        with pytest.raises(ModelFileError, match=message):
            read_packed(with_crc(damaged))

    def test_the_header_tells_source_and_quantization(self, tiny_int8: Deployment) -> None:
        model = read_packed(tiny_int8.read_packed_model() or b"")
        interpreter = open_interpreter(tiny_int8.read_model("int8"))
        digest = tiny_int8.manifest["artefacts"]["int8.tflite"]["sha256"]
        assert model.source_sha256.hex() == digest[:32]
        assert (model.rows, model.columns, model.embedding_size) == (64, 50, 4)
        assert (model.input_scale, model.input_zero_point) == (
            interpreter.input.scale,
            interpreter.input.zero_point,
        )
        assert (model.output_scale, model.output_zero_point) == (
            interpreter.output.scale,
            interpreter.output.zero_point,
        )

    def test_the_plan_adds_up(self) -> None:
        kernel = np.zeros((5, 3, 3, 2), np.int8)
        kernel[4] = np.arange(18).reshape(3, 3, 2) - 9
        network = Int8Network(
            4,
            130,
            Quantization(1, 0),
            (
                Conv(
                    np.zeros((2, 3, 3, 1), np.int8),
                    None,
                    np.ones(2, np.float32),
                    Quantization(256, 0),
                    pool="2x2",
                ),
                Conv(kernel, None, np.ones(5, np.float32), Quantization(256, 0), pool="global"),
            ),
        )
        plan = plan_memory(pack(build(network)))
        assert plan.state == 2048
        assert plan.rings == (464, 464)  # 3 * 132 + 64 = 460; 3 * 133 + 64 = 463
        assert plan.tap_offsets == 48  # 2 * 18 = 36
        assert plan.taps == 144  # 8 * (17 + 1): one of 18 weights is zero
        assert plan.accumulators == 768  # 4 * 192
        assert plan.row == 192
        assert plan.maximum == 16
        assert plan.arena_bytes == 2048 + 2 * 464 + 48 + 144 + 768 + 192 + 16


class TestCustomOperator:
    def test_one_operator_on_the_packed_model(self, tiny_int8: Deployment) -> None:
        blob = tiny_int8.read_packed_model() or b""
        model = (tiny_int8.directory / "int8_packed.tflite").read_bytes()
        dense = tflite.Model.GetRootAsModel(tiny_int8.read_model("int8"), 0)
        root = tflite.Model.GetRootAsModel(model, 0)
        graph = root.Subgraphs(0)
        assert root.Version() == 3
        assert root.Description() == dense.Description()
        assert (root.SubgraphsLength(), graph.OperatorsLength(), graph.TensorsLength()) == (1, 1, 3)
        operation = graph.Operators(0)
        code = root.OperatorCodes(operation.OpcodeIndex())
        assert code.CustomCode() == b"EDGEL3"
        assert code.BuiltinCode() == code.DeprecatedBuiltinCode() == tflite.BuiltinOperator.CUSTOM
        assert list(operation.InputsAsNumpy()) == [graph.Inputs(0), 1]
        assert list(operation.OutputsAsNumpy()) == [graph.Outputs(0)]
        for found, index, like in (
            (graph.Tensors(graph.Inputs(0)), dense.Subgraphs(0).Inputs(0), [1, 64, 50, 1]),
            (graph.Tensors(graph.Outputs(0)), dense.Subgraphs(0).Outputs(0), [1, 4]),
        ):
            known = dense.Subgraphs(0).Tensors(index)
            assert found.Type() == known.Type() == tflite.TensorType.INT8
            assert list(found.ShapeAsNumpy()) == list(known.ShapeAsNumpy()) == like
            assert found.Quantization().Scale(0) == known.Quantization().Scale(0)
            assert found.Quantization().ZeroPoint(0) == known.Quantization().ZeroPoint(0)
        constant = graph.Tensors(1)
        assert (constant.Type(), constant.Shape(0)) == (tflite.TensorType.UINT8, len(blob))
        assert root.Buffers(constant.Buffer()).DataAsNumpy().tobytes() == blob
        assert root.Buffers(0).DataLength() == 0
        assert find_packed_model(model) == blob
        assert find_packed_model(tiny_int8.read_model("int8")) is None
        assert summarize(model).input_shape == (1, 64, 50, 1)

    @pytest.mark.parametrize("description", ["", "a", "abcdefghijklm", "not Unicode: \udcff"])
    def test_the_packed_model_lies_on_16_bytes(self, description: str) -> None:
        for seed in range(8):
            rng = np.random.default_rng(seed)
            widths = [int(width) for width in rng.integers(1, 9, 2)]
            network = random_network(
                rng, rows=2, columns=2, filters=widths, pools=["none", "global"]
            )
            blob = pack(build(network))
            model = wrap_packed(blob, description)
            assert model.index(blob) % 16 == 0
            assert model == wrap_packed(blob, description)

    def test_damaged_packed_models_are_not_wrapped(self) -> None:
        with pytest.raises(ModelFileError):
            wrap_packed(bytes(100), "nothing")


class TestDeployment:
    def test_the_manifest_describes_the_packed_model(self, tiny_int8: Deployment) -> None:
        blob = (tiny_int8.directory / "packed.edgel3").read_bytes()
        assert blob == pack(tiny_int8.read_model("int8"))
        packed = tiny_int8.manifest["packed"]
        artefacts = tiny_int8.manifest["artefacts"]
        assert packed["bytes"] == len(blob) == artefacts["packed.edgel3"]["bytes"]
        assert packed["arena_bytes"] == plan_memory(blob).arena_bytes
        for layer, packed_layer in zip(tiny_int8.manifest["layers"], packed["layers"], strict=True):
            assert packed_layer["name"] == layer["name"]
            assert packed_layer["dense_macs"] == layer["dense_macs"]
            assert packed_layer["packed_macs"] == layer["effective_macs"]  # no list, no fillers

    def test_int16x8_is_not_packed(self, tiny_int16x8: Deployment) -> None:
        assert "packed" not in tiny_int16x8.manifest
        assert tiny_int16x8.read_packed_model() is None
        assert not [name for name in tiny_int16x8.manifest["artefacts"] if "packed" in name]

    def test_what_cannot_be_packed_is_converted_all_the_same(
        self,
        convert_to: Callable[[ConvertOptions], Deployment],
        tiny_weights: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(model: bytes) -> bytes:
            raise ModelFileError(f"no {len(model)}")

        monkeypatch.setattr(pipeline, "pack", refuse)
        hiss = np.random.default_rng(0).normal(0, 0.1, 8000)
        soundfile.write(tmp_path / "hiss.wav", hiss, 8000)
        variant = find_variant("sea", embedding_size=64)
        deployment = convert_to(ConvertOptions(variant, tiny_weights, calibration=tmp_path))
        assert deployment.manifest["packed"] == {
            "refused": f"no {len(deployment.read_model('int8'))}"
        }
        assert deployment.read_packed_model() is None
        assert sorted(deployment.manifest["artefacts"]) == [
            "edgel3_model.cc",
            "edgel3_model.h",
            "edgel3_model_frontend.c",
            "edgel3_model_frontend.h",
            "float.tflite",
            "int8.tflite",
        ]

    @pytest.mark.parametrize("language", ["c", "c++"])
    def test_the_c_pair_compiles_alone_and_beside_the_other(
        self, language: str, tiny_int8: Deployment, tmp_path: Path
    ) -> None:
        directory = tiny_int8.directory
        main = tmp_path / "main.c"
        main.write_text("""
#include <stdint.h>
#include <stdio.h>
#include "edgel3_packed_model.h"
#include "edgel3_model.h"
typedef char size_fits[sizeof(edgel3_packed_model) == EDGEL3_PACKED_MODEL_BYTES ? 1 : -1];
typedef char input_fits[EDGEL3_MODEL_MELS * EDGEL3_MODEL_FRAMES == 64 * 50 ? 1 : -1];
int main(void) {
  if ((uintptr_t)edgel3_packed_model % 16 != 0) return 1;
  if (!(EDGEL3_MODEL_INPUT_FACTOR > 0 && EDGEL3_MODEL_OUTPUT_SCALE > 0)) return 2;
  fprintf(stderr, "%d", EDGEL3_PACKED_MODEL_ARENA_BYTES);
  return fwrite(edgel3_packed_model, 1, sizeof edgel3_packed_model, stdout) !=
         sizeof edgel3_packed_model;
}
""")
        standard = {"c": "-std=c99", "c++": "-std=c++11"}[language]
        compiler = {"c": "gcc", "c++": "g++"}[language]
        flags = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", f"-I{directory}"]
        sources = [str(main), str(directory / "edgel3_packed_model.c")]
        program = tmp_path / "main"
        subprocess.run(
            [compiler, standard, *flags, "-x", language, *sources, "-o", str(program)], check=True
        )
        done = subprocess.run([str(program)], check=True, capture_output=True)
        assert done.stdout == tiny_int8.read_packed_model()
        assert int(done.stderr) == tiny_int8.manifest["packed"]["arena_bytes"]

    def test_the_packed_pair_names_its_weights(self, tiny_int8: Deployment) -> None:
        for name in ("edgel3_packed_model.c", "edgel3_packed_model.h"):
            with (tiny_int8.directory / name).open() as file:
                head = file.read(600)
            assert "do not edit" in head
            assert "weights file tiny.h5.gz" in head
            assert tiny_int8.manifest["artefacts"]["packed.edgel3"]["sha256"] in head
