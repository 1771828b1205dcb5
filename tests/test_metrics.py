"""Drift figures against values worked out by hand."""

from dataclasses import fields

import numpy as np
import pytest

from edgel3_tflm.drift.figures import DriftFigures, measure
from edgel3_tflm.metrics import (
    METRICS,
    cosine_similarity,
    linear_cka,
    mean_squared_error,
    noise_to_signal,
    relative_l2,
    sqnr_db,
)


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
    assert figures.mean_absolute_error == pytest.approx(2 / 200, abs=1e-12)
    assert figures.relative_l2 == pytest.approx(np.sqrt(2 / 100), abs=1e-12)


def test_every_metric_is_a_figure_and_says_its_formula() -> None:
    names = [metric.name for metric in METRICS]
    assert names == [field.name for field in fields(DriftFigures)][2:]
    assert all(metric.formula and metric.source and metric.title for metric in METRICS)


def test_better_is_where_a_metric_says() -> None:
    """More noise is worse in every metric, in the direction that the metric states."""
    rng = np.random.default_rng(0)
    reference = rng.normal(3, 1, (50, 8)).astype(np.float32)
    noise = rng.normal(0, 1, reference.shape).astype(np.float32)
    silent = np.zeros(50, bool)
    little, much = (measure(reference, reference + k * noise, silent) for k in (0.01, 0.1))
    for metric in METRICS:
        better = getattr(little, metric.name) > getattr(much, metric.name)
        assert better == metric.higher_is_better, metric.name


def test_centred_cosine_sees_what_a_common_offset_hides() -> None:
    offset = np.float32([100, 0])
    reference = offset + np.float32([[0, 1], [0, -1]])
    other = offset + np.float32([[0, -1], [0, 1]])
    figures = measure(reference, other, np.zeros(2, bool))
    assert figures.cosine_worst > 0.999
    assert figures.centred_cosine_mean == pytest.approx(-1, abs=1e-12)
    about_another = measure(reference, other, np.zeros(2, bool), np.zeros(2))
    assert about_another.centred_cosine_mean == about_another.cosine_mean


def test_relative_l2_is_the_root_of_noise_to_signal() -> None:
    a = np.array([[3.0, 4.0]])
    assert noise_to_signal(a, a * 1.1) == pytest.approx(0.01, abs=1e-12)
    assert relative_l2(a, a * 1.1) == pytest.approx(0.1, abs=1e-12)


def test_linear_cka_ignores_rotation_scale_and_offset_and_sees_what_is_lost() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (200, 5))
    rotation, _ = np.linalg.qr(rng.normal(0, 1, (5, 5)))
    assert linear_cka(a, 3 * a @ rotation + 7) == pytest.approx(1, abs=1e-12)
    # A'A is diag(2, 2), of norm sqrt 8; B'B is 2; B'A is (2, 0): 4 / (2 sqrt 8).
    b = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert linear_cka(b, b[:, :1]) == pytest.approx(np.sqrt(1 / 2), abs=1e-12)
    assert np.isnan(linear_cka(b, np.ones((4, 1))))
