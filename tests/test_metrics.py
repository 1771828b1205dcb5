"""Drift figures against values worked out by hand."""

import numpy as np
import pytest

from edgel3_tflm.drift import measure
from edgel3_tflm.metrics import cosine_similarity, mean_squared_error, sqnr_db


def test_cosine_of_known_angles() -> None:
    a = np.array([[1, 0], [1, 0], [1, 0], [3, 4]], np.float32)
    b = np.array([[2, 0], [0, 5], [-1, 0], [4, 3]], np.float32)
    # Lengths 5 and 5 and the product 24 are exact, so is 24 / 25 up to its rounding.
    np.testing.assert_allclose(cosine_similarity(a, b), [1, 0, -1, 24 / 25], rtol=2**-52)


def test_cosine_of_zero_rows() -> None:
    a = np.array([[0, 0], [0, 0], [1, 1]], np.float32)
    b = np.array([[0, 0], [1, 0], [0, 0]], np.float32)
    np.testing.assert_array_equal(cosine_similarity(a, b), [1, 0, 0])


def test_sqnr_of_a_tenth_is_twenty_decibels() -> None:
    a = np.array([[3.0, 4.0]])
    assert sqnr_db(a, a * 1.1) == pytest.approx(20, abs=1e-12)


def test_sqnr_without_difference_and_without_signal() -> None:
    a = np.ones((2, 2))
    assert sqnr_db(a, a) == np.inf
    assert sqnr_db(0 * a, a) == -np.inf


def test_mean_squared_error_is_over_all_values() -> None:
    assert mean_squared_error(np.zeros((2, 2)), np.array([[2.0, 0], [0, 0]])) == 1


def test_figures_of_a_set_of_windows() -> None:
    reference = np.tile(np.float32([1, 0]), (100, 1))
    other = reference.copy()
    other[7] = [0, 1]
    figures = measure(reference, other, np.arange(100) < 3)
    assert (figures.windows, figures.silent_windows) == (100, 3)
    assert figures.cosine_worst == 0
    assert figures.cosine_p5 == 1
    assert figures.cosine_mean == pytest.approx(0.99, abs=1e-12)
    assert figures.sqnr_db == pytest.approx(10 * np.log10(100 / 2), abs=1e-12)
    assert figures.mean_squared_error == pytest.approx(2 / 200, abs=1e-12)
