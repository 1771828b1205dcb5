"""Inputs and targets of a distillation: the student's log-mel and the teacher's embedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from edgel3_tflm.audio.clips import Clip, read_clip
from edgel3_tflm.audio.framing import cut_windows
from edgel3_tflm.audio.log_mel import is_silent, log_mel, log_mel_statistics
from edgel3_tflm.audio.pcm import round_to_int16
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.quantization.tflite import to_float
from edgel3_tflm.converters.training.augment import WindowBatch
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Embedder
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME
from edgel3_tflm.types import FloatArray

_STATISTICS_FLOOR_DB = 3.0


@dataclass(frozen=True)
class TargetBatch:
    """Inputs and targets of n windows.

    Parameters
    ----------
    decibels : numpy.ndarray, shape (n, mels, frames), float32
        The student's log-mel of what the microphone delivers, in dB.
    sound_decibels : numpy.ndarray, shape (n, mels, frames), float32
        The student's log-mel of the sound itself, in dB.
    teacher : numpy.ndarray, shape (n, embedding_size), float32
        The teacher's embedding of the sound.
    statistics : numpy.ndarray, shape (n, 2 * mels), float32
        Mean and standard deviation over time of ``sound_decibels``.
    labels : numpy.ndarray, shape (n, classes + 1), float32
        Shares of the classes; the last is the share of unknown classes.
    """

    decibels: FloatArray
    sound_decibels: FloatArray
    teacher: FloatArray
    statistics: FloatArray
    labels: FloatArray


class TargetSource:
    """Computes inputs and targets of windows of samples.

    Parameters
    ----------
    student : Variant
    teacher : NetworkWeights
    """

    def __init__(self, student: Variant, teacher: NetworkWeights) -> None:
        self._student = student.frontend
        self._teacher = teacher.variant.frontend
        model = to_float(build_network(teacher))
        self._embedder = Embedder(model, teacher.variant, InputMap.of(teacher), DEFAULT_RUNTIME)

    def compute(self, batch: WindowBatch) -> TargetBatch:
        """Compute inputs and targets of windows at the student's sample rate."""
        sound = log_mel(batch.sound, self._student)
        resampled = [
            soxr.resample(window, self._student.sample_rate_hz, self._teacher.sample_rate_hz)
            for window in batch.sound
        ]
        return TargetBatch(
            log_mel(batch.heard, self._student),
            sound,
            self._embedder.embed(np.stack(resampled)),
            log_mel_statistics(sound),
            batch.labels,
        )

    def compute_validation(self, paths: Sequence[Path]) -> TargetBatch:
        """Compute log-mel and teacher's embedding of all windows of clips, without silent windows.

        Raises
        ------
        EdgeL3Error
            If all windows are silent.
        """
        rate_hz, length = self._student.sample_rate_hz, self._student.window_samples
        parts = []
        for path in paths:
            windows = cut_windows(
                Clip(read_clip(path, rate_hz).samples, rate_hz),
                window_samples=length,
                hop_samples=length,
            )
            labels = np.zeros((len(windows), 0), np.float32)
            parts.append(self.compute(WindowBatch(windows, round_to_int16(windows), labels)))
        sound = np.concatenate([part.sound_decibels for part in parts])
        heard = np.concatenate([part.decibels for part in parts])
        is_audible = ~is_silent(sound)
        if not is_audible.any():
            raise EdgeL3Error("expected sound in the validation clips, they are silent")
        teacher = np.concatenate([part.teacher for part in parts])
        unused = np.empty((0, 0), np.float32)
        return TargetBatch(
            heard[is_audible], sound[is_audible], teacher[is_audible], unused, unused
        )


@dataclass(frozen=True)
class Scales:
    """Means and standard deviations that standardize inputs and targets."""

    decibel_mean: float
    decibel_deviation: float
    teacher_mean: FloatArray
    teacher_deviation: float
    statistics_mean: FloatArray
    statistics_deviation: FloatArray

    @classmethod
    def measure(cls, batches: Sequence[TargetBatch]) -> "Scales":
        """Measure the scales of batches.

        Raises
        ------
        EdgeL3Error
            If all windows are silent.
        """
        decibels = np.concatenate([batch.decibels for batch in batches])
        teacher = np.concatenate([batch.teacher for batch in batches])
        statistics = np.concatenate([batch.statistics for batch in batches])
        if is_silent(decibels).all():
            raise EdgeL3Error("expected sound in the training clips, they are silent")
        return cls(
            float(decibels.mean(dtype=np.float64)),
            float(decibels.std(dtype=np.float64)),
            teacher.mean(axis=0),
            float(np.sqrt(teacher.var(axis=0).mean())),
            statistics.mean(axis=0),
            # Otherwise a band that hardly varies would dominate the loss.
            statistics.std(axis=0) + np.float32(_STATISTICS_FLOOR_DB),
        )

    def standardize_teacher(self, embeddings: FloatArray) -> FloatArray:
        """Standardize embeddings of the teacher."""
        return (embeddings - self.teacher_mean) / self.teacher_deviation

    def standardize_statistics(self, statistics: FloatArray) -> FloatArray:
        """Standardize statistics of the log-mel."""
        return (statistics - self.statistics_mean) / self.statistics_deviation

    def restore_teacher(self, standardized: FloatArray) -> FloatArray:
        """Return embeddings in the teacher's own scale; inverse of ``standardize_teacher``."""
        return standardized * self.teacher_deviation + self.teacher_mean
