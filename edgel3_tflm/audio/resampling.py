"""Resampling of mono samples, block by block.

=============== ==================================================================================
``kaiser_best`` used by edgel3 0.2.1, from resampy 0.2: a sinc with 64 zeros in a Kaiser window
``soxr``        soxr with its high quality: faster, with a filter of another slope
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
"""Above the rate of any recorder; a damaged header can contain any number."""

# resampy 0.2's filter: zero crossings on one side, table entries between two of them, cutoff as a
# part of the Nyquist frequency, parameter of the Kaiser window.
_ZEROS = 64
_PRECISION = 512
_ROLLOFF = 0.9475937167399596
_BETA = 14.769656459379492
# Outputs in one computation. A fixed number, so that no sum depends on the division into blocks.
_CHUNK_OUTPUTS = 1 << 12
# Times that differ by less than 6e-8 of a sample share their weights: float32 rounds more.
_PHASES = 1 << 24
_NO_SAMPLES = np.empty(0, np.float32)


def check_resampler(name: str) -> None:
    """Check the name of a resampler.

    Raises
    ------
    EdgeL3Error
        If it is not one of ``RESAMPLERS``.
    """
    if name not in RESAMPLERS:
        raise EdgeL3Error(f"unknown resampler {name!r}: expected {' or '.join(RESAMPLERS)}")


def resample_blocks(
    blocks: Iterable[FloatArray], from_hz: float, to_hz: int, resampler: str = SOXR
) -> Iterator[FloatArray]:
    """Resample mono samples block by block; the division into blocks does not change the result.

    From n samples, every resampler makes ``int(n * (to_hz / from_hz))``, as resampy does.

    Raises
    ------
    AudioError
        If ``from_hz`` is out of range.
    EdgeL3Error
        If the resampler is unknown.
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
    # soxr rounds the length: the last sample is kept back, because it may be one too many.
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
    """Return the right half of the filter, with ``_PRECISION`` entries between two zeros."""
    entries = _PRECISION * _ZEROS
    sinc = np.sinc(_ROLLOFF * np.linspace(0, _ZEROS, entries + 1))
    found: DoubleArray = _ROLLOFF * sinc * np.kaiser(2 * entries + 1, _BETA)[entries:]
    return found


def _resample_kaiser_best(
    blocks: Iterable[FloatArray], from_hz: float, to_hz: int
) -> Iterator[FloatArray]:
    """Resample as resampy 0.2 does, with its rounding of times and of table entries."""
    ratio = to_hz / from_hz
    scale = min(1.0, ratio)
    wing = _Wing(scale)
    reach = wing.taps
    # The audio is extended by zeros at both ends.
    held, first = np.zeros(reach), -reach  # samples in use, and the position of the first one
    read = written = 0
    time = 0.0

    def compute(count: int) -> FloatArray:
        nonlocal held, first, time, written
        # resampy adds times one by one. accumulate does the same, with the same rounding.
        times = np.add.accumulate(np.concatenate([[time], np.full(count, 1.0 / ratio)]))
        found = _interpolate(held, first, times[:-1], wing).astype(np.float32)
        written += count
        time = float(times[-1])
        unused = min(len(held), max(0, int(time) - reach + 1 - first))
        held, first = held[unused:], first + unused
        return found

    # Samples after the first output time that a chunk can need, with one more for rounding.
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
    """The filter's weights of the samples on one side of an output time."""

    def __init__(self, scale: float) -> None:
        self._table = _half_filter() * scale
        self._slopes = np.append(np.diff(self._table), 0.0)
        self._scale = scale
        self._step = int(scale * _PRECISION)
        self.taps = len(self._table) // self._step

    def weigh(self, distance: float) -> DoubleArray:
        """Return the weights of samples at ``distance`` (0 to 1), ``distance + 1``, and so on."""
        entry = self._scale * distance * _PRECISION
        offset = int(entry)
        count = (len(self._table) - offset) // self._step
        entries = offset + self._step * np.arange(count)
        weights = np.zeros(self.taps)
        weights[:count] = self._table[entries] + (entry - offset) * self._slopes[entries]
        return weights


def _interpolate(held: DoubleArray, first: int, times: DoubleArray, wing: _Wing) -> DoubleArray:
    """Interpolate samples, the first of which has position ``first``, at times in samples."""
    positions = times.astype(np.int64)
    phases = times - positions
    windows = np.lib.stride_tricks.sliding_window_view(held, 2 * wing.taps)
    rows = positions - wing.taps + 1 - first
    outputs = np.empty(len(times))
    # With two integer rates, few fractions of a sample occur. Each fraction has its own weights.
    keys = np.rint(phases * _PHASES)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    for group in np.split(order, np.flatnonzero(np.diff(keys)) + 1):
        phase = float(phases[group[0]])
        weights = np.concatenate([wing.weigh(phase)[::-1], wing.weigh(1 - phase)])
        outputs[group] = np.einsum("ij,j->i", windows[rows[group]], weights)
    return outputs
