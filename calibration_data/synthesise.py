"""Synthesise the clips of urban sound that calibrate int8 activation ranges.

Run ``python -m edgel3_tflm.calibration_data.synthesise [DIR]`` to write ``DIR/clips/*.flac``
(48 kHz, mono, 16 bits, 1.5 s each) and ``DIR/manifest.tsv``. Every clip is computed from formulas
and from a random generator seeded by the clip's name, so running again gives the same bytes.

Conventions of this module:

- A *signal* is a float64 array of shape (n,) at 48 kHz, full scale being -1 to 1. Signals may have
  any scale until `render` sets their peak.
- *Points* are (x, y) pairs in order of x, joined by straight lines: seconds against hertz or
  amplitude for `curve`, hertz (on a log scale) against dB for `gain_at` and `shape`.
- *Modes* are resonances: (Hz, bandwidth Hz, dB) for `resonate`, (Hz, decay s, dB) for `ring`.
- A *sound* is a function from a random generator to a signal of shape (72000,), in any scale.
"""

import argparse
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf

Signal = npt.NDArray[np.float64]
Points = Sequence[tuple[float, float]]
Modes = Sequence[tuple[float, float, float]]
Sound = Callable[[np.random.Generator], Signal]

RATE_HZ = 48_000
DURATION_S = 1.5
SAMPLES = round(DURATION_S * RATE_HZ)
LSB_DBFS = 20 * np.log10(1 / 32768)

# Pink noise: what is left of a town when nothing happens close by.
PINK: Points = [(20, 0), (20_000, -30)]
# Mean first formants of vowels (Hz), then fixed upper ones that every vowel shares.
VOWELS_HZ = [
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
]
UPPER_FORMANTS_HZ = (3500, 4500)
FORMANT_BANDWIDTHS_HZ = (80, 100, 130, 200, 300)


# ---------------------------------------------------------------- building blocks


def seconds(duration_s: float = DURATION_S) -> Signal:
    """Return sample times in s, float64 of shape (round(48000 duration_s),), from 0 up."""
    return np.arange(round(duration_s * RATE_HZ)) / RATE_HZ


def curve(points: Points, duration_s: float = DURATION_S) -> Signal:
    """Return points (s, value) as a signal of `duration_s` s, constant beyond the end points."""
    x, y = zip(*points, strict=True)
    return np.interp(seconds(duration_s), x, y)


def gain_at(hz: Signal, points: Points) -> Signal:
    """Return linear gains, same shape as `hz`, from points (Hz > 0, dB) on a log frequency axis."""
    x, y = zip(*points, strict=True)
    return np.asarray(10 ** (np.interp(np.log2(np.maximum(hz, 1.0)), np.log2(x), y) / 20))


def shape(signal: Signal, points: Points) -> Signal:
    """Return `signal` filtered, without delay, by the response points (Hz, dB), and without DC."""
    spectrum = np.fft.rfft(signal)
    spectrum *= gain_at(np.fft.rfftfreq(len(signal), 1 / RATE_HZ), points)
    spectrum[0] = 0
    return np.fft.irfft(spectrum, len(signal))


def noise(rng: np.random.Generator, points: Points, duration_s: float = DURATION_S) -> Signal:
    """Return Gaussian noise of RMS 1 and `duration_s` s with the spectrum points (Hz, dB)."""
    signal = shape(rng.standard_normal(round(duration_s * RATE_HZ)), points)
    return np.asarray(signal / np.sqrt(np.mean(signal**2)))


def drift(rng: np.random.Generator, cutoff_hz: float, duration_s: float = DURATION_S) -> Signal:
    """Return a smooth random modulation of RMS 1 and `duration_s` s, below about `cutoff_hz`."""
    return noise(rng, [(cutoff_hz, 0), (4 * cutoff_hz, -100)], duration_s)


def convolve(signal: Signal, kernel: Signal) -> Signal:
    """Return `signal` convolved with `kernel` (any length), cut to the length of `signal`."""
    length = len(signal) + len(kernel)
    product = np.fft.rfft(signal, length) * np.fft.rfft(kernel, length)
    return np.fft.irfft(product, length)[: len(signal)]


def resonate(signal: Signal, modes: Modes) -> Signal:
    """Return `signal` through parallel resonators (centre Hz, bandwidth Hz, peak gain dB)."""
    length = 2 * len(signal)
    hz = np.fft.rfftfreq(length, 1 / RATE_HZ)
    response = np.zeros(len(hz), dtype=np.complex128)
    for centre_hz, bandwidth_hz, gain_db in modes:
        loss = 1j * hz * bandwidth_hz
        response += 10 ** (gain_db / 20) * loss / (centre_hz**2 - hz**2 + loss)
    return np.fft.irfft(np.fft.rfft(signal, length) * response, length)[: len(signal)]


def block_dc(signal: Signal) -> Signal:
    """Return `signal` through the 10 Hz high-pass that every microphone's input has, shape (n,)."""
    length = 2 * len(signal)
    hz = np.fft.rfftfreq(length, 1 / RATE_HZ)
    response = 1j * hz / (10 + 1j * hz)
    return np.fft.irfft(np.fft.rfft(signal, length) * response, length)[: len(signal)]


def reverberate(rng: np.random.Generator, signal: Signal, decay_s: float, wet_db: float) -> Signal:
    """Return `signal` plus echoes at `wet_db` dB that fade by 8.7 dB per `decay_s` s."""
    duration_s = 7 * decay_s
    tail = noise(rng, [(300, 0), (3000, -6), (16_000, -30)], duration_s)
    return mix(
        (signal, 0), (convolve(signal, tail * np.exp(-seconds(duration_s) / decay_s)), wet_db)
    )


