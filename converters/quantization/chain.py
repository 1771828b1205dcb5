"""A network as the chain of convolutions that a flatbuffer holds, in float and in int8.

BatchNorms are folded into the convolutions; ReLU and pool belong to the layer in front of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
    write_flatbuffer,
)
from edgel3_tflm.networks.variants import POOL_AFTER
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.types import FloatArray

_INT8_MIN, _INT8_MAX = -128, 127
# TFLite's kernels are symmetric: -128 is not used.
WEIGHT_MAX = 127
# Windows computed at once: the largest maps of L3 take 13 MB each.
_BATCH_WINDOWS = 8


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (q - zero_point)``, q in int8."""

    scale: np.float32
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> "Quantization":
        """Spread the 256 codes over a range, as TFLite does: zero is in it, and is a code."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / 255) if high > low else np.float32(1)
        return cls(scale, int(np.clip(np.rint(_INT8_MIN - low / scale), _INT8_MIN, _INT8_MAX)))


@dataclass(frozen=True)
class Layer:
    """A convolution (3x3, stride 1, 'same') with ReLU or none, and the maximum pool behind it.

    Parameters
    ----------
    name : str
    kernel : numpy.ndarray, shape (3, 3, in, out), float32
    bias : numpy.ndarray, shape (out,), float32
    relu : bool
    pool : {1, 2, 0}
        Its window: none, 2x2, or the whole map.
    """

    name: str
    kernel: FloatArray
    bias: FloatArray
    relu: bool
    pool: int

    def convolve(self, maps: Any) -> Any:
        """Pre-activations of input maps, shape (n, rows, columns, in)."""
        return load_backend().tf.nn.conv2d(maps, self.kernel, 1, "SAME") + self.bias

    def finish(self, pre_activations: Any) -> Any:
        """ReLU and pool."""
        tf = load_backend().tf
        return self.take_maximum(tf.nn.relu(pre_activations) if self.relu else pre_activations)

    def take_maximum(self, maps: Any) -> Any:
        """Pool alone."""
        tf = load_backend().tf
        if self.pool == 0:
            return tf.reduce_max(maps, (1, 2), keepdims=True)
        return maps if self.pool == 1 else tf.nn.max_pool2d(maps, self.pool, self.pool, "VALID")


@dataclass(frozen=True)
class QuantizedLayer:
    """The same in int8.

    Parameters
    ----------
    layer : Layer
        What it stands for.
    kernel : numpy.ndarray, shape (3, 3, in, out), int8
    scales : numpy.ndarray, shape (out,), float32
        Of the kernel, for each output channel.
    bias : numpy.ndarray, shape (out,), int32
        In steps of input scale times kernel scale.
    input, output : Quantization
    """

    layer: Layer
    kernel: npt.NDArray[np.int8]
    scales: FloatArray
    bias: npt.NDArray[np.int32]
    input: Quantization
    output: Quantization

    @property
    def real_kernel(self) -> FloatArray:
        """The kernel's values."""
        return self.kernel.astype(np.float32) * self.scales

    @property
    def bias_scales(self) -> FloatArray:
        """One step of the bias, for each output channel."""
        return self.input.scale * self.scales

    def real_input(self, codes: npt.NDArray[np.int8]) -> FloatArray:
        """Values of input codes."""
        steps = codes.astype(np.float32) - np.float32(self.input.zero_point)
        return steps * self.input.scale

    def finish(self, pre_activations: Any) -> npt.NDArray[np.int8]:
        """Output codes of real pre-activations.

        The integer kernels round twice, this once: a code may differ by one where it is near a
        half. For statistics only.
        """
        tf = load_backend().tf
        codes = tf.floor(pre_activations / self.output.scale + self.output.zero_point + 0.5)
        low = self.output.zero_point if self.layer.relu else _INT8_MIN
        codes = self.layer.take_maximum(tf.clip_by_value(codes, float(low), float(_INT8_MAX)))
        found: npt.NDArray[np.int8] = codes.numpy().astype(np.int8)
        return found


