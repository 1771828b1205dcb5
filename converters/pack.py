"""Packing an int8 flatbuffer for the C library ``edgel3``, which skips the zeros.

``micro_app/lib/edgel3/src/edgel3_packed.h`` describes the bytes; what the engine computes from them
equals what TensorFlow Lite's reference kernels compute from the flatbuffer.
"""

import hashlib
import math
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite

from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.flatbuffer import damage_reported
from edgel3_tflm.packed import (
    CHECKED_FROM,
    GAP12_BITS,
    GAP16_BITS,
    HEADER,
    MAGIC,
    MAGNITUDE_BITS,
    MAX_CONVOLUTIONS,
    RECORD,
    RING_MAX_BYTES,
    VERSION,
    WEIGHT_SLACK_BYTES,
    Encoding,
    Pooling,
    ring_bytes,
    round_up,
)

# gap12 takes 25 % fewer bytes a tap than gap16 but needs more taps to cover distances, and each of
# them is computed for every column of every row: beyond this share, time is dearer than flash.
# Layers with 75 % zeros need 2 % more, those with 85 % need 10 %: neither is near.
_GAP12_MAX_EXTRA_TAPS = 0.05

_INT8_MIN, _INT8_MAX = -128, 127
_INT32_MAX = 2**31 - 1
_UINT16_MAX = 2**16 - 1
_MAX_SHIFT = 30
_MAX_DIMENSIONS = 8

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Activations:
    """An int8 tensor that operators fill: (1, rows, columns, channels), at the end (1, values)."""

    shape: tuple[int, ...]
    scale: np.float32
    zero_point: int


@dataclass(frozen=True)
class _Convolution:
    """A convolution as the flatbuffer has it; ``kernel`` is OHWI, ``scales`` are the kernel's."""

    name: str
    source: _Activations
    output: _Activations
    kernel: npt.NDArray[np.int8]
    bias: IntArray
    scales: npt.NDArray[np.float32]
    clamps: tuple[int, int]
    pooling: Pooling = Pooling.NONE


@dataclass(frozen=True)
class _PackedWeights:
    encoding: Encoding
    data: bytes
    negatives: IntArray
    positives: IntArray


def pack(model: bytes) -> bytes:
    """Pack an int8 flatbuffer; the same flatbuffer gives the same bytes.

    Raises
    ------
    ModelFileError
        If the flatbuffer is damaged or is anything but a chain that the engine computes exactly:
        3x3 convolutions (stride 1, 'same', int8 per channel, ReLU or none), maximum pools of 2x2
        in between, a global one and a reshape at the end.
    """
    with damage_reported(model):
        convolutions = _Reader(model).read_chain()
    first, last = convolutions[0], convolutions[-1]
    records, parts = [], []
    position = HEADER.size + RECORD.size * len(convolutions)
    for conv in convolutions:
        table, weights = _pack_convolution(conv)
        data = weights.data + bytes(WEIGHT_SLACK_BYTES)
        records.append(
            RECORD.pack(
                conv.source.shape[3],
                conv.output.shape[3],
                conv.source.zero_point,
                conv.output.zero_point,
                *conv.clamps,
                conv.pooling,
                weights.encoding,
                position,
                position + len(table),
                len(data),
            )
        )
        parts += [table, data + bytes(-len(data) % 4)]
        position += len(table) + len(parts[-1])
    body = b"".join([*records, *parts])

    def header(crc: int) -> bytes:
        return HEADER.pack(
            MAGIC,
            VERSION,
            len(convolutions),
            position,
            crc,
            *first.source.shape[1:3],
            last.output.shape[3],
            first.source.scale,
            first.source.zero_point,
            last.output.scale,
            last.output.zero_point,
            hashlib.sha256(model).digest()[:16],
        )

    crc = zlib.crc32(header(0)[CHECKED_FROM:] + body)
    return header(crc) + body


