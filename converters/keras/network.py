"""The Keras network of a variant, from conv1 to the embedding."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.networks.variants import (
    BATCH_NORM_EPSILON,
    KERNEL_SIZE,
    POOL_AFTER,
    Variant,
)
from edgel3_tflm.networks.weights import BatchNorm, ConvWeights, NetworkWeights

# Of the moving statistics in training, which settle within a hundred steps.
MOMENTUM = 0.97


def build_network(weights: NetworkWeights, batch_size: int | None = 1) -> Any:
    """Build the network with its weights. Its input is the log-mel after the input BatchNorm.

    Parameters
    ----------
    weights : NetworkWeights
    batch_size : int, optional
        1 for conversion, so that the flatbuffer contains a constant shape and does not compute it.
        None, for any size, in training.

    Returns
    -------
    tf_keras.Model
        From (batch, mels, frames, 1) to (batch, embedding_size). The names of its layers are
        ``conv1``, ``batch_norm1`` and so on.
    """
    keras = load_backend().keras
    keras.backend.clear_session()  # else names in the flatbuffer would count networks
    variant = weights.variant
    spec = variant.frontend
    x = inputs = keras.Input((spec.mels, spec.frames, 1), batch_size=batch_size, name="log_mel")
    for number, layer in enumerate(variant.layers, start=1):
        x = keras.layers.Conv2D(layer.out_channels, KERNEL_SIZE, padding="same", name=layer.name)(x)
        if layer.batch_norm:
            x = keras.layers.BatchNormalization(
                epsilon=BATCH_NORM_EPSILON, momentum=MOMENTUM, name=f"batch_norm{number}"
            )(x)
            x = keras.layers.ReLU(name=f"relu{number}")(x)
        if number in POOL_AFTER and number < len(variant.layers):
            x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
    # In float32, even if the rest trains in bfloat16. With this pool in bfloat16, a student did not
    # learn (L3 network, TensorFlow 2.21 on a CPU).
    x = keras.layers.MaxPooling2D(tuple(x.shape[1:3]), name="global_pool", dtype="float32")(x)
    x = keras.layers.Reshape((variant.embedding_size,), name="embedding")(x)
    network = keras.Model(inputs, x, name=_identifier(variant))
    set_convolutions(network, weights.convs)
    return network


def set_convolutions(network: Any, convs: Sequence[ConvWeights], prefix: str = "") -> None:
    """Set the weights of the layers ``conv1``, ``batch_norm1`` and so on, each after a prefix."""
    for number, conv in enumerate(convs, start=1):
        network.get_layer(f"{prefix}conv{number}").set_weights([conv.kernel, conv.bias])
        if (norm := conv.batch_norm) is not None:
            network.get_layer(f"{prefix}batch_norm{number}").set_weights(
                [norm.gamma, norm.beta, norm.mean, norm.variance]
            )


def read_convolutions(
    network: Any, convs: Sequence[ConvWeights], prefix: str = ""
) -> list[ConvWeights]:
    """Read the weights of the layers that :func:`set_convolutions` sets, after training."""
    trained = []
    for number, conv in enumerate(convs, start=1):
        kernel, bias = network.get_layer(f"{prefix}conv{number}").get_weights()
        norm = conv.batch_norm
        if norm is not None:
            norm = BatchNorm(*network.get_layer(f"{prefix}batch_norm{number}").get_weights())
        # A masked negative weight is -0.0, which becomes 0.0.
        trained.append(ConvWeights(kernel + np.float32(0), bias, norm))
    return trained


def read_network(network: Any, weights: NetworkWeights) -> NetworkWeights:
    """Read a trained network's weights; input BatchNorm and provenance are those of ``weights``."""
    return replace(weights, convs=tuple(read_convolutions(network, weights.convs)))


def _identifier(variant: Variant) -> str:
    return variant.name.replace("-", "_").replace(".", "_")
