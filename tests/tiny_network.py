"""A network of four filters, whose embeddings take no time; its weights are a file as any other."""

from pathlib import Path

import numpy as np

from edgel3_tflm.converters.generate import draw_weights
from edgel3_tflm.variants import Variant, find_variant
from edgel3_tflm.weights import NetworkWeights, pack_weights

TINY = find_variant("sea", embedding_size=64).with_filters((4,) * 8)


def draw(variant: Variant = TINY) -> NetworkWeights:
    """Weights of the file that :func:`write_weights` writes."""
    mean, variance = np.float32([-50]), np.float32([400])
    return draw_weights(variant, mean=mean, variance=variance, seed=5)


def write_weights(directory: Path) -> Path:
    """Write the weights, to be used as those of any size of SEA-UST."""
    path = directory / "tiny.h5.gz"
    path.write_bytes(pack_weights(draw()))
    return path
