"""The weights of a network, as plain arrays, and where they come from."""

from dataclasses import dataclass

import numpy as np

from edgel3_tflm.networks.variants import (
    BATCH_NORM_EPSILON,
    Variant,
)
from edgel3_tflm.types import FloatArray

TRAINED_KINDS = ("distilled", "fine-tuned")
"""Kinds of weights that this package trained, which their file says of itself."""
SUBSTITUTE_KINDS = ("bundled", "generated")
"""Kinds of weights that stand for the authors' own where those cannot be had."""


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of one map; every array has shape (channels,)."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    variance: FloatArray

    @property
    def slope(self) -> FloatArray:
        """Factor of the affine map it is at inference: ``gamma / sqrt(variance + epsilon)``."""
        slope: FloatArray = self.gamma / np.sqrt(self.variance + np.float32(BATCH_NORM_EPSILON))
        return slope

    @property
    def offset(self) -> FloatArray:
        """Offset of the affine map it is at inference: ``beta - slope * mean``."""
        return self.beta - self.slope * self.mean


@dataclass(frozen=True)
class ConvWeights:
    """One convolution: kernel (3, 3, in, out), bias (out,) and the BatchNorm that follows."""

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

    ``kind`` is 'published' (bytes equal the authors' file), 'package' (found in an installed edgel3
    package, whose unpacked files have no known digest), 'file' (the user's), 'distilled' or
    'fine-tuned' (the user's, and the file says so), 'bundled' (this package's stand-in) or
    'generated'.
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
        """Zeros among all kernel weights."""
        size = sum(conv.kernel.size for conv in self.convs)
        return 100 * sum(conv.zeros for conv in self.convs) / size
