"""Resampling mono samples that come block by block.

=============== ==================================================================================
``kaiser_best`` what edgel3 0.2.1 uses, of resampy 0.2: a sinc of 64 zeros under a Kaiser window
``soxr``        soxr's high quality: faster, and a filter of another slope
=============== ==================================================================================
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import soxr

from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.types import DoubleArray, FloatArray

KAISER_BEST = "kaiser_best"
SOXR = "soxr"
RESAMPLERS = (KAISER_BEST, SOXR)
MAX_SAMPLE_RATE_HZ = 10_000_000
"""More than any recorder's; a damaged header may say anything."""

# resampy 0.2's filter: zero crossings of a wing, table entries between two of them, share of the
# passband, parameter of the Kaiser window.
_ZEROS = 64
_PRECISION = 512
_ROLLOFF = 0.9475937167399596
_BETA = 14.769656459379492
# Outputs computed at once, and always so many: sums must not depend on how the sound comes divided.
_CHUNK_OUTPUTS = 1 << 12
# Times that differ by less than 6e-8 of a sample have one set of weights: float32 rounds off more.
_PHASES = 1 << 24
_NO_SAMPLES = np.empty(0, np.float32)


def check_resampler(name: str) -> None:
    """Refuse what is no resampler's name.

    Raises
    ------
    EdgeL3Error
        If it is none of ``RESAMPLERS``.
    """
    if name not in RESAMPLERS:
        raise EdgeL3Error(f"unknown resampler {name!r}: expected {' or '.join(RESAMPLERS)}")


def resample_blocks(
    blocks: Iterable[FloatArray], from_hz: float, to_hz: int, resampler: str = SOXR
) -> Iterator[FloatArray]:
    """Resample mono samples that come block by block; where they are divided changes nothing.

    Of n samples come ``int(n * (to_hz / from_hz))``, as of resampy, whichever the resampler.

    Raises
    ------
    AudioError
        If the rate they have is no sound's.
    """
    check_resampler(resampler)
    if not 1 <= from_hz <= MAX_SAMPLE_RATE_HZ:
        raise AudioError(
            f"expected a sample rate of 1 to {MAX_SAMPLE_RATE_HZ:,} Hz, got {from_hz:,}"
        )
    if from_hz == to_hz:
        return iter(blocks)
    if resampler == SOXR:
        return _resample_soxr(blocks, from_hz, to_hz)
    if to_hz / from_hz < 1 / _PRECISION:
        raise AudioError(
            f"expected a sample rate of at most {to_hz * _PRECISION:,} Hz for {KAISER_BEST}, got"
            f" {from_hz:,}; choose {SOXR}"
        )
    return _resample_kaiser_best(blocks, from_hz, to_hz)


def _resample_soxr(
    blocks: Iterable[FloatArray], from_hz: float, to_hz: int
) -> Iterator[FloatArray]:
    stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")
    read = written = 0
    last = _NO_SAMPLES
    # soxr rounds the length: the last sample is held back until it is known whether there is one.
    for block in blocks:
        read += len(block)
        found = np.concatenate([last, stream.resample_chunk(block)])
        found, last = found[:-1], found[-1:]
        written += len(found)
        yield found
    found = np.concatenate([last, stream.resample_chunk(_NO_SAMPLES, last=True)])
    yield found[: max(0, int(read * (to_hz / from_hz)) - written)]


@lru_cache
def _half_filter() -> DoubleArray:
    """Right wing of the filter, ``_PRECISION`` entries between two zeros."""
    entries = _PRECISION * _ZEROS
    sinc = np.sinc(_ROLLOFF * np.linspace(0, _ZEROS, entries + 1))
    found: DoubleArray = _ROLLOFF * sinc * np.kaiser(2 * entries + 1, _BETA)[entries:]
    return found


def _resample_kaiser_best(
    blocks: Iterable[FloatArray], from_hz: float, to_hz: int
) -> Iterator[FloatArray]:
    """Compute what resampy 0.2 computes, its roundings of times and of table entries included."""
    ratio = to_hz / from_hz
    scale = min(1.0, ratio)
    wing = _Wing(scale)
    reach = wing.taps
    # What lies before and behind the sound is zero.
    held, first = np.zeros(reach), -reach  # samples, and the position of the first of them
    read = written = 0
    time = 0.0

    def compute(count: int) -> FloatArray:
        nonlocal held, first, time, written
        # resampy adds up times one by one, and so does accumulate: with the same roundings.
        times = np.add.accumulate(np.concatenate([[time], np.full(count, 1.0 / ratio)]))
        found = _interpolate(held, first, times[:-1], wing).astype(np.float32)
        written += count
        time = float(times[-1])
        unused = min(len(held), max(0, int(time) - reach + 1 - first))
        held, first = held[unused:], first + unused
        return found

    # Samples from the time of a chunk's first output on that it can need; roundings need one more.
    needed = int((_CHUNK_OUTPUTS + 1) / ratio) + reach + 2
    for block in blocks:
        read += len(block)
        held = np.concatenate([held, block])
        while first + len(held) >= time + needed:
            yield compute(_CHUNK_OUTPUTS)
    held = np.concatenate([held, np.zeros(reach + 1)])
    while (left := int(read * ratio) - written) > 0:
        yield compute(min(left, _CHUNK_OUTPUTS))


class _Wing:
    """Weights of the samples on one side of a time."""

    def __init__(self, scale: float) -> None:
        self._table = _half_filter() * scale
        self._slopes = np.append(np.diff(self._table), 0.0)
        self._scale = scale
        self._step = int(scale * _PRECISION)
        self.taps = len(self._table) // self._step

    def weigh(self, distance: float) -> DoubleArray:
        """Weights of samples at ``distance`` (0 to 1 of a sample), one more, and so on."""
        entry = self._scale * distance * _PRECISION
        offset = int(entry)
        count = (len(self._table) - offset) // self._step
        entries = offset + self._step * np.arange(count)
        weights = np.zeros(self.taps)
        weights[:count] = self._table[entries] + (entry - offset) * self._slopes[entries]
        return weights


def _interpolate(held: DoubleArray, first: int, times: DoubleArray, wing: _Wing) -> DoubleArray:
    """Interpolate held samples, the first at position ``first``, at times in samples."""
    positions = times.astype(np.int64)
    phases = times - positions
    windows = np.lib.stride_tricks.sliding_window_view(held, 2 * wing.taps)
    rows = positions - wing.taps + 1 - first
    outputs = np.empty(len(times))
    # Of two whole rates few times within a sample occur, each with weights of its own.
    keys = np.rint(phases * _PHASES)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    for group in np.split(order, np.flatnonzero(np.diff(keys)) + 1):
        phase = float(phases[group[0]])
        weights = np.concatenate([wing.weigh(phase)[::-1], wing.weigh(1 - phase)])
        outputs[group] = np.einsum("ij,j->i", windows[rows[group]], weights)
    return outputs