def harmonics(
    pitch_hz: Signal, gain: Callable[[Signal], Signal], highest_hz: float = 16_000
) -> Signal:
    """Return the sum of sines at all multiples of a varying pitch.

    Parameters
    ----------
    pitch_hz
        Fundamental frequency in Hz at each sample, shape (n,), above 0.
    gain
        Function from the frequency of one harmonic in Hz, shape (n,), to its amplitude, shape (n,).
    highest_hz
        Harmonics are silent while above this frequency, at most 24000 Hz.

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
    """Return a noise band `width_hz` Hz wide about `centre_hz` (Hz, shape (n,)), shape (n,)."""
    duration_s = len(centre_hz) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(centre_hz) / RATE_HZ
    cosine, sine = (drift(rng, width_hz / 2, duration_s) for _ in range(2))
    return np.asarray(cosine * np.cos(phase) + sine * np.sin(phase))


def strike(duration_s: float, attack_s: float, decay_s: float) -> Signal:
    """Return an envelope from 0 to 1 that rises and decays exponentially, `duration_s` s long."""
    t = seconds(duration_s)
    envelope = (1 - np.exp(-t / attack_s)) * np.exp(-t / decay_s)
    return np.asarray(envelope / envelope.max())


def burst(
    rng: np.random.Generator, decay_s: float, points: Points, attack_s: float = 5e-4
) -> Signal:
    """Return a decaying burst of noise with the spectrum points (Hz, dB), 8 `decay_s` long."""
    duration_s = 8 * decay_s
    return noise(rng, points, duration_s) * strike(duration_s, attack_s, decay_s)


def ring(modes: Modes) -> Signal:
    """Return damped sines (Hz, decay constant s, level dB) struck at once, at most 1.5 s long."""
    t = seconds(min(DURATION_S, 9 * max(decay_s for _, decay_s, _ in modes)))
    total = np.zeros(len(t))
    for hz, decay_s, level_db in modes:
        total += 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * t) * np.exp(-t / decay_s)
    return total


def place(events: Iterable[tuple[float, Signal]]) -> Signal:
    """Return the sum of signals, each from its time in s on, cut to shape (72000,)."""
    total = np.zeros(SAMPLES)
    for start_s, signal in events:
        start = round(start_s * RATE_HZ)
        end = min(SAMPLES, start + len(signal))
        total[start:end] += signal[: max(0, end - start)]
    return total


def regular(rng: np.random.Generator, per_s: float, jitter: float) -> Signal:
    """Return times in s within the clip, `per_s` per s, each off by `jitter` (0 to 1) periods."""
    beats = np.arange(0.3, DURATION_S * per_s)
    times_s = (beats + jitter * rng.standard_normal(len(beats))) / per_s
    return np.clip(times_s, 0, DURATION_S)


def scatter(
    rng: np.random.Generator, per_s: float, make: Callable[[], Signal], spread_db: float
) -> Signal:
    """Return about `per_s` results of `make` per s at random, levels spread by `spread_db` dB."""
    times_s = rng.uniform(0, DURATION_S, rng.poisson(per_s * DURATION_S))
    levels_db = spread_db * rng.standard_normal(len(times_s))
    return place(
        (at_s, 10 ** (db / 20) * make()) for at_s, db in zip(times_s, levels_db, strict=True)
    )


def pulses(rng: np.random.Generator, pulses_hz: Signal, cylinders: int, spread: float) -> Signal:
    """Return one impulse per cycle of a varying rate, as of an engine's cylinders firing in turn.

    Parameters
    ----------
    rng
        Source of the differences between cylinders and between cycles.
    pulses_hz
        Pulses per s at each sample, shape (n,), above 0.
    cylinders
        Length of the pattern of strong and weak pulses, at least 1.
    spread
        Relative difference between pulses, 0 (all alike) to about 0.5.

    Returns
    -------
    Signal
        Shape (n,), float64: zero except at the pulses, each of an area near 1.

    """
    cycles = np.cumsum(pulses_hz) / RATE_HZ
    count = np.floor(cycles).astype(np.int64)
    at = np.flatnonzero(np.diff(count, prepend=0))
    pattern = 1 + spread * rng.standard_normal(cylinders)
    strength = pattern[count[at] % cylinders] * (1 + spread / 2 * rng.standard_normal(len(at)))
    # Share each pulse between two samples: on whole samples, the pitch of a fast engine is rough.
    late = (cycles[at] - count[at]) * RATE_HZ / pulses_hz[at]
    total = np.zeros(len(pulses_hz))
    total[at] = strength * (1 - late)
    total[at - 1] += strength * late
    return total


def set_peak(signal: Signal, peak_db: float) -> Signal:
    """Return `signal` scaled to a peak of `peak_db` dB re 1; all zeros stay so."""
    peak = np.max(np.abs(signal))
    return signal * (10 ** (peak_db / 20) / peak) if peak > 0 else signal


def mix(*parts: tuple[Signal, float]) -> Signal:
    """Return the sum of signals of one shape (n,), each first set to its peak level in dB."""
    return np.asarray(sum(set_peak(signal, peak_db) for signal, peak_db in parts))


def vocal_gain(hz: Signal, formants: Sequence[tuple[Signal | float, float]]) -> Signal:
    """Return amplitudes of a glottal source through formants (centre Hz, bandwidth Hz).

    `hz` has any shape, and so has the result; a centre may vary along it.
    """
    # The glottis falls by 12 dB per octave and radiation from the mouth rises by 6.
    gain = 100 / hz
    for centre_hz, bandwidth_hz in formants:
        ratio = hz / centre_hz
        gain = gain / np.sqrt((1 - ratio**2) ** 2 + (ratio * bandwidth_hz / centre_hz) ** 2)
    return gain


# ---------------------------------------------------------------- engines and motors


def engine(
    rng: np.random.Generator,
    firing_hz: Points,
    cylinders: int,
    spread: float,
    exhaust: Modes,
    rattle_db: float,
) -> Signal:
    """Return a piston engine as a sound.

    Parameters
    ----------
    rng
        Source of all randomness.
    firing_hz
        Points (s, cylinder firings per s).
    cylinders
        Number of cylinders, at least 1.
    spread
        Unevenness of the firings, 0 to about 0.5.
    exhaust
        Resonances (centre Hz, bandwidth Hz, dB) of exhaust, intake and casing.
    rattle_db
        Peak of the valve and combustion noise that follows each firing, in dB re the exhaust.

    Returns
    -------
    Signal
        Shape (72000,), float64, any scale.

    """
    # The speed of a real engine wanders a little within and between cycles.
    rate_hz = curve(firing_hz) * (1 + 0.01 * drift(rng, 4))
    firings = pulses(rng, rate_hz, cylinders, spread)
    puffs = convolve(firings, strike(0.02, 3e-4, 0.001))
    rattle = convolve(firings, strike(0.03, 5e-4, 0.004))
    hiss = noise(rng, [(150, -20), (1500, 0), (5000, -6), (18_000, -35)])
    return mix((resonate(puffs, exhaust), 0), (hiss * (0.15 + rattle), rattle_db))


def truck(rng: np.random.Generator) -> Signal:
    """Return a sound: a heavy diesel that slows down, then a hiss of its air brake."""
    diesel = engine(
        rng,
        firing_hz=[(0, 62), (1.5, 38)],
        cylinders=6,
        spread=0.2,
        exhaust=[(55, 30, 0), (130, 50, -3), (420, 150, -8), (1300, 500, -14)],
        rattle_db=-10,
    )
    release = curve([(0.95, 0), (0.97, 1), (1.15, 0.5), (1.3, 0)])
    hiss = noise(rng, [(800, -30), (3000, -4), (7000, 0), (18_000, -12)])
    return mix((diesel, 0), (hiss * release, -9))


def blower(rng: np.random.Generator) -> Signal:
    """Return a sound: a two-stroke leaf blower, its fan's whine and its stream of air."""
    motor = engine(
        rng,
        firing_hz=[(0, 92), (0.5, 108), (1.5, 112)],
        cylinders=1,
        spread=0.1,
        exhaust=[(220, 90, 0), (640, 200, 0), (1800, 600, 0)],
        rattle_db=-14,
    )
    fan = harmonics(
        curve([(0, 1380), (0.5, 1620), (1.5, 1680)]) + 6 * drift(rng, 6),
        lambda hz: (1500 / hz) ** 1.5,
    )
    air = noise(rng, [(80, -20), (500, 0), (2500, -3), (16_000, -26)])
    return mix((motor, 0), (fan, -20), (air, -10))


