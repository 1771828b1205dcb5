"""Training windows: cut from clips, augmented, and heard through a simulated microphone.

The number of a batch determines the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from edgel3_tflm.audio.pcm import FULL_SCALE, round_to_int16
from edgel3_tflm.converters.training.recipe import Augmentation, Microphone
from edgel3_tflm.types import FloatArray

_FILTER_KNOTS = 6
_SILENCE = 1e-6


@dataclass(frozen=True)
class TrainingClip:
    """Samples of a clip, shape (n,), and the number of its class; -1 if the class is unknown."""

    samples: FloatArray
    label: int


@dataclass(frozen=True)
class WindowBatch:
    """A batch of n training windows.

    Parameters
    ----------
    sound : numpy.ndarray, shape (n, window_samples), float32
        The augmented windows.
    heard : numpy.ndarray, shape (n, window_samples), float32
        The same windows as the microphone delivers them.
    labels : numpy.ndarray, shape (n, classes + 1), float32
        The label of a mixture is divided between its classes by energy.
    """

    sound: FloatArray
    heard: FloatArray
    labels: FloatArray


class WindowSource:
    """Makes batches of training windows.

    Parameters
    ----------
    clips : sequence of TrainingClip
    window_samples : int
    sample_rate_hz : int
    classes : int
        Number of known classes. Windows of unknown class form one more class.
    augmentation : Augmentation
    microphone : Microphone
    seed : int
    """

    def __init__(
        self,
        clips: Sequence[TrainingClip],
        *,
        window_samples: int,
        sample_rate_hz: int,
        classes: int,
        augmentation: Augmentation,
        microphone: Microphone,
        seed: int,
    ) -> None:
        self._clips = clips
        self._window_samples = window_samples
        self._sample_rate_hz = sample_rate_hz
        self._classes = classes
        self._augmentation = augmentation
        self._microphone = microphone
        self._seed = seed

    def batch(self, number: int, windows: int) -> WindowBatch:
        """Make a batch; the same number gives the same batch, in any order of calls."""
        generator = np.random.default_rng([self._seed, number])
        pairs = [self._window(generator) for _ in range(windows)]
        sound, labels = zip(*pairs, strict=True)
        heard = [self._hear(window, generator) for window in sound]
        return WindowBatch(np.stack(sound), np.stack(heard), np.stack(labels))

    def _window(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        choice = self._augmentation
        window, label = self._cut(generator)
        level = _rms(window)
        if generator.random() < choice.mix_probability:
            other, other_label = self._cut(generator)
            gain = _from_db(generator.uniform(*choice.mix_db)) * level / _rms(other)
            share = 1 / (1 + (gain * _rms(other) / level) ** 2)
            window = window + np.float32(gain) * other
            label = share * label + (1 - share) * other_label
        if generator.random() < choice.filter_probability:
            window = _filter(window, generator, choice.filter_deviation_db)
        if generator.random() < choice.noise_probability:
            noise = generator.standard_normal(len(window))
            window = window + level * _from_db(generator.uniform(*choice.noise_db)) * noise
        if generator.random() < choice.band_probability:
            window = self._limit_band(window, generator.uniform(*choice.band_hz))
        window = window * _from_db(generator.uniform(*choice.gain_db))
        return window.astype(np.float32), label.astype(np.float32)

    def _hear(self, window: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return a window as the microphone delivers it."""
        choice = self._microphone
        heard = window.astype(np.float64)
        if choice.clock_error_percent:
            error = generator.uniform(-1, 1) * choice.clock_error_percent / 100
            heard = soxr.resample(heard, 1.0, 1.0 + error)
            # Where the clock is slow, the window ends early and its end is mirrored.
            heard = np.pad(heard, (0, max(0, len(window) - len(heard))), "reflect")[: len(window)]
        if generator.random() < choice.noise_probability:
            noise = generator.standard_normal(len(heard))
            if generator.random() < 0.5:
                noise = _to_pink(noise)
            heard = heard + _from_db(generator.uniform(*choice.noise_dbfs)) * noise
        if generator.random() < choice.dither_probability:
            heard = heard + generator.triangular(-1, 0, 1, len(heard)) / FULL_SCALE
        return round_to_int16(heard)

    def _limit_band(self, window: FloatArray, highest_hz: float) -> FloatArray:
        spectrum = np.fft.rfft(window)
        kept = 1 + int(highest_hz / self._sample_rate_hz * len(window))
        spectrum[kept:] = 0
        return np.fft.irfft(spectrum, len(window)).astype(np.float32)

    def _cut(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        clip = self._clips[generator.integers(len(self._clips))]
        label = np.zeros(self._classes + 1, np.float32)
        label[clip.label] = 1  # label -1, unknown, is the last position
        spare = len(clip.samples) - self._window_samples
        if spare <= 0:
            return np.pad(clip.samples, (0, -spare)), label
        start = generator.integers(spare + 1)
        return clip.samples[start : start + self._window_samples], label


def _rms(window: npt.NDArray[np.floating[Any]]) -> float:
    return float(np.sqrt(np.mean(np.square(window, dtype=np.float64)))) + _SILENCE


def _from_db(level_db: float) -> float:
    return float(10 ** (level_db / 20))


def _filter(window: FloatArray, generator: np.random.Generator, deviation_db: float) -> FloatArray:
    """Apply a random smooth spectral curve; its knots are evenly spaced in log frequency."""
    spectrum = np.fft.rfft(window)
    axis = np.log2(1 + np.arange(len(spectrum)) / 32)
    knots = np.linspace(0, axis[-1], _FILTER_KNOTS)
    curve_db = np.interp(axis, knots, generator.normal(0, deviation_db, _FILTER_KNOTS))
    return np.fft.irfft(spectrum * 10 ** (curve_db / 20), len(window)).astype(np.float32)


def _to_pink(noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give white noise a power density of 1/f, at the same root mean square."""
    spectrum = np.fft.rfft(noise)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    pink = np.fft.irfft(spectrum, len(noise))
    return pink * (_rms(noise) / _rms(pink))
