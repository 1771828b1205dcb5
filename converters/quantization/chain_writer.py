"""Write a chain of convolutions as a flatbuffer, in int8 or in float."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite

from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
    write_flatbuffer,
)
from edgel3_tflm.converters.quantization.chain import Layer, QuantizedLayer


def write_chain(chain: tuple[QuantizedLayer, ...], rows: int, columns: int) -> bytes:
    """Return the int8 flatbuffer of a chain.

    It has the operators, and their versions, that TensorFlow Lite's converter writes.

    Parameters
    ----------
    chain : tuple of QuantizedLayer
    rows, columns : int
        Size of the input map.
    """
    # Quantization of the input, then of each layer's output. Pool and reshape do not change it.
    maps = (chain[0].input, *(each.output for each in chain))

    def map_tensor(name: str, shape: tuple[int, ...], layers_before: int) -> WrittenTensor:
        scale, zero_point = float(maps[layers_before].scale), maps[layers_before].zero_point
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
    """Return the float flatbuffer of layers with folded BatchNorms. This needs no TensorFlow.

    Parameters
    ----------
    layers : sequence of Layer
    rows, columns : int
        Size of the input map.
    """

    def map_tensor(name: str, shape: tuple[int, ...], _layers_before: int) -> WrittenTensor:
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
    """Versions of the operators. Int8 and float tensors need different ones."""

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
    """Return the flatbuffer of a chain.

    Parameters
    ----------
    layers : sequence of Layer
    rows, columns : int
        Size of the input map.
    map_tensor : callable
        Takes a map's name, its shape and the number of layers before it. Returns its tensor.
    constants : callable
        Takes a layer's position, counted from 0. Returns the tensors of its kernel and bias.
    versions : _Versions
    description : str
        The description in the flatbuffer.
    """
    tensors: list[WrittenTensor] = []
    operators: list[WrittenOperator] = []

    def add(tensor: WrittenTensor) -> int:
        tensors.append(tensor)
        return len(tensors) - 1

    current = add(map_tensor("log_mel", (1, rows, columns, 1), 0))
    filters = 0
    for number, layer in enumerate(layers, start=1):
        filters = layer.kernel.shape[-1]
        kernel, bias = constants(number - 1)
        inputs = (current, add(kernel), add(bias))
        current = add(map_tensor(layer.name, (1, rows, columns, filters), number))
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
        pooled = add(map_tensor(f"{layer.name}/pool", (1, rows, columns, filters), number))
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
