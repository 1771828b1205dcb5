"""Cross-layer equalization: channels of one map brought closer to one range.

A map has one scale for all of its channels, so that small channels have few steps. Dividing channel
``c`` of a layer's output by ``s[c] > 0`` and multiplying the next layer's weights that read it by
``s[c]`` changes nothing in float: ``max(x, 0) / s == max(x / s, 0)``, and a maximum over places of
one channel is divided likewise, so that ReLU and maximum pools may stand in between. In the layer
itself it costs nothing, for each of its output channels has a scale of its own. In the next layer
all inputs of a filter share a scale, and the factors spread its weights: hence a power below 1.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgel3_tflm.converters.quantization.chain import Layer
from edgel3_tflm.converters.quantization.ranges import Activations
from edgel3_tflm.types import FloatArray


def equalize(
    layers: Sequence[Layer], activations: Sequence[Activations], power: float
) -> tuple[tuple[Layer, ...], tuple[Activations, ...]]:
    """Divide each channel by its greatest magnitude to a power, in all maps but the last.

    The last is the embedding: its values are what the user gets.

    Parameters
    ----------
    layers, activations : sequence
        In order, one of each for every layer.
    power : float
        0 to 1; 0 changes nothing.
    """
    if power == 0:
        return tuple(layers), tuple(activations)
    found = list(layers)
    scaled = list(activations)
    for position in range(len(found) - 1):
        factors = _factors(activations[position], power)
        layer, following = found[position], found[position + 1]
        found[position] = replace(layer, kernel=layer.kernel / factors, bias=layer.bias / factors)
        found[position + 1] = replace(following, kernel=following.kernel * factors[:, np.newaxis])
        scaled[position] = activations[position].divided(factors)
    return tuple(found), tuple(scaled)


def _factors(activations: Activations, power: float) -> FloatArray:
    greatest = np.maximum(abs(activations.minimum), abs(activations.maximum)).astype(np.float64)
    factors = np.ones_like(greatest)
    alive = greatest > greatest.max() * 1e-6  # a channel that is always zero says nothing
    logarithms = power * np.log(greatest[alive])
    # Around 1, so that the numbers stay of the size they were.
    factors[alive] = np.exp(logarithms - logarithms.mean()) if alive.any() else 1
    return factors.astype(np.float32)
