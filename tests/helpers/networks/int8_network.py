"""Write int8 flatbuffers with any weights: a chain of 3x3 convolutions and pools.

TensorFlow Lite's converter chooses scales and zero points itself. Here the test chooses them, so
that extreme ones can be tried. Every interpreter, and ``runtime.flatbuffer.summarize``, can read
the result.

    network = Int8Network(rows=5, columns=7, input=Quantization(0.5, -3), layers=(
        Conv(kernel, bias, scales, Quantization(0.1, -128), activation="relu", pool="2x2"),
        Conv(kernel, bias, scales, Quantization(0.2, 4), pool="global"),
    ))
    model = build(network)

``random_network`` draws a network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tflite

from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
    write_flatbuffer,
)

ACTIVATIONS = {
    "none": tflite.ActivationFunctionType.NONE,
    "relu": tflite.ActivationFunctionType.RELU,
    "relu6": tflite.ActivationFunctionType.RELU6,
    "relu_n1_to_1": tflite.ActivationFunctionType.RELU_N1_TO_1,
    "tanh": tflite.ActivationFunctionType.TANH,
}
PADDINGS = {"same": tflite.Padding.SAME, "valid": tflite.Padding.VALID}


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (q - zero_point)``; the scale is rounded to float32 in the file."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Conv:
    """A convolution and the pooling after it.

    Parameters
    ----------
    kernel : numpy.ndarray, shape (filters, 3, 3, input channels), int8
    bias : numpy.ndarray, shape (filters,), int32; or None for a convolution without
    scales : numpy.ndarray, shape (filters,), float32
        Of the kernel.
    output : Quantization
        Quantization of the output, before and after the pooling.
    activation : str
        A key of ``ACTIVATIONS``.
    pool : {'none', '2x2', 'global'}
        Only the last convolution has 'global'. A RESHAPE to (1, filters) follows it.
    stride, dilation, padding, pool_output
        Values that the engine does not support, for tests of its errors. ``pool_output`` is another
        quantization after the pooling.
    """

    kernel: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32] | None
    scales: npt.NDArray[np.float32]
    output: Quantization
    activation: str = "none"
    pool: Literal["none", "2x2", "global"] = "none"
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "same"
    pool_output: Quantization | None = None


@dataclass(frozen=True)
class Int8Network:
    """Input of shape (1, rows, columns, 1), its quantization, and the layers."""

    rows: int
    columns: int
    input: Quantization
    layers: Sequence[Conv]


Edit = Callable[[list[WrittenTensor], list[WrittenOperator]], None]


def build(network: Int8Network, description: str = "a test", edit: Edit | None = None) -> bytes:
    """Return the flatbuffer. The same network gives the same bytes.

    Parameters
    ----------
    edit : callable, optional
        Called with the lists of tensors and operators before they are written; it may change them.
        Tensor 0 is the input; the last is the output.
    """
    tensors: list[WrittenTensor] = []
    operators: list[WrittenOperator] = []

    def activations(shape: tuple[int, ...], quantization: Quantization) -> int:
        tensors.append(
            WrittenTensor(
                f"map{len(tensors)}",
                tflite.TensorType.INT8,
                shape,
                (quantization.scale,),
                (quantization.zero_point,),
            )
        )
        return len(tensors) - 1

    rows, columns, channels = network.rows, network.columns, 1
    quantization = network.input
    current = activations((1, rows, columns, 1), quantization)
    for number, conv in enumerate(network.layers, start=1):
        filters = len(conv.kernel)
        inputs = [current]
        tensors.append(
            WrittenTensor(
                f"conv{number}/kernel",
                tflite.TensorType.INT8,
                conv.kernel.shape,
                tuple(conv.scales.tolist()),
                (0,) * len(conv.scales),
                data=conv.kernel.astype(np.int8).tobytes(),
            )
        )
        inputs.append(len(tensors) - 1)
        if conv.bias is not None:
            tensors.append(
                WrittenTensor(
                    f"conv{number}/bias",
                    tflite.TensorType.INT32,
                    (filters,),
                    tuple((np.float32(quantization.scale) * conv.scales).tolist()),
                    (0,) * len(conv.scales),
                    data=conv.bias.astype("<i4").tobytes(),
                )
            )
            inputs.append(len(tensors) - 1)
        lost = 0 if conv.padding == "same" else 2
        rows = -(-(rows - lost * conv.dilation[0]) // conv.stride[0])
        columns = -(-(columns - lost * conv.dilation[1]) // conv.stride[1])
        quantization, channels = conv.output, filters
        output = activations((1, rows, columns, channels), quantization)
        operators.append(
            WrittenOperator(
                tflite.BuiltinOperator.CONV_2D,
                tuple(inputs),
                (output,),
                version=3,
                options_type=tflite.BuiltinOptions.Conv2DOptions,
                write_options=_conv_options(conv),
            )
        )
        current = output
        if conv.pool == "none":
            continue
        window = (rows, columns) if conv.pool == "global" else (2, 2)
        rows, columns = rows // window[0], columns // window[1]
        quantization = conv.pool_output or quantization
        output = activations((1, rows, columns, channels), quantization)
        operators.append(
            WrittenOperator(
                tflite.BuiltinOperator.MAX_POOL_2D,
                (current,),
                (output,),
                version=2,
                options_type=tflite.BuiltinOptions.Pool2DOptions,
                write_options=pool_options(window),
            )
        )
        current = output
    size = rows * columns * channels
    tensors.append(
        WrittenTensor(
            "shape", tflite.TensorType.INT32, (2,), data=np.array([1, size], "<i4").tobytes()
        )
    )
    shape = len(tensors) - 1
    output = activations((1, size), quantization)
    operators.append(WrittenOperator(tflite.BuiltinOperator.RESHAPE, (current, shape), (output,)))
    if edit is not None:
        edit(tensors, operators)
    return write_flatbuffer(
        tensors, operators, inputs=[0], outputs=[len(tensors) - 1], description=description
    )


def _conv_options(conv: Conv) -> Callable[[Any], int]:
    def write(builder: Any) -> int:
        tflite.Conv2DOptionsStart(builder)
        tflite.Conv2DOptionsAddPadding(builder, PADDINGS[conv.padding])
        tflite.Conv2DOptionsAddStrideH(builder, conv.stride[0])
        tflite.Conv2DOptionsAddStrideW(builder, conv.stride[1])
        tflite.Conv2DOptionsAddDilationHFactor(builder, conv.dilation[0])
        tflite.Conv2DOptionsAddDilationWFactor(builder, conv.dilation[1])
        tflite.Conv2DOptionsAddFusedActivationFunction(builder, ACTIVATIONS[conv.activation])
        return int(tflite.Conv2DOptionsEnd(builder))

    return write


def pool_options(
    window: tuple[int, int],
    *,
    stride: tuple[int, int] | None = None,
    padding: str = "valid",
    activation: str = "none",
) -> Callable[[Any], int]:
    """Return the writer of a MAX_POOL_2D's options. By default the stride is the window."""
    rows, columns = stride or window

    def write(builder: Any) -> int:
        tflite.Pool2DOptionsStart(builder)
        tflite.Pool2DOptionsAddPadding(builder, PADDINGS[padding])
        tflite.Pool2DOptionsAddStrideH(builder, rows)
        tflite.Pool2DOptionsAddStrideW(builder, columns)
        tflite.Pool2DOptionsAddFilterHeight(builder, window[0])
        tflite.Pool2DOptionsAddFilterWidth(builder, window[1])
        tflite.Pool2DOptionsAddFusedActivationFunction(builder, ACTIVATIONS[activation])
        return int(tflite.Pool2DOptionsEnd(builder))

    return write


