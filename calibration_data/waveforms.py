"""Build signals: noise, tones, envelopes and filters that the sounds are made of.

Conventions of the scripts in this folder:

- A *signal* is a float64 array of shape (n,), sampled at 48 kHz. Full scale is -1 to 1. A signal
  may have any scale until `synthesise.render` sets its peak.
- *Points* are (x, y) pairs in ascending order of x. Straight lines join them. `curve` takes
  seconds against any value. `gain_at` and `shape` take hertz, on a log axis, against dB.
- *Modes* are resonances: (Hz, bandwidth Hz, dB) for `resonate`, (Hz, decay s, dB) for `ring`.
- A *sound* is a function that takes a random generator and returns a signal of shape (72000,), of
  any scale. A function with more parameters becomes a sound when `functools.partial` binds them.
- A level in dB is relative to 1 unless the text names another reference.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float64]
Points = Sequence[tuple[float, float]]
Modes = Sequence[tuple[float, float, float]]
Sound = Callable[[np.random.Generator], Signal]

RATE_HZ = 48_000
DURATION_S = 1.5
SAMPLES = round(DURATION_S * RATE_HZ)

# Pink noise: the background of a town when nothing close by makes a sound.
PINK: Points = [(20, 0), (20_000, -30)]


def seconds(duration_s: float = DURATION_S) -> Signal:
    """Return the time of each sample in s, from 0, float64 of shape (round(48000 duration_s),)."""
    return np.arange(round(duration_s * RATE_HZ)) / RATE_HZ


def curve(points: Points, duration_s: float = DURATION_S) -> Signal:
    """Return a signal of `duration_s` s that follows points (s, value).

    It is constant before the first point and after the last.
    """
    x, y = zip(*points, strict=True)
    return np.interp(seconds(duration_s), x, y)


def gain_at(hz: Signal, points: Points) -> Signal:
    """Return the linear gain at each frequency of `hz`, in the shape of `hz`.

    Points (Hz > 0, dB) are interpolated on a log frequency axis.
    """
    x, y = zip(*points, strict=True)
    return np.asarray(10 ** (np.interp(np.log2(np.maximum(hz, 1.0)), np.log2(x), y) / 20))


def shape(signal: Signal, points: Points) -> Signal:
    """Return `signal`, filtered by a response given as points (Hz, dB).

    The filter adds no delay and removes DC.
    """
    spectrum = np.fft.rfft(signal)
    spectrum *= gain_at(np.fft.rfftfreq(len(signal), 1 / RATE_HZ), points)
    spectrum[0] = 0
    return np.fft.irfft(spectrum, len(signal))


def noise(rng: np.random.Generator, points: Points, duration_s: float = DURATION_S) -> Signal:
    """Return `duration_s` s of Gaussian noise of RMS 1 with a spectrum given as points (Hz, dB)."""
    signal = shape(rng.standard_normal(round(duration_s * RATE_HZ)), points)
    return np.asarray(signal / np.sqrt(np.mean(signal**2)))


def drift(rng: np.random.Generator, cutoff_hz: float, duration_s: float = DURATION_S) -> Signal:
    """Return `duration_s` s of a smooth random modulation: RMS 1, band limit about `cutoff_hz`."""
    return noise(rng, [(cutoff_hz, 0), (4 * cutoff_hz, -100)], duration_s)


def convolve(signal: Signal, kernel: Signal) -> Signal:
    """Return `signal` convolved with `kernel` of any length, cut to the length of `signal`."""
    length = len(signal) + len(kernel)
    product = np.fft.rfft(signal, length) * np.fft.rfft(kernel, length)
    return np.fft.irfft(product, length)[: len(signal)]


def resonate(signal: Signal, modes: Modes) -> Signal:
    """Return `signal`, filtered by parallel resonators (centre Hz, bandwidth Hz, peak gain dB)."""
    length = 2 * len(signal)
    hz = np.fft.rfftfreq(length, 1 / RATE_HZ)
    response = np.zeros(len(hz), dtype=np.complex128)
    for centre_hz, bandwidth_hz, gain_db in modes:
        loss = 1j * hz * bandwidth_hz
        response += 10 ** (gain_db / 20) * loss / (centre_hz**2 - hz**2 + loss)
    return np.fft.irfft(np.fft.rfft(signal, length) * response, length)[: len(signal)]


def block_dc(signal: Signal) -> Signal:
    """Return `signal`, filtered by a 10 Hz high-pass like the one in every microphone input."""
    length = 2 * len(signal)
    hz = np.fft.rfftfreq(length, 1 / RATE_HZ)
    response = 1j * hz / (10 + 1j * hz)
    return np.fft.irfft(np.fft.rfft(signal, length) * response, length)[: len(signal)]


def reverberate(rng: np.random.Generator, signal: Signal, decay_s: float, wet_db: float) -> Signal:
    """Return `signal` plus its echoes, which fade by 8.7 dB every `decay_s` s.

    The peak of the signal is set to 0 dB, that of the echoes to `wet_db` dB.
    """
    duration_s = 7 * decay_s
    tail = noise(rng, [(300, 0), (3000, -6), (16_000, -30)], duration_s)
    return mix(
        (signal, 0), (convolve(signal, tail * np.exp(-seconds(duration_s) / decay_s)), wet_db)
    )


def harmonics(
    pitch_hz: Signal, gain: Callable[[Signal], Signal], highest_hz: float = 16_000
) -> Signal:
    """Return the sum of sines at all multiples of a pitch that varies.

    Parameters
    ----------
    pitch_hz
        Fundamental frequency in Hz at each sample, shape (n,), above 0.
    gain
        Function from the frequency of one harmonic in Hz, shape (n,), to its amplitude, shape (n,).
    highest_hz
        A harmonic is silent while its frequency is above this limit, at most 24000 Hz.

    Returns
    -------
    Signal
        Shape (n,), float64, any scale.

    """
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    total = np.zeros(len(pitch_hz))
    for order in range(1, int(highest_hz / pitch_hz.min()) + 1):
        hz = order * pitch_hz
        total += np.where(hz < highest_hz, gain(hz), 0) * np.sin(order * phase)
    return total


def whistle(rng: np.random.Generator, centre_hz: Signal, width_hz: float) -> Signal:
    """Return a band of noise, `width_hz` Hz wide, whose centre follows `centre_hz`.

    `centre_hz` is in Hz and of shape (n,). The result has the same shape.
    """
    duration_s = len(centre_hz) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(centre_hz) / RATE_HZ
    cosine, sine = (drift(rng, width_hz / 2, duration_s) for _ in range(2))
    return np.asarray(cosine * np.cos(phase) + sine * np.sin(phase))


def strike(duration_s: float, attack_s: float, decay_s: float) -> Signal:
    """Return an envelope of `duration_s` s and peak 1 that rises and decays exponentially."""
    t = seconds(duration_s)
    envelope = (1 - np.exp(-t / attack_s)) * np.exp(-t / decay_s)
    return np.asarray(envelope / envelope.max())


def burst(
    rng: np.random.Generator, decay_s: float, points: Points, attack_s: float = 5e-4
) -> Signal:
    """Return a burst of noise that decays over 8 times `decay_s`.

    Points (Hz, dB) give its spectrum.
    """
    duration_s = 8 * decay_s
    return noise(rng, points, duration_s) * strike(duration_s, attack_s, decay_s)


def ring(modes: Modes) -> Signal:
    """Return the sum of damped sines that all start at once.

    Each mode is (Hz, decay constant s, level dB). The result is at most 1.5 s long.
    """
    t = seconds(min(DURATION_S, 9 * max(decay_s for _, decay_s, _ in modes)))
    total = np.zeros(len(t))
    for hz, decay_s, level_db in modes:
        total += 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * t) * np.exp(-t / decay_s)
    return total


def place(events: Iterable[tuple[float, Signal]]) -> Signal:
    """Return the sum of signals, each delayed to its start in s, cut to shape (72000,)."""
    total = np.zeros(SAMPLES)
    for start_s, signal in events:
        start = round(start_s * RATE_HZ)
        end = min(SAMPLES, start + len(signal))
        total[start:end] += signal[: max(0, end - start)]
    return total


def regular(rng: np.random.Generator, per_s: float, jitter: float) -> Signal:
    """Return `per_s` times a second, in s, from the start of the clip to its end.

    Each time deviates at random from a regular beat. The standard deviation is `jitter` (0 to 1)
    periods.
    """
    beats = np.arange(0.3, DURATION_S * per_s)
    times_s = (beats + jitter * rng.standard_normal(len(beats))) / per_s
    return np.clip(times_s, 0, DURATION_S)


def scatter(
    rng: np.random.Generator, per_s: float, make: Callable[[], Signal], spread_db: float
) -> Signal:
    """Return the sum of signals from `make` that start at random times, about `per_s` a second.

    Their levels vary with a standard deviation of `spread_db` dB.
    """
    times_s = rng.uniform(0, DURATION_S, rng.poisson(per_s * DURATION_S))
    levels_db = spread_db * rng.standard_normal(len(times_s))
    return place(
        (at_s, 10 ** (db / 20) * make()) for at_s, db in zip(times_s, levels_db, strict=True)
    )


def pulses(rng: np.random.Generator, pulses_hz: Signal, cylinders: int, spread: float) -> Signal:
    """Return impulses at a rate that varies, as when the cylinders of an engine fire in turn.

    Parameters
    ----------
    rng
        Random generator of the differences between cylinders and between cycles.
    pulses_hz
        Pulses per s at each sample, shape (n,), above 0.
    cylinders
        Number of pulses in the repeated pattern of strong and weak pulses, at least 1.
    spread
        Relative difference between pulses, from 0 (all equal) to about 0.5.

    Returns
    -------
    Signal
        Shape (n,), float64. It is zero except at the pulses, each of which has an area near 1.

    """
    cycles = np.cumsum(pulses_hz) / RATE_HZ
    count = np.floor(cycles).astype(np.int64)
    at = np.flatnonzero(np.diff(count, prepend=0))
    pattern = 1 + spread * rng.standard_normal(cylinders)
    strength = pattern[count[at] % cylinders] * (1 + spread / 2 * rng.standard_normal(len(at)))
    # Each pulse is divided between two samples. On whole samples, a fast engine's pitch is rough.
    late = (cycles[at] - count[at]) * RATE_HZ / pulses_hz[at]
    total = np.zeros(len(pulses_hz))
    total[at] = strength * (1 - late)
    total[at - 1] += strength * late
    return total


def set_peak(signal: Signal, peak_db: float) -> Signal:
    """Return `signal`, scaled to a peak of `peak_db` dB. A signal of zeros stays unchanged."""
    peak = np.max(np.abs(signal))
    return signal * (10 ** (peak_db / 20) / peak) if peak > 0 else signal


def mix(*parts: tuple[Signal, float]) -> Signal:
    """Return the sum of pairs (signal, peak dB). Each signal is first scaled to its peak."""
    return np.asarray(sum(set_peak(signal, peak_db) for signal, peak_db in parts))
