"""Networks with fewer convolutions, or fewer filters in each, from given weights."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.weights import BatchNorm, ConvWeights, NetworkWeights


def reduce_weights(
    weights: NetworkWeights, depth: int | None, filters: tuple[int, ...] | None
) -> NetworkWeights:
    """Cut the depth and then the width of a network; None leaves it as it is.

    Raises
    ------
    EdgeL3Error
        As for :func:`cut_depth` and :func:`cut_width`.
    """
    if depth is not None:
        weights = cut_depth(weights, depth)
    return weights if filters is None else cut_width(weights, filters)


def cut_depth(weights: NetworkWeights, convolutions: int) -> NetworkWeights:
    """Keep the first convolutions, unchanged.

    :meth:`Variant.with_depth` describes the embedding of the result.

    Parameters
    ----------
    weights : NetworkWeights
    convolutions : int
        Number of convolutions to keep.

    Raises
    ------
    EdgeL3Error
        If the network has fewer.
    """
    variant = weights.variant.with_depth(convolutions)
    if variant == weights.variant:
        return weights
    kept = weights.convs[:convolutions]
    if not variant.layers[-1].batch_norm:
        kept = (*kept[:-1], replace(kept[-1], batch_norm=None))
    return _add_description(
        replace(weights, variant=variant, convs=kept), f"embedding taken from conv{convolutions}"
    )


def cut_width(weights: NetworkWeights, filters: tuple[int, ...]) -> NetworkWeights:
    """Remove the filters with the smallest sums of absolute kernel weights.

    A filter is removed together with its bias, its channel of the BatchNorm and its input channel
    in the next convolution. The method is the independent one of Li et al., "Pruning Filters for
    Efficient ConvNets" (ICLR 2017): each layer's sums are over the given kernels, including the
    input channels that the cut of the layer before removes. Of filters with equal sums, the first
    is kept. The embedding keeps its order.

    Parameters
    ----------
    weights : NetworkWeights
    filters : tuple of int
        Number of filters to keep in each convolution.

    Raises
    ------
    EdgeL3Error
        If the weights have fewer filters, or the list does not fit the network.
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
    inputs = np.zeros(1, np.intp)  # input channels of conv1: the log-mel
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
    return _add_description(
        replace(weights, variant=variant, convs=tuple(convs)),
        f"cut to the filters {', '.join(map(str, variant.filters))} with the largest absolute"
        " kernel weights, not retrained",
    )


def _keep(norm: BatchNorm, kept: npt.NDArray[np.intp]) -> BatchNorm:
    return BatchNorm(norm.gamma[kept], norm.beta[kept], norm.mean[kept], norm.variance[kept])


def _add_description(weights: NetworkWeights, what: str) -> NetworkWeights:
    provenance = weights.provenance
    return replace(
        weights,
        provenance=replace(provenance, description=f"{provenance.description}; {what}"),
    )
