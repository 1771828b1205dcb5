"""The Keras network of a variant, from conv1 to the embedding."""

from typing import Any

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.variants import BATCH_NORM_EPSILON, KERNEL_SIZE, POOL_AFTER, Variant
from edgel3_tflm.weights import NetworkWeights


def build_network(weights: NetworkWeights) -> Any:
    """Build the network with its weights.

    The input is the log-mel behind the input BatchNorm; batch size 1, so that the flatbuffer holds
    a constant reshape and no shape arithmetic.

    Returns
    -------
    tf_keras.Model
        (1, mels, frames, 1) to (1, embedding_size). Layers are named ``conv1``, ``batch_norm1``...
    """
    keras = load_backend().keras
    keras.backend.clear_session()  # names in the flatbuffer must not count earlier networks
    variant = weights.variant
    spec = variant.frontend
    x = inputs = keras.Input((spec.mels, spec.frames, 1), batch_size=1, name="log_mel")
    for number, layer in enumerate(variant.layers, start=1):
        x = keras.layers.Conv2D(layer.out_channels, KERNEL_SIZE, padding="same", name=layer.name)(x)
        if layer.batch_norm:
            x = keras.layers.BatchNormalization(
                epsilon=BATCH_NORM_EPSILON, name=f"batch_norm{number}"
            )(x)
            x = keras.layers.ReLU(name=f"relu{number}")(x)
        if number in POOL_AFTER:
            x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = keras.layers.MaxPooling2D(tuple(x.shape[1:3]), name="global_pool")(x)
    x = keras.layers.Reshape((variant.embedding_size,), name="embedding")(x)
    network = keras.Model(inputs, x, name=_identifier(variant))
    for number, conv in enumerate(weights.convs, start=1):
        network.get_layer(f"conv{number}").set_weights([conv.kernel, conv.bias])
        if (norm := conv.batch_norm) is not None:
            network.get_layer(f"batch_norm{number}").set_weights(
                [norm.gamma, norm.beta, norm.mean, norm.variance]
            )
    return network


def _identifier(variant: Variant) -> str:
    return variant.name.replace("-", "_").replace(".", "_")