def quantize_multipliers(factors: npt.NDArray[np.float64]) -> tuple[IntArray, IntArray]:
    """Split positive factors into multipliers in Q31 and shifts, as TFLite's QuantizeMultiplier.

    Parameters
    ----------
    factors : numpy.ndarray, shape (n,), float64

    Returns
    -------
    multipliers, shifts : numpy.ndarray, shape (n,), int64
        ``factor = multiplier * 2 ** (shift - 31)``; both are 0 for a factor below about 2 ** -32.
    """
    fractions, shifts = np.frexp(factors)
    # A fraction has 53 bits: the product and the sum are exact, or far from a half.
    multipliers = np.floor(fractions * 2.0**31 + 0.5).astype(np.int64)
    carried = multipliers == 2**31
    multipliers = np.where(carried, 2**30, multipliers)
    shifts = shifts.astype(np.int64) + carried
    vanished = shifts < -31
    return np.where(vanished, 0, multipliers), np.where(vanished, 0, shifts)


def _pack_convolution(conv: _Convolution) -> tuple[bytes, _PackedWeights]:
    """Channel table, filled up, and weights of a convolution."""
    filters = conv.output.shape[3]
    kernel = conv.kernel.reshape(filters, -1)
    # As TFLite does: in double precision from float32 scales, in this order.
    factors = (np.float64(conv.source.scale) * conv.scales.astype(np.float64)) / np.float64(
        conv.output.scale
    )
    multipliers, shifts = quantize_multipliers(factors)
    if shifts.max() > _MAX_SHIFT:
        raise ModelFileError(
            f"{conv.name}: expected scales whose ratio is below 2^{_MAX_SHIFT}, found"
            f" 2^{shifts.max()}"
        )
    # A channel whose factor vanishes puts out its zero point whatever it adds up: it needs no taps.
    kernel = np.where(multipliers[:, np.newaxis] == 0, np.int8(0), kernel)
    bias = np.where(multipliers == 0, 0, conv.bias)
    # The engine's inputs count from -128, TFLite's from the zero point.
    bias = bias - kernel.sum(axis=1, dtype=np.int64) * (conv.source.zero_point - _INT8_MIN)
    _check_accumulators(conv.name, kernel, bias, shifts)
    weights = _encode(conv.name, kernel)
    table = b"".join(
        [
            bias.astype("<i4").tobytes(),
            multipliers.astype("<i4").tobytes(),
            weights.negatives.astype("<u2").tobytes(),
            weights.positives.astype("<u2").tobytes(),
            shifts.astype("<i1").tobytes(),
        ]
    )
    return table + bytes(-len(table) % 4), weights


def _check_accumulators(
    name: str, kernel: npt.NDArray[np.int8], bias: IntArray, shifts: IntArray
) -> None:
    """Refuse what could leave int32 for some input, in front of or behind a shift to the left."""
    negative = -kernel.clip(max=0).sum(axis=1, dtype=np.int64)
    positive = kernel.clip(min=0).sum(axis=1, dtype=np.int64)
    bounds = abs(bias) + 255 * np.maximum(negative, positive)
    limits = _INT32_MAX >> shifts.clip(min=0)
    if (bounds > limits).any():
        channel = int(np.argmax(bounds > limits))
        raise ModelFileError(
            f"{name}: expected accumulators of 32 bits, those of channel {channel} reach"
            f" {bounds[channel]:,} with a shift of {shifts[channel]}"
        )


def measure_weights(kernel: npt.NDArray[np.int8]) -> int:
    """Bytes of a kernel's weights, shape (filters, taps), in a packed model."""
    return round_up(len(_encode("the kernel", kernel).data) + WEIGHT_SLACK_BYTES, 4)


