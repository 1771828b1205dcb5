"""Read a packed model: the sparse int8 network that the C library ``edgel3`` runs.

``micro_app/lib/edgel3/src/edgel3_packed.h`` describes the format. ``converters/export/pack.py``
writes it. A tap is a weight that the engine multiplies with.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.errors import ModelFileError

MAGIC = b"EL3P"
VERSION = 1
CUSTOM_CODE = "EDGEL3"
"""Name of the TFLite operator that runs a packed model. The model is its second input."""
MAX_CONVOLUTIONS = 8
HEADER = struct.Struct("<4sHHIIHHH2xfb3xfb3x16s8x")
"""Magic, version, convolutions, bytes, CRC; rows, columns, embedding size; scale and zero point of
the input and of the output; first half of the SHA-256 of the dense flatbuffer."""
RECORD = struct.Struct("<HHbbbbBB2xIII8x")
"""Input and output channels; input and output zero point, lower and upper clamp; pooling, encoding;
offsets of the channel table and of the weights, bytes of weights."""
CHECKED_FROM = 16
"""The CRC covers the bytes from this offset to the end."""
WEIGHT_SLACK_BYTES = 4
CHANNEL_TABLE_BYTES = 13
"""Bytes of a channel in the channel table. The table is padded to a multiple of 4."""
MAGNITUDE_BITS = 7
GAP12_BITS, GAP16_BITS = 5, 9
RING_MAX_BYTES = 65535
OVERREAD_BYTES = 64
"""Bytes after a ring, which kernels read and do not use."""


class Encoding(IntEnum):
    """Encoding of a convolution's weights."""

    DENSE = 0
    GAP12 = 1
    GAP16 = 2


class Pooling(IntEnum):
    """Pooling after a convolution."""

    NONE = 0
    MAX_2X2 = 1
    GLOBAL = 2


@dataclass(frozen=True, eq=False)
class PackedConvolution:
    """A convolution of a packed model.

    Parameters
    ----------
    name : str
        conv1 and so on.
    rows, columns : int
        Of the input, and of the output before the pooling.
    input_channels, output_channels : int
    input_zero_point, output_zero_point, lower_clamp, upper_clamp : int
        In int8.
    pooling : Pooling
    encoding : Encoding
    bias, multiplier : numpy.ndarray, shape (output_channels,), int32
        The bias assumes inputs that are counted from -128.
    shift : numpy.ndarray, shape (output_channels,), int8
    negatives, positives : numpy.ndarray, shape (output_channels,), uint16
        Number of taps with each sign. In a list of taps, this includes the taps of magnitude 0 that
        bridge long distances.
    weights : bytes
        The encoded weights, without the slack at their end.
    table_bytes, weight_bytes : int
        Bytes of the channel table and of the weights, including padding and slack.
    """

    name: str
    rows: int
    columns: int
    input_channels: int
    output_channels: int
    input_zero_point: int
    output_zero_point: int
    lower_clamp: int
    upper_clamp: int
    pooling: Pooling
    encoding: Encoding
    bias: npt.NDArray[np.int32]
    multiplier: npt.NDArray[np.int32]
    shift: npt.NDArray[np.int8]
    negatives: npt.NDArray[np.uint16]
    positives: npt.NDArray[np.uint16]
    weights: bytes
    table_bytes: int
    weight_bytes: int

    @property
    def taps_per_channel(self) -> int:
        """Number of weights of an output channel, zeros included."""
        return 9 * self.input_channels

    @property
    def taps(self) -> int:
        """Number of taps, including those that only bridge distances."""
        return int(self.negatives.sum(dtype=np.int64) + self.positives.sum(dtype=np.int64))

    @property
    def max_taps(self) -> int:
        """Largest number of taps of a channel."""
        return int((self.negatives.astype(np.int64) + self.positives).max())

    @property
    def packed_bytes(self) -> int:
        """Bytes of the channel table and of the weights."""
        return self.table_bytes + self.weight_bytes

    @property
    def dense_bytes(self) -> int:
        """Bytes of the kernel and of the biases in the dense model."""
        return self.output_channels * (self.taps_per_channel + 4)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of one window in the dense model."""
        return self.rows * self.columns * self.output_channels * self.taps_per_channel

    @property
    def packed_macs(self) -> int:
        """Multiply-accumulates of one window in the engine."""
        return self.rows * self.columns * self.taps

    def costs(self) -> dict[str, Any]:
        """Return the layer's sizes and MACs, dense and packed, for a manifest or for JSON."""
        return {
            "name": self.name,
            "encoding": self.encoding.name.lower(),
            "dense_bytes": self.dense_bytes,
            "packed_bytes": self.packed_bytes,
            "taps": self.taps,
            "dense_macs": self.dense_macs,
            "packed_macs": self.packed_macs,
        }


