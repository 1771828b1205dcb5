"""Augmentation: batches of training windows."""

from dataclasses import replace

import numpy as np
import pytest

from edgel3_tflm.converters.training.augment import TrainingClip, WindowSource
from edgel3_tflm.converters.training.recipe import (
    Augmentation,
)


class TestAugmentation:
    @staticmethod
    def source(augmentation: Augmentation, *clips: TrainingClip) -> WindowSource:
        return WindowSource(clips, window_samples=800, classes=2, augmentation=augmentation, seed=5)

    NOTHING = Augmentation(
        gain_db=(0, 0), mix_probability=0, filter_probability=0, noise_probability=0
    )

    def clip(self, label: int, samples: int = 2000) -> TrainingClip:
        noise = np.random.default_rng(label + 1).normal(0, 0.1, samples)
        return TrainingClip((np.round(noise * 32768) / 32768).astype(np.float32), label)

    def test_a_batch_is_determined_by_its_number(self) -> None:
        source = self.source(Augmentation(), self.clip(0), self.clip(1), self.clip(-1))
        first, again, other = (source.batch(number, 6) for number in (3, 3, 4))
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
        assert (first[0] != other[0]).any()

    def test_without_augmentation_windows_are_cut_from_clips(self) -> None:
        clip = self.clip(1)
        windows, labels = self.source(self.NOTHING, clip).batch(0, 20)
        starts = {
            start
            for window in windows
            for start in range(1201)
            if (clip.samples[start : start + 800] == window).all()
        }
        assert len(starts) > 10
        np.testing.assert_array_equal(labels, [[0, 1, 0]] * 20)

    def test_short_clips_are_padded_and_unknown_classes_are_the_last(self) -> None:
        clip = self.clip(-1, samples=300)
        windows, labels = self.source(self.NOTHING, clip).batch(0, 2)
        np.testing.assert_array_equal(windows[:, :300], [clip.samples] * 2)
        assert not windows[:, 300:].any()
        np.testing.assert_array_equal(labels, [[0, 0, 1]] * 2)

    def test_a_mixture_shares_its_label_by_energy(self) -> None:
        mixing = replace(self.NOTHING, mix_probability=1.0, mix_db=(-10.0, -10.0))
        _, labels = self.source(mixing, self.clip(0), self.clip(1)).batch(0, 60)
        mixed = labels[(labels > 0).sum(axis=1) == 2]
        # At -10 dB a tenth of the energy is added: 1 / 1.1 and 0.1 / 1.1. Float32 labels.
        np.testing.assert_allclose(
            np.sort(mixed)[:, 1:], [[0.1 / 1.1, 1 / 1.1]] * len(mixed), rtol=2e-7
        )
        assert len(mixed) > 10

    @pytest.mark.parametrize(
        "change",
        [
            {"gain_db": (-20.0, -20.0)},
            {"filter_probability": 1.0},
            {"noise_probability": 1.0, "noise_db": (-10.0, -10.0)},
        ],
    )
    def test_each_augmentation_changes_a_window(self, change: dict[str, object]) -> None:
        clip = self.clip(0)
        plain, _ = self.source(self.NOTHING, clip).batch(0, 1)
        changed, _ = self.source(replace(self.NOTHING, **change), clip).batch(0, 1)
        assert np.isfinite(changed).all()
        assert (changed != plain).mean() > 0.5

    def test_silence_stays_finite(self) -> None:
        silent = TrainingClip(np.zeros(2000, np.float32), 0)
        windows, labels = self.source(replace(Augmentation(), mix_probability=1.0), silent).batch(
            0, 8
        )
        assert np.isfinite(windows).all()
        assert np.isfinite(labels).all()
