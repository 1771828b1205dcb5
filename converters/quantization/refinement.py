"""Bias correction and adaptive rounding of a chain of quantized layers, one layer after the other.

Both compare a layer with the float network on calibration windows. The input of each layer is the
output of the layers before it, which are refined already.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgel3_tflm.converters.quantization.chain import (
    Layer,
    QuantizedLayer,
    in_batches,
    round_bias,
)
from edgel3_tflm.converters.quantization.rounding import (
    RoundingSettings,
    choose_positions,
    gather_patches,
    round_adaptively,
)
from edgel3_tflm.types import DoubleArray, FloatArray, Int8Array


def sum_pre_activations(layers: Sequence[Layer], inputs: FloatArray) -> tuple[DoubleArray, ...]:
    """Sum each channel of the pre-activations of a float network over the positions of its map.

    Parameters
    ----------
    layers : sequence of Layer
    inputs : numpy.ndarray, shape (n, rows, columns, 1), float32
        Inputs of the network, of the calibration windows.

    Returns
    -------
    tuple of numpy.ndarray, shape (n, channels)
        One for each layer.
    """
    sums: list[list[DoubleArray]] = [[] for _ in layers]

    def run(maps: FloatArray) -> FloatArray:
        for layer, found in zip(layers, sums, strict=True):
            pre_activations = layer.convolve(maps)
            found.append(pre_activations.sum((1, 2), dtype=np.float64))
            maps = layer.finish(pre_activations)
        return maps

    in_batches(run, inputs)
    return tuple(map(np.concatenate, sums))


def refine(
    chain: Sequence[QuantizedLayer],
    inputs: FloatArray,
    *,
    adaround: bool,
    expected: Sequence[DoubleArray] | None,
    on_layer: Callable[[int, int], None],
) -> tuple[QuantizedLayer, ...]:
    """Round the weights of a chain adaptively, correct its biases, or both.

    Parameters
    ----------
    chain : sequence of QuantizedLayer
    inputs : numpy.ndarray, shape (n, rows, columns, 1), float32
        Inputs of the network, of the calibration windows.
    adaround : bool
        Whether to round adaptively.
    expected : sequence of numpy.ndarray, optional
        What :func:`sum_pre_activations` returns for the chain's float network. None corrects no
        bias.
    on_layer : callable
        Progress callback: ``(done, total)``, in layers.
    """
    reals = inputs
    quantized = chain[0].input.quantize(inputs)
    refined = []
    for number, each in enumerate(chain):
        on_layer(number, len(chain))
        is_last = number == len(chain) - 1
        if adaround:
            each = _round(each, reals, quantized, seed=number)
            if not is_last:
                reals = in_batches(each.layer.run, reals)
        if expected is not None or not is_last:
            pre_activations = in_batches(each.convolve, quantized)
            if expected is not None:
                each, pre_activations = _correct_bias(each, expected[number], pre_activations)
            if not is_last:
                quantized = in_batches(each.finish, pre_activations)
        refined.append(each)
    on_layer(len(chain), len(chain))
    return tuple(refined)


def _round(
    layer: QuantizedLayer, reals: FloatArray, quantized: Int8Array, seed: int
) -> QuantizedLayer:
    """Round a layer adaptively.

    Parameters
    ----------
    layer : QuantizedLayer
    reals : numpy.ndarray, shape (n, rows, columns, in), float32
        The layer's inputs in the float network.
    quantized : numpy.ndarray, shape (n, rows, columns, in), int8
        The layer's inputs in the quantized network.
    seed : int
    """
    settings = RoundingSettings()
    rng = np.random.default_rng(seed)
    rows, columns = reals.shape[1:3]
    chosen = choose_positions(len(reals), rows * columns, settings.places, rng)
    kernel = layer.layer.kernel.reshape(-1, layer.layer.kernel.shape[-1])
    patches, targets = [], []
    for real_map, quantized_map, positions in zip(reals, quantized, chosen, strict=True):
        patches.append(gather_patches(layer.input.dequantize(quantized_map), positions))
        targets.append(gather_patches(real_map, positions) @ kernel + layer.layer.bias)
    return round_adaptively(
        layer, np.concatenate(patches), np.concatenate(targets), settings, seed=seed
    )


def _correct_bias(
    layer: QuantizedLayer, expected: DoubleArray, pre_activations: FloatArray
) -> tuple[QuantizedLayer, FloatArray]:
    """Subtract each channel's mean error from the bias and from the pre-activations."""
    found = pre_activations.sum((1, 2), dtype=np.float64)
    positions = pre_activations.shape[0] * pre_activations.shape[1] * pre_activations.shape[2]
    error = (found - expected).sum(axis=0) / positions
    scales = layer.bias_scales
    bias = round_bias(layer.bias * scales.astype(np.float64) - error, scales)
    change = (bias.astype(np.float64) - layer.bias) * scales
    pre_activations += change.astype(np.float32)
    return replace(layer, bias=bias), pre_activations
