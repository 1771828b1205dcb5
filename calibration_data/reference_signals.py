"""Test signals: a sine, white noise, dither, a click and digital silence."""

import numpy as np
from waveforms import SAMPLES, Signal, place, seconds


def tone(_rng: np.random.Generator, hz: float) -> Signal:
    """Return a sine of `hz` Hz (0 to 24000), at a constant level."""
    return np.asarray(np.sin(2 * np.pi * hz * seconds()))


def white_noise(rng: np.random.Generator) -> Signal:
    """Return white Gaussian noise."""
    return rng.standard_normal(SAMPLES)


def silence(_rng: np.random.Generator) -> Signal:
    """Return zeros."""
    return np.zeros(SAMPLES)


def dither(rng: np.random.Generator) -> Signal:
    """Return -1, 0 and 1 at random. The clip scales their peak to one step of its 16 bits."""
    return rng.integers(-1, 2, SAMPLES).astype(np.float64)


def single_click(_rng: np.random.Generator) -> Signal:
    """Return zeros with one pulse of 12 samples: up, down and up."""
    # The sum and the first moment of the pulse are 0. The high-pass that `render` applies therefore
    # leaves no tail after it, and the rest of the clip stays digital silence.
    return place([(0.7, np.repeat([1.0, -2.0, 1.0], 4))])
