"""A plan for a whole network from the curves of its layers.

Errors of the layers are taken to add up, and a dynamic program over a divided budget finds the
sparsities with the least sum: Frantar and Alistarh, "SPDY: Accurate Pruning with Speedup
Guarantees" (ICML 2022), section 3.1, with weights or bytes in place of time. Between two measured
sparsities the error is taken to grow with the sum of the squared weights that go.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgel3_tflm.converters.compression.sensitivity import LayerCurve, Sensitivity
from edgel3_tflm.converters.export.pack import measure_weights
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.converters.quantization.chain import (
    Layer,
    Quantization,
    fold,
    quantize_layer,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.variants import Plan
from edgel3_tflm.networks.weights import ConvWeights, NetworkWeights
from edgel3_tflm.runtime.packed import CHANNEL_TABLE_BYTES, HEADER, RECORD, round_up
from edgel3_tflm.types import DoubleArray, IntArray, Progress

Goal = Literal["sparsity", "bytes"]

# Finer where half a point is much of what is left.
_STEPS_PERCENT = np.concatenate([np.arange(1, 90), np.arange(90, 100, 0.25)])
# prune() takes a layer as pruned that lacks half a point or one weight.
_LEAST_STEP_PERCENT = 1.0
_LEAST_STEP_WEIGHTS = 2
_BUDGET_PARTS = 20_000
_UNIFORM_PERCENT = 0.02


@dataclass(frozen=True)
class Target:
    """What a plan is to reach: percent of zeros over all kernels, or bytes of the packed model."""

    goal: Goal
    value: float

    def __post_init__(self) -> None:
        """Refuse what no network can have."""
        if self.goal == "sparsity" and not 0 < self.value < 100:
            raise EdgeL3Error(
                f"expected a target sparsity between 0 and 100 (percent), got {self.value:g}"
            )

    def __str__(self) -> str:
        """Say it, for people."""
        if self.goal == "sparsity":
            return f"{self.value:g} % zeros"
        return f"a packed model of {self.value:,.0f} bytes"

    def limit(self, weights: NetworkWeights) -> int:
        """Most that a network may cost: weights that are not zero, or bytes."""
        if self.goal == "bytes":
            return int(self.value)
        # Rounded, for a percentage like 95.45 is a hair off as a binary fraction.
        return math.floor(round(_size(weights) * (100 - self.value) / 100, 6))

    def measure(self, weights: NetworkWeights) -> int:
        """Measure what a network costs, in the same unit."""
        if self.goal == "bytes":
            return measure_packed_bytes(weights)
        return sum(conv.kernel.size - conv.zeros for conv in weights.convs)

    def describe(self, cost: int, weights: NetworkWeights) -> str:
        """Say a cost, for people."""
        if self.goal == "bytes":
            return f"{cost:,} bytes"
        return f"{100 * (1 - cost / _size(weights)):.2f} % zeros"


@dataclass(frozen=True, eq=False)
class LayerChoices:
    """What a layer may become: percents of zeros, how many they are and what each costs.

    The first is what the layer is. The arrays have shape (n,).
    """

    percents: DoubleArray
    zeros: IntArray
    costs: IntArray


@dataclass(frozen=True, eq=False)
class Choices:
    """What the layers may become, and the most that they may cost in all."""

    target: Target
    layers: tuple[LayerChoices, ...]
    budget: int


@dataclass(frozen=True)
class Proposal:
    """A plan that keeps a target.

    Parameters
    ----------
    plan : Plan
    weights : NetworkWeights
        The network, pruned to it.
    packed_bytes : int
        Most that the packed model takes, by :func:`measure_packed_bytes`.
    predicted_error : float
        Sum of the layers' mean squared errors.
    """

    plan: Plan
    weights: NetworkWeights
    packed_bytes: int
    predicted_error: float


def list_choices(
    weights: NetworkWeights, inputs: dict[str, Any], target: Target, progress: Progress
) -> Choices:
    """List what each layer may become on the way to a target.

    Parameters
    ----------
    weights : NetworkWeights
    inputs : dict
        Of the measurement, as :func:`describe_inputs` gives them: layers it leaves out stay as
        they are, the others get no sparser than the sparsest that it tries.
    target : Target
    progress : callable

    Raises
    ------
    EdgeL3Error
        If the network keeps the target already, or cannot reach it.
    """
    given, limit = target.measure(weights), target.limit(weights)
    if given <= limit:
        raise EdgeL3Error(
            f"nothing to prune: expected a target that the network misses, {target} it keeps as it"
            f" is ({target.describe(given, weights)})"
        )
    layers = []
    for number, (conv, layer) in enumerate(zip(weights.convs, fold(weights), strict=True)):
        progress("what each layer may become", number, len(weights.convs))
        tried = inputs["sparsities"] if layer.name in inputs["layers"] else []
        layers.append(_list_layer(conv, layer, tried, target.goal))
    # Headers and tables, as bytes, are no layer's choice.
    budget = limit - (given - sum(int(each.costs[0]) for each in layers))
    least = sum(int(each.costs.min()) for each in layers)
    if least > budget:
        raise EdgeL3Error(
            f"cannot reach {target}: with up to {inputs['sparsities'][-1]:g} % in"
            f" {', '.join(inputs['layers'])} there are"
            f" {target.describe(least + limit - budget, weights)}; try higher --sparsities or more"
            " layers"
        )
    return Choices(target, tuple(layers), budget)


def propose(weights: NetworkWeights, sensitivity: Sensitivity, choices: Choices) -> Proposal:
    """Propose the plan with the least sum of errors that keeps the target.

    Parameters
    ----------
    weights : NetworkWeights
    sensitivity : Sensitivity
        Measured on them.
    choices : Choices
        Of the same inputs.

    Raises
    ------
    EdgeL3Error
        If weights of the same magnitude, which stay or go together, leave the target out of reach.
    """
    curves = {curve.name: curve for curve in sensitivity.layers}
    errors = [
        interpolate_errors(conv, each, curves.get(shape.name))
        for conv, each, shape in zip(
            weights.convs, choices.layers, weights.variant.layers, strict=True
        )
    ]
    target, budget = choices.target, choices.budget
    while True:
        chosen = choose_levels([each.costs for each in choices.layers], errors, budget)
        percents = tuple(
            float(each.percents[level]) for each, level in zip(choices.layers, chosen, strict=True)
        )
        pruned = prune(weights, Plan(100, percents)).weights
        excess = target.measure(pruned) - target.limit(weights)
        if excess <= 0:
            break
        budget -= excess  # fewer went than planned, for they tie: plan for more
        if budget < sum(int(each.costs.min()) for each in choices.layers):
            raise EdgeL3Error(f"cannot reach {target}: too many weights have the same magnitude")
    return Proposal(
        Plan(round(pruned.sparsity_percent, 2), percents),
        pruned,
        measure_packed_bytes(pruned),
        float(sum(each[level] for each, level in zip(errors, chosen, strict=True))),
    )


def uniform_plan(weights: NetworkWeights, target: Target) -> Plan:
    """Find the least percentage that keeps a target if all layers have it, to 0.02 points.

    Layers that have more zeros already keep them.
    """
    low, high = 0.0, 99.99
    while high - low > _UNIFORM_PERCENT:
        middle = (low + high) / 2
        pruned = prune(weights, _same_everywhere(weights, middle)).weights
        keeps = target.measure(pruned) <= target.limit(weights)
        low, high = (low, middle) if keeps else (middle, high)
    return _same_everywhere(weights, math.ceil(100 * high) / 100)


def _same_everywhere(weights: NetworkWeights, percent: float) -> Plan:
    return Plan(percent, (percent,) * len(weights.convs))


def _size(weights: NetworkWeights) -> int:
    return sum(conv.kernel.size for conv in weights.convs)


def measure_packed_bytes(weights: NetworkWeights) -> int:
    """Bytes that a packed model of this network will take at most.

    Which of the smallest weights int8 rounds to zero is the quantizer's choice, so for each layer
    the more of two: rounding to the nearest, and a quantizer that rounds no weight to zero.
    """
    tables = sum(
        RECORD.size + round_up(CHANNEL_TABLE_BYTES * conv.kernel.shape[3], 4)
        for conv in weights.convs
    )
    lists = sum(
        _measure_kernel(_quantize(layer), np.ones(conv.kernel.shape, np.bool_))
        for layer, conv in zip(fold(weights), weights.convs, strict=True)
    )
    return HEADER.size + tables + lists


def _list_layer(
    conv: ConvWeights, layer: Layer, tried: Sequence[float], goal: Goal
) -> LayerChoices:
    size = conv.kernel.size
    given = 100 * conv.zeros / size
    least = given + max(_LEAST_STEP_PERCENT, 100 * _LEAST_STEP_WEIGHTS / size)
    steps = np.union1d(_STEPS_PERCENT, tried)
    further = steps[(steps >= least) & (steps <= max(tried, default=0))]
    # Of what is kept as given the plan says no more than it has.
    percents = np.concatenate([[math.floor(100 * given) / 100], further])
    zeros = np.concatenate([[conv.zeros], np.rint(further * size / 100).astype(np.int64)])
    if goal == "sparsity":
        return LayerChoices(percents, zeros, size - zeros)
    codes = _quantize(layer)
    magnitudes = np.append(np.sort(abs(conv.kernel), axis=None), np.inf)
    costs = [_measure_kernel(codes, abs(conv.kernel) >= magnitudes[count]) for count in zeros]
    return LayerChoices(percents, zeros, np.array(costs))


def interpolate_errors(
    conv: ConvWeights, choices: LayerChoices, curve: LayerCurve | None
) -> DoubleArray:
    """Errors of a layer's choices, between the measured ones by the squared weights that go."""
    if curve is None:
        return np.zeros(len(choices.zeros))
    magnitudes = np.sort(abs(conv.kernel), axis=None).astype(np.float64)
    lost = np.concatenate([[0], np.cumsum(magnitudes**2)])
    zeros = [point.zeros for point in curve.points]
    errors = [point.score.mean_squared_error for point in curve.points]
    # A measured error may fall where more is pruned, by chance: no plan should bet on that.
    return np.interp(lost[choices.zeros], lost[zeros], np.maximum.accumulate(errors))


