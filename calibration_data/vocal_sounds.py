"""Sounds of voices: people who speak, cry and sneeze, and animals."""

from collections.abc import Sequence

import numpy as np
from waveforms import (
    DURATION_S,
    PINK,
    Points,
    Signal,
    burst,
    curve,
    drift,
    gain_at,
    harmonics,
    mix,
    noise,
    place,
    regular,
    reverberate,
    seconds,
)

# The first three formants of each vowel (Hz, mean over speakers). All vowels share the upper two.
VOWELS_HZ = [
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
]
UPPER_FORMANTS_HZ = (3500, 4500)
FORMANT_BANDWIDTHS_HZ = (80, 100, 130, 200, 300)


def vocal_gain(hz: Signal, formants: Sequence[tuple[Signal | float, float]]) -> Signal:
    """Return the amplitude of a glottal source at each frequency of `hz`, after the formants.

    Each formant is (centre Hz, bandwidth Hz). `hz` may have any shape, and the result has the same
    shape. A centre is a number, or an array of the shape of `hz`.
    """
    # The glottal spectrum falls by 12 dB per octave, and radiation from the mouth adds 6 dB.
    gain = 100 / hz
    for centre_hz, bandwidth_hz in formants:
        ratio = hz / centre_hz
        gain = gain / np.sqrt((1 - ratio**2) ** 2 + (ratio * bandwidth_hz / centre_hz) ** 2)
    return gain


def voice(
    rng: np.random.Generator,
    pitch_hz: float,
    tract: float,
    syllables_hz: float,
    effort_db: float = 0,
) -> Signal:
    """Return the sound of a voice that speaks syllables without meaning.

    Parameters
    ----------
    rng
        Random generator of the vowels, consonants, intonation and timing.
    pitch_hz
        Mean pitch in Hz, about 80 to 400.
    tract
        Formant frequencies relative to those of a man, about 0.9 to 1.35.
    syllables_hz
        Syllables per s, about 2 to 6.
    effort_db
        Gain at 3 kHz relative to 300 Hz, in dB: 0 for soft speech, about 14 for a shout.

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
        # About half of the consonants hiss (s, f). The others pop (p, t, k).
        hisses = rng.integers(2) == 1
        sound = burst(rng, 0.025, sibilant, 0.02) if hisses else burst(rng, 0.004, PINK)
        return rng.uniform(0.2, 1) * sound

    consonants = place((max(0, at_s - 0.03), consonant()) for at_s in starts_s)
    breath = noise(rng, [(300, -10), (2000, 0), (9000, -10), (20_000, -30)])
    return mix((voiced * syllables, 0), (consonants, -16), (breath * syllables, -36))


def babble(rng: np.random.Generator, voices: int) -> Signal:
    """Return the sound of `voices` people who talk at once in a hall."""

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
        Random generator of the tremble and of the breath.
    pitch_hz
        Points (s, Hz).
    loudness
        Points (s, amplitude 0 to 1). The call ends at the last point.
    formants
        Resonances (centre Hz, bandwidth Hz).
    breath_db
        Peak of the breath noise, in dB relative to the tone.

    Returns
    -------
    Signal
        Shape (n,), float64, as long as `loudness`, peak about 1.

    """
    duration_s = loudness[-1][0]
    pitch = curve(pitch_hz, duration_s) * (1 + 0.012 * drift(rng, 30, duration_s))
    tone = harmonics(pitch, lambda hz: vocal_gain(hz, formants), 18_000)
    breath = noise(rng, [(400, -20), (formants[0][0], 0), (4000, -8), (18_000, -30)], duration_s)
    return mix((tone, 0), (breath, breath_db)) * curve(loudness, duration_s)


def baby(rng: np.random.Generator) -> Signal:
    """Return the sound of a baby: a cry that glides up and down, a gasp, and the next cry."""
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
    """Return the sound of a dog: three barks, with echoes from a courtyard."""
    formants = [(780, 160), (1650, 260), (2900, 450), (4600, 800)]

    def bark() -> Signal:
        high_hz = rng.uniform(560, 680)
        pitch: Points = [(0, 0.5 * high_hz), (0.05, high_hz), (0.16, 0.55 * high_hz)]
        return call(rng, pitch, [(0, 0), (0.02, 1), (0.09, 0.8), (0.18, 0)], formants, -12)

    barks = place((at_s, bark() * rng.uniform(0.7, 1)) for at_s in (0.1, 0.42, 1.02))
    return reverberate(rng, barks, 0.09, -20)


def rooster(rng: np.random.Generator) -> Signal:
    """Return the sound of a rooster: a crow of four notes.

    The third note is the highest. The last is long and falls in pitch.
    """
    pitch_hz = [(0, 430), (0.1, 560), (0.2, 600), (0.3, 720)]
    pitch_hz += [(0.42, 860), (0.6, 880), (0.75, 760), (1.2, 520)]
    loudness = [(0, 0), (0.03, 0.6), (0.14, 0.5), (0.17, 0.05), (0.21, 0.8), (0.3, 0.7)]
    loudness += [(0.33, 0.08), (0.38, 1), (0.6, 1), (0.66, 0.2), (0.72, 0.9), (1.0, 0.6), (1.25, 0)]
    formants = [(1050, 200), (2300, 300), (3700, 500), (6000, 900)]
    crow = call(rng, pitch_hz, loudness, formants, -26)
    return place([(0.12, crow)])


def birds(rng: np.random.Generator) -> Signal:
    """Return the sound of birds without noise: chirps, sweeps and a trill from 2.5 to 8 kHz."""

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
    """Return the sound of a sneeze: a gasp, a short vowel and a burst of noise."""
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
