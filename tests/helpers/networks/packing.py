"""Flatbuffers of one convolution under test, and checks of what they are packed to."""

import numpy as np
import tflite

from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.runtime.packed import (
    Encoding,
    PackedConvolution,
    PackedModel,
    read_packed,
    unpack_kernel,
)
from helpers.networks.int8_network import (
    Conv,
    Int8Network,
    Quantization,
    build,
)

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
    """Decode a kernel tap by tap, as edgel3_packed.h describes it."""
    taps = 9 * conv.input_channels
    kernel = np.zeros((conv.output_channels, taps), np.int64)
    data = conv.weights
    position = 0  # in bytes; for gap12 in half bytes
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
    """Return a flatbuffer whose second convolution has this kernel."""
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
