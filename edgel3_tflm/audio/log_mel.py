"""The log-mel spectrogram that kapre 0.1.4 computes inside the published models.

The published networks contain kapre's ``Melspectrogram`` layer: the kernels of a DFT as a strided
convolution, and a mel matrix. This module computes the same values with an FFT.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.cores import available_cores
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.types import FloatArray

DYNAMIC_RANGE_DB = 80.0
"""Values are in [-80, 0] dB: the maximum of each window is 0."""
_AMPLITUDE_FLOOR = 1e-10


def dft_window(spec: FrontendSpec) -> npt.NDArray[np.float64]:
    """Return the periodic Hann window of ``spec.dft_samples`` values."""
    n = np.arange(spec.dft_samples)
    window: npt.NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * n / spec.dft_samples)
    return window


@lru_cache
def mel_filterbank(spec: FrontendSpec) -> npt.NDArray[np.float64]:
    """Return triangular mel filters, normalised to constant area.

    Mel scale of the HTK book (Young et al.): ``mel = 2595 log10(1 + f / 700)``. Each triangle is
    scaled by ``2 / (f[i + 2] - f[i])`` with its corner frequencies in Hz.

    Returns
    -------
    numpy.ndarray, shape (dft_samples // 2 + 1, mels), float64
        Factors from a power spectrum to mel bands.
    """
    nyquist_hz = spec.sample_rate_hz / 2
    top_mel = 2595 * np.log10(1 + nyquist_hz / 700)
    corners_hz = 700 * (10 ** (np.linspace(0, top_mel, spec.mels + 2) / 2595) - 1)
    bins_hz = np.linspace(0, nyquist_hz, spec.dft_samples // 2 + 1)[:, None]
    low, centre, high = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising = (bins_hz - low) / (centre - low)
    falling = (high - bins_hz) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling))
    filters: npt.NDArray[np.float64] = triangles * (2 / (high - low))
    return filters


# Bands in a block: 8 are fastest, for 256 bands and for 64. 99 % of the filter matrix are zeros.
_BLOCK_MELS = 8


@dataclass(frozen=True)
class _MelBlock:
    """Neighbouring bands, and the range of bins with a weight above zero in any of them."""

    bins: slice
    mels: slice
    weights: npt.NDArray[np.float64]


@lru_cache
def _mel_blocks(spec: FrontendSpec) -> tuple[_MelBlock, ...]:
    filters = mel_filterbank(spec)
    blocks = []
    for first in range(0, spec.mels, _BLOCK_MELS):
        mels = slice(first, min(first + _BLOCK_MELS, spec.mels))
        # A block without bins gives zeros, as a product over an empty axis.
        weighed = np.flatnonzero(filters[:, mels].any(axis=1))
        bins = slice(weighed[0], weighed[-1] + 1) if len(weighed) else slice(0, 0)
        blocks.append(_MelBlock(bins, mels, np.ascontiguousarray(filters[bins, mels])))
    return tuple(blocks)


@dataclass(frozen=True)
class FrontendTables:
    """The constants of the C library's frontend, in its types.

    Parameters
    ----------
    window : numpy.ndarray, shape (dft_samples,), float32
        Periodic Hann window.
    cosines : numpy.ndarray, shape (dft_samples // 4 + 1,), float32
        First quarter of a cosine of ``dft_samples`` values.
    mel_first, mel_count : numpy.ndarray, shape (mels,), uint16
        The first bin of each band, and its number of bins. A narrow band between two bins has
        none.
    mel_weights : numpy.ndarray, shape (sum of mel_count,), float32
        Weights of all bands, one after the other.
    """

    window: FloatArray
    cosines: FloatArray
    mel_first: npt.NDArray[np.uint16]
    mel_count: npt.NDArray[np.uint16]
    mel_weights: FloatArray

    @classmethod
    def of(cls, spec: FrontendSpec) -> "FrontendTables":
        """Compute the tables from the definitions in this module."""
        first, count, weights = [], [], []
        for band in mel_filterbank(spec).T:
            bins = np.flatnonzero(band)
            first.append(bins[0] if len(bins) else 0)
            count.append(len(bins))
            weights.append(band[bins])  # contiguous: a triangle has no zeros inside
        quarter = np.arange(spec.dft_samples // 4 + 1)
        cosines = np.cos(2 * np.pi * quarter / spec.dft_samples)
        cosines[-1] = 0  # exactly; NumPy returns 6e-17
        return cls(
            window=dft_window(spec).astype(np.float32),
            cosines=cosines.astype(np.float32),
            mel_first=np.array(first, np.uint16),
            mel_count=np.array(count, np.uint16),
            mel_weights=np.concatenate(weights).astype(np.float32),
        )


def log_mel(
    windows: npt.NDArray[np.floating[Any]], spec: FrontendSpec, *, threads: int | None = None
) -> FloatArray:
    """Return the log-mel spectrograms of one-second windows.

    The steps: zero padding as in a 'same' strided convolution; power spectrum of Hann frames; mel
    filters; square root; ``10 log10(max(x, 1e-10))``; subtraction of the window's maximum; clipping
    at -80 dB. The spectrogram of silence is therefore all zeros.

    All steps are computed in float64: at -80 dB, the power of a band is 1e-16 of the loudest band's
    power, which is below the rounding error of float32.

    Parameters
    ----------
    windows : numpy.ndarray, shape (n, spec.window_samples)
        Samples at ``spec.sample_rate_hz``, full scale 1.
    spec : FrontendSpec
    threads : int, optional
        Number of windows that are transformed at a time; the number of cores if not given.

    Returns
    -------
    numpy.ndarray, shape (n, spec.mels, spec.frames), float32
        Decibels in [-80, 0].

    Raises
    ------
    ValueError
        If the windows have another length.
    """
    if windows.ndim != 2 or windows.shape[1] != spec.window_samples:
        raise ValueError(
            f"expected windows of shape (n, {spec.window_samples}), got {windows.shape}"
        )
    padding = (spec.frames - 1) * spec.hop_samples + spec.dft_samples - spec.window_samples
    left = padding // 2
    decibels = np.empty((len(windows), spec.mels, spec.frames), np.float32)
    hann = dft_window(spec)
    blocks = _mel_blocks(spec)

    # One window at a time: its frames (3 MB as float64) fit in the processor's cache.
    def transform(window: npt.NDArray[np.floating[Any]], out: FloatArray) -> None:
        padded = np.zeros(padding + spec.window_samples)
        padded[left : left + spec.window_samples] = window
        frames = np.lib.stride_tricks.sliding_window_view(padded, spec.dft_samples)
        spectrum = np.fft.rfft(frames[:: spec.hop_samples] * hann)
        power = spectrum.real**2 + spectrum.imag**2
        level = np.empty((spec.frames, spec.mels))
        for block in blocks:
            np.matmul(power[:, block.bins], block.weights, out=level[:, block.mels])
        # The square root becomes a factor of one half after the logarithm: 10 / 2.
        np.log10(np.maximum(level, _AMPLITUDE_FLOOR**2, out=level), out=level)
        level *= 5
        level -= level.max()
        np.maximum(level, -DYNAMIC_RANGE_DB, out=level)
        out[:] = level.T

    workers = min(len(windows), threads or available_cores())
    if workers < 2:
        for window, out in zip(windows, decibels, strict=True):
            transform(window, out)
    else:
        # NumPy releases the global interpreter lock in nearly all steps.
        with ThreadPoolExecutor(workers) as executor:
            list(executor.map(transform, windows, decibels))
    return decibels


def is_silent(decibels: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which windows are silent: log-mel (n, mels, frames) to booleans (n,)."""
    silent: npt.NDArray[np.bool_] = ~decibels.any(axis=(1, 2))
    return silent


def log_mel_statistics(decibels: FloatArray) -> FloatArray:
    """Return mean and standard deviation over time of every mel band, in dB.

    Simple features to compare embeddings with: (n, mels, frames) to (n, 2 mels).
    """
    return np.concatenate([decibels.mean(axis=2), decibels.std(axis=2)], axis=1)
