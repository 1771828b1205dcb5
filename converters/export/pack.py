"""Packs an int8 flatbuffer for the C library ``edgel3``, which skips weights of zero.

``micro_app/lib/edgel3/src/edgel3_packed.h`` describes the format. From a packed model the engine
computes the same bytes as TensorFlow Lite's reference kernels compute from the flatbuffer.
"""

import hashlib
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgel3_tflm.converters.export.flatbuffer_reader import (
    INT8_MIN,
    UINT16_MAX,
    ChainReader,
    Convolution,
)
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.flatbuffer import damage_reported
from edgel3_tflm.runtime.packed import (
    CHECKED_FROM,
    GAP12_BITS,
    GAP16_BITS,
    HEADER,
    MAGIC,
    MAGNITUDE_BITS,
    RECORD,
    VERSION,
    WEIGHT_SLACK_BYTES,
    Encoding,
    round_up,
)
from edgel3_tflm.types import IntArray

# A tap takes 25 % fewer bytes in gap12 than in gap16, but gap12 needs more taps to cover long
# distances, and the engine computes each tap for every column of every row. If gap12 needs more
# additional taps than this share, gap16 is preferred: it takes less time and more flash. Layers
# with 75 % zeros need 2 % more taps, layers with 85 % zeros 10 %: the exact value hardly matters.
_GAP12_MAX_EXTRA_TAPS = 0.05
_INT32_MAX = 2**31 - 1
_MAX_SHIFT = 30


@dataclass(frozen=True)
class PackedWeights:
    """The weights of a convolution in their encoding, and the number of taps of each sign."""

    encoding: Encoding
    data: bytes
    negatives: IntArray
    positives: IntArray

    @property
    def size_bytes(self) -> int:
        """Bytes that the weights take in a packed model."""
        return round_up(len(self.data) + WEIGHT_SLACK_BYTES, 4)

    @property
    def taps(self) -> int:
        """Number of taps, including those that only bridge distances."""
        return int((self.negatives + self.positives).sum())


def pack(model: bytes) -> bytes:
    """Return the packed model of an int8 flatbuffer; the same flatbuffer gives the same bytes.

    Raises
    ------
    ModelFileError
        If the flatbuffer is damaged, or is not a chain that the engine computes exactly: 3x3
        convolutions (stride 1, padding 'same', int8 per channel, ReLU, ReLU6 or no activation), 2x2
        maximum pools between them, and a global maximum pool and a reshape at the end.
    """
    with damage_reported(model):
        convolutions = ChainReader(model).read_chain()
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
    """Return multipliers in Q31 and shifts for positive factors, as TFLite's QuantizeMultiplier.

    Parameters
    ----------
    factors : numpy.ndarray, shape (n,), float64

    Returns
    -------
    multipliers, shifts : numpy.ndarray, shape (n,), int64
        ``factor = multiplier * 2 ** (shift - 31)``; both are 0 for a factor below about 2 ** -32.
    """
    fractions, shifts = np.frexp(factors)
    # A fraction has 53 bits, so that product and sum are exact or not near a half.
    multipliers = np.floor(fractions * 2.0**31 + 0.5).astype(np.int64)
    carried = multipliers == 2**31
    multipliers = np.where(carried, 2**30, multipliers)
    shifts = shifts.astype(np.int64) + carried
    vanished = shifts < -31
    return np.where(vanished, 0, multipliers), np.where(vanished, 0, shifts)


def _pack_convolution(conv: Convolution) -> tuple[bytes, PackedWeights]:
    """Return the padded channel table and the weights of a convolution."""
    filters = conv.output.shape[3]
    kernel = conv.kernel.reshape(filters, -1)
    # As in TFLite: computed in double precision from float32 scales, in this order.
    factors = (np.float64(conv.source.scale) * conv.scales.astype(np.float64)) / np.float64(
        conv.output.scale
    )
    multipliers, shifts = quantize_multipliers(factors)
    if shifts.max() > _MAX_SHIFT:
        raise ModelFileError(
            f"{conv.name}: expected scales whose ratio is below 2^{_MAX_SHIFT}, found"
            f" 2^{shifts.max()}"
        )
    # If its factor is 0, a channel always outputs its zero point, and needs no taps.
    kernel = np.where(multipliers[:, np.newaxis] == 0, np.int8(0), kernel)
    bias = np.where(multipliers == 0, 0, conv.bias)
    # The engine subtracts -128 from its inputs, TFLite subtracts the zero point.
    bias = bias - kernel.sum(axis=1, dtype=np.int64) * (conv.source.zero_point - INT8_MIN)
    _check_accumulators(conv.name, kernel, bias, shifts)
    weights = encode_weights(conv.name, kernel)
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
    """Raise an error if an accumulator could leave int32 for some input, shifted left or not."""
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


