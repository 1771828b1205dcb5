"""Drift of each layer: costs that add up, and a spoilt layer that is named."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.networks.int8_network import build, random_network
from helpers.networks.spoil import double_kernel_scales, double_output_scale, with_quantized_model

from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.drift.layers import LayerReport, _find_factors, _Layer, analyse_layers
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.metrics import noise_to_signal
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME, EXACT_RUNTIME


@pytest.fixture(scope="module")
def decibels(tiny_int8: Deployment, sounds: Path) -> np.ndarray:
    spec = tiny_int8.variant.frontend
    clips = sorted(sounds.glob("*/1-*.wav"))[:4]
    return np.concatenate(
        [
            log_mel(windows[:2], spec)
            for _, windows in read_windows(
                clips,
                sample_rate_hz=spec.sample_rate_hz,
                window_samples=spec.window_samples,
                hop_s=1,
            )
        ]
    )


@pytest.fixture(scope="module")
def report(tiny_int8: Deployment, decibels: np.ndarray) -> LayerReport:
    return analyse_layers(tiny_int8, decibels)


def test_every_layer_is_there_and_the_costs_add_up_to_the_embedding_s_noise(
    tiny_int8: Deployment, decibels: np.ndarray, report: LayerReport
) -> None:
    assert [layer.name for layer in report.layers] == ["input", *(f"conv{n}" for n in range(1, 9))]
    assert report.windows == len(decibels)
    in_float, in_int8 = (
        tiny_int8.embedder(precision, runtime).embed_log_mel(decibels)
        for precision, runtime in (("float", DEFAULT_RUNTIME), ("int8", EXACT_RUNTIME))
    )
    # Float sums in another order (with and without XNNPACK): a few parts in 10^5 of the values.
    total = sum(layer.cost for layer in report.layers)
    ratio = noise_to_signal(in_float, in_int8)
    assert total == pytest.approx(ratio / (1 + ratio), rel=1e-3)
    assert report.layers[-1].sqnr_db == pytest.approx(10 * math.log10(1 / total - 1), abs=1e-9)


def test_the_figures_are_those_that_int8_can_reach(report: LayerReport) -> None:
    """The quantization step of weights is 1 / 127 of a channel's greatest; biases are corrected."""
    for layer in report.layers[1:]:
        # Their root mean square is a ninth of the greatest or more: 20 log10(127 / 9) less 4 dB.
        assert layer.weights_sqnr_db > 19
        assert layer.bias_sqnr_db > 20
    assert math.isnan(report.layers[0].weights_sqnr_db)
    for layer in report.layers:
        assert 0 <= layer.saturation < 0.01
        assert 0 < layer.range_use <= 1


@pytest.mark.parametrize("convolution", range(1, 9))
def test_doubled_kernel_scales_are_the_layer_that_costs_most(
    tiny_int8: Deployment, decibels: np.ndarray, tmp_path: Path, convolution: int
) -> None:
    model = double_kernel_scales(tiny_int8.read_model("int8"), convolution)
    spoilt = analyse_layers(with_quantized_model(tiny_int8, model, tmp_path / "d"), decibels)
    assert spoilt.costliest.name == f"conv{convolution}"
    assert spoilt.costliest.sqnr_db < 10
    # 20 log10(|w| / |2 w - w|) is 0, but for the rounding.
    assert spoilt.costliest.weights_sqnr_db == pytest.approx(0, abs=0.2)


def test_a_doubled_output_scale_is_the_layer_that_costs_most(
    tiny_int8: Deployment, decibels: np.ndarray, tmp_path: Path
) -> None:
    model = double_output_scale(tiny_int8.read_model("int8"), 6)
    spoilt = analyse_layers(with_quantized_model(tiny_int8, model, tmp_path / "d"), decibels)
    assert spoilt.costliest.name == "conv6"


def test_a_range_that_is_too_small_shows_as_saturation(
    tiny_int8: Deployment, decibels: np.ndarray, report: LayerReport
) -> None:
    """The input's range is exceeded by spectrograms that are 20 dB above the frontend's maximum."""
    beyond = analyse_layers(tiny_int8, decibels + 20)
    assert beyond.layers[0].saturation > 0.1 > report.layers[0].saturation


def test_other_layers_are_refused(
    tiny_int8: Deployment, decibels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = tiny_int8.read_model("int8")
    network = random_network(
        np.random.default_rng(0), rows=64, columns=50, filters=[2, 3], pools=["none", "global"]
    )
    models = {"float": build(network), "int8": quantized}
    monkeypatch.setattr(Deployment, "read_model", lambda _, precision, *__: models[precision])
    with pytest.raises(ModelFileError, match="found 2 and 8 convolutions"):
        analyse_layers(tiny_int8, decibels)


def test_factors_of_equalized_channels_are_found_and_undone() -> None:
    """Two layers of two channels, equalized by hand; the second is the last."""

    class Tracer:
        def __init__(self, *kernels: np.ndarray) -> None:
            self.layers = [_Layer(0), _Layer(1, kernel=0), _Layer(2, kernel=1)]
            self.constant = kernels.__getitem__

    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, (2, 3, 3, 1)), rng.normal(0, 1, (2, 3, 3, 2))
    factors = np.array([4.0, 0.25])
    equalized = first / factors.reshape(2, 1, 1, 1), second * factors
    manifest = {"quantizer": {"steps": {"equalization_power": 0.5}}}
    deployment = SimpleNamespace(manifest=manifest)
    found = _find_factors(deployment, Tracer(first, second), Tracer(*equalized))
    for each, expected in zip(found, (1, factors, 1), strict=True):
        np.testing.assert_allclose(each, expected, rtol=1e-12)
    # A scale that is wrong for a whole layer is not equalization.
    doubled = _find_factors(deployment, Tracer(first, second), Tracer(2 * first, second))
    np.testing.assert_allclose(doubled[1], 1, rtol=1e-12)
    # Without equalization in the manifest all factors are 1, whatever the weights are.
    plain = _find_factors(SimpleNamespace(manifest={}), Tracer(first, second), Tracer(*equalized))
    assert all((each == 1).all() for each in plain)
