"""Adaptive rounding of weights (AdaRound: Nagel et al., "Up or Down?", ICML 2020).

Each weight is rounded up or down. The choice is learned, one layer after the other: the layer's
output after its ReLU should be close to the output of the float network, when the layer's input
comes from the quantized layers before it. A weight that is zero stays zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.quantization.chain import WEIGHT_MAX, QuantizedLayer
from edgel3_tflm.converters.quantization.sparse import Taps, is_sparse
from edgel3_tflm.types import FloatArray, IntArray

# The sigmoid is stretched to this range and clipped, as in the paper, so that it reaches 0 and 1.
_LOW, _HIGH = -0.1, 1.1
# After the warm-up, the exponent of the regularisation falls: choices become hard slowly.
_BETA_FIRST, _BETA_LAST = 20.0, 2.0
_WARM_UP = 0.2
# Decay rates and epsilon of Adam. Keras' Adam would do the same with less code, but it adds epsilon
# before the bias correction. Measured on random layers of SEA-UST's sizes, it rounded about 2 % of
# the weights in the other direction. A network converted before would then give other bytes.
_ADAM = (0.9, 0.999, 1e-8)


@dataclass(frozen=True)
class RoundingSettings:
    """Settings of adaptive rounding, for each layer. The manifest contains them by these names.

    Parameters
    ----------
    places : int
        Positions of the layer's output map to learn from, over all windows.
    iterations : int
    batch_places : int
        Positions in a batch.
    learning_rate : float
    regularisation : float
        Weight of the term that turns soft choices into hard ones.
    """

    places: int = 16384
    iterations: int = 500
    batch_places: int = 256
    learning_rate: float = 2e-2
    regularisation: float = 1e-2


def choose_positions(maps: int, positions: int, total: int, rng: np.random.Generator) -> IntArray:
    """Choose random positions in each of several maps.

    Parameters
    ----------
    maps : int
    positions : int
        Positions in each map.
    total : int
        Positions to choose over all maps. Each map gets an equal share, rounded down, of at least
        one and at most all of its positions.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray, shape (maps, k), int64
        Numbers from 0 to ``positions - 1``. No number occurs twice for a map.
    """
    count = min(positions, max(1, total // maps))
    return np.stack([rng.choice(positions, count, replace=False) for _ in range(maps)])


def gather_patches(map_: npt.NDArray[Any], positions: IntArray) -> npt.NDArray[Any]:
    """Gather the inputs of a 3x3 'same' convolution at some positions of a map.

    Parameters
    ----------
    map_ : numpy.ndarray, shape (rows, columns, c)
        In real units: the map is padded with 0.
    positions : numpy.ndarray, shape (k,)
        ``row * columns + column``.

    Returns
    -------
    numpy.ndarray, shape (k, 9 c)
    """
    rows, columns = np.divmod(positions, map_.shape[1])
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
    """Round each weight of a layer up or down. The bias does not change.

    Parameters
    ----------
    quantized : QuantizedLayer
        With weights rounded to the nearest.
    patches : numpy.ndarray, shape (k, 9 in), float32
        Inputs at k positions, from the quantized layers before this one, in real units.
    targets : numpy.ndarray, shape (k, out), float32
        Pre-activations of the float network at these positions.
    settings : RoundingSettings
    seed : int
        The same seed gives the same result.
    """
    tf = load_backend().tf
    layer = quantized.layer
    filters = layer.kernel.shape[-1]
    scaled = (layer.kernel / quantized.scales).reshape(-1, filters)
    # Only weights that are not zero become variables: pruned networks have few.
    taps = Taps.of(scaled)
    nonzero = (taps.inputs, taps.outputs)
    if not len(taps.inputs) or not len(patches):
        return quantized
    multiply = _multiplier(scaled, taps)
    scaled = scaled[nonzero]
    floors = np.floor(scaled).clip(-WEIGHT_MAX, WEIGHT_MAX - 1)
    rest = (scaled - floors).clip(1e-4, 1 - 1e-4)
    scales = tf.constant(quantized.scales[taps.outputs])

    def choices(variable: Any) -> Any:
        return tf.clip_by_value(tf.sigmoid(variable) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)

    variable = tf.Variable(-np.log((_HIGH - _LOW) / (rest - _LOW) - 1).astype(np.float32))
    first, second = tf.Variable(tf.zeros_like(variable)), tf.Variable(tf.zeros_like(variable))
    bias = tf.constant((quantized.bias * quantized.bias_scales).astype(np.float32))
    inputs = tf.constant(patches)
    below = tf.constant(floors.astype(np.float32))

    def activate(values: Any) -> Any:
        return tf.nn.relu(values) if layer.relu else values

    outputs = activate(tf.constant(targets))

    def learn(batch: Any, step: Any, beta: Any, weight: Any) -> None:
        with tf.GradientTape() as tape:
            soft = choices(variable)
            products = multiply(tf.gather(inputs, batch), (below + soft) * scales)
            found = activate(products + bias)
            error = found - tf.gather(outputs, batch)
            loss = tf.reduce_mean(tf.reduce_sum(error**2, axis=1))
            loss += weight * tf.reduce_sum(1 - tf.abs(2 * soft - 1) ** beta)
        gradient = tape.gradient(loss, variable)
        first_decay, second_decay, epsilon = _ADAM
        first.assign(first_decay * first + (1 - first_decay) * gradient)
        second.assign(second_decay * second + (1 - second_decay) * gradient**2)
        mean = first / (1 - first_decay**step)
        deviation = tf.sqrt(second / (1 - second_decay**step))
        variable.assign_sub(settings.learning_rate * mean / (deviation + epsilon))

    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def learn_all(batches: Any, betas: Any, weights: Any) -> None:
        for iteration in tf.range(settings.iterations):
            step = tf.cast(iteration + 1, tf.float32)
            learn(batches[iteration], step, betas[iteration], weights[iteration])

    rng = np.random.default_rng(seed)
    batches = [
        rng.integers(0, len(patches), settings.batch_places) for _ in range(settings.iterations)
    ]
    iterations = np.arange(settings.iterations)
    warm_up = _WARM_UP * settings.iterations
    shares = np.maximum(0.0, (iterations - warm_up) / (settings.iterations - warm_up))
    betas = _BETA_LAST + (_BETA_FIRST - _BETA_LAST) * 0.5 * (1 + np.cos(np.pi * shares))
    regularisations = np.where(iterations >= warm_up, settings.regularisation, 0)
    learn_all(
        tf.constant(np.stack(batches), tf.int32),
        tf.constant(betas, tf.float32),
        tf.constant(regularisations, tf.float32),
    )
    kernel = np.zeros((patches.shape[1], filters), np.int8)
    kernel[nonzero] = floors + (choices(variable).numpy() >= 0.5)
    return replace(quantized, kernel=kernel.reshape(layer.kernel.shape))


def _multiplier(matrix: FloatArray, taps: Taps) -> Callable[[Any, Any], Any]:
    """Return the product, for TensorFlow, of patches and a matrix of which only the taps change.

    The function that is returned takes patches of shape (k, inputs) and the weights of the taps. It
    has a gradient for the weights.
    """
    tf = load_backend().tf
    if not is_sparse(matrix):
        places = np.stack([taps.inputs, taps.outputs], axis=1)
        return lambda patches, weights: tf.matmul(
            patches, tf.scatter_nd(places, weights, matrix.shape)
        )
    filters = matrix.shape[1]
    no_bias = np.zeros(filters, np.float32)

    def offsets(columns: int) -> npt.NDArray[np.uint32]:
        return (taps.inputs * columns).astype(np.uint32)

    def product(weights: FloatArray, columns: FloatArray) -> FloatArray:
        count = columns.shape[1]
        return taps.multiply(weights, columns, offsets(count), no_bias, count)

    def gradient(columns: FloatArray, errors: FloatArray) -> FloatArray:
        return taps.correlate(columns, offsets(columns.shape[1]), errors)

    def multiply(patches: Any, weights: Any) -> Any:
        columns = tf.transpose(patches)

        @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
        def multiply_taps(weights: Any) -> Any:
            found = tf.numpy_function(product, [weights, columns], tf.float32)

            def pull_back(errors: Any) -> Any:
                arguments = [columns, tf.transpose(errors)]
                return tf.ensure_shape(
                    tf.numpy_function(gradient, arguments, tf.float32), weights.shape
                )

            return tf.ensure_shape(tf.transpose(found), (None, filters)), pull_back

        return multiply_taps(weights)

    return multiply
