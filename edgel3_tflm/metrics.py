"""Metrics of the difference between two sets of embeddings, with formulas and sources.

``METRICS`` lists the metrics that reports show, gates check and ``report diff`` compares. In the
formulas the rows ``a`` are the embeddings of the reference and the rows ``b`` those of the model
under test; ``m`` is the mean of the reference's rows over the whole run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgel3_tflm.types import DoubleArray, RealArray


def cosine_similarity(reference: RealArray, other: RealArray) -> DoubleArray:
    """Return the cosine of the angle between rows: ``a.b / (|a| |b|)``.

    It is 1 for two zero rows, and 0 for a zero row and any other row.

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


def mean_squared_error(reference: RealArray, other: RealArray) -> float:
    """Return the mean of ``(a - b)^2`` over all values."""
    return float(np.mean((reference.astype(np.float64) - other.astype(np.float64)) ** 2))


def mean_absolute_error(reference: RealArray, other: RealArray) -> float:
    """Return the mean of ``|a - b|`` over all values."""
    return float(np.mean(np.abs(reference.astype(np.float64) - other.astype(np.float64))))


def noise_to_signal(reference: RealArray, other: RealArray) -> float:
    """Return the ratio of noise to signal: ``sum (a - b)^2 / sum a^2``.

    It is 0 if nothing differs, and infinite if only the reference is zero.
    """
    a = reference.astype(np.float64)
    signal, noise = float((a**2).sum()), float(((a - other) ** 2).sum())
    if noise == 0:
        return 0.0
    return noise / signal if signal > 0 else float("inf")


def relative_l2(reference: RealArray, other: RealArray) -> float:
    """Return the relative length of the difference: ``sqrt(sum (a - b)^2 / sum a^2)``."""
    return float(np.sqrt(noise_to_signal(reference, other)))


def sqnr_db(reference: RealArray, other: RealArray) -> float:
    """Return the signal-to-quantization-noise ratio in dB: ``10 log10(sum a^2 / sum (a - b)^2)``.

    It is infinite if nothing differs, and minus infinite if only the reference is zero.
    """
    ratio = noise_to_signal(reference, other)
    return float("inf") if ratio == 0 else -10 * float(np.log10(ratio))


def linear_cka(reference: RealArray, other: RealArray) -> float:
    """Return the linear centred kernel alignment: ``|B'A|^2 / (|A'A| |B'B|)``, Frobenius norms.

    ``A`` and ``B`` are the rows minus the mean of each column. The result is 1 if the sides differ
    only by a rotation and a scale, and NaN if a side is constant.

    Parameters
    ----------
    reference, other : numpy.ndarray, shapes (n, d) and (n, e)
    """
    a = reference.astype(np.float64) - reference.mean(axis=0, dtype=np.float64)
    b = other.astype(np.float64) - other.mean(axis=0, dtype=np.float64)
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(b.T @ a) ** 2 / scale) if scale > 0 else float("nan")


Compute = Callable[[RealArray, RealArray, RealArray], float]
"""Arguments: the reference (n, d), the model under test (n, d), the reference's mean (d,)."""


@dataclass(frozen=True)
class Metric:
    """A metric over a set of windows.

    Parameters
    ----------
    name : str
        Name in drift.json and in gates.
    title : str
        Name in tables.
    meaning : str
        What it says, and its best value.
    formula, source : str
        Formula, and the publication that describes it.
    higher_is_better : bool
    compute : callable
    """

    name: str
    title: str
    meaning: str
    formula: str
    source: str
    higher_is_better: bool
    compute: Compute


def _of_cosine(reduce: Callable[[RealArray], Any], *, centred: bool) -> Compute:
    def compute(a: RealArray, b: RealArray, m: RealArray) -> float:
        return float(
            reduce(cosine_similarity(a - m, b - m) if centred else cosine_similarity(a, b))
        )

    return compute


def _of_all(function: Callable[[RealArray, RealArray], float]) -> Compute:
    return lambda a, b, _: function(a, b)


def _percentile_5(values: RealArray) -> Any:
    return np.percentile(values, 5)


_REDUCTIONS: tuple[tuple[str, str, str, Callable[[RealArray], Any]], ...] = (
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
            meaning,
            f"{formula} over windows of {angle}",
            source,
            True,
            _of_cosine(reduce, centred=bool(prefix)),
        )
        for prefix, kind, meaning, angle, source in (
            (
                "",
                "cosine",
                "Agreement of the directions; 1 is equal.",
                "a.b / (|a| |b|)",
                _ANGLE,
            ),
            (
                "centred_",
                "centred cosine",
                "Agreement of what tells sounds apart; 1 is equal, about 0 is chance.",
                "(a - m).(b - m) / (|a - m| |b - m|)",
                _CENTRED_ANGLE,
            ),
        )
        for name, title, formula, reduce in _REDUCTIONS
    ),
    Metric(
        "sqnr_db",
        "SQNR, dB",
        "Power of the embeddings over power of the error; at 20 dB the error has 1 % of the power.",
        "10 log10(sum a^2 / sum (a - b)^2) over all values",
        _NOISE,
        True,
        _of_all(sqnr_db),
    ),
    Metric(
        "mean_squared_error",
        "mean squared error",
        "Power of the error; 0 is equal.",
        "mean of (a - b)^2 over all values",
        _ERROR,
        False,
        _of_all(mean_squared_error),
    ),
    Metric(
        "mean_absolute_error",
        "mean absolute error",
        "Typical error of one value; 0 is equal.",
        "mean of |a - b| over all values",
        _ERROR,
        False,
        _of_all(mean_absolute_error),
    ),
    Metric(
        "relative_l2",
        "relative L2",
        "Length of the error, relative to that of the embeddings; 0 is equal.",
        "sqrt(sum (a - b)^2 / sum a^2) over all values",
        _NORM,
        False,
        _of_all(relative_l2),
    ),
)
