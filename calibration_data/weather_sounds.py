"""Sounds of weather, water and fire."""

import numpy as np
from waveforms import (
    Points,
    Signal,
    burst,
    curve,
    drift,
    mix,
    noise,
    place,
    ring,
    scatter,
    seconds,
    strike,
    whistle,
)


def rain(rng: np.random.Generator, drops_per_s: float, hiss_db: float) -> Signal:
    """Return the sound of rain.

    About `drops_per_s` drops a second fall close by. Drops further away make a hiss, whose peak is
    `hiss_db` dB relative to the drops close by.
    """

    def drop() -> Signal:
        hz = np.exp(rng.uniform(np.log(1200), np.log(9000)))
        return ring([(hz, 1.5 / hz, 0), (2.3 * hz, 0.8 / hz, -6)])

    hiss = noise(rng, [(100, -22), (800, -10), (4000, 0), (9000, -3), (20_000, -16)])
    return mix((scatter(rng, drops_per_s, drop, 7), 0), (hiss, hiss_db))


def wind(rng: np.random.Generator) -> Signal:
    """Return the sound of gusts that shake a microphone and whistle past an edge."""
    gust = np.exp(0.6 * drift(rng, 1.5)) * curve([(0, 0.5), (0.8, 1.2), (1.5, 0.6)])
    rumble = noise(rng, [(15, 0), (60, -4), (250, -26), (1500, -50), (10_000, -80)])
    whistling = whistle(rng, 380 + 220 * gust, 60)
    leaves = noise(rng, [(500, -20), (3000, 0), (8000, -6), (20_000, -30)])
    return mix((rumble * gust, 0), (whistling * gust**2, -24), (leaves * gust**2, -32))


def stream(rng: np.random.Generator) -> Signal:
    """Return the sound of running water: many bubbles whose pitch rises as they close."""

    def bubble() -> Signal:
        hz = np.exp(rng.uniform(np.log(350), np.log(3800)))
        decay_s = 9 / hz
        t = seconds(8 * decay_s)
        sweep = 2 * np.pi * hz * t * (1 + rng.uniform(0, 0.6) * t / (8 * decay_s))
        return np.asarray(np.sin(sweep) * np.exp(-t / decay_s))

    wash = noise(rng, [(100, -15), (600, 0), (2000, -8), (8000, -22), (20_000, -40)])
    return mix((scatter(rng, 260, bubble, 6), 0), (wash * (1 + 0.2 * drift(rng, 5)), -12))


def thunder(rng: np.random.Generator) -> Signal:
    """Return the sound of thunder: a crack, then claps that roll and fade."""
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
    """Return the sound of a wave that swells, breaks and runs back over pebbles."""
    swell = noise(rng, [(30, -3), (120, 0), (600, -10), (2500, -35)])
    breaking = noise(rng, [(150, -12), (700, 0), (3000, -6), (16_000, -28)])
    backwash = noise(rng, [(1000, -25), (4000, 0), (10_000, -6), (20_000, -20)])
    return mix(
        (swell * curve([(0, 0.2), (0.6, 1), (1.0, 0.5), (1.5, 0.2)]), -3),
        (breaking * curve([(0.35, 0.02), (0.62, 1), (0.9, 0.5), (1.5, 0.06)]), 0),
        (backwash * curve([(0.8, 0), (1.2, 1), (1.5, 0.7)]) * (1 + 0.3 * drift(rng, 30)), -18),
    )


def fire(rng: np.random.Generator) -> Signal:
    """Return the sound of a fire: crackles of very different loudness and a soft roar."""
    snap: Points = [(300, -15), (1500, 0), (6000, -2), (20_000, -14)]
    crackles = scatter(rng, 45, lambda: burst(rng, rng.uniform(3e-4, 0.004), snap, 5e-5), 7)
    roar = noise(rng, [(25, 0), (90, -3), (400, -20), (3000, -45), (16_000, -60)])
    return mix((crackles, 0), (roar * (1 + 0.3 * drift(rng, 6)), -22))