def encode_weights(name: str, kernel: npt.NDArray[np.int8]) -> PackedWeights:
    """Return the weights of a kernel of shape (filters, taps) in the best encoding.

    Raises
    ------
    ModelFileError
        If a channel has too many taps; the message contains ``name``.
    """
    negatives = (kernel < 0).sum(axis=1, dtype=np.int64)
    positives = (kernel > 0).sum(axis=1, dtype=np.int64)
    nonzeros = int((negatives + positives).sum())
    found: list[PackedWeights] = []
    if max(negatives.max(), positives.max()) <= UINT16_MAX:
        found.append(PackedWeights(Encoding.DENSE, kernel.tobytes(), negatives, positives))
    # A tap of a list takes at least 1.5 bytes, a dense weight one byte.
    if not found or nonzeros * 1.5 < kernel.size:
        taps = _Taps.of(kernel)
        gap16, gap12 = taps.count(GAP16_BITS), taps.count(GAP12_BITS, even=True)
        if gap16.max() <= UINT16_MAX:
            found.append(taps.write_gap16())
        extra = gap12.sum() - gap16.sum()
        if gap12.max() <= UINT16_MAX and extra <= _GAP12_MAX_EXTRA_TAPS * gap16.sum():
            found.append(taps.write_gap12())
    if not found:
        raise ModelFileError(f"{name}: expected at most {UINT16_MAX:,} taps of a sign in a channel")
    return min(found, key=lambda weights: len(weights.data))


@dataclass(frozen=True)
class _Taps:
    """The nonzero weights of a kernel, in the order of the lists.

    Each channel has two parts: its negative taps (an even number) and its positive taps (the next
    odd number). The arrays are sorted by part, then by the number of the tap.

    Parameters
    ----------
    parts : int
        Number of parts, including empty ones.
    part, magnitude, distance : numpy.ndarray, shape (n,), int64
        Part of each tap, absolute value of its weight, and distance to the previous tap of its
        part.
    """

    parts: int
    part: IntArray
    magnitude: IntArray
    distance: IntArray

    @classmethod
    def of(cls, kernel: npt.NDArray[np.int8]) -> "_Taps":
        """Return the taps of a kernel of shape (filters, taps)."""
        channel, tap = np.nonzero(kernel)
        weight = kernel[channel, tap].astype(np.int64)
        part = 2 * channel + (weight > 0)
        order = np.argsort(part, kind="stable")
        # 128 does not fit into seven bits: it becomes two taps of 64 at the same position.
        order = np.repeat(order, 1 + (weight[order] == INT8_MIN))
        part, tap, weight = part[order], tap[order], weight[order]
        begins = np.diff(part, prepend=-1) != 0
        return cls(
            parts=2 * len(kernel),
            part=part,
            magnitude=np.where(weight == INT8_MIN, 64, abs(weight)),
            distance=np.where(begins, tap, np.diff(tap, prepend=0)),
        )

    def _fillers(self, bits: int) -> IntArray:
        """Return the number of taps of magnitude 0 that must precede each tap."""
        reach = (1 << bits) - 1
        return (self.distance - 1).clip(min=0) // reach

    def count(self, bits: int, *, even: bool = False) -> IntArray:
        """Return the number of entries of each part, shape (parts,)."""
        entries = self._fillers(bits) + 1
        # The sums are far below 2^53 and so exact in float64.
        counts = np.bincount(self.part, entries, self.parts).astype(np.int64)
        return counts + (counts & 1) if even else counts

    def _write(self, bits: int, *, even: bool = False) -> tuple[npt.NDArray[np.uint32], IntArray]:
        """Return all entries, and the number of entries of each part."""
        reach = (1 << bits) - 1
        fillers = self._fillers(bits)
        counts = self.count(bits, even=even)
        added = counts - self.count(bits)
        position = np.cumsum(fillers + 1) - 1 + (np.cumsum(added) - added)[self.part]
        entries = np.full(counts.sum(), reach << MAGNITUDE_BITS, np.uint32)
        entries[position] = self.magnitude | (self.distance - fillers * reach) << MAGNITUDE_BITS
        entries[(np.cumsum(counts) - 1)[added > 0]] = 0
        return entries, counts

    def write_gap16(self) -> PackedWeights:
        entries, counts = self._write(GAP16_BITS)
        data = entries.astype("<u2").tobytes()
        return PackedWeights(Encoding.GAP16, data, counts[0::2], counts[1::2])

    def write_gap12(self) -> PackedWeights:
        entries, counts = self._write(GAP12_BITS, even=True)
        pairs = entries[0::2] | entries[1::2] << 12
        data = pairs.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        return PackedWeights(Encoding.GAP12, data, counts[0::2], counts[1::2])
