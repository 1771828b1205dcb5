"""Writes a TFLite flatbuffer from a list of tensors and a list of operators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import tflite

_SCHEMA_VERSION = 3
_FILE_IDENTIFIER = b"TFL3"
# The key under which TensorFlow's converter writes the signature of a network.
_SIGNATURE_KEY = "serving_default"
# The schema demands this alignment of constant data, from the first byte of the file.
_DATA_ALIGNMENT = 16


@dataclass(frozen=True)
class WrittenTensor:
    """A tensor to write.

    Parameters
    ----------
    name : str
    type_code : int
        A value of ``tflite.TensorType``.
    shape : tuple of int
    scales, zero_points : tuple
        Quantization: one scale and zero point for each channel along ``quantized_dimension``, or
        one for the whole tensor. Empty without quantization.
    quantized_dimension : int
    data : bytes, optional
        Constant contents, little-endian. None for a tensor that an operator writes.
    """

    name: str
    type_code: int
    shape: tuple[int, ...]
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    quantized_dimension: int = 0
    data: bytes | None = None


@dataclass(frozen=True)
class WrittenOperator:
    """An operator to write.

    Parameters
    ----------
    builtin : int
        A value of ``tflite.BuiltinOperator``.
    inputs, outputs : tuple of int
        Positions of its tensors.
    version : int
    custom_code : str, optional
        Name of a custom operator, if ``builtin`` is CUSTOM.
    options_type : int
        A value of ``tflite.BuiltinOptions``.
    write_options : callable, optional
        Function that writes the table of options to a ``flatbuffers.Builder`` and returns its
        offset.
    """

    builtin: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    version: int = 1
    custom_code: str | None = None
    options_type: int = tflite.BuiltinOptions.NONE
    write_options: Callable[[Any], int] | None = None


def write_flatbuffer(
    tensors: Sequence[WrittenTensor],
    operators: Sequence[WrittenOperator],
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    description: str,
) -> bytes:
    """Return a flatbuffer of one graph; the same arguments give the same bytes.

    Constant data begin at a multiple of 16 bytes from the start of the flatbuffer. Its signature is
    like that of TensorFlow's converter: inputs have the names of their tensors, outputs are named
    ``output_0`` and so on.

    Parameters
    ----------
    tensors : sequence of WrittenTensor
    operators : sequence of WrittenOperator
        In the order in which they run.
    inputs, outputs : sequence of int
        Positions of the graph's input and output tensors.
    description : str
    """
    builder = flatbuffers.Builder(1024)
    # The schema demands an empty buffer 0, for tensors without contents.
    buffers = [_write_buffer(builder, None)]
    buffer_of = []
    for tensor in tensors:
        buffer_of.append(0 if tensor.data is None else len(buffers))
        if tensor.data is not None:
            buffers.append(_write_buffer(builder, tensor.data))
    tensor_tables = [
        _write_tensor(builder, tensor, buffer)
        for tensor, buffer in zip(tensors, buffer_of, strict=True)
    ]
    kinds = [(each.builtin, each.version, each.custom_code) for each in operators]
    codes = list(dict.fromkeys(kinds))
    operator_tables = [
        _write_operator(builder, each, codes.index(kind))
        for each, kind in zip(operators, kinds, strict=True)
    ]
    code_tables = [_write_code(builder, *code) for code in codes]

    tensor_vector = _write_offsets(builder, tensor_tables)
    operator_vector = _write_offsets(builder, operator_tables)
    input_vector = _write_numbers(builder, inputs, np.int32)
    output_vector = _write_numbers(builder, outputs, np.int32)
    graph_name = builder.CreateString("main")
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensor_vector)
    tflite.SubGraphAddInputs(builder, input_vector)
    tflite.SubGraphAddOutputs(builder, output_vector)
    tflite.SubGraphAddOperators(builder, operator_vector)
    tflite.SubGraphAddName(builder, graph_name)
    graph = tflite.SubGraphEnd(builder)

    signature = _write_signature(
        builder,
        {tensors[position].name: position for position in inputs},
        {f"output_{number}": position for number, position in enumerate(outputs)},
    )

    buffer_vector = _write_offsets(builder, buffers)
    code_vector = _write_offsets(builder, code_tables)
    graph_vector = _write_offsets(builder, [graph])
    signature_vector = _write_offsets(builder, [signature])
    # The description may contain file names, which need not be valid Unicode.
    text = builder.CreateString(description.encode(errors="backslashreplace"))
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, _SCHEMA_VERSION)
    tflite.ModelAddOperatorCodes(builder, code_vector)
    tflite.ModelAddSubgraphs(builder, graph_vector)
    tflite.ModelAddDescription(builder, text)
    tflite.ModelAddBuffers(builder, buffer_vector)
    tflite.ModelAddSignatureDefs(builder, signature_vector)
    builder.Finish(tflite.ModelEnd(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())


def _write_signature(builder: Any, inputs: dict[str, int], outputs: dict[str, int]) -> int:
    """Write the signature of the only graph; both arguments map names to positions of tensors."""
    input_vector, output_vector = (
        _write_offsets(builder, [_write_tensor_map(builder, *each) for each in named.items()])
        for named in (inputs, outputs)
    )
    key = builder.CreateString(_SIGNATURE_KEY)
    tflite.SignatureDefStart(builder)
    tflite.SignatureDefAddInputs(builder, input_vector)
    tflite.SignatureDefAddOutputs(builder, output_vector)
    tflite.SignatureDefAddSignatureKey(builder, key)
    return int(tflite.SignatureDefEnd(builder))


def _write_tensor_map(builder: Any, name: str, position: int) -> int:
    text = builder.CreateString(name)
    tflite.TensorMapStart(builder)
    tflite.TensorMapAddName(builder, text)
    tflite.TensorMapAddTensorIndex(builder, position)
    return int(tflite.TensorMapEnd(builder))


def _write_offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _write_numbers(builder: Any, numbers: Sequence[float], dtype: type[np.number[Any]]) -> int:
    return int(builder.CreateNumpyVector(np.array(numbers, dtype)))


def _write_buffer(builder: Any, data: bytes | None) -> int:
    vector = 0
    if data is not None:
        # CreateByteVector aligns to 4 bytes only. The builder writes from the end of the file to
        # the start, and pads the whole to the largest alignment. So data that are aligned from the
        # end are also aligned from the start.
        builder.StartVector(1, len(data), _DATA_ALIGNMENT)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        vector = builder.EndVector()
    tflite.BufferStart(builder)
    if data is not None:
        tflite.BufferAddData(builder, vector)
    return int(tflite.BufferEnd(builder))


def _write_tensor(builder: Any, tensor: WrittenTensor, buffer: int) -> int:
    shape = _write_numbers(builder, tensor.shape, np.int32)
    name = builder.CreateString(tensor.name)
    quantization = None
    if tensor.scales:
        scales = _write_numbers(builder, tensor.scales, np.float32)
        zero_points = _write_numbers(builder, tensor.zero_points, np.int64)
        tflite.QuantizationParametersStart(builder)
        tflite.QuantizationParametersAddScale(builder, scales)
        tflite.QuantizationParametersAddZeroPoint(builder, zero_points)
        tflite.QuantizationParametersAddQuantizedDimension(builder, tensor.quantized_dimension)
        quantization = tflite.QuantizationParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, tensor.type_code)
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, name)
    if quantization is not None:
        tflite.TensorAddQuantization(builder, quantization)
    return int(tflite.TensorEnd(builder))


def _write_operator(builder: Any, operator: WrittenOperator, code: int) -> int:
    inputs = _write_numbers(builder, operator.inputs, np.int32)
    outputs = _write_numbers(builder, operator.outputs, np.int32)
    options = operator.write_options(builder) if operator.write_options is not None else None
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, code)
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddOutputs(builder, outputs)
    if options is not None:
        tflite.OperatorAddBuiltinOptionsType(builder, operator.options_type)
        tflite.OperatorAddBuiltinOptions(builder, options)
    return int(tflite.OperatorEnd(builder))


def _write_code(builder: Any, builtin: int, version: int, custom_code: str | None) -> int:
    name = builder.CreateString(custom_code) if custom_code is not None else None
    tflite.OperatorCodeStart(builder)
    # Codes below 127 are written to both fields.
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, min(builtin, 127))
    tflite.OperatorCodeAddBuiltinCode(builder, builtin)
    tflite.OperatorCodeAddVersion(builder, version)
    if name is not None:
        tflite.OperatorCodeAddCustomCode(builder, name)
    return int(tflite.OperatorCodeEnd(builder))