def random_conv(
    rng: np.random.Generator,
    channels: int,
    filters: int,
    *,
    sparsity: float = 0.8,
    input_quantization: Quantization,
    output: Quantization,
    activation: str = "relu",
    pool: Literal["none", "2x2", "global"] = "none",
    weights: tuple[int, int] = (-128, 127),
) -> Conv:
    """Draw a convolution whose outputs use a large part of the int8 range.

    Parameters
    ----------
    sparsity : float
        Probability that a weight is zero, 0 to 1.
    weights : tuple of int
        Least and greatest weight.
    """
    shape = (filters, 3, 3, channels)
    kernel = rng.integers(weights[0], weights[1], shape, np.int16, endpoint=True)
    kernel[rng.random(shape) < sparsity] = 0
    # With random inputs, the standard deviation of the accumulator is about 74 * |weights|. Make it
    # about 16 quantized values of the output, so that a global maximum is seldom 127.
    norms = np.sqrt((kernel.astype(np.float64) ** 2).sum((1, 2, 3))).clip(1) * 74
    effective = 16 / norms * rng.uniform(0.5, 2, filters)
    scales = (effective * output.scale / input_quantization.scale).astype(np.float32)
    bias = np.rint(rng.normal(0, norms, filters)).astype(np.int32)
    return Conv(kernel.astype(np.int8), bias, scales, output, activation, pool)


def random_network(
    rng: np.random.Generator,
    *,
    rows: int,
    columns: int,
    filters: Sequence[int],
    pools: Sequence[Literal["none", "2x2", "global"]],
    sparsity: float | Sequence[float] = 0.8,
    activations: Sequence[str] | None = None,
) -> Int8Network:
    """Draw a network with random zero points, scales, weights and biases.

    Parameters
    ----------
    filters, pools, activations : sequence
        One value for each convolution. By default all have ReLU except the last.
    sparsity : float or sequence of float
        Probability that a weight is zero, for all convolutions or for each.
    """
    count = len(filters)
    sparsities = [sparsity] * count if isinstance(sparsity, int | float) else list(sparsity)
    activations = activations or ["relu"] * (count - 1) + ["none"]

    def draw(greatest_zero_point: int) -> Quantization:
        zero_point = int(rng.integers(-128, greatest_zero_point, endpoint=True))
        return Quantization(float(np.float32(rng.uniform(0.01, 0.2))), zero_point)

    current = first = draw(127)
    channels = 1
    layers = []
    for width, pool, share, activation in zip(filters, pools, sparsities, activations, strict=True):
        # Mostly -128, which the converter chooses for a ReLU; otherwise low enough for a maximum.
        usual = activation != "none" and rng.random() < 0.75
        output = draw(-128 if usual else 0)
        layers.append(
            random_conv(
                rng,
                channels,
                width,
                sparsity=share,
                input_quantization=current,
                output=output,
                activation=activation,
                pool=pool,
            )
        )
        current, channels = output, width
    return Int8Network(rows, columns, first, tuple(layers))


def with_layer(network: Int8Network, position: int, **changes: Any) -> Int8Network:
    """Return a copy of a network with other fields in one convolution."""
    layers = list(network.layers)
    layers[position] = replace(layers[position], **changes)
    return replace(network, layers=tuple(layers))