def _encode(name: str, kernel: npt.NDArray[np.int8]) -> _PackedWeights:
    """Write a kernel, shape (filters, taps), in the encoding that is to be preferred."""
    negatives = (kernel < 0).sum(axis=1, dtype=np.int64)
    positives = (kernel > 0).sum(axis=1, dtype=np.int64)
    nonzeros = int((negatives + positives).sum())
    found: list[_PackedWeights] = []
    if max(negatives.max(), positives.max()) <= _UINT16_MAX:
        found.append(_PackedWeights(Encoding.DENSE, kernel.tobytes(), negatives, positives))
    # A tap takes 1.5 bytes at least.
    if not found or nonzeros * 1.5 < kernel.size:
        taps = _Taps.of(kernel)
        gap16, gap12 = taps.count(GAP16_BITS), taps.count(GAP12_BITS, even=True)
        if gap16.max() <= _UINT16_MAX:
            found.append(taps.write_gap16())
        extra = gap12.sum() - gap16.sum()
        if gap12.max() <= _UINT16_MAX and extra <= _GAP12_MAX_EXTRA_TAPS * gap16.sum():
            found.append(taps.write_gap12())
    if not found:
        raise ModelFileError(
            f"{name}: expected at most {_UINT16_MAX:,} taps of a sign in a channel"
        )
    return min(found, key=lambda weights: len(weights.data))


@dataclass(frozen=True)
class _Taps:
    """The weights of a kernel that are not zero, as the lists have them.

    A part is the negative (even number) or the positive taps of a channel; arrays are sorted by
    part, then by the number of the tap.

    Parameters
    ----------
    parts : int
        How many there are, empty ones included.
    part, magnitude, distance : numpy.ndarray, shape (n,), int64
        The distance is that to the tap before of the same part.
    """

    parts: int
    part: IntArray
    magnitude: IntArray
    distance: IntArray

    @classmethod
    def of(cls, kernel: npt.NDArray[np.int8]) -> "_Taps":
        channel, tap = np.nonzero(kernel)
        weight = kernel[channel, tap].astype(np.int64)
        part = 2 * channel + (weight > 0)
        order = np.argsort(part, kind="stable")
        # 128 has no place in seven bits: two taps of 64 in the same place.
        order = np.repeat(order, 1 + (weight[order] == _INT8_MIN))
        part, tap, weight = part[order], tap[order], weight[order]
        begins = np.diff(part, prepend=-1) != 0
        return cls(
            parts=2 * len(kernel),
            part=part,
            magnitude=np.where(weight == _INT8_MIN, 64, abs(weight)),
            distance=np.where(begins, tap, np.diff(tap, prepend=0)),
        )

    def _fillers(self, bits: int) -> IntArray:
        """Taps of magnitude 0 that are needed on the way to each tap."""
        reach = (1 << bits) - 1
        return (self.distance - 1).clip(min=0) // reach

    def count(self, bits: int, *, even: bool = False) -> IntArray:
        """Count the entries of each part, shape (parts,)."""
        entries = self._fillers(bits) + 1
        # Sums far below 2^53: exact in float64.
        counts = np.bincount(self.part, entries, self.parts).astype(np.int64)
        return counts + (counts & 1) if even else counts

    def _write(self, bits: int, *, even: bool = False) -> tuple[npt.NDArray[np.uint32], IntArray]:
        reach = (1 << bits) - 1
        fillers = self._fillers(bits)
        counts = self.count(bits, even=even)
        added = counts - self.count(bits)
        place = np.cumsum(fillers + 1) - 1 + (np.cumsum(added) - added)[self.part]
        entries = np.full(counts.sum(), reach << MAGNITUDE_BITS, np.uint32)
        entries[place] = self.magnitude | (self.distance - fillers * reach) << MAGNITUDE_BITS
        entries[(np.cumsum(counts) - 1)[added > 0]] = 0
        return entries, counts

    def write_gap16(self) -> _PackedWeights:
        entries, counts = self._write(GAP16_BITS)
        data = entries.astype("<u2").tobytes()
        return _PackedWeights(Encoding.GAP16, data, counts[0::2], counts[1::2])

    def write_gap12(self) -> _PackedWeights:
        entries, counts = self._write(GAP12_BITS, even=True)
        pairs = entries[0::2] | entries[1::2] << 12
        data = pairs.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        return _PackedWeights(Encoding.GAP12, data, counts[0::2], counts[1::2])


