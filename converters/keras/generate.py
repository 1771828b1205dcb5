"""Random, untrained weights, for machines that cannot fetch trained ones."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.networks.variants import ConvLayer, Variant
from edgel3_tflm.networks.weights import (
    BatchNorm,
    ConvWeights,
    NetworkWeights,
    Provenance,
)
from edgel3_tflm.types import FloatArray

DESCRIPTION = (
    "GENERATED weights: He-initialised, pruned to the plan, BatchNorm statistics set from"
    " calibration clips, never trained; embeddings carry no meaning"
)
_SEED = 20190524
# 16 windows are enough for the statistics of a BatchNorm. The first maps of L3 take 13 MB a window.
_MAX_WINDOWS = 16


def generate_weights(
    variant: Variant, decibels: FloatArray, on_layer: Callable[[int, int], None]
) -> NetworkWeights:
    """Generate weights with which activations have the usual mean and variance in every layer.

    Kernels are drawn from N(0, 2 / fan-in) (He et al., 2015) and pruned to the plan if the variant
    has one. Every BatchNorm gets the mean and variance of its input on the calibration clips.
    Without that, the activations of a pruned network vanish in the deeper layers.

    Parameters
    ----------
    variant : Variant
    decibels : numpy.ndarray, shape (n, mels, frames), float32
        Log-mel spectrograms of calibration windows. 16 of them, evenly spread, are used.
    on_layer : callable
        Progress callback: ``(done, total)``, in convolutions.
    """
    decibels = decibels[:: -(-len(decibels) // _MAX_WINDOWS)]
    mean, variance = _statistics([decibels[..., np.newaxis]])
    provenance = Provenance("generated", f"generated for {variant.name}", "", DESCRIPTION)
    weights = replace(
        draw_weights(variant, mean=mean, variance=variance, seed=_SEED), provenance=provenance
    )
    if variant.plan is not None:
        weights = prune(weights, variant.plan).weights
    weights = _set_statistics(weights, decibels, on_layer)
    digest = sha256_hex(b"".join(conv.kernel.tobytes() for conv in weights.convs))
    return replace(weights, provenance=replace(provenance, sha256=digest))


def draw_weights(
    variant: Variant, *, mean: FloatArray, variance: FloatArray, seed: int
) -> NetworkWeights:
    """Draw dense kernels from N(0, 2 / fan-in) (He et al., 2015).

    The input BatchNorm standardises the log-mel. The other BatchNorms are identities.

    Parameters
    ----------
    variant : Variant
    mean, variance : numpy.ndarray, shape (1,)
        Mean and variance of the log-mel.
    seed : int
    """
    generator = np.random.default_rng(seed)
    return NetworkWeights(
        variant,
        _batch_norm(mean, variance),
        tuple(draw_layer(layer, generator) for layer in variant.layers),
        Provenance("generated", f"drawn for {variant.name}", "", "drawn at random"),
    )


def draw_layer(layer: ConvLayer, generator: np.random.Generator) -> ConvWeights:
    """Draw a kernel from N(0, 2 / fan-in); the bias is zero and the BatchNorm an identity."""
    fan_in = layer.kernel_size // layer.out_channels
    kernel = generator.normal(0, np.sqrt(2 / fan_in), layer.kernel_shape).astype(np.float32)
    zeros = np.zeros(layer.out_channels, np.float32)
    norm = _batch_norm(zeros, zeros + 1) if layer.batch_norm else None
    return ConvWeights(kernel, zeros, norm)


def _batch_norm(mean: FloatArray, variance: FloatArray) -> BatchNorm:
    return BatchNorm(np.ones_like(mean), np.zeros_like(mean), mean, variance)


def _statistics(maps: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Compute the mean and variance of each channel over maps of equal size.

    The maps have shape (n, rows, columns, channels).
    """
    axes = (0, 1, 2)
    mean = np.mean([m.mean(axes, dtype=np.float64) for m in maps], axis=0)
    variance = np.mean([((m - mean) ** 2).mean(axes, dtype=np.float64) for m in maps], axis=0)
    return mean.astype(np.float32), variance.astype(np.float32)


def _set_statistics(
    weights: NetworkWeights, decibels: FloatArray, on_layer: Callable[[int, int], None]
) -> NetworkWeights:
    """Set the BatchNorms in order, each from its input after the BatchNorms before it are set."""
    keras = load_backend().keras
    norm = weights.input_norm
    maps = list((norm.slope * decibels + norm.offset)[:, np.newaxis, ..., np.newaxis])
    convs = list(weights.convs)
    number = 0
    for layer in build_network(weights).layers[1:]:
        if isinstance(layer, keras.layers.BatchNormalization):
            norm = _batch_norm(*_statistics(maps))
            convs[number - 1] = replace(convs[number - 1], batch_norm=norm)
            layer.set_weights([norm.gamma, norm.beta, norm.mean, norm.variance])
        elif isinstance(layer, keras.layers.Conv2D):
            number += 1
            on_layer(number, len(convs))
        maps = [layer(each).numpy() for each in maps]
    return replace(weights, convs=tuple(convs))
