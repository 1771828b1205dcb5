"""Log-mel spectrogram as kapre 0.1.4 computes it inside the published models.

The published networks carry kapre's ``Melspectrogram`` layer: strided-convolution DFT kernels and a
mel matrix. This module computes the same values with an FFT.
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
"""Values lie in [-80, 0] dB: the window's own maximum is 0."""
_AMPLITUDE_FLOOR = 1e-10


def dft_window(spec: FrontendSpec) -> npt.NDArray[np.float64]:
    """Periodic Hann window of ``spec.dft_samples`` values."""
    n = np.arange(spec.dft_samples)
    window: npt.NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * n / spec.dft_samples)
    return window


@lru_cache
def mel_filterbank(spec: FrontendSpec) -> npt.NDArray[np.float64]:
    """Triangular mel filters, normalised to constant area.

    Mel scale of the HTK book (Young et al.): ``mel = 2595 log10(1 + f / 700)``. Each triangle is
    scaled by ``2 / (f[i + 2] - f[i])`` with its corner frequencies in Hz.

    Returns
    -------
    numpy.ndarray, shape (dft_samples // 2 + 1, mels), float64
        Weights that turn a power spectrum into mel bands.
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


# Bands of a block: 8 are fastest for 256 bands as for 64. All but 1 % of the matrix are zeros.
_BLOCK_MELS = 8


@dataclass(frozen=True)
class _MelBlock:
    """Some neighbouring bands, and the bins that any of them weighs."""

    bins: slice
    mels: slice
    weights: npt.NDArray[np.float64]


@lru_cache
def _mel_blocks(spec: FrontendSpec) -> tuple[_MelBlock, ...]:
    filters = mel_filterbank(spec)
    blocks = []
    for first in range(0, spec.mels, _BLOCK_MELS):
        mels = slice(first, min(first + _BLOCK_MELS, spec.mels))
        # Without a single bin the block is a product over no bins: zeros.
        weighed = np.flatnonzero(filters[:, mels].any(axis=1))
        bins = slice(weighed[0], weighed[-1] + 1) if len(weighed) else slice(0, 0)
        blocks.append(_MelBlock(bins, mels, np.ascontiguousarray(filters[bins, mels])))
    return tuple(blocks)


@dataclass(frozen=True)
class FrontendTables:
    """The constants that the C library's frontend works with, as it holds them.

    Parameters
    ----------
    window : numpy.ndarray, shape (dft_samples,), float32
        Periodic Hann window.
    cosines : numpy.ndarray, shape (dft_samples // 4 + 1,), float32
        First quarter of a cosine of ``dft_samples`` values.
    mel_first, mel_count : numpy.ndarray, shape (mels,), uint16
        The bins that a band weighs: the first and how many. Narrow bands may lie between two bins
        and weigh none.
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
        """Take the tables from the definitions here."""
        first, count, weights = [], [], []
        for band in mel_filterbank(spec).T:
            bins = np.flatnonzero(band)
            first.append(bins[0] if len(bins) else 0)
            count.append(len(bins))
            weights.append(band[bins])  # a triangle has no zero within
        quarter = np.arange(spec.dft_samples // 4 + 1)
        cosines = np.cos(2 * np.pi * quarter / spec.dft_samples)
        cosines[-1] = 0  # not 6e-17
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
    """Log-mel spectrograms of one-second windows.

    Zero-pad as a 'same' strided convolution does; power spectrum of Hann frames; mel filters;
    square root; ``10 log10(max(x, 1e-10))``; subtract the window's own maximum; clip at -80 dB.
    Silence is therefore all zeros.

    Everything is computed in float64: at -80 dB a band's power is 1e-16 of the loudest one's, less
    than what float32 rounds off.

    Parameters
    ----------
    windows : numpy.ndarray, shape (n, spec.window_samples)
        Samples at ``spec.sample_rate_hz``, full scale 1.
    spec : FrontendSpec
    threads : int, optional
        How many windows to transform at a time; as many as there are cores if not given.

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

    # One window at a time: its frames (3 MB as float64) stay in the cache, a batch's would not.
    def transform(window: npt.NDArray[np.floating[Any]], out: FloatArray) -> None:
        padded = np.zeros(padding + spec.window_samples)
        padded[left : left + spec.window_samples] = window
        frames = np.lib.stride_tricks.sliding_window_view(padded, spec.dft_samples)
        spectrum = np.fft.rfft(frames[:: spec.hop_samples] * hann)
        power = spectrum.real**2 + spectrum.imag**2
        level = np.empty((spec.frames, spec.mels))
        for block in blocks:
            np.matmul(power[:, block.bins], block.weights, out=level[:, block.mels])
        # The root is halved behind the logarithm.
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
        # NumPy releases Python's lock nearly everywhere.
        with ThreadPoolExecutor(workers) as executor:
            list(executor.map(transform, windows, decibels))
    return decibels


def is_silent(decibels: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which windows, (n, mels, frames) log-mel, are silent; shape (n,)."""
    silent: npt.NDArray[np.bool_] = ~decibels.any(axis=(1, 2))
    return silent


def log_mel_statistics(decibels: FloatArray) -> FloatArray:
    """Mean and standard deviation over time of every mel band.

    The plainest features there are, for comparison: (n, mels, frames) to (n, 2 mels), in dB.
    """
    return np.concatenate([decibels.mean(axis=2), decibels.std(axis=2)], axis=1)