def helicopter(rng: np.random.Generator) -> Signal:
    """Return a sound: slaps of a rotor, swish of its blades, tail rotor and turbine."""
    slap = pulses(rng, np.full(SAMPLES, 17.5), 2, 0.15)
    rotor = resonate(
        convolve(slap, strike(0.04, 0.001, 0.004)),
        [(38, 25, 0), (95, 60, -1), (210, 160, -6), (520, 500, -16)],
    )
    swish = noise(rng, [(60, -10), (300, 0), (1200, -12), (8000, -40)])
    tail = harmonics(np.full(SAMPLES, 88.0), lambda hz: (88 / hz) ** 1.2, 3000)
    turbine = whistle(rng, np.full(SAMPLES, 3150.0), 20)
    return mix(
        (rotor, 0),
        (swish * (0.2 + convolve(slap, strike(0.06, 0.008, 0.015))), -10),
        (tail, -15),
        (turbine, -38),
    )


def electric_drill(rng: np.random.Generator) -> Signal:
    """Return a sound: a drill that starts, bites into masonry, and is let go."""
    speed_hz = curve(
        [(0, 40), (0.2, 430), (0.45, 440), (0.55, 370), (1.15, 360), (1.3, 150), (1.5, 30)]
    )
    brushes: Points = [(40, -40), (400, -4), (1500, -12), (3500, 0), (6000, -10), (14_000, -40)]
    motor = harmonics(speed_hz * (1 + 0.01 * drift(rng, 15)), partial(gain_at, points=brushes))
    bite = curve([(0.45, 0), (0.55, 1), (1.15, 0.8), (1.22, 0)])
    blows = convolve(pulses(rng, speed_hz / 7, 2, 0.3), strike(0.03, 3e-4, 0.005))
    grit = noise(rng, [(200, -15), (1200, -3), (4500, 0), (9000, -10), (20_000, -40)])
    return mix(
        (motor * curve([(0, 0.1), (0.2, 1), (1.15, 1), (1.3, 0.3), (1.5, 0.01)]), -6),
        (grit * bite * (0.2 + blows), -3),
    )


def hammer_drill(
    rng: np.random.Generator,
    blows_hz: Points,
    modes: Modes,
    hiss_db: float,
) -> Signal:
    """Return a sound: a jackhammer or rock drill.

    `blows_hz` are points (s, blows per s), `modes` the bit's (Hz, decay s, dB), and `hiss_db` is
    the peak of the compressed air in dB re the blows.
    """
    blows = pulses(rng, curve(blows_hz) * (1 + 0.03 * drift(rng, 5)), 3, 0.12)
    ringing = convolve(blows, ring(modes))
    thump = resonate(blows, [(65, 40, 0), (160, 90, -4)])
    rubble = noise(rng, [(150, -12), (900, 0), (4000, -6), (16_000, -30)])
    debris = rubble * convolve(blows, strike(0.08, 8e-4, 0.011))
    air = noise(rng, [(300, -25), (2500, -2), (7000, 0), (20_000, -20)]) * (1 + 0.2 * drift(rng, 8))
    return mix((ringing, -3), (thump, -3), (debris, 0), (air, hiss_db))


def air_conditioner(rng: np.random.Generator) -> Signal:
    """Return a sound: mains hum at 60 Hz and its multiples, a fan's blades and its air."""
    mains: Points = [(60, -6), (120, 0), (180, -18), (240, -9), (480, -25), (2000, -60)]
    hum = harmonics(np.full(SAMPLES, 60.0), partial(gain_at, points=mains), 2000)
    blades = whistle(rng, np.full(SAMPLES, 143.0), 1.5)
    air = noise(rng, [(40, -6), (200, 0), (800, -12), (4000, -38), (16_000, -70)])
    return mix((hum, 0), (blades, -12), (air, -14))


def train(rng: np.random.Generator) -> Signal:
    """Return a sound: a train going by, wheels over rail joints, and a flange that squeals."""
    nearness = curve([(0, 0.25), (0.7, 1), (1.5, 0.45)])
    rumble = noise(rng, [(25, -6), (60, 0), (250, -4), (900, -8), (2500, -24), (12_000, -60)])
    joint_modes = [(85, 0.05, 0), (310, 0.025, -4), (1150, 0.015, -10), (2700, 0.01, -20)]
    axles_s = [start_s + gap_s for start_s in (0.08, 0.62, 1.16) for gap_s in (0, 0.09, 0.2, 0.29)]
    joints = place((at_s, ring(joint_modes) * rng.uniform(0.6, 1)) for at_s in axles_s)
    squeal_hz = curve([(0, 3350), (0.7, 3250), (1.5, 3100)])
    squeal = whistle(rng, squeal_hz, 25) * curve([(0.3, 0), (0.6, 1), (0.9, 0.7), (1.1, 0)])
    motor = harmonics(curve([(0, 415), (1.5, 385)]), lambda hz: (400 / hz) ** 2, 4000)
    return mix((rumble, -3), (joints, 0), (squeal, -24), (motor, -22)) * nearness


def brake(rng: np.random.Generator) -> Signal:
    """Return a sound: brakes that squeal as a car stops, over the roll of its tyres."""
    pitch_hz = curve([(0, 2480), (0.9, 2440), (1.3, 2380)]) * (1 + 0.001 * drift(rng, 20))
    squeal = harmonics(pitch_hz, lambda hz: (2450 / hz) ** 2.2, 20_000)
    second = whistle(rng, 1.37 * pitch_hz, 15)
    loudness = curve([(0.1, 0), (0.22, 0.6), (0.5, 1), (1.1, 0.9), (1.3, 0)])
    loudness *= 1 + 0.15 * drift(rng, 12)
    tyres = noise(rng, [(40, -3), (150, 0), (900, -6), (2000, -18), (12_000, -50)])
    return mix(
        (squeal * loudness, 0),
        (second * loudness, -20),
        (tyres * curve([(0, 1), (1.3, 0.02)]), -12),
    )