_ACTIVATION_NAMES = {
    value: name for name, value in vars(tflite.ActivationFunctionType).items() if name.isupper()
}
_TYPE_NAMES = {value: name for name, value in vars(tflite.TensorType).items() if name.isupper()}


class _Reader:
    """Walks through a flatbuffer's only graph and refuses what the engine does not compute."""

    def __init__(self, model: bytes) -> None:
        self._root = tflite.Model.GetRootAsModel(model, 0)
        if self._root.SubgraphsLength() != 1:
            raise ModelFileError(f"expected one graph, found {self._root.SubgraphsLength()}")
        self._graph = self._root.Subgraphs(0)

    def read_chain(self) -> list[_Convolution]:
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
        convolutions: list[_Convolution] = []
        reshaped = False
        # Refusals bound this loop: eight convolutions, a pool behind each, and a reshape.
        for position in range(graph.OperatorsLength()):
            operation = graph.Operators(position)
            operator = self._operator_name(operation)
            name = f"operator {position} ({operator})"
            if (
                operation.InputsLength() < 1
                or operation.OutputsLength() != 1
                or operation.Inputs(0) != current
                or reshaped
            ):
                raise ModelFileError(f"expected a chain that a RESHAPE ends, {name} leaves it")
            current = operation.Outputs(0)
            output = self._activations(current, f"the output of {name}")
            if operator == "CONV_2D":
                name = f"conv{len(convolutions) + 1}"
                if len(convolutions) == MAX_CONVOLUTIONS:
                    raise ModelFileError(
                        f"expected at most {MAX_CONVOLUTIONS} convolutions, found {name}"
                    )
                if convolutions and convolutions[-1].pooling == Pooling.GLOBAL:
                    raise ModelFileError(f"expected nothing behind the global pool, found {name}")
                convolutions.append(self._convolution(name, operation, source, output))
            elif operator == "MAX_POOL_2D":
                is_last = position == graph.OperatorsLength() - 2
                pooling = _check_pool(name, _pool_options(operation), source, output, is_last)
                if not convolutions or convolutions[-1].pooling != Pooling.NONE:
                    raise ModelFileError(f"expected pools behind convolutions only, found {name}")
                convolutions[-1] = replace(convolutions[-1], pooling=pooling)
            elif operator == "RESHAPE":
                _check_same_quantization(name, source, output)
                if not convolutions or convolutions[-1].pooling != Pooling.GLOBAL:
                    raise ModelFileError(f"expected a global MAX_POOL_2D in front of {name}")
                if output.shape != (1, source.shape[3]):
                    raise ModelFileError(
                        f"{name}: expected an output of shape {(1, source.shape[3])}, found"
                        f" {output.shape}"
                    )
                reshaped = True
            else:
                raise ModelFileError(
                    f"expected CONV_2D, MAX_POOL_2D and a RESHAPE alone, found {name}"
                )
            source = output
        if not reshaped or current != graph.Outputs(0):
            raise ModelFileError("expected a chain from the input to a RESHAPE that is the output")
        return convolutions

    def _operator_name(self, operation: Any) -> str:
        index = operation.OpcodeIndex()
        if not 0 <= index < self._root.OperatorCodesLength():
            raise ValueError(f"operator code {index}")
        code = self._root.OperatorCodes(index)
        # Codes below 127 stand in both fields, newer ones only in the wider.
        return str(tflite.opcode2name(max(code.BuiltinCode(), code.DeprecatedBuiltinCode())))

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
            raise ModelFileError(f"{name}: expected plain values, found TFLite's sparse ones")

    def _quantization(
        self, tensor: Any, count: int, name: str
    ) -> tuple[npt.NDArray[np.float32], IntArray]:
        """Scales and zero points of a tensor, each of shape (count,)."""
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
            raise ModelFileError(f"{name}: expected scales of output channels, found others")
        scales = quantization.ScaleAsNumpy().astype(np.float32)
        if not bool((np.isfinite(scales) & (scales > 0)).all()):
            raise ModelFileError(f"{name}: expected positive scales, found {scales.min()}")
        return scales, quantization.ZeroPointAsNumpy().astype(np.int64)

    def _activations(self, index: int, name: str) -> _Activations:
        tensor = self._tensor(index)
        self._check_type(tensor, tflite.TensorType.INT8, name)
        shape = self._shape(tensor)
        if len(shape) not in (2, 4) or shape[0] != 1 or max(shape) > _UINT16_MAX:
            raise ModelFileError(
                f"{name}: expected one map of sizes up to {_UINT16_MAX}, found shape {shape}"
            )
        scales, zero_points = self._quantization(tensor, 1, name)
        zero_point = int(zero_points[0])
        if not _INT8_MIN <= zero_point <= _INT8_MAX:
            raise ModelFileError(f"{name}: expected a zero point in int8, found {zero_point}")
        return _Activations(shape, scales[0], zero_point)

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
        self, name: str, operation: Any, source: _Activations, output: _Activations
    ) -> _Convolution:
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
            raise ModelFileError(f"{name}, kernel: expected zero points of 0, found others")
        bias = np.zeros(filters, np.int64)
        if operation.InputsLength() == 3 and operation.Inputs(2) != -1:
            tensor = self._tensor(operation.Inputs(2))
            self._check_type(tensor, tflite.TensorType.INT32, f"{name}, bias")
            bias = self._constant(tensor, (filters,), "<i4", f"{name}, bias").astype(np.int64)
        clamps = _clamps(name, options.FusedActivationFunction(), output)
        return _Convolution(name, source, output, kernel, bias, scales, clamps)


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


