"""Float products that skip zeros: the same bytes everywhere, and TensorFlow's values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.quantization import sparse
from edgel3_tflm.converters.quantization.chain import Layer, Quantization, quantize_layer
from edgel3_tflm.converters.quantization.rounding import (
    RoundingSettings,
    _multiplier,
    round_adaptively,
)
from edgel3_tflm.converters.quantization.sparse import SparseConvolution, Taps, is_sparse

EPSILON = float(np.finfo(np.float32).eps)


def sparse_normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return normal float32 values, of which nine tenths are zero."""
    values = rng.normal(size=shape).astype(np.float32)
    values[rng.random(shape) < 0.9] = 0
    return values


def offsets_of(taps: Taps, columns: int) -> np.ndarray:
    return (taps.inputs * columns).astype(np.uint32)


# Columns fewer than a block of 64, one block, and blocks that overlap.
@pytest.mark.parametrize("columns", [1, 31, 63, 64, 65, 150, 256])
def test_products_have_the_bytes_of_sums_in_order(columns: int) -> None:
    rng = np.random.default_rng(columns)
    matrix, values = sparse_normal(rng, 40, 9), rng.normal(size=(40, columns)).astype(np.float32)
    matrix[:, 4] = 0  # an output without taps
    bias = rng.normal(size=9).astype(np.float32)
    taps = Taps.of(matrix)
    weights = matrix[taps.inputs, taps.outputs]
    expected = np.zeros((9, columns), np.float32)
    for weight, source, target in zip(weights, taps.inputs, taps.outputs, strict=True):
        expected[target] += weight * values[source]
    expected += bias[:, np.newaxis]
    found = taps.multiply(weights, values, offsets_of(taps, columns), bias, columns)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("columns", [1, 31, 32, 65, 256])
def test_gradients_have_the_bytes_of_sums_in_order(columns: int) -> None:
    rng = np.random.default_rng(columns)
    matrix = sparse_normal(rng, 40, 9)
    values = rng.normal(size=(40, columns)).astype(np.float32)
    errors = rng.normal(size=(9, columns)).astype(np.float32)
    taps = Taps.of(matrix)
    products = values[taps.inputs] * errors[taps.outputs]
    # 32 partial sums, which are then added in halves, and the columns that are left at the end.
    whole = columns // 32 * 32
    sums = np.zeros((len(products), 32), np.float32)
    for start in range(0, whole, 32):
        sums += products[:, start : start + 32]
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    expected = sums[:, 0]
    for column in range(whole, columns):
        expected = expected + products[:, column]
    found = taps.correlate(values, offsets_of(taps, columns), errors)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(2, 17, 13, 5), (1, 3, 4, 6), (1, 1, 1, 3)])
def test_a_convolution_is_tensorflow_s(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=shape).astype(np.float32)
    kernel = sparse_normal(rng, 3, 3, shape[-1], 7)
    bias = rng.normal(size=7).astype(np.float32)
    tf = load_backend().tf
    expected = (tf.nn.conv2d(maps, kernel, 1, "SAME") + bias).numpy()
    found = SparseConvolution.of(kernel).run(maps, bias)
    assert found.shape == expected.shape
    # Every addition rounds by at most half an epsilon of the sum of the magnitudes.
    bound = tf.nn.conv2d(abs(maps), abs(kernel), 1, "SAME").numpy() + abs(bias)
    terms = np.count_nonzero(kernel, axis=(0, 1, 2)).max() + 1
    assert (abs(found - expected) <= terms * EPSILON * bound).all()


def test_nothing_is_read_behind_the_values() -> None:
    taps = Taps.of(np.ones((2, 1), np.float32))
    values, errors = np.zeros((2, 8), np.float32), np.zeros((1, 8), np.float32)
    weights, bias = np.ones(2, np.float32), np.zeros(1, np.float32)
    beyond = offsets_of(taps, 8) + np.uint32(1)
    with pytest.raises(ValueError, match="17 values"):
        taps.multiply(weights, values, beyond, bias, 8)
    with pytest.raises(ValueError, match="17 values"):
        taps.correlate(values, beyond, errors)


def test_only_a_layer_with_mostly_zeros_is_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    kernel = sparse_normal(rng, 3, 3, 4, 4)
    assert is_sparse(kernel)
    assert not is_sparse(np.ones_like(kernel))
    monkeypatch.setattr(sparse, "lib", None)
    assert not is_sparse(kernel)


def as_sparse_and_dense(
    compute: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Any]:
    first = compute()
    monkeypatch.setattr(sparse, "lib", None)
    return first, compute()


def test_rounding_has_the_products_and_gradients_of_tensorflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    matrix, patches = sparse_normal(rng, 40, 9), rng.normal(size=(70, 40)).astype(np.float32)
    taps = Taps.of(matrix)
    tf = load_backend().tf

    def compute() -> tuple[np.ndarray, np.ndarray]:
        weights = tf.constant(matrix[taps.inputs, taps.outputs])
        multiply = _multiplier(matrix, taps)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            products = multiply(tf.constant(patches), weights)
            loss = tf.reduce_sum(products**2)
        return products.numpy(), tape.gradient(loss, weights).numpy()

    found, expected = as_sparse_and_dense(compute, monkeypatch)
    # Sums of at most 70 products of about 1: their last digits depend on the order.
    for each, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(each, other, rtol=0, atol=70 * EPSILON * abs(other).max())


def test_rounding_skips_zeros_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layer = Layer("conv", sparse_normal(rng, 3, 3, 8, 16), np.zeros(16, np.float32), True, 1)
    quantized = quantize_layer(layer, Quantization.of_range(-4, 4), Quantization.of_range(0, 20))
    # Inputs that rise and fall together, so that errors of rounding to the nearest add up.
    patches = (rng.random((512, 1)) + 0.1 * rng.random((512, 72))).astype(np.float32)
    targets = patches @ layer.kernel.reshape(72, 16)

    def compute() -> np.ndarray:
        settings = RoundingSettings(iterations=200)
        return round_adaptively(quantized, patches, targets, settings, seed=0).kernel

    found, expected = as_sparse_and_dense(compute, monkeypatch)
    changed = np.count_nonzero(expected != quantized.kernel)
    assert changed > 0
    # A choice between two nearly equal errors may depend on the last digits of the products.
    assert np.count_nonzero(found != expected) <= 0.02 * changed
    assert (found[layer.kernel == 0] == 0).all()