# ---------------------------------------------------------------- signals and alarms


def siren(rng: np.random.Generator, pitch_hz: Points, decay_s: float) -> Signal:
    """Return a sound: an electronic siren that follows points (s, Hz), echoing for `decay_s` s."""
    speaker: Points = [(300, -10), (900, 0), (1600, -3), (3000, -8), (6000, -28), (14_000, -60)]
    tone = harmonics(curve(pitch_hz), partial(gain_at, points=speaker))
    return reverberate(rng, tone, decay_s, -10)


def horn(rng: np.random.Generator) -> Signal:
    """Return a sound: two honks of a car's two-tone horn, with echoes of the street."""
    response: Points = [(350, -12), (900, -4), (2200, 0), (3200, -4), (6000, -24), (14_000, -60)]
    press = curve(
        [(0.08, 0), (0.1, 1), (0.33, 1), (0.36, 0), (0.55, 0), (0.57, 1), (1.2, 1), (1.24, 0)]
    )
    low, high = (
        harmonics(hz * (0.97 + 0.03 * press), partial(gain_at, points=response))
        for hz in (405, 508)
    )
    return reverberate(rng, mix((low, 0), (high, -1)) * press, 0.12, -14)


def beeper(rng: np.random.Generator) -> Signal:
    """Return a sound: the beeps of a reversing lorry, with faint echoes."""
    tone = harmonics(np.full(SAMPLES, 1245.0), lambda hz: (1245 / hz) ** 2.5)
    on = curve(
        [(0.1, 0), (0.103, 1), (0.55, 1), (0.553, 0), (1.0, 0), (1.003, 1), (1.45, 1), (1.453, 0)]
    )
    return reverberate(rng, tone * on, 0.08, -24)


def bell(_rng: np.random.Generator) -> Signal:
    """Return a sound: one stroke of a large bell, nothing else."""
    # From the hum an octave below the strike note up; (ratio of pitch, decay s, dB).
    partials = [(0.5, 1.6, -8), (1, 1.1, 0), (1.19, 0.9, -3), (1.5, 0.5, -9), (2, 0.6, -2)]
    partials += [(2.51, 0.3, -10), (2.66, 0.28, -12), (3.01, 0.3, -8), (4.17, 0.2, -12)]
    partials += [(5.43, 0.12, -15), (6.8, 0.08, -18), (8.2, 0.05, -20), (11.7, 0.025, -22)]
    # Each partial is a close pair, because no cast bell is perfectly round; they beat.
    pairs = [
        (466 * ratio * split, decay_s, db)
        for ratio, decay_s, db in partials
        for split in (1, 1.004)
    ]
    return place([(0.06, ring(pairs))])


# ---------------------------------------------------------------- impacts


def hammer(rng: np.random.Generator) -> Signal:
    """Return a sound: a hammer on a steel plate, about three blows a second, in a yard."""
    modes = [(740, 0.09, -4), (1730, 0.07, 0), (2890, 0.05, -2)]
    modes += [(4420, 0.035, -5), (6900, 0.02, -9), (10_300, 0.01, -15)]
    click: Points = [(200, -12), (2000, 0), (12_000, -6), (22_000, -30)]

    def blow() -> Signal:
        struck = ring([(hz, decay_s, db + 4 * rng.standard_normal()) for hz, decay_s, db in modes])
        return place([(0, struck), (0, 0.3 * burst(rng, 0.003, click))]) * rng.uniform(0.6, 1)

    return reverberate(rng, place((at_s, blow()) for at_s in regular(rng, 3.1, 0.05)), 0.1, -22)


def footsteps(rng: np.random.Generator) -> Signal:
    """Return a sound: hard shoes on a gritty pavement, heel before toe."""
    grit: Points = [(300, -20), (1500, -4), (4000, 0), (9000, -8), (20_000, -35)]

    def step() -> Signal:
        heel = ring([(95, 0.02, 0), (240, 0.012, -5), (900, 0.004, -8), (2100, 0.003, -10)])
        toe = 0.12 * burst(rng, 0.012, grit, 0.004)
        scrape = 0.25 * burst(rng, 0.002, grit)
        return rng.uniform(0.7, 1) * place([(0, heel), (0, scrape), (0.085, toe)])

    return place((at_s, step()) for at_s in regular(rng, 2.1, 0.02))


def clinks(rng: np.random.Generator) -> Signal:
    """Return a sound: glasses that touch and a bunch of keys that is shaken."""

    def key() -> Signal:
        hz = rng.uniform(3500, 15_000, 5)
        return ring([(f, rng.uniform(0.002, 0.02), -rng.uniform(0, 12)) for f in hz])

    glass = [(2210, 0.11, 0), (4870, 0.08, -5), (8150, 0.05, -9), (12_100, 0.03, -14)]
    other = [(1.09 * hz, decay_s, db) for hz, decay_s, db in glass]
    struck = place([(0.12, ring(glass)), (0.125, 0.7 * ring(other)), (0.33, 0.3 * ring(glass))])
    shaken = curve([(0.65, 0), (0.7, 1), (0.9, 0.2), (1.0, 1), (1.3, 0.3), (1.35, 0)])
    return mix((struck, 0), (scatter(rng, 60, key, 6) * shaken, -6))


def ticking(rng: np.random.Generator) -> Signal:
    """Return a sound: a clock in a quiet room, five ticks a second, high and low in turn."""
    click: Points = [(1000, -20), (4000, 0), (14_000, -12)]
    ticks = []
    for beat, at_s in enumerate(regular(rng, 5, 0.002)):
        scale = 1 if beat % 2 else 0.86
        case = ring(
            [(2050 * scale, 0.006, 0), (3900 * scale, 0.004, -3), (7300 * scale, 0.002, -6)]
        )
        ticks += [(at_s, case), (at_s + 0.011, 0.08 * burst(rng, 0.001, click, 1e-4))]
    return place(ticks)


def single_click(_rng: np.random.Generator) -> Signal:
    """Return a sound: digital silence but for one pulse of 12 samples, up, down and up."""
    # Without DC and without slope, it leaves no tail in the high-pass, so silence stays digital.
    return place([(0.7, np.repeat([1.0, -2.0, 1.0], 4))])


# ---------------------------------------------------------------- weather, water and fire


def rain(rng: np.random.Generator, drops_per_s: float, hiss_db: float) -> Signal:
    """Return a sound: rain of `drops_per_s` near drops over the hiss (dB re drops) of far ones."""

    def drop() -> Signal:
        hz = np.exp(rng.uniform(np.log(1200), np.log(9000)))
        return ring([(hz, 1.5 / hz, 0), (2.3 * hz, 0.8 / hz, -6)])

    hiss = noise(rng, [(100, -22), (800, -10), (4000, 0), (9000, -3), (20_000, -16)])
    return mix((scatter(rng, drops_per_s, drop, 7), 0), (hiss, hiss_db))