def _clamps(name: str, activation: int, output: _Activations) -> tuple[int, int]:
    """Least and greatest output, as TFLite's CalculateActivationRangeQuantized."""
    functions = tflite.ActivationFunctionType
    if activation == functions.NONE:
        return _INT8_MIN, _INT8_MAX
    if activation == functions.RELU:
        return output.zero_point, _INT8_MAX
    if activation == functions.RELU6:
        # The quotient is float32 there; rounding is half away from zero.
        with np.errstate(over="ignore"):
            steps = float(np.float32(6) / output.scale)
        return output.zero_point, math.floor(min(_INT8_MAX, output.zero_point + steps + 0.5))
    raise ModelFileError(
        f"{name}: expected the activation NONE, RELU or RELU6, found"
        f" {_ACTIVATION_NAMES.get(activation, activation)}"
    )


def _check_same_quantization(name: str, source: _Activations, output: _Activations) -> None:
    if (source.scale, source.zero_point) != (output.scale, output.zero_point):
        raise ModelFileError(f"{name}: expected the quantization of its input, found another")


def _check_pool(
    name: str, options: Any, source: _Activations, output: _Activations, is_last: bool
) -> Pooling:
    """Refuse a pool other than 2x2, or the global one in the place before last."""
    _check_same_quantization(name, source, output)
    rows, columns = source.shape[1:3]
    window = (options.FilterHeight(), options.FilterWidth())
    strides = (options.StrideH(), options.StrideW())
    pooling = Pooling.GLOBAL if is_last else Pooling.MAX_2X2
    expected = (rows, columns) if is_last else (2, 2)
    pooled = (1, rows // expected[0], columns // expected[1], source.shape[3])
    if (
        window != expected
        # The only window of a global pool has no next one.
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
