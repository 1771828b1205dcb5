"""A network as a chain of convolutions, in float and in int8.

The chain has the operators of the flatbuffer: BatchNorms are folded into the convolutions, and each
layer contains the ReLU and the maximum pool that follow its convolution.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.quantization.sparse import SparseConvolution, is_sparse
from edgel3_tflm.networks.variants import POOL_AFTER
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.types import FloatArray, Int8Array

_INT8_MIN, _INT8_MAX = -128, 127
# TFLite's kernels are symmetric and do not use -128.
WEIGHT_MAX = 127
# Windows computed at once: each of the largest maps of L3 takes 13 MB.
_BATCH_WINDOWS = 8


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (q - zero_point)``, where q is an int8 value."""

    scale: np.float32
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> "Quantization":
        """Spread the 256 quantized values over a range, as TFLite does.

        The range is extended to zero where it does not contain zero, and zero is represented
        exactly.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / 255) if high > low else np.float32(1)
        return cls(scale, int(np.clip(np.rint(_INT8_MIN - low / scale), _INT8_MIN, _INT8_MAX)))

    def quantize(self, values: FloatArray) -> Int8Array:
        """Round values to the nearest quantized values; values outside the range are clamped."""
        quantized = values / self.scale
        np.rint(quantized, out=quantized)
        quantized += self.zero_point
        return np.clip(quantized, _INT8_MIN, _INT8_MAX, out=quantized).astype(np.int8)

    def dequantize(self, quantized: Int8Array) -> FloatArray:
        """Convert quantized values to real units."""
        values = quantized.astype(np.float32)
        values -= np.float32(self.zero_point)
        values *= self.scale
        return values


@dataclass(frozen=True)
class Layer:
    """A convolution (3x3, stride 1, 'same'), its ReLU if it has one, and its maximum pool.

    Parameters
    ----------
    name : str
    kernel : numpy.ndarray, shape (3, 3, in, out), float32
    bias : numpy.ndarray, shape (out,), float32
    relu : bool
    pool : {1, 2, 0}
        The window of the pool: 1 for no pool, 2 for 2x2, 0 for the whole map.
    """

    name: str
    kernel: FloatArray
    bias: FloatArray
    relu: bool
    pool: int

    @cached_property
    def _sparse(self) -> SparseConvolution | None:
        return SparseConvolution.of(self.kernel) if is_sparse(self.kernel) else None

    def convolve(self, maps: FloatArray) -> FloatArray:
        """Compute the pre-activations of input maps of shape (n, rows, columns, in)."""
        if self._sparse is not None:
            return self._sparse.run(maps, self.bias)
        tf = load_backend().tf
        found: FloatArray = (tf.nn.conv2d(maps, self.kernel, 1, "SAME") + self.bias).numpy()
        return found

    def finish(self, pre_activations: FloatArray) -> FloatArray:
        """Apply the ReLU and the pool."""
        tf = load_backend().tf
        values = tf.nn.relu(pre_activations) if self.relu else pre_activations
        found: FloatArray = self.take_maximum(tf.convert_to_tensor(values)).numpy()
        return found

    def take_maximum(self, maps: Any) -> Any:
        """Apply the pool without the ReLU."""
        tf = load_backend().tf
        if self.pool == 0:
            return tf.reduce_max(maps, (1, 2), keepdims=True)
        return maps if self.pool == 1 else tf.nn.max_pool2d(maps, self.pool, self.pool, "VALID")

    def run(self, maps: FloatArray) -> FloatArray:
        """Compute the output maps of input maps of shape (n, rows, columns, in)."""
        return self.finish(self.convolve(maps))


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer in int8.

    Parameters
    ----------
    layer : Layer
        The float layer.
    kernel : numpy.ndarray, shape (3, 3, in, out), int8
    scales : numpy.ndarray, shape (out,), float32
        Scales of the kernel, one for each output channel.
    bias : numpy.ndarray, shape (out,), int32
        In units of the input's scale times the kernel's scale.
    input, output : Quantization
    """

    layer: Layer
    kernel: Int8Array
    scales: FloatArray
    bias: npt.NDArray[np.int32]
    input: Quantization
    output: Quantization

    @cached_property
    def real(self) -> Layer:
        """The layer in real units."""
        kernel = self.kernel.astype(np.float32) * self.scales
        bias = (self.bias * self.bias_scales).astype(np.float32)
        return replace(self.layer, kernel=kernel, bias=bias)

    @property
    def bias_scales(self) -> FloatArray:
        """Scales of the bias, one for each output channel."""
        return self.input.scale * self.scales

    def convolve(self, quantized: Int8Array) -> FloatArray:
        """Compute the pre-activations of quantized input maps, in real units."""
        return self.real.convolve(self.input.dequantize(quantized))

    def finish(self, pre_activations: Any) -> Int8Array:
        """Compute the quantized outputs of pre-activations in real units.

        The integer kernels round twice and this function once, so a value may differ by one. Use
        the result for statistics only.
        """
        tf = load_backend().tf
        values = tf.floor(pre_activations / self.output.scale + self.output.zero_point + 0.5)
        low = self.output.zero_point if self.layer.relu else _INT8_MIN
        values = self.layer.take_maximum(tf.clip_by_value(values, float(low), float(_INT8_MAX)))
        found: Int8Array = values.numpy().astype(np.int8)
        return found


def fold(weights: NetworkWeights) -> tuple[Layer, ...]:
    """Fold the BatchNorms into the convolutions; weights that are zero stay zero."""
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
    """Round a layer's weights to the nearest; the largest of each output channel becomes 127."""
    largest = abs(layer.kernel).max((0, 1, 2))
    scales = np.where(largest > 0, largest / WEIGHT_MAX, 1).astype(np.float32)
    kernel = np.rint(layer.kernel / scales).clip(-WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    bias = round_bias(layer.bias, source.scale * scales)
    return QuantizedLayer(layer, kernel, scales, bias, source, output)


def round_bias(bias: npt.NDArray[Any], scales: FloatArray) -> npt.NDArray[np.int32]:
    """Divide a bias by its scales and round it; values beyond int32 are clamped, as in TFLite."""
    limits = np.iinfo(np.int32)
    rounded = np.rint(bias.astype(np.float64) / scales)
    found: npt.NDArray[np.int32] = rounded.clip(limits.min, limits.max).astype(np.int32)
    return found


def in_batches(
    compute: Callable[..., npt.NDArray[Any]], *arrays: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Compute a few windows at a time, so that only their largest maps are in memory."""
    parts = [
        compute(*(array[start : start + _BATCH_WINDOWS] for array in arrays))
        for start in range(0, len(arrays[0]), _BATCH_WINDOWS)
    ]
    return np.concatenate(parts)