def wind(rng: np.random.Generator) -> Signal:
    """Return a sound: gusts that shake a microphone and whistle past an edge."""
    gust = np.exp(0.6 * drift(rng, 1.5)) * curve([(0, 0.5), (0.8, 1.2), (1.5, 0.6)])
    rumble = noise(rng, [(15, 0), (60, -4), (250, -26), (1500, -50), (10_000, -80)])
    whistling = whistle(rng, 380 + 220 * gust, 60)
    leaves = noise(rng, [(500, -20), (3000, 0), (8000, -6), (20_000, -30)])
    return mix((rumble * gust, 0), (whistling * gust**2, -24), (leaves * gust**2, -32))


def stream(rng: np.random.Generator) -> Signal:
    """Return a sound: running water, a swarm of bubbles whose pitch rises as they close."""

    def bubble() -> Signal:
        hz = np.exp(rng.uniform(np.log(350), np.log(3800)))
        decay_s = 9 / hz
        t = seconds(8 * decay_s)
        sweep = 2 * np.pi * hz * t * (1 + rng.uniform(0, 0.6) * t / (8 * decay_s))
        return np.asarray(np.sin(sweep) * np.exp(-t / decay_s))

    wash = noise(rng, [(100, -15), (600, 0), (2000, -8), (8000, -22), (20_000, -40)])
    return mix((scatter(rng, 260, bubble, 6), 0), (wash * (1 + 0.2 * drift(rng, 5)), -12))


def thunder(rng: np.random.Generator) -> Signal:
    """Return a sound: a tearing crack, then claps that roll and fade."""
    crack = noise(rng, [(80, -8), (400, 0), (1500, -8), (6000, -25), (16_000, -50)])
    tear = scatter(rng, 60, lambda: burst(rng, 0.012, [(100, 0), (1500, -8), (12_000, -40)]), 5)
    roll = noise(rng, [(18, -6), (45, 0), (120, -8), (400, -30), (2000, -70)])
    claps = place(
        (at_s, strike(0.9, 0.03, 0.18) * rng.uniform(0.3, 1))
        for at_s in (0.22, 0.4, 0.55, 0.8, 1.05)
    )
    opening = curve([(0.12, 0), (0.14, 1), (0.3, 0.5), (0.5, 0.05), (0.8, 0)])
    return mix((roll * (0.05 + claps), 0), (crack * opening, -8), (tear * opening, -8))


def surf(rng: np.random.Generator) -> Signal:
    """Return a sound: a wave that swells, breaks and runs back over pebbles."""
    swell = noise(rng, [(30, -3), (120, 0), (600, -10), (2500, -35)])
    breaking = noise(rng, [(150, -12), (700, 0), (3000, -6), (16_000, -28)])
    backwash = noise(rng, [(1000, -25), (4000, 0), (10_000, -6), (20_000, -20)])
    return mix(
        (swell * curve([(0, 0.2), (0.6, 1), (1.0, 0.5), (1.5, 0.2)]), -3),
        (breaking * curve([(0.35, 0.02), (0.62, 1), (0.9, 0.5), (1.5, 0.06)]), 0),
        (backwash * curve([(0.8, 0), (1.2, 1), (1.5, 0.7)]) * (1 + 0.3 * drift(rng, 30)), -18),
    )


def fire(rng: np.random.Generator) -> Signal:
    """Return a sound: crackles of very different loudness over a soft roar."""
    snap: Points = [(300, -15), (1500, 0), (6000, -2), (20_000, -14)]
    crackles = scatter(rng, 45, lambda: burst(rng, rng.uniform(3e-4, 0.004), snap, 5e-5), 7)
    roar = noise(rng, [(25, 0), (90, -3), (400, -20), (3000, -45), (16_000, -60)])
    return mix((crackles, 0), (roar * (1 + 0.3 * drift(rng, 6)), -22))


# ---------------------------------------------------------------- voices and animals


def voice(
    rng: np.random.Generator,
    pitch_hz: float,
    tract: float,
    syllables_hz: float,
    effort_db: float = 0,
) -> Signal:
    """Return a voice that babbles syllables without meaning, as a sound.

    Parameters
    ----------
    rng
        Source of the vowels, consonants, intonation and timing.
    pitch_hz
        Mean pitch in Hz, about 80 to 400.
    tract
        Formant frequencies re those of a man, about 0.9 to 1.35.
    syllables_hz
        Syllables per s, about 2 to 6.
    effort_db
        Rise of the spectrum at 3 kHz re 300 Hz in dB: 0 for soft speech, about 14 for a shout.

    Returns
    -------
    Signal
        Shape (72000,), float64, any scale.

    """
    starts_s = regular(rng, syllables_hz, 0.08)
    centres_s = starts_s + 0.5 / syllables_hz
    order = rng.permutation(len(starts_s)) % len(VOWELS_HZ)
    vowels = [VOWELS_HZ[i] + UPPER_FORMANTS_HZ for i in order]
    tracks = [
        (curve(list(zip(centres_s, tract * np.array(hz), strict=True))), bandwidth_hz)
        for hz, bandwidth_hz in zip(zip(*vowels, strict=True), FORMANT_BANDWIDTHS_HZ, strict=True)
    ]
    accents_hz = pitch_hz * (1 + 0.12 * rng.standard_normal(len(starts_s)))
    pitch = curve(list(zip(centres_s, accents_hz, strict=True)))
    pitch *= curve([(0, 1.1), (DURATION_S, 0.88)]) * (1 + 0.008 * drift(rng, 25))
    effort: Points = [(300, 0), (3000, effort_db)]
    voiced = harmonics(pitch, lambda hz: vocal_gain(hz, tracks) * gain_at(hz, effort), 9000)

    length_s = 0.8 / syllables_hz
    hump = np.sin(np.pi * seconds(length_s) / length_s) ** 0.7
    syllables = place((at_s, hump * rng.uniform(0.5, 1)) for at_s in starts_s)
    sibilant: Points = [(1200, -35), (4500 * tract, 0), (8000, -3), (16_000, -25)]

    def consonant() -> Signal:
        # About half of them hiss (s, f), the others pop (p, t, k).
        hisses = rng.integers(2) == 1
        sound = burst(rng, 0.025, sibilant, 0.02) if hisses else burst(rng, 0.004, PINK)
        return rng.uniform(0.2, 1) * sound

    consonants = place((max(0, at_s - 0.03), consonant()) for at_s in starts_s)
    breath = noise(rng, [(300, -10), (2000, 0), (9000, -10), (20_000, -30)])
    return mix((voiced * syllables, 0), (consonants, -16), (breath * syllables, -36))


