"""How far one set of embeddings lies from another."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]


def cosine_similarity(reference: FloatArray, other: FloatArray) -> npt.NDArray[np.float64]:
    """Cosine of the angle between rows: ``a.b / (|a| |b|)``.

    Two zero rows agree (1); a zero row and another do not (0).

    Parameters
    ----------
    reference, other : numpy.ndarray, shape (n, d)

    Returns
    -------
    numpy.ndarray, shape (n,), float64, in [-1, 1]
    """
    a, b = reference.astype(np.float64), other.astype(np.float64)
    length_a, length_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = length_a * length_b
    both_zero = (length_a == 0) & (length_b == 0)
    cosine = np.divide((a * b).sum(axis=1), product, out=np.zeros(len(a)), where=product > 0)
    return np.where(both_zero, 1.0, np.clip(cosine, -1.0, 1.0))


def mean_squared_error(reference: FloatArray, other: FloatArray) -> float:
    """Mean over all values of ``(a - b)^2``."""
    return float(np.mean((reference.astype(np.float64) - other.astype(np.float64)) ** 2))


def sqnr_db(reference: FloatArray, other: FloatArray) -> float:
    """Signal to quantization noise ratio: ``10 log10(sum a^2 / sum (a - b)^2)``, in dB.

    Infinite where nothing differs; minus infinite where only the reference is zero.
    """
    a = reference.astype(np.float64)
    signal, noise = float((a**2).sum()), float(((a - other) ** 2).sum())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")
