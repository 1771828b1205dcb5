"""Reads the layers of an int8 flatbuffer, and checks that the engine can run them."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite

from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.flatbuffer import builtin_operator
from edgel3_tflm.runtime.packed import (
    MAX_CONVOLUTIONS,
    RING_MAX_BYTES,
    Pooling,
    ring_bytes,
)
from edgel3_tflm.types import IntArray

INT8_MIN, INT8_MAX = -128, 127
UINT16_MAX = 2**16 - 1
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class QuantizedTensor:
    """An int8 tensor that an operator writes, and its quantization.

    Its shape is (1, rows, columns, channels), that of the network's output (1, values).
    """

    shape: tuple[int, ...]
    scale: np.float32
    zero_point: int


@dataclass(frozen=True)
class Convolution:
    """A convolution and the pool after it.

    Parameters
    ----------
    name : str
    source, output : QuantizedTensor
        Input and output of the convolution, before the pool.
    kernel : numpy.ndarray, shape (filters, 3, 3, channels), int8
    bias : numpy.ndarray, shape (filters,), int64
    scales : numpy.ndarray, shape (filters,), float32
        Scales of the kernel.
    clamps : (int, int)
        Least and greatest output value.
    pooling : Pooling
    """

    name: str
    source: QuantizedTensor
    output: QuantizedTensor
    kernel: npt.NDArray[np.int8]
    bias: IntArray
    scales: npt.NDArray[np.float32]
    clamps: tuple[int, int]
    pooling: Pooling = Pooling.NONE


_ACTIVATION_NAMES = {
    value: name for name, value in vars(tflite.ActivationFunctionType).items() if name.isupper()
}
_TYPE_NAMES = {value: name for name, value in vars(tflite.TensorType).items() if name.isupper()}


class ChainReader:
    """Reads the only graph of a flatbuffer; raises an error if the engine cannot compute it.

    Parameters
    ----------
    model : bytes
        The flatbuffer.

    Raises
    ------
    ModelFileError
        If it has more than one graph.
    """

    def __init__(self, model: bytes) -> None:
        self._root = tflite.Model.GetRootAsModel(model, 0)
        if self._root.SubgraphsLength() != 1:
            raise ModelFileError(f"expected one graph, found {self._root.SubgraphsLength()}")
        self._graph = self._root.Subgraphs(0)

    def read_chain(self) -> list[Convolution]:
        """Return the convolutions in order, from input to output.

        Raises
        ------
        ModelFileError
            If the graph is not a chain of operators that the engine computes exactly.
        """
        graph = self._graph
        if (graph.InputsLength(), graph.OutputsLength()) != (1, 1):
            raise ModelFileError(
                f"expected one input and one output, found {graph.InputsLength()} and"
                f" {graph.OutputsLength()}"
            )
        current = graph.Inputs(0)
        source = self._activations(current, "the input")
        if len(source.shape) != 4 or source.shape[3] != 1:
            raise ModelFileError(
                f"expected an input of shape (1, rows, columns, 1), found {source.shape}"
            )
        convolutions: list[Convolution] = []
        reshaped = False
        # The checks below end this loop after eight convolutions, a pool for each, and a reshape.
        for position in range(graph.OperatorsLength()):
            operation = graph.Operators(position)
            operator = tflite.opcode2name(builtin_operator(self._root, operation))
            name = f"operator {position} ({operator})"
            if (
                operation.InputsLength() < 1
                or operation.OutputsLength() != 1
                or operation.Inputs(0) != current
                or reshaped
            ):
                raise ModelFileError(
                    f"expected a chain of operators with a RESHAPE at its end, {name} breaks it"
                )
            current = operation.Outputs(0)
            output = self._activations(current, f"the output of {name}")
            if operator == "CONV_2D":
                name = f"conv{len(convolutions) + 1}"
                if len(convolutions) == MAX_CONVOLUTIONS:
                    raise ModelFileError(
                        f"expected at most {MAX_CONVOLUTIONS} convolutions, found {name}"
                    )
                if convolutions and convolutions[-1].pooling == Pooling.GLOBAL:
                    raise ModelFileError(
                        f"expected no convolution after the global pool, found {name}"
                    )
                convolutions.append(self._convolution(name, operation, source, output))
            elif operator == "MAX_POOL_2D":
                is_last = position == graph.OperatorsLength() - 2
                pooling = _check_pool(name, _pool_options(operation), source, output, is_last)
                if not convolutions or convolutions[-1].pooling != Pooling.NONE:
                    raise ModelFileError(
                        f"expected each pool directly after a convolution, found {name}"
                    )
                convolutions[-1] = replace(convolutions[-1], pooling=pooling)
            elif operator == "RESHAPE":
                _check_same_quantization(name, source, output)
                if not convolutions or convolutions[-1].pooling != Pooling.GLOBAL:
                    raise ModelFileError(f"expected a global MAX_POOL_2D before {name}")
                if output.shape != (1, source.shape[3]):
                    raise ModelFileError(
                        f"{name}: expected an output of shape {(1, source.shape[3])}, found"
                        f" {output.shape}"
                    )
                reshaped = True
            else:
                raise ModelFileError(
                    f"expected only the operators CONV_2D, MAX_POOL_2D and RESHAPE, found {name}"
                )
            source = output
        if not reshaped or current != graph.Outputs(0):
            raise ModelFileError("expected a chain from the input to a RESHAPE that is the output")
        return convolutions

    def _tensor(self, index: int) -> Any:
        if not 0 <= index < self._graph.TensorsLength():
            raise ValueError(f"tensor {index}")
        return self._graph.Tensors(index)

    def _shape(self, tensor: Any) -> tuple[int, ...]:
        if tensor.ShapeLength() > _MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {tensor.ShapeLength()} dimensions")
        shape = tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
        if min(shape, default=1) < 1:
            raise ValueError(f"a tensor of shape {shape}")
        return shape

    def _check_type(self, tensor: Any, expected: int, name: str) -> None:
        if tensor.Type() != expected:
            raise ModelFileError(
                f"{name}: expected {_TYPE_NAMES[expected]},"
                f" found {_TYPE_NAMES.get(tensor.Type(), tensor.Type())}"
            )
        if tensor.Sparsity() is not None:
            raise ModelFileError(f"{name}: expected dense values, found TFLite's sparse encoding")

    def _quantization(
        self, tensor: Any, count: int, name: str
    ) -> tuple[npt.NDArray[np.float32], IntArray]:
        """Return scales and zero points of a tensor, each of shape (count,)."""
        quantization = tensor.Quantization()
        lengths = (
            (quantization.ScaleLength(), quantization.ZeroPointLength()) if quantization else (0, 0)
        )
        if quantization is None or lengths != (count, count):
            raise ModelFileError(
                f"{name}: expected {count} scales and zero points, found {lengths[0]} and"
                f" {lengths[1]}"
            )
        if count > 1 and quantization.QuantizedDimension() != 0:
            raise ModelFileError(
                f"{name}: expected one scale for each output channel, found scales along axis"
                f" {quantization.QuantizedDimension()}"
            )
        scales = quantization.ScaleAsNumpy().astype(np.float32)
        if not bool((np.isfinite(scales) & (scales > 0)).all()):
            raise ModelFileError(f"{name}: expected positive scales, found {scales.min()}")
        return scales, quantization.ZeroPointAsNumpy().astype(np.int64)

    def _activations(self, index: int, name: str) -> QuantizedTensor:
        tensor = self._tensor(index)
        self._check_type(tensor, tflite.TensorType.INT8, name)
        shape = self._shape(tensor)
        if len(shape) not in (2, 4) or shape[0] != 1 or max(shape) > UINT16_MAX:
            raise ModelFileError(
                f"{name}: expected one map of sizes up to {UINT16_MAX}, found shape {shape}"
            )
        scales, zero_points = self._quantization(tensor, 1, name)
        zero_point = int(zero_points[0])
        if not INT8_MIN <= zero_point <= INT8_MAX:
            raise ModelFileError(f"{name}: expected a zero point in int8, found {zero_point}")
        return QuantizedTensor(shape, scales[0], zero_point)

    def _constant(self, tensor: Any, shape: tuple[int, ...], dtype: str, name: str) -> Any:
        if not 0 <= tensor.Buffer() < self._root.BuffersLength():
            raise ValueError(f"buffer {tensor.Buffer()}")
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        buffer = self._root.Buffers(tensor.Buffer())
        if self._shape(tensor) != shape or buffer.DataLength() != expected:
            raise ModelFileError(
                f"{name}: expected {expected:,} bytes of shape {shape}, found"
                f" {buffer.DataLength():,} of {self._shape(tensor)}"
            )
        return np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype).reshape(shape)

    def _convolution(
        self, name: str, operation: Any, source: QuantizedTensor, output: QuantizedTensor
    ) -> Convolution:
        options = _conv_options(operation)
        found = (options.StrideH(), options.StrideW(), options.DilationHFactor())
        if (*found, options.DilationWFactor()) != (1, 1, 1, 1) or (
            options.Padding() != tflite.Padding.SAME
        ):
            raise ModelFileError(f"{name}: expected stride 1, dilation 1 and padding 'same'")
        filters, channels = output.shape[-1], source.shape[-1]
        if len(source.shape) != 4 or output.shape != (*source.shape[:3], filters):
            raise ModelFileError(
                f"{name}: expected an output map as large as the input {source.shape}, found"
                f" {output.shape}"
            )
        if ring_bytes(channels, source.shape[2]) > RING_MAX_BYTES:
            raise ModelFileError(
                f"{name}: expected rows of which three take at most {RING_MAX_BYTES:,} bytes, those"
                f" of {channels} channels and {source.shape[2]} columns take"
                f" {ring_bytes(channels, source.shape[2]):,}"
            )
        if operation.InputsLength() not in (2, 3):
            raise ValueError(f"a convolution with {operation.InputsLength()} inputs")
        tensor = self._tensor(operation.Inputs(1))
        self._check_type(tensor, tflite.TensorType.INT8, f"{name}, kernel")
        kernel = self._constant(tensor, (filters, 3, 3, channels), "<i1", f"{name}, kernel")
        scales, zero_points = self._quantization(tensor, filters, f"{name}, kernel")
        if zero_points.any():
            raise ModelFileError(
                f"{name}, kernel: expected zero points of 0, found"
                f" {zero_points[zero_points != 0][0]}"
            )
        bias = np.zeros(filters, np.int64)
        if operation.InputsLength() == 3 and operation.Inputs(2) != -1:
            tensor = self._tensor(operation.Inputs(2))
            self._check_type(tensor, tflite.TensorType.INT32, f"{name}, bias")
            bias = self._constant(tensor, (filters,), "<i4", f"{name}, bias").astype(np.int64)
        clamps = _clamps(name, options.FusedActivationFunction(), output)
        return Convolution(name, source, output, kernel, bias, scales, clamps)


def _options(operation: Any, table: Any, expected: int) -> Any:
    found = operation.BuiltinOptions()
    if found is None or operation.BuiltinOptionsType() != expected:
        raise ValueError("an operator without its options")
    options = table()
    options.Init(found.Bytes, found.Pos)
    return options


def _conv_options(operation: Any) -> Any:
    return _options(operation, tflite.Conv2DOptions, tflite.BuiltinOptions.Conv2DOptions)


def _pool_options(operation: Any) -> Any:
    return _options(operation, tflite.Pool2DOptions, tflite.BuiltinOptions.Pool2DOptions)


def _clamps(name: str, activation: int, output: QuantizedTensor) -> tuple[int, int]:
    """Return least and greatest output value as TFLite's CalculateActivationRangeQuantized does."""
    functions = tflite.ActivationFunctionType
    if activation == functions.NONE:
        return INT8_MIN, INT8_MAX
    if activation == functions.RELU:
        return output.zero_point, INT8_MAX
    if activation == functions.RELU6:
        # As in TFLite: the quotient is float32, and halves are rounded away from zero.
        with np.errstate(over="ignore"):
            six = float(np.float32(6) / output.scale)
        return output.zero_point, math.floor(min(INT8_MAX, output.zero_point + six + 0.5))
    raise ModelFileError(
        f"{name}: expected the activation NONE, RELU or RELU6, found"
        f" {_ACTIVATION_NAMES.get(activation, activation)}"
    )