def _quantize(layer: Layer) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Int8 codes of a kernel, rounded to the nearest, and with no weight rounded to zero."""
    unused = Quantization.of_range(0, 1)
    codes = quantize_layer(layer, unused, unused).kernel
    return codes, np.where(codes == 0, np.sign(layer.kernel), codes).astype(np.int8)


def _measure_kernel(
    codes: tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]], mask: npt.NDArray[np.bool_]
) -> int:
    rounded, full = (
        (each * mask).transpose(3, 0, 1, 2).reshape(mask.shape[3], -1) for each in codes
    )
    size = measure_weights(full)
    # Places and signs alone decide on the size, and of large weights none is rounded to zero.
    if np.count_nonzero(rounded) == np.count_nonzero(full):
        return size
    return max(size, measure_weights(rounded))


def choose_levels(
    costs: Sequence[IntArray], errors: Sequence[DoubleArray], budget: int
) -> list[int]:
    """Choose a level of each layer: the least sum of errors whose sum of costs keeps the budget.

    Costs are rounded up to a part of the budget, so that the sum never exceeds it.
    """
    slack = budget - sum(int(each.min()) for each in costs)
    unit = max(slack / _BUDGET_PARTS, np.finfo(np.float64).tiny)
    best = np.zeros(_BUDGET_PARTS + 1)
    choices = []
    for cost, error in zip(costs, errors, strict=True):
        parts = np.minimum(np.ceil((cost - cost.min()) / unit), _BUDGET_PARTS + 1).astype(np.int64)
        after = np.full_like(best, np.inf)
        choice = np.zeros(len(best), np.int64)
        for level, (part, each) in enumerate(zip(parts, error, strict=True)):
            if part > _BUDGET_PARTS:
                continue
            candidate = np.full_like(best, np.inf)
            candidate[part:] = best[: len(best) - part] + each
            better = candidate < after
            after[better], choice[better] = candidate[better], level
        best = after
        choices.append((parts, choice))
    left, chosen = _BUDGET_PARTS, []
    for parts, choice in reversed(choices):
        level = int(choice[left])
        chosen.append(level)
        left -= int(parts[level])
    return chosen[::-1]
