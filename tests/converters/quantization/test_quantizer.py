"""The quantizer: what each step must preserve, and that all runtimes compute the same integers."""

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from helpers.networks.keras_hdf5 import random_weights
from helpers.progress import ignore_progress

from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.quantization.chain import (
    Quantization,
    fold,
    quantize_layer,
)
from edgel3_tflm.converters.quantization.chain_writer import write_chain, write_float_chain
from edgel3_tflm.converters.quantization.equalization import equalize
from edgel3_tflm.converters.quantization.quantizer import (
    PLAIN,
    QuantizerOptions,
    Steps,
    quantize,
)
from edgel3_tflm.converters.quantization.ranges import Activations, choose_range
from edgel3_tflm.converters.quantization.rounding import (
    RoundingSettings,
    gather_patches,
    round_adaptively,
)
from edgel3_tflm.converters.quantization.tflite import to_float, to_quantized
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.flatbuffer import summarize
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import open_interpreter

FILTERS = (4, 4, 6, 6, 8, 8, 8, 8)


@pytest.fixture(scope="module")
def weights() -> NetworkWeights:
    """A small network, half of its weights zero."""
    variant = find_variant("sea", embedding_size=64).with_filters(FILTERS)
    return random_weights(variant, seed=5, sparsity=(0, 50, 50, 50, 50, 50, 50, 50))


@pytest.fixture(scope="module")
def decibels(weights: NetworkWeights) -> np.ndarray:
    spec = weights.variant.frontend
    rng = np.random.default_rng(1)
    slopes = rng.uniform(-1, 0, (12, spec.mels, 1)) * np.linspace(0, 60, spec.mels)[:, np.newaxis]
    levels = slopes + rng.normal(0, 6, (12, spec.mels, spec.frames))
    found = (levels - levels.max((1, 2), keepdims=True)).clip(-80).astype(np.float32)
    found[0, 0, 0] = -80  # the input's range is the frontend's
    found[3] = 0  # silence
    return found


@pytest.fixture(scope="module")
def everything(weights: NetworkWeights, decibels: np.ndarray) -> bytes:
    """A model with every step."""
    return quantize(weights, decibels, ALL, ignore_progress).model


ALL = QuantizerOptions("mse", equalize=True, bias_correction=True, adaround=True)


def activations_of(values: np.ndarray) -> Activations:
    return Activations(values.min(axis=0), values.max(axis=0), values)


def zeros_of(model: bytes) -> list[int]:
    return [layer.zeros for layer in summarize(model).layers if layer.weights]


def test_without_steps_it_computes_what_tensorflow_lite_computes(
    weights: NetworkWeights, decibels: np.ndarray
) -> None:
    windows = InputMap.of(weights).normalise(decibels)
    network = build_network(weights)
    theirs = to_quantized(network, "int8", lambda: (window[np.newaxis] for window in windows))
    options = replace(PLAIN, calibration_method="minmax")
    ours = quantize(weights, decibels, options, ignore_progress).model
    assert [(each.operator, each.output_shape) for each in summarize(ours).layers] == [
        (each.operator, each.output_shape) for each in summarize(theirs).layers
    ]
    found = [open_interpreter(model) for model in (ours, theirs)]
    quantized = InputMap.of(weights).apply(decibels, found[0].input)
    # The two float programs compute ranges that differ in the last bits, so a value may be rounded
    # the other way.
    np.testing.assert_allclose(found[0].input.scale, found[1].input.scale, rtol=1e-5)
    np.testing.assert_allclose(found[0].output.scale, found[1].output.scale, rtol=1e-4)
    embeddings = [each.output.dequantize(each.run(quantized)) for each in found]
    assert abs(embeddings[0] - embeddings[1]).max() <= 3 * found[0].output.scale


def test_every_step_gives_the_integers_of_a_device(
    everything: bytes, weights: NetworkWeights, decibels: np.ndarray
) -> None:
    model = everything
    reference = open_interpreter(model, "reference")
    quantized = InputMap.of(weights).apply(decibels, reference.input)
    expected = reference.run(quantized)
    assert len(np.unique(expected)) > 20
    for runtime, form in (("litert-builtin", model), ("tflm", model), ("engine", pack(model))):
        np.testing.assert_array_equal(
            open_interpreter(form, runtime).run(quantized), expected, runtime
        )


def test_zeros_stay_zeros(everything: bytes, weights: NetworkWeights) -> None:
    given = [conv.zeros for conv in weights.convs]
    assert all(found >= before for found, before in zip(zeros_of(everything), given, strict=True))


def test_the_search_takes_the_best_candidate_and_is_reproducible(
    weights: NetworkWeights, decibels: np.ndarray
) -> None:
    result = quantize(weights, decibels, QuantizerOptions(), ignore_progress)
    best = max(result.candidates, key=lambda each: each.sqnr_db)
    assert result.steps == best.steps
    assert result.candidates[0].steps == Steps()
    assert len(result.candidates) == len({each.steps for each in result.candidates}) >= 8
    assert quantize(weights, decibels, QuantizerOptions(), ignore_progress) == result


def test_the_steps_of_the_options_are_taken_without_a_search(
    weights: NetworkWeights, decibels: np.ndarray
) -> None:
    options = QuantizerOptions("percentile", False, True, False)
    result = quantize(weights, decibels, options, ignore_progress)
    assert result.steps == Steps("percentile", 0.0, bias_correction=True)
    assert result.candidates == ()
    assert result.to_json()["parameters"] == {"percentile": 99.999}


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(EdgeL3Error, match="expected one of auto, minmax"):
        QuantizerOptions("best")  # type: ignore[arg-type]


