"""Modelled cycles of a window on a Cortex-M7, by a formula over the loops of the C library.

The formula needs no emulator. Its coefficients were fitted to the cycle model of ``make bench``
(QEMU counts the basic blocks that are executed, ``llvm-mca`` 14 costs them; GCC 12, -O3): layer by
layer, for EdgeL3 95.45 and 99, SEA-UST 64 and small random networks, with every set of kernels.
``tests/micro_app/test_emulated.py`` compares both again.

As in that model, caches, waits for flash and RAM and mispredicted branches are not included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
import numpy.typing as npt

from edgel3_tflm.networks.variants import ConvLayer, FrontendSpec
from edgel3_tflm.runtime.arena import Kernels, expect_kernels, plan_memory
from edgel3_tflm.runtime.packed import (
    Encoding,
    PackedConvolution,
    Pooling,
    read_packed,
    unpack_kernel,
)

CYCLES_PER_FFT_STEP = 9.2
"""Cycles of the frontend, divided by frames * n * log2(n) for a DFT of n samples. The library's FFT
takes 9.16 for n = 1024 and 9.19 for n = 2048."""
# Cycles of an output channel: for each output of a 2x2 pool, and once; for each input of a global
# maximum.
_POOLED, _POOL, _MAXIMUM = 4.3, 45, 5.1


@dataclass(frozen=True)
class ConvolutionWork:
    """The numbers that decide the cycles of a convolution.

    Parameters
    ----------
    rows : int
        Output rows that are computed.
    columns, input_channels, output_channels : int
    pooling : Pooling
    encoding : Encoding
    kernels : Kernels
    taps : int
        Taps of all output channels, including those that only bridge distances.
    taps_done : float
        Taps of an average output row whose input row is not zero. The engine skips the others.
    rows_done : float
        Input rows that are not zero, of the ``3 * input_channels`` of an average output row.
    """

    rows: int
    columns: int
    input_channels: int
    output_channels: int
    pooling: Pooling
    encoding: Encoding
    kernels: Kernels
    taps: int
    taps_done: float
    rows_done: float

    @property
    def input_rows(self) -> int:
        """Input rows that an output row needs, counted for each channel."""
        return 3 * self.input_channels

    @property
    def columns_of_zeros(self) -> float:
        """Columns of all input rows of zeros of an average output row."""
        return self.columns * (self.input_rows - self.rows_done)


def modelled_cycles(
    blob: bytes,
    maps: Sequence[npt.NDArray[np.int8]] | None = None,
    *,
    widen: bool = True,
) -> dict[str, int]:
    """Return the modelled cycles of each convolution for one window, by name.

    Parameters
    ----------
    blob : bytes
        A packed model.
    maps : sequence of numpy.ndarray, shape (rows, columns, channels), int8, optional
        The input of each convolution, as ``Engine.trace`` returns it. The engine skips rows of
        zeros. Without ``maps`` no row is zero, so that the cycles are an upper limit.
    widen : bool
        Whether the arena is that of the fastest kernels, see :func:`plan_memory`.

    Raises
    ------
    ModelFileError
        If the packed model is damaged.
    """
    kernels = plan_memory(blob, widen=widen).kernels
    convolutions = read_packed(blob).convolutions
    inputs = [None] * len(convolutions) if maps is None else maps
    return {
        conv.name: round(count_cycles(describe_work(conv, chosen, given)))
        for conv, chosen, given in zip(convolutions, kernels, inputs, strict=True)
    }


def modelled_frontend_cycles(spec: FrontendSpec) -> int:
    """Return the modelled cycles of the log-mel spectrogram of one window."""
    return round(CYCLES_PER_FFT_STEP * spec.frames * spec.dft_samples * log2(spec.dft_samples))


def describe_work(
    conv: PackedConvolution, kernels: Kernels, given: npt.NDArray[np.int8] | None = None
) -> ConvolutionWork:
    """Return the work of a convolution; ``given`` is its input, as in :func:`modelled_cycles`."""
    rows = _rows_done(conv.rows, conv.pooling)
    rows_done, share = 3.0 * conv.input_channels, 1.0
    zero = conv.input_zero_point
    if given is not None and zero == np.iinfo(np.int8).min:
        # With the rows of padding above and below the map, which are zero as well.
        is_done = np.zeros((conv.rows + 2, conv.input_channels))
        is_done[1 : len(given) + 1] = (given != zero).any(1)
        shares = np.stack([is_done[ky : ky + rows].mean(0) for ky in range(3)])
        rows_done = float(shares.sum())
        # Taps that only bridge distances are few: they are skipped in the same share.
        taps = (unpack_kernel(conv) != 0).sum((0, 2))
        share = float((taps * shares).sum() / max(taps.sum(), 1))
    return ConvolutionWork(
        rows,
        conv.columns,
        conv.input_channels,
        conv.output_channels,
        conv.pooling,
        conv.encoding,
        kernels,
        conv.taps,
        share * conv.taps,
        rows_done,
    )


def expect_work(
    layer: ConvLayer, pooling: Pooling, encoding: Encoding, taps: int
) -> ConvolutionWork:
    """Return the work of a layer that is not packed yet, with its weights' encoding and taps.

    No row is zero, and the arena is that of the fastest kernels.
    """
    return ConvolutionWork(
        _rows_done(layer.rows, pooling),
        layer.columns,
        layer.in_channels,
        layer.out_channels,
        pooling,
        encoding,
        expect_kernels(encoding, layer.columns, layer.in_channels),
        taps,
        taps,
        3 * layer.in_channels,
    )


def _rows_done(rows: int, pooling: Pooling) -> int:
    """Return the output rows: a 2x2 pool does not need the last row if their number is odd."""
    return rows // 2 * 2 if pooling == Pooling.MAX_2X2 else rows


def count_cycles(work: ConvolutionWork) -> float:
    """Return the modelled cycles of a convolution for one window."""
    row = {
        Kernels.PAIRS: _pairs_row,
        Kernels.WORDS: _words_row,
        Kernels.BYTES: _bytes_row,
        Kernels.PORTABLE: _portable_row,
    }[work.kernels](work)
    channel = 0.0
    if work.pooling == Pooling.MAX_2X2:
        channel = _POOL + _POOLED * (work.columns // 2)
    elif work.pooling == Pooling.GLOBAL:
        channel = _MAXIMUM * work.columns
    return work.rows * (row + work.output_channels * channel)


def _pairs_row(work: ConvolutionWork) -> float:
    """Return the cycles of a row by edgel3_pairs_m7.c, without its pooling."""
    pairs = -(-work.output_channels // 2)
    threes = -work.columns % 4
    fours = (work.columns - 3 * threes) // 4
    loops = fours * (17 * work.input_rows + 54) + threes * (12 * work.input_rows + 66)
    # Weights of up to three channels are combined one by one.
    weights = 9 * work.input_channels * (4.75 if work.input_channels >= 4 else 9.9)
    return pairs * (loops + weights + 0.9 * work.columns + 337) + 14.3 * work.input_rows


def _words_row(work: ConvolutionWork) -> float:
    """Return the cycles of a row by edgel3_words_m7.c, without its pooling."""
    half = -(-work.columns // 2)
    fours, first = half // 4, half % 4
    blocks = fours + (first > 0)
    expansion = work.taps * (7.75 if work.encoding == Encoding.GAP12 else 5.75)
    taps = work.taps_done * (6.19 * fours + (0, 1.5, 3.0, 6.4)[first])
    widening = work.rows_done * (82 + 2.0 * (half + 2)) + 2.0 * work.columns_of_zeros
    return expansion + taps + widening + work.output_channels * (249 + 69 * blocks)


_BYTES_EXPANSION: Mapping[Encoding, float] = {
    Encoding.GAP16: 7.7,
    Encoding.GAP12: 8.6,
    Encoding.DENSE: 13.6,
}


def _bytes_row(work: ConvolutionWork) -> float:
    """Return the cycles of a row by edgel3_kernels_m7.c, without its pooling."""
    words = -(-work.columns // 4)
    lists = _BYTES_EXPANSION[work.encoding] * work.taps + 6.31 * words * work.taps_done
    rows = 85 * work.input_rows + 1.7 * work.columns_of_zeros
    return lists + rows + work.output_channels * (100 + 54 * words)


def _portable_row(work: ConvolutionWork) -> float:
    """Return the cycles of a row by edgel3_kernels.c, without its pooling."""
    expansion = work.taps * (13.1 if work.encoding == Encoding.DENSE else 11.3)
    taps = work.taps_done * (7.9 + 6.02 * work.columns)
    channels = work.output_channels * (138 + 31.7 * work.columns)
    return expansion + taps + channels + 70 * work.input_rows
