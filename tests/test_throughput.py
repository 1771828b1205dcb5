"""int8 on this machine beside the float Keras network that edgel3 ran."""

from pathlib import Path

from throughput import build_keras_network, measure, real_windows

from edgel3_tflm.deployment import Deployment
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.weights import load_weights


def test_both_sides_are_the_same_network_and_their_times_are_told(
    sea_int8: Deployment, sea_weights: Path
) -> None:
    windows = real_windows(sea_int8.variant.frontend, 8)
    weights = load_weights(sea_int8.variant, sea_weights)
    found = measure(sea_int8, weights, windows, turns=3, runtime="tflite-runtime")
    assert found.cosine > 0.99
    assert found.times_faster > 0
    assert 0 < found.frontend_share < 1


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