def test_equalization_changes_nothing_in_float(weights: NetworkWeights) -> None:
    layers = fold(weights)
    rng = np.random.default_rng(2)
    spread = [activations_of(rng.gamma(1, 4, (50, count)).astype(np.float32)) for count in FILTERS]
    equalized, activations = equalize(layers, spread, 0.5)
    maps = same = rng.normal(0, 1, (2, 16, 16, 1)).astype(np.float32)
    for before, after in zip(layers, equalized, strict=True):
        maps, same = before.finish(before.convolve(maps)), after.finish(after.convolve(same))
    # Eight layers of float32 sums of at most 72 products.
    np.testing.assert_allclose(same, maps, rtol=1e-4, atol=1e-5 * abs(maps).max())
    for before, after in zip(spread[:-1], activations[:-1], strict=True):
        assert np.ptp(np.log(after.maximum)) < np.ptp(np.log(before.maximum))
    assert activations[-1] is spread[-1]


def test_ranges_leave_out_a_single_spike_but_never_zero() -> None:
    values = np.random.default_rng(3).uniform(1, 2, (40_000, 10)).astype(np.float32)
    values[7, 3] = 50
    activations = activations_of(values)
    assert choose_range(activations, "minmax") == (0, 50)
    low, high = choose_range(activations, "percentile")
    assert low == 0
    assert 1.9 < high < 50
    low, high = choose_range(activations, "mse")
    assert low == 0
    assert high < 50


def test_a_range_represents_zero_exactly() -> None:
    for low, high in ((-3.3, 10.0), (0.5, 2.0), (-2.0, -1.0), (0.0, 0.0)):
        quantization = Quantization.of_range(low, high)
        assert quantization.scale > 0
        assert -128 <= quantization.zero_point <= 127
        zero = quantization.quantize(np.zeros(1, np.float32))
        assert quantization.dequantize(zero).tolist() == [0]


def test_adaptive_rounding_has_a_smaller_error_and_changes_weights_by_less_than_one(
    weights: NetworkWeights,
) -> None:
    layer = fold(weights)[4]
    rng = np.random.default_rng(4)
    # Correlated inputs, like the channels of a map.
    mixed = rng.gamma(1, 1, (4000, 5)) @ rng.gamma(1, 1, (5, layer.kernel[..., 0].size))
    patches = (mixed / 20).astype(np.float32)
    kernel = layer.kernel.reshape(-1, layer.kernel.shape[-1])
    targets = patches @ kernel + layer.bias
    source = Quantization.of_range(0, float(patches.max()))
    nearest = quantize_layer(layer, source, Quantization.of_range(0, float(targets.max())))
    rounded = round_adaptively(nearest, patches, targets, RoundingSettings(), seed=0)

    def error(values: np.ndarray) -> float:
        found = patches @ values.reshape(kernel.shape) + layer.bias
        return float(((found.clip(0) - targets.clip(0)) ** 2).sum())

    assert error(rounded.real.kernel) < 0.7 * error(nearest.real.kernel)
    assert abs(layer.kernel / nearest.scales - rounded.kernel).max() < 1 + 1e-4
    assert not rounded.kernel[layer.kernel == 0].any()


def test_patches_are_what_a_convolution_reads() -> None:
    rng = np.random.default_rng(6)
    map_ = rng.normal(0, 1, (5, 7, 3)).astype(np.float32)
    kernel = rng.normal(0, 1, (3, 3, 3, 2)).astype(np.float32)
    layer = replace(
        fold(random_weights(find_variant("sea", embedding_size=64), seed=0))[0],
        kernel=kernel,
        bias=np.zeros(2, np.float32),
    )
    found = gather_patches(map_, np.arange(35)) @ kernel.reshape(-1, 2)
    expected = layer.convolve(map_[np.newaxis]).reshape(35, 2)
    # Sums of 27 products of about 1.
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_written_chain_has_its_own_scales(weights: NetworkWeights) -> None:
    quantizations = [Quantization(np.float32(0.1 * n), -128) for n in range(1, 10)]
    chain = tuple(map(quantize_layer, fold(weights), quantizations[:-1], quantizations[1:]))
    interpreter = open_interpreter(write_chain(chain, 64, 50))
    assert (interpreter.input.scale, interpreter.input.zero_point) == pytest.approx((0.1, -128))
    assert (interpreter.output.scale, interpreter.output.zero_point) == pytest.approx((0.9, -128))


def test_written_flatbuffers_have_the_signature_that_tensorflow_writes(
    weights: NetworkWeights,
) -> None:
    network = build_network(weights, batch_size=1)
    expected = Interpreter(model_content=to_float(network)).get_signature_list()
    layers = fold(weights)
    written = Interpreter(model_content=write_float_chain(layers, 64, 50))
    assert written.get_signature_list() == expected
    window = np.random.default_rng(0).normal(0, 1, (1, 64, 50, 1)).astype(np.float32)
    found = written.get_signature_runner()(log_mel=window)["output_0"]
    written.set_tensor(written.get_input_details()[0]["index"], window)
    written.invoke()
    by_position = written.get_tensor(written.get_output_details()[0]["index"])
    np.testing.assert_array_equal(found, by_position)
    assert found.any()
    unit = Quantization(np.float32(0.01), 0)
    chain = tuple(quantize_layer(layer, unit, unit) for layer in layers)
    int8 = Interpreter(model_content=write_chain(chain, 64, 50))
    assert int8.get_signature_list() == expected
