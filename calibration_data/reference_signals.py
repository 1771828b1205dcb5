"""Test signals: a sine, white noise, dither, a click and digital silence."""

import numpy as np
from waveforms import SAMPLES, Signal, place, seconds


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


def single_click(_rng: np.random.Generator) -> Signal:
    """Return a sound: digital silence but for one pulse of 12 samples, up, down and up."""
    # Without DC and without slope, it leaves no tail in the high-pass, so silence stays digital.
    return place([(0.7, np.repeat([1.0, -2.0, 1.0], 4))])
