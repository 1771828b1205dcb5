"""Training windows: augmentation, and the simulated microphone."""

from dataclasses import replace

import numpy as np
import pytest

from edgel3_tflm.audio.pcm import FULL_SCALE, from_int16, to_int16
from edgel3_tflm.converters.training.augment import TrainingClip, WindowSource
from edgel3_tflm.converters.training.recipe import Augmentation, Microphone

RATE_HZ = 8000
WINDOW_SAMPLES = 800
NOTHING = Augmentation(gain_db=(0, 0), mix_probability=0, filter_probability=0, noise_probability=0)


def source(
    augmentation: Augmentation, *clips: TrainingClip, microphone: Microphone | None = None
) -> WindowSource:
    return WindowSource(
        clips,
        window_samples=WINDOW_SAMPLES,
        sample_rate_hz=RATE_HZ,
        classes=2,
        augmentation=augmentation,
        microphone=microphone or Microphone(),
        seed=5,
    )


def clip(label: int, samples: int = 2000) -> TrainingClip:
    noise = np.random.default_rng(label + 1).normal(0, 0.1, samples)
    return TrainingClip(noise.astype(np.float32), label)


def power_db(window: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(window.astype(np.float64))) ** 2
    bins = np.array([low_hz, high_hz]) * len(window) // RATE_HZ
    return float(10 * np.log10(spectrum[bins[0].astype(int) : bins[1].astype(int)].mean()))


def test_a_batch_is_determined_by_its_number() -> None:
    windows = source(Augmentation(), clip(0), clip(1), clip(-1), microphone=Microphone(0.5))
    first, again, other = (windows.batch(number, 6) for number in (3, 3, 4))
    for name in ("sound", "heard", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.sound != other.sound).any()


def test_without_augmentation_windows_are_cut_from_clips() -> None:
    one = clip(1)
    batch = source(NOTHING, one).batch(0, 20)
    starts = {
        start
        for window in batch.sound
        for start in range(1201)
        if (one.samples[start : start + WINDOW_SAMPLES] == window).all()
    }
    assert len(starts) > 10
    np.testing.assert_array_equal(batch.labels, [[0, 1, 0]] * 20)


def test_short_clips_are_padded_and_unknown_classes_are_the_last() -> None:
    short = clip(-1, samples=300)
    batch = source(NOTHING, short).batch(0, 2)
    np.testing.assert_array_equal(batch.sound[:, :300], [short.samples] * 2)
    assert not batch.sound[:, 300:].any()
    np.testing.assert_array_equal(batch.labels, [[0, 0, 1]] * 2)


def test_a_mixture_shares_its_label_by_energy() -> None:
    mixing = replace(NOTHING, mix_probability=1.0, mix_db=(-10.0, -10.0))
    labels = source(mixing, clip(0), clip(1)).batch(0, 60).labels
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
        {"band_probability": 1.0, "band_hz": (2000.0, 2000.0)},
    ],
)
def test_each_augmentation_changes_a_window(change: dict[str, object]) -> None:
    plain = source(NOTHING, clip(0)).batch(0, 1).sound
    changed = source(replace(NOTHING, **change), clip(0)).batch(0, 1).sound
    assert np.isfinite(changed).all()
    assert (changed != plain).mean() > 0.5


def test_a_band_limit_removes_the_frequencies_above_it_alone() -> None:
    plain = source(NOTHING, clip(0)).batch(0, 1).sound[0]
    limited = replace(NOTHING, band_probability=1.0, band_hz=(2000.0, 2000.0))
    (window,) = source(limited, clip(0)).batch(0, 1).sound
    assert power_db(window, 100, 1900) == pytest.approx(power_db(plain, 100, 1900), abs=1e-3)
    assert power_db(window, 2100, 3900) < power_db(plain, 2100, 3900) - 100


def test_silence_stays_finite() -> None:
    silent = TrainingClip(np.zeros(2000, np.float32), 0)
    microphone = Microphone(noise_probability=0.5, clock_error_percent=2.0)
    mixing = replace(Augmentation(), mix_probability=1.0)
    batch = source(mixing, silent, microphone=microphone).batch(0, 8)
    for name in ("sound", "heard", "labels"):
        assert np.isfinite(getattr(batch, name)).all()


class TestMicrophone:
    @staticmethod
    def hear(microphone: Microphone, level: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
        """Return 200 windows of noise of a level, and what the microphone delivers."""
        samples = np.random.default_rng(7).normal(0, level, 20_000).astype(np.float32)
        heard = source(NOTHING, TrainingClip(samples, 0), microphone=microphone).batch(0, 200)
        return heard.sound, heard.heard

    def test_it_rounds_to_sixteen_bits_and_leaves_the_sound_as_it_is(self) -> None:
        sound, heard = self.hear(Microphone())
        np.testing.assert_array_equal(heard, from_int16(to_int16(sound)))
        assert (heard != sound).any()

    def test_its_noise_floor_has_the_level_and_half_of_the_floors_fall_with_frequency(self) -> None:
        sound, heard = self.hear(Microphone(noise_probability=1.0, noise_dbfs=(-40.0, -40.0)))
        noise = (heard - sound).astype(np.float64)
        level_db = 10 * np.log10(np.mean(noise**2, axis=1))
        # 800 samples of white noise: their power deviates by sqrt(2 / 800), 0.2 dB; 5 of these.
        np.testing.assert_allclose(level_db, -40, atol=1.1)
        tilt_db = [power_db(each, 100, 500) - power_db(each, 2000, 3900) for each in noise]
        # 1/f between the middles of the two bands, about 250 Hz and 2,900 Hz: 10.6 dB.
        pink = np.array(tilt_db) > 5
        assert 60 < pink.sum() < 140
        assert np.median(np.array(tilt_db)[pink]) == pytest.approx(10.6, abs=1.5)
        assert np.median(np.array(tilt_db)[~pink]) == pytest.approx(0, abs=1.5)

    def test_dither_is_one_step_either_way(self) -> None:
        sound, heard = self.hear(Microphone(dither_probability=1.0))
        steps = (heard.astype(np.float64) - sound) * FULL_SCALE
        assert 1 < np.abs(steps).max() <= 1.5
        # Triangular dither of variance 1/6, and rounding of variance 1/12.
        assert steps.var() == pytest.approx(1 / 6 + 1 / 12, rel=0.02)

    def test_a_wrong_clock_shifts_frequencies(self) -> None:
        tone = np.sin(2 * np.pi * 1000 / RATE_HZ * np.arange(WINDOW_SAMPLES)).astype(np.float32)
        microphone = Microphone(clock_error_percent=5.0)
        windows = source(NOTHING, TrainingClip(tone, 0), microphone=microphone).batch(0, 100)
        taper = np.hanning(WINDOW_SAMPLES)
        spectra = np.abs(np.fft.rfft(windows.heard * taper, 16 * WINDOW_SAMPLES))
        heard_hz = spectra.argmax(axis=1) * RATE_HZ / (16 * WINDOW_SAMPLES)
        # Uniform within 5 % of 1000 Hz; the grid of frequencies has steps of 0.6 Hz.
        assert 945 < heard_hz.min() < 965
        assert 1035 < heard_hz.max() < 1056
        assert windows.heard.shape == windows.sound.shape

    def test_it_clips_at_full_scale(self) -> None:
        _, heard = self.hear(Microphone(), level=1.0)
        assert heard.min() == -1
        assert heard.max() == (FULL_SCALE - 1) / FULL_SCALE
