"""Pruning to a plan: the weights that are kept, and layers that have their zeros already."""

import numpy as np
from helpers.networks.keras_hdf5 import random_weights

from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.networks.catalogue import find_variant

PLAN_95 = (0, 85, 85, 85, 75, 95, 98, 98)


def test_the_largest_magnitudes_are_kept() -> None:
    variant = find_variant(sparsity="99")
    weights = random_weights(variant, seed=1)
    pruned = prune(weights, variant.plan).weights
    before, after = weights.convs[7].kernel, pruned.convs[7].kernel
    kept = after != 0
    np.testing.assert_array_equal(after[kept], before[kept])
    assert abs(before[kept]).min() >= abs(before[~kept]).max()


def test_weights_already_pruned_keep_exactly_their_zeros() -> None:
    variant = find_variant(sparsity="95.45")
    # A published layer may miss its plan by a little, here by 0.2 points.
    percents = tuple(max(0, percent - 0.2) for percent in PLAN_95)
    weights = random_weights(variant, seed=2, sparsity=percents)
    result = prune(weights, variant.plan)
    assert result.pruned_layers == ()
    for before, after in zip(weights.convs, result.weights.convs, strict=True):
        np.testing.assert_array_equal(before.kernel, after.kernel)


def test_layers_too_small_for_the_plan_s_percents_are_pruned_once() -> None:
    variant = find_variant(sparsity="95.45").with_filters((1, 2, 2, 2, 1, 2, 2, 1))
    once = prune(random_weights(variant, seed=3), variant.plan)
    assert "conv8" in once.pruned_layers  # one of 18 weights is kept: 94.4 %; the plan has 98 %
    assert prune(once.weights, variant.plan).pruned_layers == ()


def test_pruning_further_keeps_the_given_zeros() -> None:
    variant = find_variant(sparsity="98")
    weights = random_weights(variant, seed=2, sparsity=PLAN_95)
    result = prune(weights, variant.plan)
    assert result.pruned_layers == ("conv2", "conv3", "conv4", "conv5", "conv6", "conv7")
    for before, after in zip(weights.convs, result.weights.convs, strict=True):
        assert not after.kernel[before.kernel == 0].any()
