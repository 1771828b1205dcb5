"""Sounds of machines: engines, tools, vehicles, and their sirens, horns and beepers."""

from functools import partial

import numpy as np
from waveforms import (
    SAMPLES,
    Modes,
    Points,
    Signal,
    convolve,
    curve,
    drift,
    gain_at,
    harmonics,
    mix,
    noise,
    place,
    pulses,
    resonate,
    reverberate,
    ring,
    strike,
    whistle,
)

CAR_EXHAUST: Modes = [(75, 40, 0), (190, 80, -4), (620, 250, -10), (2400, 900, -14)]


def engine(
    rng: np.random.Generator,
    firing_hz: Points,
    cylinders: int,
    spread: float,
    exhaust: Modes,
    rattle_db: float,
) -> Signal:
    """Return the sound of a piston engine.

    Parameters
    ----------
    rng
        Random generator of everything that varies.
    firing_hz
        Points (s, firings of all cylinders per s).
    cylinders
        Number of cylinders, at least 1.
    spread
        Relative difference between firings, 0 to about 0.5.
    exhaust
        Resonances (centre Hz, bandwidth Hz, dB) of the exhaust, the intake and the casing.
    rattle_db
        Peak of the noise of valves and combustion after each firing, in dB relative to the
        exhaust.

    Returns
    -------
    Signal
        Shape (72000,), float64, any scale.

    """
    # The speed of a real engine varies a little, within a cycle and between cycles.
    rate_hz = curve(firing_hz) * (1 + 0.01 * drift(rng, 4))
    firings = pulses(rng, rate_hz, cylinders, spread)
    puffs = convolve(firings, strike(0.02, 3e-4, 0.001))
    rattle = convolve(firings, strike(0.03, 5e-4, 0.004))
    hiss = noise(rng, [(150, -20), (1500, 0), (5000, -6), (18_000, -35)])
    return mix((resonate(puffs, exhaust), 0), (hiss * (0.15 + rattle), rattle_db))


def truck(rng: np.random.Generator) -> Signal:
    """Return the sound of a heavy diesel truck that slows down and then vents its air brake."""
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
    """Return the sound of a two-stroke leaf blower: its motor, its fan and its stream of air."""
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
    """Return the sound of a helicopter: main rotor, swish of the blades, tail rotor, turbine."""
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
    """Return the sound of a drill that starts, drills into masonry and stops."""
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
    """Return the sound of a jackhammer or a rock drill.

    Parameters
    ----------
    rng
        Random generator of the blows, the debris and the air.
    blows_hz
        Points (s, blows per s).
    modes
        Resonances (Hz, decay s, dB) of the bit.
    hiss_db
        Peak of the compressed air, in dB relative to the debris.

    Returns
    -------
    Signal
        Shape (72000,), float64, any scale.

    """
    blows = pulses(rng, curve(blows_hz) * (1 + 0.03 * drift(rng, 5)), 3, 0.12)
    ringing = convolve(blows, ring(modes))
    thump = resonate(blows, [(65, 40, 0), (160, 90, -4)])
    rubble = noise(rng, [(150, -12), (900, 0), (4000, -6), (16_000, -30)])
    debris = rubble * convolve(blows, strike(0.08, 8e-4, 0.011))
    air = noise(rng, [(300, -25), (2500, -2), (7000, 0), (20_000, -20)]) * (1 + 0.2 * drift(rng, 8))
    return mix((ringing, -3), (thump, -3), (debris, 0), (air, hiss_db))


def air_conditioner(rng: np.random.Generator) -> Signal:
    """Return the sound of an air conditioner: hum at multiples of 60 Hz, fan blades, and air."""
    mains: Points = [(60, -6), (120, 0), (180, -18), (240, -9), (480, -25), (2000, -60)]
    hum = harmonics(np.full(SAMPLES, 60.0), partial(gain_at, points=mains), 2000)
    blades = whistle(rng, np.full(SAMPLES, 143.0), 1.5)
    air = noise(rng, [(40, -6), (200, 0), (800, -12), (4000, -38), (16_000, -70)])
    return mix((hum, 0), (blades, -12), (air, -14))


def train(rng: np.random.Generator) -> Signal:
    """Return the sound of a train that passes: motor, rail joints and a flange that squeals."""
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
    """Return the sound of a car that stops: squealing brakes and rolling tyres."""
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


def siren(rng: np.random.Generator, pitch_hz: Points, decay_s: float) -> Signal:
    """Return the sound of an electronic siren, with echoes.

    The pitch follows points (s, Hz). The echoes fade by 8.7 dB every `decay_s` s.
    """
    speaker: Points = [(300, -10), (900, 0), (1600, -3), (3000, -8), (6000, -28), (14_000, -60)]
    tone = harmonics(curve(pitch_hz), partial(gain_at, points=speaker))
    return reverberate(rng, tone, decay_s, -10)


def horn(rng: np.random.Generator) -> Signal:
    """Return the sound of a two-tone car horn: two honks, with echoes from the street."""
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
    """Return the sound of a truck's reversing beeper, with faint echoes."""
    tone = harmonics(np.full(SAMPLES, 1245.0), lambda hz: (1245 / hz) ** 2.5)
    on = curve(
        [(0.1, 0), (0.103, 1), (0.55, 1), (0.553, 0), (1.0, 0), (1.003, 1), (1.45, 1), (1.453, 0)]
    )
    return reverberate(rng, tone * on, 0.08, -24)
