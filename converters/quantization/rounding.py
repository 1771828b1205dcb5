"""Adaptive rounding of weights (AdaRound: Nagel et al., "Up or Down?", ICML 2020).

Each weight goes to the step below or above it; which one is learned, layer by layer, so that the
layer's output, behind its ReLU, from what the quantized layers in front give comes close to that of
the float network. A weight that is zero stays zero.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.quantization.chain import WEIGHT_MAX, QuantizedLayer
from edgel3_tflm.types import FloatArray

# The rectified sigmoid's stretch, as in the paper: it reaches 0 and 1.
_LOW, _HIGH = -0.1, 1.1
# The exponent of the regularisation falls from soft to hard choices, behind the warm-up.
_BETA_FIRST, _BETA_LAST = 20.0, 2.0
_WARM_UP = 0.2
_ADAM = (0.9, 0.999, 1e-8)


@dataclass(frozen=True)
class RoundingSettings:
    """How long and from how much adaptive rounding learns, for each layer."""

    places: int = 16384
    iterations: int = 500
    batch_places: int = 256
    learning_rate: float = 2e-2
    regularisation: float = 1e-2


def choose_places(
    maps: int, places: int, total: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Choose some of a map's places for each of several maps, ``total`` in all at the most.

    Returns
    -------
    numpy.ndarray, shape (maps, k), int64
        Numbers from 0 to ``places - 1``, each at most once for a map.
    """
    count = min(places, max(1, total // maps))
    return np.stack([rng.choice(places, count, replace=False) for _ in range(maps)])


def gather_patches(map_: npt.NDArray[Any], places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Gather the inputs of a 3x3 'same' convolution at some places of a map.

    Parameters
    ----------
    map_ : numpy.ndarray, shape (rows, columns, c)
        Zero must be what stands outside.
    places : numpy.ndarray, shape (k,)
        ``row * columns + column``.

    Returns
    -------
    numpy.ndarray, shape (k, 9 c)
    """
    rows, columns = np.divmod(places, map_.shape[1])
    padded = np.pad(map_, ((1, 1), (1, 1), (0, 0)))
    taps = [padded[rows + i, columns + j] for i in range(3) for j in range(3)]
    return np.concatenate(taps, axis=1)


def round_adaptively(
    quantized: QuantizedLayer,
    patches: FloatArray,
    targets: FloatArray,
    settings: RoundingSettings,
    seed: int,
) -> QuantizedLayer:
    """Choose up or down for each weight; the bias stays.

    Parameters
    ----------
    quantized : QuantizedLayer
        Rounded to the nearest.
    patches : numpy.ndarray, shape (k, 9 in), float32
        Inputs at k places, as the quantized layers in front give them, in real units.
    targets : numpy.ndarray, shape (k, out), float32
        The float network's pre-activations there.
    settings : RoundingSettings
    seed : int
        The same one gives the same result.
    """
    tf = load_backend().tf
    layer = quantized.layer
    filters = layer.kernel.shape[-1]
    steps = (layer.kernel / quantized.scales).reshape(-1, filters)
    # Only weights that are not zero are variables: pruned networks have few.
    places = np.argwhere(steps)
    if not len(places) or not len(patches):
        return quantized
    steps = steps[tuple(places.T)]
    floors = np.floor(steps).clip(-WEIGHT_MAX, WEIGHT_MAX - 1)
    rest = (steps - floors).clip(1e-4, 1 - 1e-4)
    scales = tf.constant(quantized.scales)
    shape = (patches.shape[1], filters)

    def choices(variable: Any) -> Any:
        return tf.clip_by_value(tf.sigmoid(variable) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)

    variable = tf.Variable(-np.log((_HIGH - _LOW) / (rest - _LOW) - 1).astype(np.float32))
    first, second = tf.Variable(tf.zeros_like(variable)), tf.Variable(tf.zeros_like(variable))
    bias = tf.constant((quantized.bias * quantized.bias_scales).astype(np.float32))
    inputs, outputs = tf.constant(patches), tf.constant(targets)
    below = tf.constant(floors.astype(np.float32))

    def activate(values: Any) -> Any:
        return tf.nn.relu(values) if layer.relu else values

    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def learn(batch: Any, step: Any, beta: Any, weight: Any) -> None:
        with tf.GradientTape() as tape:
            soft = choices(variable)
            kernel = tf.scatter_nd(places, below + soft, shape) * scales
            found = activate(tf.matmul(tf.gather(inputs, batch), kernel) + bias)
            error = found - activate(tf.gather(outputs, batch))
            loss = tf.reduce_mean(tf.reduce_sum(error**2, axis=1))
            loss += weight * tf.reduce_sum(1 - tf.abs(2 * soft - 1) ** beta)
        gradient = tape.gradient(loss, variable)
        first_decay, second_decay, epsilon = _ADAM
        first.assign(first_decay * first + (1 - first_decay) * gradient)
        second.assign(second_decay * second + (1 - second_decay) * gradient**2)
        mean = first / (1 - first_decay**step)
        deviation = tf.sqrt(second / (1 - second_decay**step))
        variable.assign_sub(settings.learning_rate * mean / (deviation + epsilon))

    rng = np.random.default_rng(seed)
    warm_up = _WARM_UP * settings.iterations
    for iteration in range(settings.iterations):
        share = max(0.0, (iteration - warm_up) / (settings.iterations - warm_up))
        beta = _BETA_LAST + (_BETA_FIRST - _BETA_LAST) * 0.5 * (1 + np.cos(np.pi * share))
        learn(
            tf.constant(rng.integers(0, len(patches), settings.batch_places), tf.int32),
            tf.constant(iteration + 1, tf.float32),
            tf.constant(beta, tf.float32),
            tf.constant(settings.regularisation if iteration >= warm_up else 0, tf.float32),
        )
    kernel = np.zeros(shape, np.int8)
    kernel[tuple(places.T)] = floors + (choices(variable).numpy() >= 0.5)
    return replace(quantized, kernel=kernel.reshape(layer.kernel.shape))
