"""Plan the arena that the C library needs on a Cortex-M7: its size, its parts and the kernels.

The functions repeat ``lay_out()`` of ``edgel3_engine.c`` and the conditions of the kernels. A test
on the emulated board compares both.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from edgel3_tflm.runtime.packed import (
    Encoding,
    PackedConvolution,
    PackedModel,
    read_packed,
    ring_bytes,
    round_up,
    unpack_kernel,
)

_ARENA_ALIGNMENT = 16
_STATE_BYTES = 2048
_OFFSET_BYTES, _ADDRESS_BYTES = 2, 4
_TAP_BYTES = 8
_TAPS_BEYOND_LIST = 3
_ACCUMULATOR_BYTES = 4
_COLUMNS_MULTIPLE = 64
_LARGEST_INPUT = 255
# As in edgel3_kernels_m7.c, edgel3_pairs_m7.c and edgel3_words_m7.c.
_M7_BOUND = 1 << 23
_PAIR_BYTES = 16
_WORD_BYTES = 4
_MAX_HALF_COLUMNS = 103
_MAX_WORDS_BYTES = 71_680
_WORDS_RANGE = 2 * (1 << 22) - 2
_MAX_EXPONENT = 22


class Kernels(Enum):
    """The sets of kernels of a Cortex-M7. The values are the names in the C library."""

    PAIRS = "pairs_m7"
    WORDS = "words_m7"
    BYTES = "m7"
    PORTABLE = "portable"


@dataclass(frozen=True)
class MemoryPlan:
    """An arena on a Cortex-M7: bytes of its parts, in their order in memory, and the kernels.

    ``kernels`` has one entry for each convolution. ``taps`` includes the widened input rows.
    """

    state: int
    rings: tuple[int, ...]
    tap_offsets: int
    taps: int
    accumulators: int
    row: int
    maximum: int
    kernels: tuple[Kernels, ...]

    @property
    def arena_bytes(self) -> int:
        """Bytes of the whole arena."""
        scratch = self.tap_offsets + self.taps + self.accumulators + self.row
        return self.state + sum(self.rings) + scratch + self.maximum


def plan_memory(blob: bytes, *, widen: bool = False) -> MemoryPlan:
    """Return the parts of an arena on a Cortex-M7 and the kernels that the engine uses with it.

    Parameters
    ----------
    blob : bytes
        A packed model.
    widen : bool
        Plan room for widened input rows. The arena is then the one that ``edgel3_arena_bytes``
        returns for the fastest kernels. Otherwise it is the least arena, which has the same size on
        every processor.

    Raises
    ------
    ModelFileError
        As :func:`read_packed`.
    """
    model = read_packed(blob)
    fast = _lay_out(model, widen=True)
    if widen:
        return fast
    least = _lay_out(model, widen=False)
    # The engine widens rows whenever the arena has room for them.
    return fast if fast.arena_bytes == least.arena_bytes else least


def _lay_out(model: PackedModel, *, widen: bool) -> MemoryPlan:
    convolutions = model.convolutions
    columns = round_up(max(conv.columns for conv in convolutions), _COLUMNS_MULTIPLE)
    kernels = tuple(choose_kernels(conv, widen=widen) for conv in convolutions)
    offsets, lists = [], []
    for conv, chosen in zip(convolutions, kernels, strict=True):
        is_widened = chosen is Kernels.WORDS
        offsets.append(conv.taps_per_channel * (_ADDRESS_BYTES if is_widened else _OFFSET_BYTES))
        lists.append(_list_bytes(conv) + (widened_bytes(conv) if is_widened else 0))

    def part(size: int) -> int:
        return round_up(size, _ARENA_ALIGNMENT)

    return MemoryPlan(
        state=part(_STATE_BYTES),
        rings=tuple(part(ring_bytes(conv.input_channels, conv.columns)) for conv in convolutions),
        tap_offsets=part(max(offsets)),
        taps=part(max(lists)),
        accumulators=part(_ACCUMULATOR_BYTES * columns),
        row=part(columns),
        maximum=part(model.embedding_size),
        kernels=kernels,
    )


def describe_packed(blob: bytes) -> dict[str, Any]:
    """Return size, arenas and layers of a packed model, for a manifest or for JSON.

    ``arena_bytes`` is the least arena, ``fast_arena_bytes`` that of the fastest kernels.

    Raises
    ------
    ModelFileError
        As :func:`read_packed`.
    """
    model = read_packed(blob)
    return {
        "bytes": model.size_bytes,
        "arena_bytes": plan_memory(blob).arena_bytes,
        "fast_arena_bytes": plan_memory(blob, widen=True).arena_bytes,
        "layers": [conv.costs() for conv in model.convolutions],
    }


def choose_kernels(conv: PackedConvolution, *, widen: bool) -> Kernels:
    """Return the kernels that compute a convolution on a Cortex-M7.

    Parameters
    ----------
    conv : PackedConvolution
    widen : bool
        Whether the arena has room for widened input rows.
    """
    kernel = unpack_kernel(conv)
    negative = -kernel.clip(max=0).sum((1, 2, 3), dtype=np.int64)
    positive = kernel.clip(min=0).sum((1, 2, 3), dtype=np.int64)
    bounds = abs(conv.bias.astype(np.int64)) + _LARGEST_INPUT * np.maximum(negative, positive)
    is_small = bounds.max() < _M7_BOUND and _requantizes(conv)
    entry_bytes = 3 * conv.input_channels * _PAIR_BYTES
    if (
        conv.encoding == Encoding.DENSE
        and _has_pairs(conv.columns)
        and entry_bytes <= _list_bytes(conv)
        and is_small
        and kernel.min() > np.iinfo(np.int8).min
    ):
        return Kernels.PAIRS
    ranges = _LARGEST_INPUT * (negative + positive)
    if widen and widened_bytes(conv) and ranges.max() < _WORDS_RANGE and _requantizes(conv):
        return Kernels.WORDS
    return Kernels.BYTES if is_small else Kernels.PORTABLE


def expect_kernels(encoding: Encoding, columns: int, input_channels: int) -> Kernels:
    """Return the kernels of a convolution whose sums are small, as those of a usual network are.

    The arena is that of the fastest kernels.
    """
    if encoding == Encoding.DENSE:
        return Kernels.PAIRS if _has_pairs(columns) else Kernels.BYTES
    return Kernels.WORDS if _widened_bytes(columns, input_channels) else Kernels.BYTES


def widened_bytes(conv: PackedConvolution) -> int:
    """Return the bytes of a convolution's widened input rows; 0 if there are none."""
    if conv.encoding == Encoding.DENSE:
        return 0
    return _widened_bytes(conv.columns, conv.input_channels)


