"""Smaller networks out of given weights: fewer convolutions, or fewer filters in each."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.weights import BatchNorm, ConvWeights, NetworkWeights


def reduce_weights(
    weights: NetworkWeights, depth: int | None, filters: tuple[int, ...] | None
) -> NetworkWeights:
    """Cut depth, then width; None leaves either as it is. Errors as the two functions below."""
    if depth is not None:
        weights = cut_depth(weights, depth)
    return weights if filters is None else cut_width(weights, filters)


def cut_depth(weights: NetworkWeights, convolutions: int) -> NetworkWeights:
    """Keep the first convolutions, unchanged; ``Variant.with_depth`` says what the embedding is.

    Parameters
    ----------
    weights : NetworkWeights
    convolutions : int

    Raises
    ------
    EdgeL3Error
        If there are not so many.
    """
    variant = weights.variant.with_depth(convolutions)
    if variant == weights.variant:
        return weights
    kept = weights.convs[:convolutions]
    if not variant.layers[-1].batch_norm:
        kept = (*kept[:-1], replace(kept[-1], batch_norm=None))
    return _say(
        replace(weights, variant=variant, convs=kept), f"embedding taken from conv{convolutions}"
    )


def cut_width(weights: NetworkWeights, filters: tuple[int, ...]) -> NetworkWeights:
    """Drop the filters with the smallest sums of absolute kernel weights.

    With a filter go its bias, its channel of the BatchNorm and its input channel in the convolution
    that follows. Li et al., "Pruning Filters for Efficient ConvNets" (ICLR 2017), in their
    independent form: each layer's sums are of the kernels as given, with the input channels that
    are dropped in front of it; of equal sums the first stays. The embedding keeps the order of the
    values that remain.

    Parameters
    ----------
    weights : NetworkWeights
    filters : tuple of int
        How many are kept of each convolution.

    Raises
    ------
    EdgeL3Error
        If the weights have fewer, or the list is not one of the network's.
    """
    variant = weights.variant.with_filters(filters)
    have = weights.variant.filters
    if variant.filters == have:
        return weights
    if any(more > most for more, most in zip(variant.filters, have, strict=True)):
        raise EdgeL3Error(
            f"expected at most the filters that the weights have, {', '.join(map(str, have))}; got"
            f" {', '.join(map(str, variant.filters))}"
        )
    inputs = np.zeros(1, np.intp)  # of conv1: the log-mel
    convs = []
    for conv, count in zip(weights.convs, variant.filters, strict=True):
        sums = np.abs(conv.kernel).sum((0, 1, 2), dtype=np.float64)
        kept = np.sort(np.argsort(-sums, kind="stable")[:count])
        convs.append(
            ConvWeights(
                conv.kernel[:, :, inputs][..., kept],
                conv.bias[kept],
                conv.batch_norm and _keep(conv.batch_norm, kept),
            )
        )
        inputs = kept
    return _say(
        replace(weights, variant=variant, convs=tuple(convs)),
        f"cut to the filters {', '.join(map(str, variant.filters))} with the largest absolute"
        " kernel weights, not retrained",
    )


def _keep(norm: BatchNorm, kept: npt.NDArray[np.intp]) -> BatchNorm:
    return BatchNorm(norm.gamma[kept], norm.beta[kept], norm.mean[kept], norm.variance[kept])


def _say(weights: NetworkWeights, what: str) -> NetworkWeights:
    provenance = weights.provenance
    return replace(
        weights,
        provenance=replace(provenance, description=f"{provenance.description}; {what}"),
    )
