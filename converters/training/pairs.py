"""Draw training pairs: a video frame and a sound, which belong together or do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.converters.training.recipe import FinetuneRecipe
from edgel3_tflm.converters.training.videos import (
    OnDamaged,
    Pixels,
    Video,
    read_frame,
    read_sound,
)
from edgel3_tflm.errors import EdgeL3Error, VideoError
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.types import FloatArray

# Frames are scaled before they are cropped, as in L3: 256 pixels for a crop of 224.
_SCALE = 8 / 7
_MAX_DRAWS = 100


@dataclass(frozen=True)
class Pairs:
    """Frames, each with one second of sound.

    Parameters
    ----------
    frames : numpy.ndarray, shape (n, pixels, pixels, 3), uint8
        Channels red, green and blue.
    windows : numpy.ndarray, shape (n, samples), float32
    matching : numpy.ndarray, shape (n,), bool
        Whether sound and frame belong together.
    """

    frames: Pixels
    windows: FloatArray
    matching: npt.NDArray[np.bool_]


class PairSource:
    """Draws pairs: on average half with the frame's own sound, half with another video's sound.

    Parameters
    ----------
    videos : sequence of Video
        At least two.
    sample_rate_hz, frame_pixels : int
    varied : bool
        True: frames are cropped at random positions, and half of them are flipped. False: they are
        cropped in the middle.
    on_damaged : callable, optional
        Called with the error if a video cannot be decoded; then another pair is drawn. Several
        threads may call it at once. If None, the error is raised.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        *,
        sample_rate_hz: int,
        frame_pixels: int,
        varied: bool,
        on_damaged: OnDamaged | None = None,
    ) -> None:
        self._videos = videos
        self._on_damaged = on_damaged
        self._sample_rate_hz = sample_rate_hz
        self._frame_pixels = frame_pixels
        self._varied = varied

    def batch(self, seed: int, number: int, pairs: int) -> Pairs:
        """Return a batch of pairs. The same arguments give the same batch, in any order of calls.

        Raises
        ------
        VideoError
            If a video cannot be decoded and ``on_damaged`` is None, or if many draws in a row fail.
        """
        generator = np.random.default_rng([seed, number])
        frames, windows, matching = zip(
            *(self._whole_pair(generator) for _ in range(pairs)), strict=True
        )
        return Pairs(np.stack(frames), np.stack(windows), np.array(matching))

    def _whole_pair(self, generator: np.random.Generator) -> tuple[Pixels, FloatArray, bool]:
        """Draw pairs until one can be decoded."""
        for left in reversed(range(_MAX_DRAWS)):
            try:
                return self._pair(generator)
            except VideoError as error:
                if self._on_damaged is None or not left:
                    raise
                self._on_damaged(error)
        raise AssertionError  # the last draw returned or raised

    def _pair(self, generator: np.random.Generator) -> tuple[Pixels, FloatArray, bool]:
        seen = int(generator.integers(len(self._videos)))
        other = (seen + int(generator.integers(1, len(self._videos)))) % len(self._videos)
        is_match = bool(generator.random() < 0.5)
        # Both times are always drawn, so that a match uses as many random numbers as a mismatch.
        times_s = [self._time_s(self._videos[each], generator) for each in (seen, other)]
        frame = self._crop(
            read_frame(self._videos[seen], times_s[0], round(self._frame_pixels * _SCALE)),
            generator,
        )
        heard, time_s = (seen, times_s[0]) if is_match else (other, times_s[1])
        return frame, read_sound(self._videos[heard], time_s, self._sample_rate_hz), is_match

    @staticmethod
    def _time_s(video: Video, generator: np.random.Generator) -> float:
        return float(generator.uniform(video.start_s + 0.5, video.end_s - 0.5))

    def _crop(self, frame: Pixels, generator: np.random.Generator) -> Pixels:
        spare = [side - self._frame_pixels for side in frame.shape[:2]]
        top, left = (side // 2 for side in spare)
        if self._varied:
            top, left = (int(generator.integers(side + 1)) for side in spare)
            if generator.random() < 0.5:
                frame = frame[:, ::-1]
        return frame[top : top + self._frame_pixels, left : left + self._frame_pixels]


@dataclass(frozen=True)
class PairBatch:
    """Inputs and labels of n pairs.

    Parameters
    ----------
    frames : numpy.ndarray, shape (n, pixels, pixels, 3), uint8
    log_mel : numpy.ndarray, shape (n, mels, spectrogram frames, 1), float32
        After the input BatchNorm.
    labels : numpy.ndarray, shape (n,), int64
        1 if frame and sound match, else 0.
    """

    frames: Pixels
    log_mel: FloatArray
    labels: npt.NDArray[np.int64]


class PairBatches:
    """Makes batches of pairs for training and for validation.

    Parameters
    ----------
    recipe : FinetuneRecipe
    weights : NetworkWeights
        Weights of the audio network. Its input BatchNorm is applied to the spectrograms.
    training, validation : sequence of Video
    on_damaged : callable, optional
        As for :class:`PairSource`.

    Raises
    ------
    EdgeL3Error
        If a set contains fewer than two videos.
    """

    def __init__(
        self,
        recipe: FinetuneRecipe,
        weights: NetworkWeights,
        training: Sequence[Video],
        validation: Sequence[Video],
        on_damaged: OnDamaged | None,
    ) -> None:
        self._spec = weights.variant.frontend
        self._input_map = InputMap.of(weights)
        for videos, use in ((training, "training"), (validation, "validation")):
            if len(videos) < 2:
                raise EdgeL3Error(
                    "expected at least two videos in the training set and in the validation set,"
                    " because a pair that does not match has the sound of another video; the"
                    f" {use} set has {len(videos)} of the {len(training) + len(validation)} videos;"
                    " give more videos, or change validation.share"
                )
        choice: dict[str, Any] = {
            "sample_rate_hz": self._spec.sample_rate_hz,
            "frame_pixels": recipe.video.frame_pixels,
            "on_damaged": on_damaged,
        }
        self._training = PairSource(training, varied=True, **choice)
        self._validation = PairSource(validation, varied=False, **choice)
        self._validation_pairs = recipe.validation.pairs

    def training(self, seed: int, number: int, pairs: int) -> PairBatch:
        """Return a batch of the training set. The same arguments give the same batch."""
        return self._prepare(self._training.batch(seed, number, pairs))

    def validation(self, seed: int) -> PairBatch:
        """Return all validation pairs as one batch. The same seed gives the same pairs."""
        return self._prepare(self._validation.batch(seed, 0, self._validation_pairs))

    def _prepare(self, pairs: Pairs) -> PairBatch:
        decibels = log_mel(pairs.windows, self._spec)
        return PairBatch(
            pairs.frames, self._input_map.normalise(decibels), pairs.matching.astype(np.int64)
        )