@dataclass(frozen=True)
class PackedModel:
    """Contents of a packed model.

    ``source_sha256`` is the first half of the SHA-256 of the dense flatbuffer.
    """

    size_bytes: int
    rows: int
    columns: int
    embedding_size: int
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int
    source_sha256: bytes
    convolutions: tuple[PackedConvolution, ...]


def round_up(size: int, multiple: int) -> int:
    """Return the least multiple that is not below ``size``."""
    return -(-size // multiple) * multiple


def ring_bytes(channels: int, columns: int) -> int:
    """Return the bytes of a convolution's ring buffer: three input rows with their padding."""
    slot_bytes = channels * (columns + 1) + 1
    return 3 * slot_bytes + OVERREAD_BYTES


def read_packed(blob: bytes) -> PackedModel:
    """Read and check a packed model.

    Raises
    ------
    ModelFileError
        If the model is truncated, changed or not consistent.
    """
    if len(blob) < HEADER.size or blob[:4] != MAGIC:
        raise ModelFileError(
            f"expected a packed model ({MAGIC.decode()} at byte 0, {HEADER.size} bytes of header),"
            f" found {len(blob)} bytes that begin with {blob[:4]!r}"
        )
    fields = HEADER.unpack_from(blob)
    _, version, count, size, crc, rows, columns, embedding_size = fields[:8]
    if version != VERSION:
        raise ModelFileError(f"expected a packed model of version {VERSION}, found {version}")
    if size > len(blob):
        raise ModelFileError(f"expected a packed model of {size} bytes, it is cut at {len(blob)}")
    blob = blob[:size]
    if zlib.crc32(blob[CHECKED_FROM:]) != crc:
        raise ModelFileError("expected a packed model as it was written, its CRC-32 differs")
    input_scale, input_zero_point, output_scale, output_zero_point, source = fields[8:]
    scales = np.array([input_scale, output_scale])
    _require(HEADER.pack(*fields) == blob[: HEADER.size], "bytes of the header that must be zero")
    _require(
        0 < count <= MAX_CONVOLUTIONS and size >= HEADER.size + count * RECORD.size,
        f"{count} convolutions in {size} bytes",
    )
    _require(bool(np.all((scales > 0) & np.isfinite(scales))), "a scale that is not positive")
    convolutions: list[PackedConvolution] = []
    channels, zero_point = 1, input_zero_point
    height, width = rows, columns
    for position in range(count):
        conv = _read_convolution(blob, position, height, width)
        _require(height > 0 and width > 0, f"{conv.name} without a map")
        _require(
            (conv.input_channels, conv.input_zero_point) == (channels, zero_point),
            f"{conv.name} whose input is not the output of the convolution before it",
        )
        _require(
            (conv.pooling == Pooling.GLOBAL) == (position == count - 1),
            f"{conv.name} with pooling {conv.pooling.name}",
        )
        _require(
            ring_bytes(channels, width) <= RING_MAX_BYTES, f"{conv.name} with too large a ring"
        )
        convolutions.append(conv)
        channels, zero_point = conv.output_channels, conv.output_zero_point
        if conv.pooling == Pooling.MAX_2X2:
            height, width = height // 2, width // 2
    _require(
        (channels, zero_point) == (embedding_size, output_zero_point),
        "an output that is not the last convolution's",
    )
    return PackedModel(
        size_bytes=size,
        rows=rows,
        columns=columns,
        embedding_size=embedding_size,
        input_scale=input_scale,
        input_zero_point=input_zero_point,
        output_scale=output_scale,
        output_zero_point=output_zero_point,
        source_sha256=source,
        convolutions=tuple(convolutions),
    )


def _require(condition: bool, found: str) -> None:
    if not condition:
        raise ModelFileError(f"expected a consistent packed model, found {found}")


def _read_convolution(blob: bytes, position: int, rows: int, columns: int) -> PackedConvolution:
    name = f"conv{position + 1}"
    start = HEADER.size + position * RECORD.size
    fields = RECORD.unpack_from(blob, start)
    _require(
        RECORD.pack(*fields) == blob[start : start + RECORD.size],
        f"bytes of the record of {name} that must be zero",
    )
    input_channels, channels, input_zero_point, output_zero_point, lower, upper = fields[:6]
    pooling, encoding, table, weights, weight_bytes = fields[6:]
    _require(input_channels > 0 and channels > 0, f"{name} without channels")
    _require(lower <= upper, f"{name} with clamps {lower} and {upper}")
    _require(pooling in set(Pooling), f"{name} with pooling {pooling}")
    _require(encoding in set(Encoding), f"{name} with encoding {encoding}")
    table_bytes = CHANNEL_TABLE_BYTES * channels
    _require(
        table % 4 == 0 and table + table_bytes <= len(blob),
        f"{name} with a channel table beyond the end",
    )
    _require(
        weights % 4 == 0
        and weight_bytes >= WEIGHT_SLACK_BYTES
        and weights + weight_bytes <= len(blob),
        f"{name} with weights beyond the end",
    )

    def column(dtype: str, offset: int) -> npt.NDArray[Any]:
        return np.frombuffer(blob, dtype, channels, table + offset * channels)

    list_end = weights + weight_bytes - WEIGHT_SLACK_BYTES
    _require(not any(blob[list_end : weights + weight_bytes]), f"{name} without its slack")
    conv = PackedConvolution(
        name=name,
        rows=rows,
        columns=columns,
        input_channels=input_channels,
        output_channels=channels,
        input_zero_point=input_zero_point,
        output_zero_point=output_zero_point,
        lower_clamp=lower,
        upper_clamp=upper,
        pooling=Pooling(pooling),
        encoding=Encoding(encoding),
        bias=column("<i4", 0),
        multiplier=column("<i4", 4),
        negatives=column("<u2", 8),
        positives=column("<u2", 10),
        shift=column("<i1", 12),
        weights=blob[weights:list_end],
        table_bytes=round_up(table_bytes, 4),
        weight_bytes=round_up(weight_bytes, 4),
    )
    if conv.encoding == Encoding.DENSE:
        expected = channels * conv.taps_per_channel
    elif conv.encoding == Encoding.GAP12:
        _require(
            not ((conv.negatives | conv.positives) & 1).any(), f"{name} with an odd part of a list"
        )
        expected = conv.taps // 2 * 3
    else:
        expected = conv.taps * 2
    _require(
        len(conv.weights) == expected,
        f"{name} with {len(conv.weights)} bytes of weights where {expected} are needed",
    )
    return conv


def unpack_kernel(conv: PackedConvolution) -> npt.NDArray[np.int8]:
    """Return a convolution's weights, zeros included.

    Returns
    -------
    numpy.ndarray, shape (output_channels, 3, 3, input_channels), int8

    Raises
    ------
    ModelFileError
        If the list of taps is not consistent.
    """
    channels, taps = conv.output_channels, conv.taps_per_channel
    shape = (channels, 3, 3, conv.input_channels)
    if conv.encoding == Encoding.DENSE:
        return np.frombuffer(conv.weights, np.int8).reshape(shape)
    if conv.encoding == Encoding.GAP16:
        entries = np.frombuffer(conv.weights, "<u2").astype(np.int64)
    else:
        low, middle, high = np.frombuffer(conv.weights, np.uint8).reshape(-1, 3).T.astype(np.int64)
        entries = np.stack([low | (middle & 15) << 8, middle >> 4 | high << 4], axis=1).ravel()
    magnitude, distance = entries & (1 << MAGNITUDE_BITS) - 1, entries >> MAGNITUDE_BITS
    lengths = np.stack([conv.negatives, conv.positives], axis=1).ravel().astype(np.int64)
    part = np.repeat(np.arange(len(lengths)), lengths)
    before = np.concatenate([[0], np.cumsum(distance)])[np.cumsum(lengths) - lengths]
    tap = np.cumsum(distance) - before[part]
    _require(bool((tap < taps).all()), f"{conv.name} with a tap beyond the last")
    signed = np.where(part % 2 == 0, -magnitude, magnitude)
    # Sums of a few small integers are exact in float64.
    sums = np.bincount(part // 2 * taps + tap, signed, channels * taps)
    _require(
        bool((sums >= -128).all() and (sums <= 127).all()), f"{conv.name} with a weight beyond int8"
    )
    return sums.astype(np.int8).reshape(shape)
