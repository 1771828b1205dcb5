"""Magnitude pruning to a plan, by TensorFlow Model Optimization."""

from dataclasses import dataclass, replace

import numpy as np

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.variants import Plan
from edgel3_tflm.weights import ConvWeights, NetworkWeights

# A published layer may miss its plan by a few weights: ties at the threshold, and the plan's own
# rounding to whole percents. Half a percent point is the plan's resolution.
_ALREADY_PRUNED_TOLERANCE_PERCENT = 0.5


@dataclass(frozen=True)
class PruningResult:
    """Weights with the plan's zeros, and the layers that had to be pruned to get there."""

    weights: NetworkWeights
    pruned_layers: tuple[str, ...]


def prune(weights: NetworkWeights, plan: Plan) -> PruningResult:
    """Prune each convolution to the plan's share of zeros; smallest magnitudes go.

    A layer that already has its share keeps exactly the zeros it has.
    """
    convs = list(weights.convs)
    pruned = []
    for position, (layer, percent) in enumerate(
        zip(weights.variant.layers, plan.layers, strict=True)
    ):
        measured = 100 * convs[position].zeros / convs[position].kernel.size
        if measured < percent - _ALREADY_PRUNED_TOLERANCE_PERCENT:
            convs[position] = _prune_layer(convs[position], percent / 100)
            pruned.append(layer.name)
    return PruningResult(replace(weights, convs=tuple(convs)), tuple(pruned))


def _prune_layer(conv: ConvWeights, sparsity: float) -> ConvWeights:
    """Run TF-MOT's own mask update once, at constant sparsity, on a layer of its own."""
    _, keras, tfmot = load_backend()
    *_, in_channels, out_channels = conv.kernel.shape
    layer = keras.layers.Conv2D(out_channels, conv.kernel.shape[:2])
    wrapper = tfmot.prune_low_magnitude(
        layer, tfmot.ConstantSparsity(sparsity, begin_step=0, frequency=1)
    )
    wrapper.build((None, None, None, in_channels))
    layer.set_weights([conv.kernel, conv.bias])
    wrapper.pruning_step.assign(0)
    wrapper.pruning_obj.conditional_mask_update()
    wrapper.pruning_obj.weight_mask_op()
    kernel = np.asarray(layer.get_weights()[0], np.float32)
    return replace(conv, kernel=kernel + np.float32(0))  # a masked negative weight is -0.0