def babble(rng: np.random.Generator, voices: int) -> Signal:
    """Return a sound: `voices` people who talk at once in a hall."""

    def person() -> Signal:
        return voice(rng, rng.uniform(90, 240), rng.uniform(0.95, 1.25), rng.uniform(3, 5))

    people = [(person(), -rng.uniform(0, 10)) for _ in range(voices)]
    return reverberate(rng, mix(*people), 0.15, -8)


def call(
    rng: np.random.Generator,
    pitch_hz: Points,
    loudness: Points,
    formants: Sequence[tuple[float, float]],
    breath_db: float,
) -> Signal:
    """Return one cry of a child or an animal.

    Parameters
    ----------
    rng
        Source of the trembling and the breath.
    pitch_hz
        Points (s, Hz).
    loudness
        Points (s, amplitude 0 to 1); the call ends at the last of them.
    formants
        Resonances (centre Hz, bandwidth Hz).
    breath_db
        Peak of the breath noise in dB re the tone.

    Returns
    -------
    Signal
        As long as `loudness`, float64, peak about 1.

    """
    duration_s = loudness[-1][0]
    pitch = curve(pitch_hz, duration_s) * (1 + 0.012 * drift(rng, 30, duration_s))
    tone = harmonics(pitch, lambda hz: vocal_gain(hz, formants), 18_000)
    breath = noise(rng, [(400, -20), (formants[0][0], 0), (4000, -8), (18_000, -30)], duration_s)
    return mix((tone, 0), (breath, breath_db)) * curve(loudness, duration_s)


def baby(rng: np.random.Generator) -> Signal:
    """Return a sound: a baby's cry that glides up and down, a gasp, and the next cry."""
    formants = [(1150, 180), (3300, 350), (5600, 600), (8000, 900)]
    cry = call(
        rng,
        [(0, 380), (0.12, 500), (0.5, 530), (0.8, 420)],
        [(0, 0), (0.08, 0.8), (0.35, 1), (0.7, 0.6), (0.82, 0)],
        formants,
        -24,
    )
    gasp = 0.05 * burst(rng, 0.06, [(500, -10), (2500, 0), (12_000, -20)], 0.06)
    again = call(
        rng, [(0, 400), (0.15, 540), (0.4, 520)], [(0, 0), (0.1, 0.9), (0.4, 1)], formants, -22
    )
    return place([(0.05, cry), (0.9, gasp), (1.1, again)])


def dog(rng: np.random.Generator) -> Signal:
    """Return a sound: three barks, with echoes of a courtyard."""
    formants = [(780, 160), (1650, 260), (2900, 450), (4600, 800)]

    def bark() -> Signal:
        high_hz = rng.uniform(560, 680)
        pitch: Points = [(0, 0.5 * high_hz), (0.05, high_hz), (0.16, 0.55 * high_hz)]
        return call(rng, pitch, [(0, 0), (0.02, 1), (0.09, 0.8), (0.18, 0)], formants, -12)

    barks = place((at_s, bark() * rng.uniform(0.7, 1)) for at_s in (0.1, 0.42, 1.02))
    return reverberate(rng, barks, 0.09, -20)


def rooster(rng: np.random.Generator) -> Signal:
    """Return a sound: a crow of four notes, the third the highest, the last long and falling."""
    pitch_hz = [(0, 430), (0.1, 560), (0.2, 600), (0.3, 720)]
    pitch_hz += [(0.42, 860), (0.6, 880), (0.75, 760), (1.2, 520)]
    loudness = [(0, 0), (0.03, 0.6), (0.14, 0.5), (0.17, 0.05), (0.21, 0.8), (0.3, 0.7)]
    loudness += [(0.33, 0.08), (0.38, 1), (0.6, 1), (0.66, 0.2), (0.72, 0.9), (1.0, 0.6), (1.25, 0)]
    formants = [(1050, 200), (2300, 300), (3700, 500), (6000, 900)]
    crow = call(rng, pitch_hz, loudness, formants, -26)
    return place([(0.12, crow)])


def birds(rng: np.random.Generator) -> Signal:
    """Return a sound: whistled chirps, sweeps and a trill between 2.5 and 8 kHz, very clean."""

    def chirp(pitch_hz: Points, duration_s: float) -> Signal:
        tone = harmonics(curve(pitch_hz, duration_s), lambda hz: (2500 / hz) ** 4.5, 20_000)
        return np.asarray(tone * np.sin(np.pi * seconds(duration_s) / duration_s) ** 2)

    events = [
        (0.08, chirp([(0, 3100), (0.08, 4600)], 0.09)),
        (0.2, chirp([(0, 4500), (0.1, 2700)], 0.11)),
        (0.36, chirp([(0, 3000), (0.05, 3900), (0.12, 3300)], 0.14)),
    ]
    trill = [(0, 6800), (0.02, 5200), (0.035, 5900)]
    events += [(0.62 + 0.048 * i, rng.uniform(15, 30) * chirp(trill, 0.038)) for i in range(9)]
    events += [
        (1.15, 60 * chirp([(0, 7600), (0.2, 6900)], 0.24)),
        (1.36, chirp([(0, 2600), (0.1, 4200)], 0.12)),
    ]
    return place(events)


def sneeze(rng: np.random.Generator) -> Signal:
    """Return a sound: a gasp, a short vowel, and the burst of a sneeze."""
    gasp = noise(rng, [(400, -15), (1800, 0), (4000, -8), (14_000, -30)])
    vowel = call(
        rng,
        [(0, 190), (0.12, 260)],
        [(0, 0), (0.03, 0.8), (0.1, 1), (0.13, 0)],
        [(750, 90), (1250, 110), (2600, 150)],
        -20,
    )
    hiss = burst(rng, 0.05, [(300, -14), (1500, -5), (4200, 0), (9000, -6), (20_000, -28)], 0.008)
    tail = call(
        rng,
        [(0, 240), (0.25, 150)],
        [(0, 0.6), (0.1, 0.5), (0.3, 0)],
        [(400, 90), (900, 110), (2300, 150)],
        -16,
    )
    return mix(
        (gasp * curve([(0.1, 0), (0.4, 1), (0.46, 0)]), -22),
        (place([(0.55, vowel)]), -8),
        (place([(0.69, hiss)]), 0),
        (place([(0.78, tail)]), -14),
    )


# ---------------------------------------------------------------- music, mixtures, recordings


