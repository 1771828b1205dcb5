"""A network with four filters in each layer, for fast tests, and the file of its weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgel3_tflm.converters.keras.generate import draw_weights
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weight_files import pack_weights
from edgel3_tflm.networks.weights import BatchNorm, NetworkWeights

TINY = find_variant("sea", embedding_size=64).with_filters((4,) * 8)


def draw(variant: Variant = TINY) -> NetworkWeights:
    """Return the weights in the file that :func:`write_weights` writes."""
    mean, variance = np.float32([-50]), np.float32([400])
    drawn = draw_weights(variant, mean=mean, variance=variance, seed=5)
    generator = np.random.default_rng(5)

    def trained(norm: BatchNorm) -> BatchNorm:
        """Return a BatchNorm like a trained one: each channel has its own factor and offset."""
        size = norm.gamma.shape
        gamma, variance = generator.uniform(0.7, 1.4, (2, *size)).astype(np.float32)
        beta, mean = generator.normal(0, 0.2, (2, *size)).astype(np.float32)
        return BatchNorm(gamma, beta, mean, variance)

    convs = (
        replace(conv, batch_norm=conv.batch_norm and trained(conv.batch_norm))
        for conv in drawn.convs
    )
    return replace(drawn, convs=tuple(convs))


def write_weights(directory: Path, variant: Variant = TINY) -> Path:
    """Write the weights to a file that is accepted for every size of SEA-UST."""
    path = directory / ("tiny.h5.gz" if variant == TINY else f"{variant.name}.h5.gz")
    path.write_bytes(pack_weights(draw(variant)))
    return path
