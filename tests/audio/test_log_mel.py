"""Log-mel against the arrays in the published SEA file, and against its definition."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from edgel3_tflm.audio.log_mel import dft_window, log_mel, mel_filterbank
from edgel3_tflm.networks.catalogue import VARIANTS, find_variant
from edgel3_tflm.networks.variants import FrontendSpec

SEA = find_variant("sea", embedding_size=64).frontend
L3 = find_variant().frontend
SPECS = sorted({variant.frontend for variant in VARIANTS.values()}, key=lambda spec: spec.mels)


@pytest.fixture(scope="module")
def published(sea_weights: Path) -> Iterator[h5py.Group]:
    with h5py.File(io.BytesIO(gzip.decompress(sea_weights.read_bytes())), "r") as file:
        yield file["model_weights/melspectrogram_1/melspectrogram_1"]


# Largest difference between a stored DFT kernel value and the exact one.
KERNEL_ERROR = 2.0**-23


def kapre_log_mel(samples: np.ndarray, group: h5py.Group) -> tuple[np.ndarray, np.ndarray]:
    """Return the output of the published layer, a strided 'same' convolution, and its tolerance.

    If kernel values have an error of e, a DFT value of a frame x has an error of at most sqrt(2) e
    sum|x|, and the root of a mel band that times the root of its filter's sum: in decibels,
    10 log10(1 + error / value).
    """
    left = right = ((SEA.frames - 1) * SEA.hop_samples + SEA.dft_samples - len(samples)) // 2
    padded = np.pad(samples.astype(np.float64), (left, right))
    frames = np.stack([padded[t * SEA.hop_samples :][: SEA.dft_samples] for t in range(SEA.frames)])
    real = frames @ group["real_kernels:0"][:, 0, 0].astype(np.float64)
    imaginary = frames @ group["imag_kernels:0"][:, 0, 0].astype(np.float64)
    mel = np.sqrt((real**2 + imaginary**2) @ group["Variable:0"][()].astype(np.float64))
    level = 10 * np.log10(np.maximum(mel, 1e-10))
    shift = np.sqrt(2) * KERNEL_ERROR * abs(frames).sum(axis=1, keepdims=True)
    shift = shift * np.sqrt(group["Variable:0"][()].sum(axis=0))
    tolerance = 10 * np.log10(1 + shift / np.maximum(mel, 1e-10)) + 80 * 2.0**-23
    decibels = np.maximum(level - level.max(), -80)
    return decibels.T, tolerance.T


def test_mel_filters_equal_the_published_matrix(published: h5py.Group) -> None:
    stored = published["Variable:0"][()]
    # Float32 storage of values below 2^-4 rounds by at most 2^-29.
    np.testing.assert_allclose(mel_filterbank(SEA), stored, rtol=0, atol=2.0**-29)


def test_window_and_fft_equal_the_published_dft_kernels(published: h5py.Group) -> None:
    n, k = np.arange(SEA.dft_samples)[:, None], np.arange(SEA.dft_samples // 2 + 1)
    expected = dft_window(SEA)[:, None] * np.exp(2j * np.pi * n * k / SEA.dft_samples)
    stored = published["real_kernels:0"][:, 0, 0] + 1j * published["imag_kernels:0"][:, 0, 0]
    # Float32 storage of values up to 1; the sign of the imaginary part does not matter to a power.
    error = np.minimum(abs(stored - expected), abs(stored - expected.conj()))
    assert error.max() < KERNEL_ERROR


@pytest.mark.parametrize("kind", ["noise", "tone", "click", "quiet"])
def test_log_mel_equals_the_published_layer(published: h5py.Group, kind: str) -> None:
    generator = np.random.default_rng(7)
    time_s = np.arange(SEA.window_samples) / SEA.sample_rate_hz
    samples = {
        "noise": generator.normal(0, 0.1, SEA.window_samples),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * time_s),
        "click": (time_s == 0.5).astype(float),
        "quiet": generator.normal(0, 1e-4, SEA.window_samples),
    }[kind].astype(np.float32)
    ours = log_mel(samples[np.newaxis], SEA)[0]
    theirs, tolerance = kapre_log_mel(samples, published)
    # The subtracted maximum has an error too.
    assert (abs(ours - theirs) <= tolerance + tolerance.min()).all()
    assert tolerance[theirs > -40].max() < 0.1  # dB: the bound is tight where there is sound


@pytest.mark.parametrize("spec", SPECS)
def test_log_mel_equals_its_definition_with_the_whole_filterbank(spec: FrontendSpec) -> None:
    samples = np.random.default_rng(5).normal(0, 0.2, spec.window_samples)
    samples *= np.linspace(0, 1, len(samples)) ** 8  # down to where the values are clipped
    total = (spec.frames - 1) * spec.hop_samples + spec.dft_samples - len(samples)
    padded = np.pad(samples, (total // 2, total - total // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.dft_samples)
    spectrum = np.fft.rfft(frames[:: spec.hop_samples] * dft_window(spec))
    level = 10 * np.log10(np.maximum(np.sqrt(abs(spectrum) ** 2 @ mel_filterbank(spec)), 1e-10))
    expected = np.maximum(level - level.max(), -80).T
    assert (expected == -80).any()
    # Sums of float64 in another order are off by far less than float32 rounds 80 dB.
    np.testing.assert_allclose(
        log_mel(samples[None], spec)[0], expected, rtol=0, atol=80 * 2.0**-23
    )


def test_threads_change_no_value() -> None:
    samples = np.random.default_rng(6).normal(0, 0.2, (5, L3.window_samples))
    np.testing.assert_array_equal(log_mel(samples, L3, threads=3), log_mel(samples, L3, threads=1))


@pytest.mark.parametrize("spec", SPECS)
def test_silence_is_all_zeros(spec: object) -> None:
    assert not log_mel(np.zeros((2, spec.window_samples), np.float32), spec).any()


@pytest.mark.parametrize("spec", SPECS)
def test_shape_range_and_own_maximum(spec: object) -> None:
    samples = np.random.default_rng(1).normal(0, 0.2, (3, spec.window_samples))
    decibels = log_mel(samples.astype(np.float32), spec)
    assert decibels.shape == (3, spec.mels, spec.frames)
    assert decibels.dtype == np.float32
    assert (decibels.max(axis=(1, 2)) == 0).all()
    assert decibels.min() >= -80


def test_windows_do_not_influence_each_other() -> None:
    samples = np.random.default_rng(2).normal(0, 0.2, (4, SEA.window_samples)).astype(np.float32)
    samples[1] *= 100
    together = log_mel(samples, SEA)
    apart = np.concatenate([log_mel(window[np.newaxis], SEA) for window in samples])
    np.testing.assert_array_equal(together, apart)


def test_loudness_does_not_matter_where_the_floor_is_far() -> None:
    samples = np.random.default_rng(3).normal(0, 0.2, (1, L3.window_samples)).astype(np.float32)
    # A power of two scales floats exactly; the FFT's rounding scales along.
    np.testing.assert_array_equal(log_mel(samples, L3), log_mel(samples / 2, L3))


def test_a_tone_peaks_in_the_band_of_its_frequency() -> None:
    spec = L3
    tone_hz = 3000.0
    time_s = np.arange(spec.window_samples) / spec.sample_rate_hz
    decibels = log_mel(np.sin(2 * np.pi * tone_hz * time_s)[np.newaxis], spec)[0]
    band = int(decibels[:, spec.frames // 2].argmax())
    bins_hz = np.arange(spec.dft_samples // 2 + 1) * spec.sample_rate_hz / spec.dft_samples
    triangle = bins_hz[mel_filterbank(spec)[:, band] > 0]
    bin_hz = spec.sample_rate_hz / spec.dft_samples
    assert triangle.min() - bin_hz <= tone_hz <= triangle.max() + bin_hz


def test_a_window_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, 8000\)"):
        log_mel(np.zeros((1, 7999), np.float32), SEA)
