"""Resampling of mono samples, block by block.

=============== ==================================================================================
``kaiser_best`` used by edgel3 0.2.1, from resampy 0.2: a sinc with 64 zeros in a Kaiser window
``soxr``        soxr with its high quality: faster, with a filter of another slope
=============== ==================================================================================
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import soxr

from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.types import DoubleArray, FloatArray, IntArray

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
# Outputs in one computation, approximately. The number depends on the rates only, so that no sum
# depends on the division into blocks.
_CHUNK_OUTPUTS = 1 << 13
# Smallest number of columns of a matrix product: fewer are slow.
_MIN_COLUMNS = 64
# Largest matrix of weights (8 MB). Rates whose ratio has larger terms have no matrix.
_MAX_ENTRIES = 1 << 20
# Weights may be extrapolated beyond their two table entries by this part of the distance between
# them. The error is smaller than the rounding of the result to float32.
_OVERLAP = 1e-4
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
    filter_ = _Filter(min(1.0, ratio))
    interpolate = _Polyphase.of(filter_, Fraction(to_hz) / Fraction(from_hz)) or filter_
    reach = filter_.taps
    # The audio is extended by zeros at both ends.
    held, first = np.zeros(reach), -reach  # samples in use, and the position of the first one
    read = written = 0
    time = 0.0

    def compute(count: int) -> FloatArray:
        nonlocal held, first, time, written
        # resampy adds times one by one. accumulate does the same, with the same rounding.
        steps = np.full(interpolate.chunk_outputs, 1.0 / ratio)
        times = np.add.accumulate(np.concatenate([[time], steps]))
        found = interpolate(held, first, times[:-1])[:count].astype(np.float32)
        written += count
        time = float(times[-1])
        unused = min(len(held), max(0, int(time) - reach + 1 - first))
        held, first = held[unused:], first + unused
        return found

    # Samples after the first output time that a chunk can need, with one more for rounding.
    needed = int((interpolate.chunk_outputs + 1) / ratio) + reach + 2
    for block in blocks:
        read += len(block)
        held = np.concatenate([held, block])
        while first + len(held) >= time + needed:
            yield compute(interpolate.chunk_outputs)
    held = np.concatenate([held, np.zeros(needed)])
    while (left := int(read * ratio) - written) > 0:
        yield compute(min(left, interpolate.chunk_outputs))


class _Filter:
    """The filter: interpolates samples at any times.

    A weight is ``table[entry] + fraction * slopes[entry]``. The entries of all samples on one side
    of an output time have the same fraction.
    """

    chunk_outputs = _CHUNK_OUTPUTS

    def __init__(self, scale: float) -> None:
        self._table = _half_filter() * scale
        self._slopes = np.append(np.diff(self._table), 0.0)
        self._step = int(scale * _PRECISION)
        self.taps = len(self._table) // self._step
        self.entries_a_sample = scale * _PRECISION

    def look_up(self, offsets: IntArray) -> tuple[DoubleArray, DoubleArray]:
        """Return table values and slopes for the samples on one side of some output times.

        Parameters
        ----------
        offsets : numpy.ndarray, shape (n,)
            Entries of the samples that are nearest.

        Returns
        -------
        tuple of numpy.ndarray, shape (n, taps)
            From the nearest sample to the farthest.
        """
        taps = np.arange(self.taps)
        entries = offsets[:, np.newaxis] + self._step * taps
        # As in resampy, the last sample has no weight if its entry is in the last step.
        exist = taps < (len(self._table) - offsets[:, np.newaxis]) // self._step
        entries = np.where(exist, entries, 0)
        return exist * self._table[entries], exist * self._slopes[entries]

    def weigh(self, distances: DoubleArray) -> DoubleArray:
        """Return the weights, shape (n, taps), of samples after distances of 0 to 1 sample."""
        entries = distances * self.entries_a_sample
        offsets = entries.astype(np.int64)
        values, slopes = self.look_up(offsets)
        return values + (entries - offsets)[:, np.newaxis] * slopes

    def __call__(self, held: DoubleArray, first: int, times: DoubleArray) -> DoubleArray:
        """Interpolate samples, the first of which has position ``first``, at times in samples."""
        windows = np.lib.stride_tricks.sliding_window_view(held, 2 * self.taps)
        size = max(1, _MAX_ENTRIES // (4 * self.taps))
        outputs = []
        for start in range(0, len(times), size):
            part = times[start : start + size]
            positions = part.astype(np.int64)
            phases = part - positions
            weights = np.hstack([self.weigh(phases)[:, ::-1], self.weigh(1 - phases)])
            rows = windows[positions - self.taps + 1 - first]
            outputs.append(np.einsum("ij,ij->i", rows, weights))
        return np.concatenate(outputs)


@dataclass(frozen=True)
class _Phases:
    """The weights of one period of output times, as one matrix.

    Parameters
    ----------
    key : numpy.ndarray, shape (3, outputs)
        The sample before each output time, and the table entries of the samples before and after.
    matrix : numpy.ndarray, shape (samples, 2 * outputs)
        Weights at fraction 0, and their slopes.
    low, high : numpy.ndarray, shape (outputs,)
        The fractions for which the matrix is valid.
    """

    key: IntArray
    matrix: DoubleArray
    low: DoubleArray
    high: DoubleArray


class _Polyphase:
    """Interpolates at times with a period, all periods by one product of matrices.

    resampy rounds each time, so that times deviate from the period more and more. Between two table
    entries a weight is linear in the time, so that the product is exact for these times as well.
    The few other times are interpolated one by one.

    Parameters
    ----------
    filter_ : _Filter
    outputs, samples : int
        Length of the period.
    """

    def __init__(self, filter_: _Filter, outputs: int, samples: int) -> None:
        self._filter = filter_
        self._outputs = outputs
        self._samples = samples
        self._phases: _Phases | None = None
        self.chunk_outputs = outputs * max(1, _CHUNK_OUTPUTS // outputs)

    @classmethod
    def of(cls, filter_: _Filter, ratio: Fraction) -> "_Polyphase | None":
        """Return an interpolator for a ratio of rates, or None if its period is too long."""
        periods = -(-_MIN_COLUMNS // ratio.numerator)
        outputs, samples = periods * ratio.numerator, periods * ratio.denominator
        if outputs * (samples + 2 * filter_.taps) > _MAX_ENTRIES:
            return None
        return cls(filter_, outputs, samples)

    def __call__(self, held: DoubleArray, first: int, times: DoubleArray) -> DoubleArray:
        """Interpolate samples, the first of which has position ``first``, at times in samples.

        There are ``chunk_outputs`` times, and the first one starts a period.
        """
        table = times.reshape(-1, self._outputs)
        per_sample = self._filter.entries_a_sample
        positions = table[0].astype(np.int64)
        start = positions[0]
        entries = (table[0] - positions) * per_sample
        phases = self._find_phases(positions - start, entries)
        shifts = self._samples * np.arange(len(table))[:, np.newaxis]
        fractions = entries - phases.key[1] + (table - table[0] - shifts) * per_sample
        windows = np.lib.stride_tricks.sliding_window_view(
            held[start - self._filter.taps + 1 - first :], len(phases.matrix)
        )[:: self._samples][: len(table)]
        values, slopes = np.hsplit(np.ascontiguousarray(windows) @ phases.matrix, 2)
        outputs: DoubleArray = (values + fractions * slopes).ravel()
        moved = table.astype(np.int64) != positions + shifts
        beyond = np.flatnonzero(moved | (fractions < phases.low) | (fractions > phases.high))
        if len(beyond):
            outputs[beyond] = self._filter(held, first, times[beyond])
        return outputs

    def _find_phases(self, positions: IntArray, entries: DoubleArray) -> "_Phases":
        """Return the weights of a period: the last ones, unless the table entries changed."""
        filter_ = self._filter
        offsets = np.floor(
            np.stack([entries, filter_.entries_a_sample - entries]) + _OVERLAP
        ).astype(np.int64)
        key = np.stack([positions, *offsets])
        if self._phases is None or not np.array_equal(key, self._phases.key):
            taps = np.arange(filter_.taps)
            columns = np.arange(self._outputs)[:, np.newaxis]
            before = positions[:, np.newaxis] + filter_.taps - 1 - taps
            after = before[:, :1] + 1 + taps
            values, slopes = np.zeros((2, int(positions[-1]) + 2 * filter_.taps, self._outputs))
            values[before, columns], slopes[before, columns] = filter_.look_up(offsets[0])
            values[after, columns], falling = filter_.look_up(offsets[1])
            # The fraction after an output time is ``rest`` minus the fraction before it.
            rest = filter_.entries_a_sample - offsets.sum(axis=0)
            values[after, columns] += rest[:, np.newaxis] * falling
            slopes[after, columns] = -falling
            low = np.maximum(-_OVERLAP, rest - 1 - _OVERLAP)
            high = np.minimum(1 + _OVERLAP, rest + _OVERLAP)
            self._phases = _Phases(key, np.hstack([values, slopes]), low, high)
        return self._phases