def chords(_rng: np.random.Generator) -> Signal:
    """Return a sound: two chords of plucked strings, higher partials decaying sooner."""
    events = []
    strummed = [(0.05, (110, 220, 277.2, 329.6, 440)), (0.78, (146.8, 220, 293.7, 370, 587.3))]
    for start_s, notes_hz in strummed:
        for order, hz in enumerate(notes_hz):
            modes = [
                # Stiff strings are a little sharper than harmonic.
                (hz * k * (1 + 1.5e-4 * k * k) ** 0.5, 0.9 / (1 + 0.25 * k), -4.5 * (k - 1) ** 0.7)
                for k in range(1, int(min(24, 9000 / hz)))
            ]
            events.append((start_s + 0.012 * order, ring(modes)))
    return place(events)


def street(rng: np.random.Generator) -> Signal:
    """Return a sound: a street where cars pass, people talk and walk, and someone honks."""
    car = engine(
        rng,
        firing_hz=[(0, 28), (0.7, 30), (1.5, 66)],
        cylinders=4,
        spread=0.2,
        exhaust=CAR_EXHAUST,
        rattle_db=-16,
    )
    return mix(
        (car, 0),
        (noise(rng, PINK), -8),
        (babble(rng, 3), -6),
        (footsteps(rng), -10),
        (horn(rng), -12),
        (birds(rng), -28),
    )


def band_limited(
    rng: np.random.Generator, source: Sound, response: Points, hiss_db: float
) -> Signal:
    """Return `source` plus pink hiss (dB re its peak), both through a device's points (Hz, dB)."""
    return shape(mix((source(rng), 0), (noise(rng, PINK), hiss_db)), response)


def overloaded(rng: np.random.Generator, source: Sound, drive_db: float) -> Signal:
    """Return `source` driven `drive_db` dB (above 0) into an input stage that clips at -1 and 1."""
    return np.clip(set_peak(source(rng), drive_db), -1, 1)


def tone(_rng: np.random.Generator, hz: float) -> Signal:
    """Return a sound: a sine of `hz` Hz (0 to 24000) at a constant level."""
    return np.asarray(np.sin(2 * np.pi * hz * seconds()))


def white_noise(rng: np.random.Generator) -> Signal:
    """Return a sound: Gaussian noise, equally strong at all frequencies."""
    return rng.standard_normal(SAMPLES)


def silence(_rng: np.random.Generator) -> Signal:
    """Return a sound: zeros."""
    return np.zeros(SAMPLES)


def dither(rng: np.random.Generator) -> Signal:
    """Return a sound: -1, 0 and 1 at random, for a peak of one quantisation step."""
    return rng.integers(-1, 2, SAMPLES).astype(np.float64)


# ---------------------------------------------------------------- the clips


@dataclass(frozen=True)
class Clip:
    """One clip: what it is, how loud it is, and the sound that makes it.

    `peak_dbfs` is the peak of the sound (-90.3 to -3) and `floor_dbfs` the RMS of pink background
    noise added to it, None for none. From `end_s` on there is digital silence.
    """

    name: str
    label: str
    description: str
    peak_dbfs: float
    floor_dbfs: float | None
    sound: Sound
    end_s: float = DURATION_S


CAR_EXHAUST: Modes = [(75, 40, 0), (190, 80, -4), (620, 250, -10), (2400, 900, -14)]
TWIN_EXHAUST: Modes = [(110, 60, 0), (340, 140, 0), (980, 350, -3), (2700, 900, -6)]
SAW_EXHAUST: Modes = [(270, 100, -4), (820, 260, 0), (2300, 600, 4), (5200, 1500, 4)]
CHISEL: Modes = [(1080, 0.009, 0), (2260, 0.007, -2), (3870, 0.005, -5), (6100, 0.003, -9)]
DRILL_STEEL: Modes = [(1640, 0.012, 0), (3310, 0.01, -1), (5720, 0.007, -4), (9400, 0.004, -8)]

IDLING = partial(
    engine,
    firing_hz=[(0, 26), (1.5, 25)],
    cylinders=4,
    spread=0.15,
    exhaust=CAR_EXHAUST,
    rattle_db=-17,
)
ACCELERATING = partial(
    engine,
    firing_hz=[(0, 34), (0.9, 128), (1.0, 90), (1.5, 135)],
    cylinders=4,
    spread=0.15,
    exhaust=CAR_EXHAUST,
    rattle_db=-20,
)
MOTORCYCLE = partial(
    engine,
    firing_hz=[(0, 24), (0.3, 26), (0.6, 78), (0.75, 60), (1.1, 112), (1.5, 70)],
    cylinders=2,
    spread=0.25,
    exhaust=TWIN_EXHAUST,
    rattle_db=-16,
)
CHAINSAW = partial(
    engine,
    firing_hz=[(0, 60), (0.25, 158), (0.6, 165), (0.75, 132), (1.5, 126)],
    cylinders=3,
    spread=0.12,
    exhaust=SAW_EXHAUST,
    rattle_db=-18,
)

WAIL = partial(siren, pitch_hz=[(0, 640), (1.1, 1420), (1.5, 1180)], decay_s=0.15)
YELP = partial(
    siren, pitch_hz=[(0.15 * i, 1450 if i % 2 else 640) for i in range(11)], decay_s=0.06
)
HI_LO = partial(siren, pitch_hz=[(0.499, 585), (0.5, 440), (0.999, 440), (1.0, 585)], decay_s=0.25)

BREAKER = partial(hammer_drill, blows_hz=[(0, 19), (0.3, 22)], modes=CHISEL, hiss_db=-24)
ROCK_DRILL = partial(hammer_drill, blows_hz=[(0, 46), (1.5, 47)], modes=DRILL_STEEL, hiss_db=-18)

LIGHT_RAIN = partial(rain, drops_per_s=70, hiss_db=-26)
HEAVY_RAIN = partial(rain, drops_per_s=700, hiss_db=-8)

LOW_VOICE = partial(voice, pitch_hz=112, tract=1.0, syllables_hz=4.2, effort_db=6)
HIGH_VOICE = partial(voice, pitch_hz=215, tract=1.17, syllables_hz=4.6, effort_db=5)
SHOUT = partial(voice, pitch_hz=330, tract=1.08, syllables_hz=2.2, effort_db=14)

TELEPHONE: Points = [(150, -50), (300, 0), (3400, 0), (4000, -90)]
OLD_RECORDER: Points = [(40, -40), (120, 0), (5000, -2), (7400, -8), (8000, -90)]
BY_TELEPHONE = partial(band_limited, source=HIGH_VOICE, response=TELEPHONE, hiss_db=-40)
OLD_RECORDING = partial(band_limited, source=street, response=OLD_RECORDER, hiss_db=-36)
OVERLOAD = partial(overloaded, source=MOTORCYCLE, drive_db=12)

