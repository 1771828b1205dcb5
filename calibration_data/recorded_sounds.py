"""Sounds as a recorder takes them: a busy street, a limited bandwidth, an overloaded input."""

import numpy as np
from machine_sounds import CAR_EXHAUST, engine, horn
from struck_sounds import footsteps
from vocal_sounds import babble, birds
from waveforms import PINK, Points, Signal, Sound, mix, noise, set_peak, shape


def street(rng: np.random.Generator) -> Signal:
    """Return the sound of a street: a car, people who talk and walk, a horn, and birds."""
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
    """Return `source` with pink noise, as a device with a limited bandwidth records them.

    The peak of the noise is `hiss_db` dB relative to that of the source. Points (Hz, dB) give the
    device's response.
    """
    return shape(mix((source(rng), 0), (noise(rng, PINK), hiss_db)), response)


def overloaded(rng: np.random.Generator, source: Sound, drive_db: float) -> Signal:
    """Return `source`, scaled to a peak of `drive_db` dB (above 0) and clipped at -1 and 1."""
    return np.clip(set_peak(source(rng), drive_db), -1, 1)
