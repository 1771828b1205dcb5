"""Sounds of struck and plucked objects: a bell, a hammer, steps, glasses, a clock, strings."""

import numpy as np
from waveforms import Points, Signal, burst, curve, mix, place, regular, reverberate, ring, scatter


def bell(_rng: np.random.Generator) -> Signal:
    """Return the sound of one stroke of a large bell."""
    # Partials: (frequency relative to the strike note, decay s, dB). The lowest is the hum, an
    # octave below the strike note.
    partials = [(0.5, 1.6, -8), (1, 1.1, 0), (1.19, 0.9, -3), (1.5, 0.5, -9), (2, 0.6, -2)]
    partials += [(2.51, 0.3, -10), (2.66, 0.28, -12), (3.01, 0.3, -8), (4.17, 0.2, -12)]
    partials += [(5.43, 0.12, -15), (6.8, 0.08, -18), (8.2, 0.05, -20), (11.7, 0.025, -22)]
    # Each partial is a pair of close frequencies that beat, since no cast bell is perfectly round.
    pairs = [
        (466 * ratio * split, decay_s, db)
        for ratio, decay_s, db in partials
        for split in (1, 1.004)
    ]
    return place([(0.06, ring(pairs))])


def hammer(rng: np.random.Generator) -> Signal:
    """Return the sound of a hammer on a steel plate in a yard, about three blows a second."""
    modes = [(740, 0.09, -4), (1730, 0.07, 0), (2890, 0.05, -2)]
    modes += [(4420, 0.035, -5), (6900, 0.02, -9), (10_300, 0.01, -15)]
    click: Points = [(200, -12), (2000, 0), (12_000, -6), (22_000, -30)]

    def blow() -> Signal:
        struck = ring([(hz, decay_s, db + 4 * rng.standard_normal()) for hz, decay_s, db in modes])
        return place([(0, struck), (0, 0.3 * burst(rng, 0.003, click))]) * rng.uniform(0.6, 1)

    return reverberate(rng, place((at_s, blow()) for at_s in regular(rng, 3.1, 0.05)), 0.1, -22)


def footsteps(rng: np.random.Generator) -> Signal:
    """Return the sound of hard shoes on a gritty pavement: for each step the heel, then the toe."""
    grit: Points = [(300, -20), (1500, -4), (4000, 0), (9000, -8), (20_000, -35)]

    def step() -> Signal:
        heel = ring([(95, 0.02, 0), (240, 0.012, -5), (900, 0.004, -8), (2100, 0.003, -10)])
        toe = 0.12 * burst(rng, 0.012, grit, 0.004)
        scrape = 0.25 * burst(rng, 0.002, grit)
        return rng.uniform(0.7, 1) * place([(0, heel), (0, scrape), (0.085, toe)])

    return place((at_s, step()) for at_s in regular(rng, 2.1, 0.02))


def clinks(rng: np.random.Generator) -> Signal:
    """Return the sound of glasses that touch, then of a bunch of keys that someone shakes."""

    def key() -> Signal:
        hz = rng.uniform(3500, 15_000, 5)
        return ring([(f, rng.uniform(0.002, 0.02), -rng.uniform(0, 12)) for f in hz])

    glass = [(2210, 0.11, 0), (4870, 0.08, -5), (8150, 0.05, -9), (12_100, 0.03, -14)]
    other = [(1.09 * hz, decay_s, db) for hz, decay_s, db in glass]
    struck = place([(0.12, ring(glass)), (0.125, 0.7 * ring(other)), (0.33, 0.3 * ring(glass))])
    shaken = curve([(0.65, 0), (0.7, 1), (0.9, 0.2), (1.0, 1), (1.3, 0.3), (1.35, 0)])
    return mix((struck, 0), (scatter(rng, 60, key, 6) * shaken, -6))


def ticking(rng: np.random.Generator) -> Signal:
    """Return the sound of a clock: five ticks a second, alternately high and low."""
    click: Points = [(1000, -20), (4000, 0), (14_000, -12)]
    ticks = []
    for beat, at_s in enumerate(regular(rng, 5, 0.002)):
        scale = 1 if beat % 2 else 0.86
        case = ring(
            [(2050 * scale, 0.006, 0), (3900 * scale, 0.004, -3), (7300 * scale, 0.002, -6)]
        )
        ticks += [(at_s, case), (at_s + 0.011, 0.08 * burst(rng, 0.001, click, 1e-4))]
    return place(ticks)


def chords(_rng: np.random.Generator) -> Signal:
    """Return the sound of two chords of plucked strings. Higher partials decay faster."""
    events = []
    strummed = [(0.05, (110, 220, 277.2, 329.6, 440)), (0.78, (146.8, 220, 293.7, 370, 587.3))]
    for start_s, notes_hz in strummed:
        for order, hz in enumerate(notes_hz):
            modes = [
                # The partials of a stiff string lie a little above the harmonics.
                (hz * k * (1 + 1.5e-4 * k * k) ** 0.5, 0.9 / (1 + 0.25 * k), -4.5 * (k - 1) ** 0.7)
                for k in range(1, int(min(24, 9000 / hz)))
            ]
            events.append((start_s + 0.012 * order, ring(modes)))
    return place(events)