CLIPS = (
    Clip("engine_idle", "vehicle", "car engine idling, quiet street", -15, -66, IDLING),
    Clip("engine_accelerating", "vehicle", "car engine accelerating", -7, -62, ACCELERATING),
    Clip("truck", "vehicle", "diesel truck slowing down, air brake", -9, -64, truck),
    Clip("motorcycle", "vehicle", "two-cylinder motorcycle revving", -6, -66, MOTORCYCLE),
    Clip("helicopter", "vehicle", "helicopter overhead", -14, -60, helicopter),
    Clip("train", "vehicle", "train passing over joints", -6, -66, train),
    Clip("brake_squeal", "vehicle", "squealing brakes", -13, -70, brake),
    Clip("chainsaw", "machinery", "two-stroke saw, revving, cutting", -14, -66, CHAINSAW),
    Clip("leaf_blower", "machinery", "leaf blower, far off", -27, -64, blower),
    Clip("jackhammer", "machinery", "pneumatic breaker", -10, None, BREAKER),
    Clip("rock_drill", "machinery", "rock drill, far off", -27, -64, ROCK_DRILL),
    Clip("electric_drill", "machinery", "drill starts, bites, stops", -16, -75, electric_drill),
    Clip("air_conditioner", "machinery", "60/120 Hz hum and fan", -33, -80, air_conditioner),
    Clip("siren_wail", "signal", "slow siren with street echoes", -12, -58, WAIL),
    Clip("siren_yelp", "signal", "fast siren, close, clean", -4, -84, YELP),
    Clip("siren_hi_lo", "signal", "two-tone siren, distant", -30, -62, HI_LO),
    Clip("car_horn", "signal", "two-tone car horn, two honks", -5, -66, horn),
    Clip("reversing_beeper", "signal", "reversing beeper, 1.2 kHz", -18, -68, beeper),
    Clip("bell", "signal", "one stroke of a bell, no background", -6, None, bell),
    Clip("hammering", "impact", "hammer on a steel plate, clean", -3, -84, hammer),
    Clip("footsteps", "impact", "steps on a pavement at night", -28, -72, footsteps),
    Clip("clinks", "impact", "glasses and keys", -13, -80, clinks),
    Clip("ticking", "impact", "clock in a quiet room", -36, -84, ticking),
    Clip("rain_light", "nature", "light rain, single drops", -25, None, LIGHT_RAIN),
    Clip("rain_heavy", "nature", "heavy rain", -26, None, HEAVY_RAIN),
    Clip("wind", "nature", "gusts on the microphone", -8, None, wind),
    Clip("stream", "nature", "running water", -24, None, stream),
    Clip("thunder", "nature", "crack and rolling thunder", -5, -70, thunder),
    Clip("surf", "nature", "a wave breaking", -22, None, surf),
    Clip("fire", "nature", "crackling fire", -11, -80, fire),
    Clip("voice_low", "voice", "low voice, close, quiet room", -10, -78, LOW_VOICE),
    Clip("voice_high", "voice", "high voice, noisy street", -16, -55, HIGH_VOICE),
    Clip("shout", "voice", "shouts, clean", -4, -80, SHOUT),
    Clip("babble", "voice", "six people talking in a hall", -20, -66, partial(babble, voices=6)),
    Clip("baby_cry", "voice", "baby crying", -10, -74, baby),
    Clip("sneeze", "voice", "gasp and sneeze", -7, -78, sneeze),
    Clip("dog_bark", "animal", "three barks in a courtyard", -5, -70, dog),
    Clip("birds", "animal", "chirps and a trill, very clean", -12, None, birds),
    Clip("rooster", "animal", "a crow", -14, -74, rooster),
    Clip("chords", "music", "two plucked chords, no background", -9, None, chords),
    Clip("street", "mixture", "engine, talk, steps, horn, birds", -19, None, street),
    Clip("street_quiet", "mixture", "such a street, very quiet", -45, None, street),
    Clip("telephone", "recording", "voice limited to 0.3-4 kHz", -12, None, BY_TELEPHONE),
    Clip("old_recorder", "recording", "street limited to 8 kHz", -12, None, OLD_RECORDING),
    Clip("overloaded", "recording", "motorcycle, clipped", -3, None, OVERLOAD),
    Clip("cut_off", "recording", "shout, then digital silence", -9, None, SHOUT, DURATION_S / 2),
    Clip("single_click", "test", "one click in digital silence", -6, None, single_click),
    Clip("tone", "test", "1 kHz sine", -20, None, partial(tone, hz=1000)),
    Clip("white_noise", "test", "white noise", -40, None, white_noise),
    Clip("dither", "test", "noise of one quantisation step", LSB_DBFS, None, dither),
    Clip("silence", "test", "digital silence", LSB_DBFS, None, silence),
)


# ---------------------------------------------------------------- files


def render(clip: Clip) -> npt.NDArray[np.int16]:
    """Return the samples of a clip, int16 of shape (72000,), peak at most 0.99 of full scale."""
    # A hash that, unlike Python's own, is the same in every process.
    rng = np.random.default_rng(zlib.crc32(clip.name.encode()))
    signal = set_peak(block_dc(clip.sound(rng)), clip.peak_dbfs)
    if clip.floor_dbfs is not None:
        signal += 10 ** (clip.floor_dbfs / 20) * noise(rng, PINK)
    signal[round(clip.end_s * RATE_HZ) :] = 0
    return np.asarray(np.round(np.clip(signal, -0.99, 0.99) * 32768), dtype=np.int16)


def encode(samples: npt.NDArray[np.int16]) -> bytes:
    """Return the FLAC file of int16 samples of shape (n,), 48 kHz mono, as small as FLAC goes."""
    file = io.BytesIO()
    sf.write(file, samples, RATE_HZ, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return file.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: no reader ever sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def synthesise(folder: Path) -> int:
    """Write all clips and the manifest into `folder`; return the size of the clips in bytes."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = ["file\tclass\tseconds\tsample_rate_hz\tsha256\tdescription\n"]
    total_bytes = 0
    for clip in CLIPS:
        content = encode(render(clip))
        file = f"clips/{clip.name}.flac"
        write_whole(folder / file, content)
        digest = hashlib.sha256(content).hexdigest()
        rows.append(
            f"{file}\t{clip.label}\t{DURATION_S}\t{RATE_HZ}\t{digest}\t{clip.description}\n"
        )
        total_bytes += len(content)
    write_whole(folder / "manifest.tsv", "".join(rows).encode())
    return total_bytes


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Synthesise the calibration clips.")
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        type=Path,
        default=Path(__file__).parent,
        help="where to write clips/ and manifest.tsv (default: the folder of this script)",
    )
    folder = parser.parse_args().folder
    total_bytes = synthesise(folder)
    print(f"{folder}: {len(CLIPS)} clips, {total_bytes} bytes")


if __name__ == "__main__":
    main()
