"""Packed models: what is written, and the arithmetic of their channel tables."""

from fractions import Fraction

import numpy as np
import pytest
from helpers.networks.int8_network import (
    Quantization,
    build,
    random_network,
    with_layer,
)
from helpers.networks.packing import assert_round_trip, one_conv, second

from edgel3_tflm.converters.export.pack import pack, quantize_multipliers
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.packed import (
    HEADER,
    Encoding,
    Pooling,
    read_packed,
    unpack_kernel,
)

INT32_MAX = 2**31 - 1


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
