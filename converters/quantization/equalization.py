"""Cross-layer equalization: bring the ranges of the channels of one map closer together.

All channels of a map share one scale, so a channel with small values uses few quantized values.
Equalization divides the output of channel ``c`` of a layer by ``s[c] > 0`` and multiplies the
weights of the next layer that read this channel by ``s[c]``. The float network still computes the
same embedding, even with a ReLU and a maximum pool between the two layers: ``max(x, 0) / s ==
max(x / s, 0)``, and dividing by ``s`` does not change which position has the maximum.

The weights of the first layer lose no accuracy, because each output channel has its own weight
scale. The weights of the next layer can lose accuracy: all weights of a filter share one scale, and
the factors can widen their range. ``s[c]`` is the channel's largest magnitude to a power, up to a
common factor. A power below 1 is a compromise between the map and the weights of the next layer.
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
    """Return layers and activations with the channels equalized in all maps but the last.

    The last map is the embedding, which must not change.

    Parameters
    ----------
    layers, activations : sequence
        One of each for every layer, in order.
    power : float
        From 0 to 1. 0 changes nothing; 1 gives all channels of a map the same largest magnitude.
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
    largest = np.maximum(abs(activations.minimum), abs(activations.maximum)).astype(np.float64)
    factors = np.ones_like(largest)
    alive = largest > largest.max() * 1e-6  # others are practically always zero
    logarithms = power * np.log(largest[alive])
    # The geometric mean of the factors is 1, so that the values keep their order of magnitude.
    factors[alive] = np.exp(logarithms - logarithms.mean()) if alive.any() else 1
    return factors.astype(np.float32)