def fold(weights: NetworkWeights) -> tuple[Layer, ...]:
    """Fold the BatchNorms into the convolutions; zeros stay zeros."""
    layers = []
    for number, (shape, conv) in enumerate(
        zip(weights.variant.layers, weights.convs, strict=True), start=1
    ):
        kernel, bias = conv.kernel.astype(np.float64), conv.bias.astype(np.float64)
        if (norm := conv.batch_norm) is not None:
            kernel, bias = kernel * norm.slope, bias * norm.slope + norm.offset
        last = number == len(weights.convs)
        pool = 0 if last else 2 if number in POOL_AFTER else 1
        relu = norm is not None
        layers.append(
            Layer(shape.name, kernel.astype(np.float32), bias.astype(np.float32), relu, pool)
        )
    return tuple(layers)


def quantize_layer(layer: Layer, source: Quantization, output: Quantization) -> QuantizedLayer:
    """Round a layer's weights to the nearest step; the largest of each channel is 127 steps."""
    largest = abs(layer.kernel).max((0, 1, 2))
    scales = np.where(largest > 0, largest / WEIGHT_MAX, 1).astype(np.float32)
    kernel = np.rint(layer.kernel / scales).clip(-WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    bias = round_bias(layer.bias, source.scale * scales)
    return QuantizedLayer(layer, kernel, scales, bias, source, output)


def round_bias(bias: npt.NDArray[Any], scales: FloatArray) -> npt.NDArray[np.int32]:
    """Turn a bias into steps of these scales; what int32 cannot hold is clamped, as in TFLite."""
    limits = np.iinfo(np.int32)
    steps = np.rint(bias.astype(np.float64) / scales)
    found: npt.NDArray[np.int32] = steps.clip(limits.min, limits.max).astype(np.int32)
    return found


def in_batches(
    compute: Callable[..., npt.NDArray[Any]], *arrays: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Compute some windows at a time, so that memory holds one layer's largest maps of few."""
    parts = [
        compute(*(array[start : start + _BATCH_WINDOWS] for array in arrays))
        for start in range(0, len(arrays[0]), _BATCH_WINDOWS)
    ]
    return np.concatenate(parts)


def write_chain(chain: tuple[QuantizedLayer, ...], rows: int, columns: int) -> bytes:
    """Write the int8 flatbuffer: the operators and versions that TensorFlow Lite's converter makes.

    A maximum pool and a reshape have the quantization of what they read.
    """
    maps = (chain[0].input, *(each.output for each in chain))

    def map_tensor(name: str, shape: tuple[int, ...], behind: int) -> WrittenTensor:
        scale, zero_point = float(maps[behind].scale), maps[behind].zero_point
        return WrittenTensor(name, tflite.TensorType.INT8, shape, (scale,), (zero_point,))

    def constants(position: int) -> tuple[WrittenTensor, WrittenTensor]:
        each = chain[position]
        kernel = np.ascontiguousarray(each.kernel.transpose(3, 0, 1, 2))
        zeros = (0,) * len(each.bias)
        return (
            WrittenTensor(
                f"{each.layer.name}/kernel",
                tflite.TensorType.INT8,
                kernel.shape,
                tuple(each.scales.tolist()),
                zeros,
                data=kernel.tobytes(),
            ),
            WrittenTensor(
                f"{each.layer.name}/bias",
                tflite.TensorType.INT32,
                (len(each.bias),),
                tuple(each.bias_scales.tolist()),
                zeros,
                data=each.bias.astype("<i4").tobytes(),
            ),
        )

    layers = [each.layer for each in chain]
    versions = _Versions(convolution=3, pool=2)
    return _write(layers, rows, columns, map_tensor, constants, versions, "int8")


def write_float_chain(layers: Sequence[Layer], rows: int, columns: int) -> bytes:
    """Write the float flatbuffer of folded layers; needs no TensorFlow."""

    def map_tensor(name: str, shape: tuple[int, ...], _behind: int) -> WrittenTensor:
        return WrittenTensor(name, tflite.TensorType.FLOAT32, shape)

    def constants(position: int) -> tuple[WrittenTensor, WrittenTensor]:
        layer = layers[position]
        kernel = layer.kernel.transpose(3, 0, 1, 2).astype("<f4")
        return (
            WrittenTensor(
                f"{layer.name}/kernel",
                tflite.TensorType.FLOAT32,
                kernel.shape,
                data=kernel.tobytes(),
            ),
            WrittenTensor(
                f"{layer.name}/bias",
                tflite.TensorType.FLOAT32,
                layer.bias.shape,
                data=layer.bias.astype("<f4").tobytes(),
            ),
        )

    versions = _Versions(convolution=1, pool=1)
    return _write(layers, rows, columns, map_tensor, constants, versions, "float")


@dataclass(frozen=True)
class _Versions:
    """Of the operators, which depend on the type of their tensors."""

    convolution: int
    pool: int


def _write(
    layers: Sequence[Layer],
    rows: int,
    columns: int,
    map_tensor: Callable[[str, tuple[int, ...], int], WrittenTensor],
    constants: Callable[[int], tuple[WrittenTensor, WrittenTensor]],
    versions: _Versions,
    description: str,
) -> bytes:
    """Write the operators of a chain.

    ``map_tensor`` takes a name, a shape and how many layers a map lies behind; ``constants`` takes
    a layer's position and returns its kernel and bias.
    """
    tensors: list[WrittenTensor] = []
    operators: list[WrittenOperator] = []

    def add(tensor: WrittenTensor) -> int:
        tensors.append(tensor)
        return len(tensors) - 1

    current = add(map_tensor("log_mel", (1, rows, columns, 1), 0))
    filters = 0
    for behind, layer in enumerate(layers, start=1):
        filters = layer.kernel.shape[-1]
        kernel, bias = constants(behind - 1)
        inputs = (current, add(kernel), add(bias))
        current = add(map_tensor(layer.name, (1, rows, columns, filters), behind))
        operators.append(
            WrittenOperator(
                tflite.BuiltinOperator.CONV_2D,
                inputs,
                (current,),
                version=versions.convolution,
                options_type=tflite.BuiltinOptions.Conv2DOptions,
                write_options=_convolution_options(layer),
            )
        )
        if layer.pool == 1:
            continue
        window = (layer.pool, layer.pool) if layer.pool else (rows, columns)
        rows, columns = rows // window[0], columns // window[1]
        pooled = add(map_tensor(f"{layer.name}/pool", (1, rows, columns, filters), behind))
        operators.append(
            WrittenOperator(
                tflite.BuiltinOperator.MAX_POOL_2D,
                (current,),
                (pooled,),
                version=versions.pool,
                options_type=tflite.BuiltinOptions.Pool2DOptions,
                write_options=_pool_options(window),
            )
        )
        current = pooled
    shape = np.array([1, filters], "<i4")
    reshape = add(WrittenTensor("shape", tflite.TensorType.INT32, (2,), data=shape.tobytes()))
    embedding = add(map_tensor("embedding", (1, filters), len(layers)))
    operators.append(
        WrittenOperator(tflite.BuiltinOperator.RESHAPE, (current, reshape), (embedding,))
    )
    return write_flatbuffer(
        tensors, operators, inputs=[0], outputs=[embedding], description=description
    )


def _convolution_options(layer: Layer) -> Callable[[Any], int]:
    functions = tflite.ActivationFunctionType

    def write(builder: Any) -> int:
        tflite.Conv2DOptionsStart(builder)
        tflite.Conv2DOptionsAddPadding(builder, tflite.Padding.SAME)
        tflite.Conv2DOptionsAddStrideH(builder, 1)
        tflite.Conv2DOptionsAddStrideW(builder, 1)
        tflite.Conv2DOptionsAddDilationHFactor(builder, 1)
        tflite.Conv2DOptionsAddDilationWFactor(builder, 1)
        tflite.Conv2DOptionsAddFusedActivationFunction(
            builder, functions.RELU if layer.relu else functions.NONE
        )
        return int(tflite.Conv2DOptionsEnd(builder))

    return write


def _pool_options(window: tuple[int, int]) -> Callable[[Any], int]:
    def write(builder: Any) -> int:
        tflite.Pool2DOptionsStart(builder)
        tflite.Pool2DOptionsAddPadding(builder, tflite.Padding.VALID)
        tflite.Pool2DOptionsAddStrideH(builder, window[0])
        tflite.Pool2DOptionsAddStrideW(builder, window[1])
        tflite.Pool2DOptionsAddFilterHeight(builder, window[0])
        tflite.Pool2DOptionsAddFilterWidth(builder, window[1])
        return int(tflite.Pool2DOptionsEnd(builder))

    return write
