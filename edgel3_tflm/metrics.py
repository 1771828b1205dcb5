"""How far one set of embeddings lies from another: every metric with its formula and its source.

``METRICS`` is the registry: what a report shows, a gate may name and ``report diff`` compares.
Rows ``a`` are the reference's embeddings, rows ``b`` the other's; ``m`` is the mean of the
reference's rows over the whole run.
"""

from collections.abc import Callable
from dataclasses import dataclass
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


def mean_absolute_error(reference: FloatArray, other: FloatArray) -> float:
    """Mean over all values of ``|a - b|``."""
    return float(np.mean(np.abs(reference.astype(np.float64) - other.astype(np.float64))))


def noise_to_signal(reference: FloatArray, other: FloatArray) -> float:
    """Share of noise: ``sum (a - b)^2 / sum a^2``.

    0 where nothing differs; infinite where only the reference is zero.
    """
    a = reference.astype(np.float64)
    signal, noise = float((a**2).sum()), float(((a - other) ** 2).sum())
    if noise == 0:
        return 0.0
    return noise / signal if signal > 0 else float("inf")


def relative_l2(reference: FloatArray, other: FloatArray) -> float:
    """Length of the difference by that of the reference: ``sqrt(sum (a - b)^2 / sum a^2)``."""
    return float(np.sqrt(noise_to_signal(reference, other)))


def sqnr_db(reference: FloatArray, other: FloatArray) -> float:
    """Signal to quantization noise ratio: ``10 log10(sum a^2 / sum (a - b)^2)``, in dB.

    Infinite where nothing differs; minus infinite where only the reference is zero.
    """
    ratio = noise_to_signal(reference, other)
    return float("inf") if ratio == 0 else -10 * float(np.log10(ratio))


def linear_cka(reference: FloatArray, other: FloatArray) -> float:
    """Linear centred kernel alignment: ``|B'A|^2 / (|A'A| |B'B|)``, Frobenius norms.

    A and B are the rows with the mean of each column removed. 1 for the same geometry up to
    rotation and one factor; NaN where a side does not vary.

    Parameters
    ----------
    reference, other : numpy.ndarray, shapes (n, d) and (n, e)
    """
    a = reference.astype(np.float64) - reference.mean(axis=0, dtype=np.float64)
    b = other.astype(np.float64) - other.mean(axis=0, dtype=np.float64)
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(b.T @ a) ** 2 / scale) if scale > 0 else float("nan")


Compute = Callable[[FloatArray, FloatArray, FloatArray], float]
"""Takes the reference (n, d), the other (n, d) and the reference's mean over the run (d,)."""


@dataclass(frozen=True)
class Metric:
    """A figure over a set of windows.

    Parameters
    ----------
    name : str
        As in drift.json, and as a gate names it.
    title : str
        As a table names it.
    formula, source : str
        What is computed, and who describes it.
    higher_is_better : bool
    compute : callable
    """

    name: str
    title: str
    formula: str
    source: str
    higher_is_better: bool
    compute: Compute


def _of_cosine(reduce: Callable[[FloatArray], Any], *, centred: bool) -> Compute:
    def compute(a: FloatArray, b: FloatArray, m: FloatArray) -> float:
        return float(
            reduce(cosine_similarity(a - m, b - m) if centred else cosine_similarity(a, b))
        )

    return compute


def _of_all(function: Callable[[FloatArray, FloatArray], float]) -> Compute:
    return lambda a, b, _: function(a, b)


def _percentile_5(values: FloatArray) -> Any:
    return np.percentile(values, 5)


_REDUCTIONS: tuple[tuple[str, str, str, Callable[[FloatArray], Any]], ...] = (
    ("mean", "mean", "mean", np.mean),
    ("p5", "5th percentile", "5th percentile", _percentile_5),
    ("worst", "worst window", "least", np.min),
)
_ANGLE = "Salton and McGill, Introduction to Modern Information Retrieval, 1983"
_CENTRED_ANGLE = "mean removed as in Mu and Viswanath, All-but-the-Top, ICLR 2018"
_NOISE = "Widrow and Kollar, Quantization Noise, 2008"
_ERROR = "Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009"
_NORM = "Golub and Van Loan, Matrix Computations, 2013"

METRICS: tuple[Metric, ...] = (
    *(
        Metric(
            f"{prefix}cosine_{name}",
            f"{kind}, {title}",
            f"{formula} over windows of {angle}",
            source,
            True,
            _of_cosine(reduce, centred=bool(prefix)),
        )
        for prefix, kind, angle, source in (
            ("", "cosine", "a.b / (|a| |b|)", _ANGLE),
            (
                "centred_",
                "centred cosine",
                "(a - m).(b - m) / (|a - m| |b - m|)",
                _CENTRED_ANGLE,
            ),
        )
        for name, title, formula, reduce in _REDUCTIONS
    ),
    Metric(
        "sqnr_db",
        "SQNR, dB",
        "10 log10(sum a^2 / sum (a - b)^2) over all values",
        _NOISE,
        True,
        _of_all(sqnr_db),
    ),
    Metric(
        "mean_squared_error",
        "mean squared error",
        "mean of (a - b)^2 over all values",
        _ERROR,
        False,
        _of_all(mean_squared_error),
    ),
    Metric(
        "mean_absolute_error",
        "mean absolute error",
        "mean of |a - b| over all values",
        _ERROR,
        False,
        _of_all(mean_absolute_error),
    ),
    Metric(
        "relative_l2",
        "relative L2",
        "sqrt(sum (a - b)^2 / sum a^2) over all values",
        _NORM,
        False,
        _of_all(relative_l2),
    ),
)