def _check_same_quantization(name: str, source: QuantizedTensor, output: QuantizedTensor) -> None:
    if (source.scale, source.zero_point) != (output.scale, output.zero_point):
        raise ModelFileError(
            f"{name}: expected the quantization of its input ({source.scale:g},"
            f" {source.zero_point}), found ({output.scale:g}, {output.zero_point})"
        )


def _check_pool(
    name: str, options: Any, source: QuantizedTensor, output: QuantizedTensor, is_last: bool
) -> Pooling:
    """Return the kind of a pool: 2x2, or global if it is the last operator before the reshape.

    Raises
    ------
    ModelFileError
        If it is another kind of pool.
    """
    _check_same_quantization(name, source, output)
    rows, columns = source.shape[1:3]
    window = (options.FilterHeight(), options.FilterWidth())
    strides = (options.StrideH(), options.StrideW())
    pooling = Pooling.GLOBAL if is_last else Pooling.MAX_2X2
    expected = (rows, columns) if is_last else (2, 2)
    pooled = (1, rows // expected[0], columns // expected[1], source.shape[3])
    if (
        window != expected
        # A global pool has only one window, so that its strides do not matter.
        or (strides != expected and not is_last)
        or output.shape != pooled
        or options.Padding() != tflite.Padding.VALID
        or options.FusedActivationFunction() != tflite.ActivationFunctionType.NONE
    ):
        raise ModelFileError(
            f"{name}: expected a maximum over {expected[0]}x{expected[1]} with that stride, padding"
            f" 'valid' and no activation, found a window of {window[0]}x{window[1]}, strides"
            f" {strides[0]}x{strides[1]} and an output of shape {output.shape}"
        )
    return pooling
