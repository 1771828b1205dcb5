"""Training windows: cut from clips and augmented; the number of a batch determines the batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.pcm import FULL_SCALE
from edgel3_tflm.converters.training.recipe import Augmentation
from edgel3_tflm.types import FloatArray

_FILTER_KNOTS = 6
_SILENCE = 1e-6


@dataclass(frozen=True)
class TrainingClip:
    """Samples of a clip, shape (n,), and the number of its class; -1 if the class is unknown."""

    samples: FloatArray
    label: int


class WindowSource:
    """Makes batches of training windows.

    Parameters
    ----------
    clips : sequence of TrainingClip
    window_samples : int
    classes : int
        Number of known classes. Windows of unknown class form one more class.
    augmentation : Augmentation
    seed : int
    """

    def __init__(
        self,
        clips: Sequence[TrainingClip],
        *,
        window_samples: int,
        classes: int,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._clips = clips
        self._window_samples = window_samples
        self._classes = classes
        self._augmentation = augmentation
        self._seed = seed

    def batch(self, number: int, windows: int) -> tuple[FloatArray, FloatArray]:
        """Make a batch; the same number gives the same batch, in any order of calls.

        Returns
        -------
        windows, labels : numpy.ndarray
            Shapes (windows, window_samples) and (windows, classes + 1), float32. The label of a
            mixture is divided between its classes by energy.
        """
        generator = np.random.default_rng([self._seed, number])
        pairs = [self._window(generator) for _ in range(windows)]
        samples, labels = zip(*pairs, strict=True)
        return np.stack(samples), np.stack(labels)

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
        # Rounding to 16 bits affects a quiet recording more than a loud one.
        window = window * _from_db(generator.uniform(*choice.gain_db))
        window = np.round(window * FULL_SCALE) / FULL_SCALE
        return window.astype(np.float32), label.astype(np.float32)

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
