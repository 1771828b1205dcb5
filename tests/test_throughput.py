"""int8 on this machine beside the float Keras network that edgel3 ran."""

from pathlib import Path

import pytest
from throughput import (
    FRONTEND_SHARE,
    TIMES_FASTER,
    Throughput,
    build_keras_network,
    measure,
    real_windows,
)

from edgel3_tflm.deployment import Deployment
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.weights import load_bundled_weights, load_weights


@pytest.fixture(scope="module")
def turns(standin: Deployment) -> Throughput:
    weights = load_bundled_weights(standin.variant)
    windows = real_windows(standin.variant.frontend, 8)
    return measure(standin, weights, windows, turns=3)


def test_int8_of_the_pruned_network_is_four_times_as_fast_as_float_keras(turns: Throughput) -> None:
    assert turns.times_faster >= TIMES_FASTER
    assert turns.cosine > 0.99  # the same network on both sides


def test_its_frontend_takes_at_most_a_fifth_of_the_time(turns: Throughput) -> None:
    assert 0 < turns.frontend_share <= FRONTEND_SHARE


def test_the_keras_network_from_samples_is_the_float_model(
    sea_int8: Deployment, sea_weights: Path
) -> None:
    weights = load_weights(sea_int8.variant, sea_weights)
    windows = real_windows(sea_int8.variant.frontend, 8)
    expected = sea_int8.embedder("float").embed(windows)
    found = build_keras_network(weights).predict(windows, verbose=0)
    assert cosine_similarity(expected, found[::-1]).min() < 0.9
    # What float32 kernels of the DFT round off moves less than int8 does.
    int8 = sea_int8.embedder("int8").embed(windows)
    rounding, quantization = (cosine_similarity(expected, each).min() for each in (found, int8))
    assert quantization < rounding
