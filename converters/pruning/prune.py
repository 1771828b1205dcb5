"""Magnitude pruning to a plan, by TensorFlow Model Optimization."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.networks.variants import Plan
from edgel3_tflm.networks.weights import ConvWeights, NetworkWeights

# A published layer may miss its plan by a few weights: ties at the threshold, and the plan's own
# rounding to whole percents. Half a percent point is the plan's resolution. In a small layer one
# weight is more than that, and TF-MOT keeps a whole number of them, one at least.
_ALREADY_PRUNED_TOLERANCE_PERCENT = 0.5
_ALREADY_PRUNED_TOLERANCE_WEIGHTS = 1


@dataclass(frozen=True)
class PruningResult:
    """Weights with the plan's zeros, and the layers that had to be pruned to get there."""

    weights: NetworkWeights
    pruned_layers: tuple[str, ...]

    @property
    def description(self) -> str:
        """Where the weights come from, and what was done to them here."""
        description = self.weights.provenance.description
        if self.pruned_layers:
            names = ", ".join(self.pruned_layers)
            description += f"; {names} pruned here by magnitude, not retrained"
        return description


class Pruner:
    """TF-MOT's masks on some convolutions of a network that may be in training.

    TF-MOT's wrappers hold masks and schedule; they stay outside the network, so that its forward
    pass may compute in another precision than its weights have.

    Parameters
    ----------
    schedules : mapping
        For each Keras convolution (already built) the TF-MOT pruning schedule.
    """

    def __init__(self, schedules: Mapping[Any, Any]) -> None:
        wrap = load_backend().sparsity.prune_low_magnitude
        self.wrappers = []
        for layer, schedule in schedules.items():
            wrapper = wrap(layer, schedule)
            wrapper.build((None, None, None, layer.kernel.shape[2]))
            self.wrappers.append(wrapper)

    def apply(self, step: int) -> None:
        """Update the masks that are due at a training step and zero the weights they cover."""
        for wrapper in self.wrappers:
            wrapper.pruning_step.assign(step)
            wrapper.pruning_obj.conditional_mask_update()
            wrapper.pruning_obj.weight_mask_op()


def prune(weights: NetworkWeights, plan: Plan) -> PruningResult:
    """Prune each convolution to the plan's share of zeros; smallest magnitudes go.

    A layer that already has its share keeps exactly the zeros it has.
    """
    convs = list(weights.convs)
    pruned = []
    for position, (layer, percent) in enumerate(
        zip(weights.variant.layers, plan.layers, strict=True)
    ):
        missing = layer.kernel_size * percent / 100 - convs[position].zeros
        if missing > max(
            _ALREADY_PRUNED_TOLERANCE_WEIGHTS,
            layer.kernel_size * _ALREADY_PRUNED_TOLERANCE_PERCENT / 100,
        ):
            convs[position] = _prune_layer(convs[position], percent / 100)
            pruned.append(layer.name)
    return PruningResult(replace(weights, convs=tuple(convs)), tuple(pruned))


def _prune_layer(conv: ConvWeights, sparsity: float) -> ConvWeights:
    """Run TF-MOT's own mask update once, at constant sparsity, on a layer of its own."""
    _, keras, tfmot = load_backend()
    rows, columns, in_channels, out_channels = conv.kernel.shape
    layer = keras.layers.Conv2D(out_channels, (rows, columns))
    layer.build((None, None, None, in_channels))
    layer.set_weights([conv.kernel, conv.bias])
    Pruner({layer: tfmot.ConstantSparsity(sparsity, begin_step=0, frequency=1)}).apply(0)
    kernel = np.asarray(layer.get_weights()[0], np.float32)
    return replace(conv, kernel=kernel + np.float32(0))  # a masked negative weight is -0.0
