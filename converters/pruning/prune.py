"""Magnitude pruning to a plan, by TensorFlow Model Optimization (TF-MOT)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgel3_tflm.converters.backend import load_backend, load_pruning
from edgel3_tflm.networks.variants import Plan
from edgel3_tflm.networks.weights import ConvWeights, NetworkWeights

# A layer counts as pruned if it misses its plan by no more than this. Published layers do, because
# some weights have equal magnitudes, and because the published plans are rounded to whole percents:
# half a percent point is their resolution. In a small layer, one weight is more than that, and
# TF-MOT keeps a whole number of weights, at least one.
_ALREADY_PRUNED_TOLERANCE_PERCENT = 0.5
_ALREADY_PRUNED_TOLERANCE_WEIGHTS = 1


@dataclass(frozen=True)
class PruningResult:
    """Weights with the zeros of a plan, and the layers that were pruned for it."""

    weights: NetworkWeights
    pruned_layers: tuple[str, ...]

    @property
    def description(self) -> str:
        """Describe the origin of the weights and the pruning."""
        description = self.weights.provenance.description
        if self.pruned_layers:
            names = ", ".join(self.pruned_layers)
            description += f"; {names} pruned here by magnitude, not retrained"
        return description


class Pruner:
    """Masks of TF-MOT on convolutions of a network, also during training.

    TF-MOT's wrappers contain the masks and the schedule. They are not part of the network, so that
    the forward pass can use another precision than the weights.

    Parameters
    ----------
    schedules : mapping
        The TF-MOT pruning schedule of each Keras convolution. The convolutions must be built.
    """

    def __init__(self, schedules: Mapping[Any, Any]) -> None:
        wrap = load_pruning().prune_low_magnitude
        self.wrappers = []
        for layer, schedule in schedules.items():
            wrapper = wrap(layer, schedule)
            wrapper.build((None, None, None, layer.kernel.shape[2]))
            self.wrappers.append(wrapper)

    def apply(self, step: int) -> None:
        """Update the masks that are due at a training step, and set the masked weights to zero."""
        for wrapper in self.wrappers:
            wrapper.pruning_step.assign(step)
            wrapper.pruning_obj.conditional_mask_update()
            wrapper.pruning_obj.weight_mask_op()


def prune(weights: NetworkWeights, plan: Plan) -> PruningResult:
    """Prune each convolution to its percent of zeros in the plan, smallest magnitudes first.

    A layer that already has these zeros is not changed.

    Parameters
    ----------
    weights : NetworkWeights
    plan : Plan
        With one percentage for each convolution.
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
    """Prune a convolution by one mask update of TF-MOT at constant sparsity."""
    keras, tfmot = load_backend().keras, load_pruning()
    rows, columns, in_channels, out_channels = conv.kernel.shape
    layer = keras.layers.Conv2D(out_channels, (rows, columns))
    layer.build((None, None, None, in_channels))
    layer.set_weights([conv.kernel, conv.bias])
    Pruner({layer: tfmot.ConstantSparsity(sparsity, begin_step=0, frequency=1)}).apply(0)
    kernel = np.asarray(layer.get_weights()[0], np.float32)
    return replace(conv, kernel=kernel + np.float32(0))  # -0.0 becomes 0.0