def _has_pairs(columns: int) -> bool:
    """Whether blocks of three and of four columns add up to a row."""
    return columns >= 3 and columns != 5


def _widened_bytes(columns: int, input_channels: int) -> int:
    half = -(-columns // 2)
    words = half + 2
    # Some rows are widened into the slot of the topmost input row.
    last_row = (input_channels - 1) * (columns + 1)
    in_slot = max(0, last_row - 15) // (_WORD_BYTES * words)
    size = ((3 * input_channels - in_slot) * words + 3) * _WORD_BYTES
    return size if 4 <= half <= _MAX_HALF_COLUMNS and size <= _MAX_WORDS_BYTES else 0


def _list_bytes(conv: PackedConvolution) -> int:
    return _TAP_BYTES * (conv.max_taps + _TAPS_BEYOND_LIST)


def _requantizes(conv: PackedConvolution) -> bool:
    """Whether the kernels of a Cortex-M7 can requantize the output of a convolution."""
    exponent = -conv.shift.astype(np.int64)
    has_zero = conv.output_zero_point != np.iinfo(np.int8).min
    is_in_range = (exponent > 0) & (exponent <= _MAX_EXPONENT) if has_zero else exponent >= 0
    return (conv.lower_clamp, conv.upper_clamp) == (-128, 127) and bool(is_in_range.all())
