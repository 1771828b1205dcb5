"""The weights of a network as NumPy arrays, with their provenance."""

from dataclasses import dataclass

import numpy as np

from edgel3_tflm.networks.variants import BATCH_NORM_EPSILON, Variant
from edgel3_tflm.types import FloatArray

TRAINED_KINDS = ("distilled", "fine-tuned")
"""Kinds of weights that this package trained. Their file states the kind."""
SUBSTITUTE_KINDS = ("bundled", "generated")
"""Kinds of weights that replace the authors' weights if those are not available."""


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of one map; every array has shape (channels,)."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    variance: FloatArray

    @property
    def slope(self) -> FloatArray:
        """Factor of the affine map at inference: ``gamma / sqrt(variance + epsilon)``."""
        slope: FloatArray = self.gamma / np.sqrt(self.variance + np.float32(BATCH_NORM_EPSILON))
        return slope

    @property
    def offset(self) -> FloatArray:
        """Offset of the affine map at inference: ``beta - slope * mean``."""
        return self.beta - self.slope * self.mean


@dataclass(frozen=True)
class ConvWeights:
    """One convolution: kernel (3, 3, in, out), bias (out,) and the BatchNorm after it, if any."""

    kernel: FloatArray
    bias: FloatArray
    batch_norm: BatchNorm | None

    @property
    def zeros(self) -> int:
        """Number of kernel weights that are exactly zero."""
        return int(self.kernel.size - np.count_nonzero(self.kernel))


@dataclass(frozen=True)
class Provenance:
    """Where weights come from.

    ``kind`` is one of

    - 'published': the bytes equal the authors' file
    - 'package': from an installed edgel3 package, whose unpacked files have no known digest
    - 'file': a file of the user
    - 'distilled' or 'fine-tuned': a file of the user that states this kind
    - 'bundled': the stand-in of this package
    - 'generated': untrained, made by this package
    """

    kind: str
    name: str
    sha256: str
    description: str


@dataclass(frozen=True)
class NetworkWeights:
    """All weights of a variant, from the input BatchNorm to the last convolution."""

    variant: Variant
    input_norm: BatchNorm
    convs: tuple[ConvWeights, ...]
    provenance: Provenance

    @property
    def sparsity_percent(self) -> float:
        """Percent of all kernel weights that are zero."""
        size = sum(conv.kernel.size for conv in self.convs)
        return 100 * sum(conv.zeros for conv in self.convs) / size
