"""Read the contents of a TFLite flatbuffer without an interpreter."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.packed import CUSTOM_CODE

_FILE_IDENTIFIER = b"TFL3"
# `description` is the fourth field of the table Model. A vtable begins with two sizes of 2 bytes.
_DESCRIPTION_VTABLE_OFFSET = 4 + 2 * 3
# The networks here have some 20 operators on tensors of up to four dimensions. Without a limit, a
# damaged file could refer to one large kernel a million times.
_MAX_OPERATORS = 200
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class LayerSummary:
    """One operator of a flatbuffer.

    ``weights``, ``zeros`` and the numbers of multiply-accumulates (MACs) are 0 for operators
    without weights. Effective MACs are those with a weight other than zero.
    """

    name: str
    operator: str
    output_shape: tuple[int, ...]
    weights: int
    zeros: int
    dense_macs: int
    effective_macs: int


@dataclass(frozen=True)
class FlatbufferSummary:
    """Contents of a flatbuffer: operators, weights and multiply-accumulates (MACs)."""

    description: str
    size_bytes: int
    input_type: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    layers: tuple[LayerSummary, ...]

    @property
    def weights(self) -> int:
        """Number of weights in all kernels."""
        return sum(layer.weights for layer in self.layers)

    @property
    def zeros(self) -> int:
        """Number of weights that are zero."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one window, zeros included."""
        return sum(layer.dense_macs for layer in self.layers)

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates of one window with a weight other than zero."""
        return sum(layer.effective_macs for layer in self.layers)


def summarize(model: bytes) -> FlatbufferSummary:
    """List the operators of a flatbuffer, their weights and multiply-accumulates.

    Raises
    ------
    ModelFileError
        If the bytes are not a whole TFLite flatbuffer of convolutions such as this package writes.
    """
    with damage_reported(model):
        return _summarize(model)


@contextmanager
def damage_reported(model: bytes) -> Iterator[None]:
    """Raise ModelFileError instead of the exceptions that a damaged flatbuffer causes."""
    if model[4:8] != _FILE_IDENTIFIER:
        raise ModelFileError(
            f"expected a TFLite flatbuffer (identifier {_FILE_IDENTIFIER.decode()} at byte 4),"
            f" found {model[4:8]!r}"
        )
    try:
        yield
    # The generated accessors raise these if offsets are wrong.
    except (IndexError, ValueError, TypeError, AttributeError, struct.error, KeyError) as error:
        raise ModelFileError(
            f"expected a whole TFLite flatbuffer, it is cut or damaged ({error})"
        ) from error


def builtin_operator(root: Any, operation: Any) -> int:
    """Return the code of an operator, a value of ``tflite.BuiltinOperator``.

    To be called inside :func:`damage_reported`.

    Parameters
    ----------
    root : tflite.Model
    operation : tflite.Operator
        An operator of one of its graphs.

    Raises
    ------
    ValueError
        If the operator refers to a code that the flatbuffer does not have.
    """
    index = operation.OpcodeIndex()
    if not 0 <= index < root.OperatorCodesLength():
        raise ValueError(f"operator code {index}")
    code = root.OperatorCodes(index)
    # The older field has one byte. Writers set it to 127 for larger codes, and readers use the
    # maximum of both.
    return int(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))


def _summarize(model: bytes) -> FlatbufferSummary:
    import tflite  # loads a module for each operator

    dtypes: dict[int, np.dtype[Any]] = {
        tflite.TensorType.FLOAT32: np.dtype(np.float32),
        tflite.TensorType.INT8: np.dtype(np.int8),
        tflite.TensorType.INT16: np.dtype(np.int16),
    }
    root = tflite.Model.GetRootAsModel(model, 0)
    graph = root.Subgraphs(0)

    def shape(tensor: int) -> tuple[int, ...]:
        dimensions = graph.Tensors(tensor).ShapeLength()
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        sizes = tuple(graph.Tensors(tensor).Shape(i) for i in range(dimensions))
        if min(sizes, default=1) < 1:
            raise ValueError(f"a tensor of shape {sizes}")
        return sizes

    layers = []
    convolutions = 0
    if graph.OperatorsLength() > _MAX_OPERATORS:
        raise ValueError(f"{graph.OperatorsLength()} operators")
    for position in range(graph.OperatorsLength()):
        operation = graph.Operators(position)
        builtin = builtin_operator(root, operation)
        operator = tflite.opcode2name(builtin)
        output_shape = shape(operation.Outputs(0))
        if builtin != tflite.BuiltinOperator.CONV_2D:
            layers.append(LayerSummary(operator.lower(), operator, output_shape, 0, 0, 0, 0))
            continue
        convolutions += 1
        kernel = graph.Tensors(operation.Inputs(1))
        values = np.frombuffer(
            root.Buffers(kernel.Buffer()).DataAsNumpy().tobytes(), dtypes[kernel.Type()]
        ).reshape(shape(operation.Inputs(1)))
        nonzeros = int(np.count_nonzero(values))
        positions = int(np.prod(output_shape[1:3]))
        layers.append(
            LayerSummary(
                f"conv{convolutions}",
                operator,
                output_shape,
                weights=values.size,
                zeros=values.size - nonzeros,
                dense_macs=positions * values.size,
                effective_macs=positions * nonzeros,
            )
        )
    input_tensor = graph.Inputs(0)
    return FlatbufferSummary(
        description=(root.Description() or b"").decode(errors="replace"),
        size_bytes=len(model),
        input_type=str(dtypes[graph.Tensors(input_tensor).Type()]),
        input_shape=shape(input_tensor),
        output_shape=shape(graph.Outputs(0)),
        layers=tuple(layers),
    )


def find_packed_model(model: bytes) -> bytes | None:
    """Return the packed model in a flatbuffer of the operator EDGEL3, or None for other ones.

    Raises
    ------
    ModelFileError
        If the flatbuffer is damaged.
    """
    import tflite

    with damage_reported(model):
        root = tflite.Model.GetRootAsModel(model, 0)
        graph = root.Subgraphs(0)
        if graph.OperatorsLength() != 1:
            return None
        operation = graph.Operators(0)
        if root.OperatorCodes(operation.OpcodeIndex()).CustomCode() != CUSTOM_CODE.encode():
            return None
        constant = graph.Tensors(operation.Inputs(1))
        return bytes(root.Buffers(constant.Buffer()).DataAsNumpy().tobytes())


def with_description(model: bytes, description: str) -> bytes:
    """Return a copy of a flatbuffer with another description.

    The new string is appended, and the offset of the description is changed. All other bytes keep
    their positions, so that the weights stay aligned.

    Raises
    ------
    ModelFileError
        If the flatbuffer is damaged or has no description that could be replaced.
    """
    with damage_reported(model):
        return _with_description(model, description)


def _with_description(model: bytes, description: str) -> bytes:
    table = struct.unpack_from("<I", model, 0)[0]
    vtable = table - struct.unpack_from("<i", model, table)[0]
    vtable_bytes = struct.unpack_from("<H", model, vtable)[0]
    field = 0
    if vtable_bytes > _DESCRIPTION_VTABLE_OFFSET:
        field = struct.unpack_from("<H", model, vtable + _DESCRIPTION_VTABLE_OFFSET)[0]
    if field == 0:
        raise ModelFileError("expected a flatbuffer with a description, found none to replace")
    text = description.encode(errors="backslashreplace")  # file names may not be Unicode
    padded = bytearray(model + bytes(-len(model) % 16))
    struct.pack_into("<I", padded, table + field, len(padded) - (table + field))
    string = struct.pack("<I", len(text)) + text + b"\0"
    return bytes(padded) + string + bytes(-len(string) % 16)
