"""Weights as arrays: zeros, and BatchNorm as an affine map."""

import dataclasses

import numpy as np

from edgel3_tflm.networks.weights import BatchNorm, NetworkWeights


def test_negative_zeros_count_as_zeros(small: NetworkWeights) -> None:
    conv = dataclasses.replace(small.convs[1], kernel=small.convs[1].kernel * np.float32(-0.0))
    assert conv.zeros == conv.kernel.size == 54
    assert small.convs[1].zeros == 0


def test_batch_norm_is_the_affine_map_of_its_definition(small: NetworkWeights) -> None:
    norm = small.convs[5].batch_norm
    assert norm is not None
    gamma, beta, mean, variance = (
        array.astype(np.float64) for array in (norm.gamma, norm.beta, norm.mean, norm.variance)
    )
    slope = gamma / np.sqrt(variance + 1e-3)
    # Float32 rounds epsilon, the sum, the root and the quotient (half an ulp, 2^-24, each; the root
    # halves the errors before it): below 4 * 2^-24 in all. The product and the difference add one
    # each.
    np.testing.assert_allclose(norm.slope, slope, rtol=4 * 2**-24, atol=0)
    atol = 2**-24 * (6 * np.abs(slope * mean) + np.abs(beta)).max()
    np.testing.assert_allclose(norm.offset, beta - slope * mean, rtol=0, atol=atol)


def test_batch_norm_keeps_the_published_epsilon() -> None:
    one = np.ones(1, np.float32)
    norm = BatchNorm(one, one, one, np.zeros(1, np.float32))
    assert abs(float(norm.slope[0]) - 1000**0.5) < 1e-4
