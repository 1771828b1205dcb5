"""Cross-layer equalization: bring the ranges of the channels of one map closer together.

All channels of a map share one scale, so a channel with small values uses few quantized values.
Equalization divides the output of channel ``c`` of a layer by ``s[c] > 0`` and multiplies the
weights of the next layer that read this channel by ``s[c]``. In float this changes nothing:
``max(x, 0) / s == max(x / s, 0)``, and a maximum over positions of one channel is divided in the
same way. So a ReLU and a maximum pool may be between the two layers.

The layer itself loses no accuracy, because each of its output channels has a scale of its own. In
the next layer, all inputs of a filter share a scale, and the factors spread its weights. A power
below 1 is a compromise between the two layers.
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
    """Divide each channel by a power of its largest magnitude, in all maps but the last.

    The last map is the embedding, which must not change.

    Parameters
    ----------
    layers, activations : sequence
        One of each for every layer, in order.
    power : float
        From 0 to 1. 0 changes nothing.
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
    alive = largest > largest.max() * 1e-6  # a channel that is always zero has no range
    logarithms = power * np.log(largest[alive])
    # The geometric mean of the factors is 1, so that the values keep their order of magnitude.
    factors[alive] = np.exp(logarithms - logarithms.mean()) if alive.any() else 1
    return factors.astype(np.float32)
