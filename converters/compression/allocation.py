"""The plan with the smallest error for a target size, from the sensitivity curves of the layers.

The errors of the layers are assumed to add up. A dynamic program over a discretized budget finds
the sparsities with the smallest sum of errors: Frantar and Alistarh, "SPDY: Accurate Pruning with
Speedup Guarantees" (ICML 2022), section 3.1, with weights, bytes or modelled cycles in place of
time. Between two measured sparsities, the error is interpolated linearly in the sum of the squares
of the pruned weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgel3_tflm.converters.compression.sensitivity import LayerCurve, Sensitivity
from edgel3_tflm.converters.export.pack import PackedWeights, encode_weights
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.converters.quantization.chain import (
    Layer,
    Quantization,
    fold,
    quantize_layer,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.variants import POOL_AFTER, ConvLayer, Plan, Variant
from edgel3_tflm.networks.weights import ConvWeights, NetworkWeights
from edgel3_tflm.runtime.c_library.cycles import count_cycles, expect_work
from edgel3_tflm.runtime.packed import CHANNEL_TABLE_BYTES, HEADER, RECORD, Pooling, round_up
from edgel3_tflm.types import BoolArray, DoubleArray, Int8Array, IntArray, Progress

Goal = Literal["sparsity", "bytes", "cycles"]

_Cost = Callable[[PackedWeights], int]

# Sparsities that a plan can have. Above 90 %, one point is a large share of the remaining weights.
_STEPS_PERCENT = np.concatenate([np.arange(1, 90), np.arange(90, 100, 0.25)])
# Smallest increase of a layer's zeros. It exceeds the tolerance of prune(), which does not change a
# layer if half a percent point or one weight is missing.
_LEAST_STEP_PERCENT = 1.0
_LEAST_STEP_WEIGHTS = 2
_BUDGET_PARTS = 20_000
_UNIFORM_PERCENT = 0.02


@dataclass(frozen=True)
class Target:
    """The target of a plan: a percentage or an upper limit.

    Parameters
    ----------
    goal : str
        Percent of zeros over all kernels, bytes of the packed model, or modelled cycles of a window
        on a Cortex-M7.
    value : float
    """

    goal: Goal
    value: float

    def __post_init__(self) -> None:
        """Check the percentage."""
        if self.goal == "sparsity" and not 0 < self.value < 100:
            raise EdgeL3Error(
                f"expected a target sparsity between 0 and 100 (percent), got {self.value:g}"
            )

    def __str__(self) -> str:
        """Describe the target in words."""
        if self.goal == "sparsity":
            return f"{self.value:g} % zeros"
        if self.goal == "cycles":
            return f"{self.value:,.0f} modelled cycles"
        return f"a packed model of {self.value:,.0f} bytes"

    def limit(self, weights: NetworkWeights) -> int:
        """Return the largest cost that meets the target.

        A cost is a number of weights that are not zero, of bytes or of cycles.
        """
        if self.goal != "sparsity":
            return int(self.value)
        # Rounded, because a percentage such as 95.45 is not exact in binary.
        return math.floor(round(_size(weights) * (100 - self.value) / 100, 6))

    def measure(self, weights: NetworkWeights) -> int:
        """Return the cost of a network, in the same unit."""
        if self.goal == "bytes":
            return measure_packed_bytes(weights)
        if self.goal == "cycles":
            return measure_cycles(weights)
        return sum(conv.kernel.size - conv.zeros for conv in weights.convs)

    def describe(self, cost: int, weights: NetworkWeights) -> str:
        """Describe a cost in words."""
        if self.goal != "sparsity":
            return f"{cost:,} {'bytes' if self.goal == 'bytes' else 'modelled cycles'}"
        return f"{100 * (1 - cost / _size(weights)):.2f} % zeros"


@dataclass(frozen=True, eq=False)
class LayerChoices:
    """The sparsities that a layer can have, in ascending order, from that of the given layer.

    Parameters
    ----------
    percents : numpy.ndarray, shape (n,)
        Percents of zeros.
    zeros : numpy.ndarray, shape (n,)
        Numbers of zeros.
    costs : numpy.ndarray, shape (n,)
        Weights that are not zero, bytes or cycles.
    """

    percents: DoubleArray
    zeros: IntArray
    costs: IntArray


@dataclass(frozen=True, eq=False)
class Choices:
    """The choices of all layers, and the largest sum of their costs that meets the target."""

    target: Target
    layers: tuple[LayerChoices, ...]
    budget: int


@dataclass(frozen=True)
class Proposal:
    """A plan that meets a target.

    Parameters
    ----------
    plan : Plan
    weights : NetworkWeights
        The network, pruned to the plan.
    packed_bytes : int
        Upper bound of the packed model's size, see :func:`measure_packed_bytes`.
    cycles : int
        Upper bound of the modelled cycles of a window, see :func:`measure_cycles`.
    predicted_error : float
        Sum of the layers' mean squared errors.
    """

    plan: Plan
    weights: NetworkWeights
    packed_bytes: int
    cycles: int
    predicted_error: float


def list_choices(
    weights: NetworkWeights, inputs: dict[str, Any], target: Target, progress: Progress
) -> Choices:
    """List the sparsities that each layer can have in a plan for a target.

    Parameters
    ----------
    weights : NetworkWeights
    inputs : dict
        The result of :func:`describe_inputs`. Layers that are not in it are not pruned. The highest
        of its sparsities is the limit for the other layers.
    target : Target
    progress : callable

    Raises
    ------
    EdgeL3Error
        If the network meets the target already, or cannot meet it.
    """
    given, limit = target.measure(weights), target.limit(weights)
    if given <= limit:
        raise EdgeL3Error(
            f"nothing to prune: expected a target that the network does not meet, got {target};"
            f" the network has {target.describe(given, weights)}"
        )
    costs: Sequence[_Cost | None] = [None] * len(weights.convs)
    if target.goal != "sparsity":
        costs = _costs_of(weights.variant, target.goal)
    layers = []
    for number, (conv, layer) in enumerate(zip(weights.convs, fold(weights), strict=True)):
        progress("list sparsities of layers", number, len(weights.convs))
        tried = inputs["sparsities"] if layer.name in inputs["layers"] else []
        layers.append(_list_layer(conv, layer, tried, costs[number]))
    # The cost of headers and tables is the same for every choice.
    budget = limit - (given - sum(int(each.costs[0]) for each in layers))
    least = sum(int(each.costs.min()) for each in layers)
    if least > budget:
        raise EdgeL3Error(
            f"cannot reach {target}: with {inputs['sparsities'][-1]:g} % zeros in"
            f" {', '.join(inputs['layers'])} the network has"
            f" {target.describe(least + limit - budget, weights)}; try higher --sparsities or more"
            " --layers"
        )
    return Choices(target, tuple(layers), budget)


def propose(weights: NetworkWeights, sensitivity: Sensitivity, choices: Choices) -> Proposal:
    """Find the plan with the smallest sum of errors that meets the target.

    Parameters
    ----------
    weights : NetworkWeights
    sensitivity : Sensitivity
        Measured on these weights.
    choices : Choices
        Listed for the same weights and inputs.

    Raises
    ------
    EdgeL3Error
        If no plan meets the target, because weights of equal magnitude can only be pruned together.
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
        budget -= excess  # equal magnitudes: fewer weights were pruned than planned
        if budget < sum(int(each.costs.min()) for each in choices.layers):
            raise EdgeL3Error(f"cannot reach {target}: too many weights have the same magnitude")
    return Proposal(
        Plan(round(pruned.sparsity_percent, 2), percents),
        pruned,
        measure_packed_bytes(pruned),
        measure_cycles(pruned),
        float(sum(each[level] for each, level in zip(errors, chosen, strict=True))),
    )


def uniform_plan(weights: NetworkWeights, target: Target) -> Plan:
    """Find the lowest percentage that meets a target if all layers have it, to 0.02 points.

    Layers with more zeros keep them.
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
    """Compute an upper bound of the size of the packed model of a network, in bytes.

    The quantizer decides which of the smallest weights become zero in int8. The bound of each layer
    is the larger of two sizes: all weights rounded to the nearest, and no weight rounded to zero.
    """
    tables = sum(
        RECORD.size + round_up(CHANNEL_TABLE_BYTES * conv.kernel.shape[3], 4)
        for conv in weights.convs
    )
    return HEADER.size + tables + _sum_costs(weights, "bytes")


def measure_cycles(weights: NetworkWeights) -> int:
    """Compute an upper bound of the modelled cycles of a window on a Cortex-M7.

    No row of activations is zero, as in :func:`modelled_cycles` without ``maps``. The bound of each
    layer is the larger of those of the two kernels of :func:`measure_packed_bytes`.
    """
    return _sum_costs(weights, "cycles")


def _sum_costs(weights: NetworkWeights, goal: Literal["bytes", "cycles"]) -> int:
    costs = _costs_of(weights.variant, goal)
    return sum(
        _measure_kernel(_quantize(layer), np.ones(conv.kernel.shape, np.bool_), cost)
        for layer, conv, cost in zip(fold(weights), weights.convs, costs, strict=True)
    )


def _costs_of(variant: Variant, goal: Literal["bytes", "cycles"]) -> list[_Cost]:
    """Return a function for each layer that computes the cost of its packed weights."""
    if goal == "bytes":
        return [lambda packed: packed.size_bytes] * len(variant.layers)

    def pooling_after(number: int) -> Pooling:
        if number == len(variant.layers):
            return Pooling.GLOBAL
        return Pooling.MAX_2X2 if number in POOL_AFTER else Pooling.NONE

    def cycles_of(layer: ConvLayer, pooling: Pooling) -> _Cost:
        return lambda packed: round(
            count_cycles(expect_work(layer, pooling, packed.encoding, packed.taps))
        )

    return [
        cycles_of(layer, pooling_after(number))
        for number, layer in enumerate(variant.layers, start=1)
    ]


def _list_layer(
    conv: ConvWeights, layer: Layer, tried: Sequence[float], cost: _Cost | None
) -> LayerChoices:
    size = conv.kernel.size
    given = 100 * conv.zeros / size
    least = given + max(_LEAST_STEP_PERCENT, 100 * _LEAST_STEP_WEIGHTS / size)
    steps = np.union1d(_STEPS_PERCENT, tried)
    further = steps[(steps >= least) & (steps <= max(tried, default=0))]
    # Rounded down, so that a layer that is not pruned keeps its measured sparsity in the plan.
    percents = np.concatenate([[math.floor(100 * given) / 100], further])
    zeros = np.concatenate([[conv.zeros], np.rint(further * size / 100).astype(np.int64)])
    if cost is None:
        return LayerChoices(percents, zeros, size - zeros)
    kernels = _quantize(layer)
    magnitudes = np.append(np.sort(abs(conv.kernel), axis=None), np.inf)
    costs = [
        _measure_kernel(kernels, abs(conv.kernel) >= magnitudes[count], cost) for count in zeros
    ]
    return LayerChoices(percents, zeros, np.array(costs))


def interpolate_errors(
    conv: ConvWeights, choices: LayerChoices, curve: LayerCurve | None
) -> DoubleArray:
    """Interpolate a layer's errors linearly in the sum of the squares of the pruned weights.

    A layer without a curve has an error of 0.
    """
    if curve is None:
        return np.zeros(len(choices.zeros))
    magnitudes = np.sort(abs(conv.kernel), axis=None).astype(np.float64)
    lost = np.concatenate([[0], np.cumsum(magnitudes**2)])
    zeros = [point.zeros for point in curve.points]
    errors = [point.score.mean_squared_error for point in curve.points]
    # By chance, a measured error can be lower at a higher sparsity. A plan must not exploit that.
    return np.interp(lost[choices.zeros], lost[zeros], np.maximum.accumulate(errors))


def _quantize(layer: Layer) -> tuple[Int8Array, Int8Array]:
    """Quantize a kernel twice: rounded to the nearest, and with no weight rounded to zero."""
    unused = Quantization.of_range(0, 1)
    rounded = quantize_layer(layer, unused, unused).kernel
    return rounded, np.where(rounded == 0, np.sign(layer.kernel), rounded).astype(np.int8)


def _measure_kernel(kernels: tuple[Int8Array, Int8Array], mask: BoolArray, cost: _Cost) -> int:
    """Compute the larger cost of two kernels; ``mask`` is false for zeros."""
    rounded, full = (
        (each * mask).transpose(3, 0, 1, 2).reshape(mask.shape[3], -1) for each in kernels
    )
    largest = cost(encode_weights("the kernel", full))
    # The cost depends on positions and signs alone. They differ only if a weight became zero.
    if np.count_nonzero(rounded) == np.count_nonzero(full):
        return largest
    return max(largest, cost(encode_weights("the kernel", rounded)))


def choose_levels(
    costs: Sequence[IntArray], errors: Sequence[DoubleArray], budget: int
) -> list[int]:
    """Choose a level of each layer, so that the sum of errors is smallest within the budget.

    Costs are rounded up to multiples of a small part of the budget, so that their sum never exceeds
    it.

    Parameters
    ----------
    costs, errors : sequence of numpy.ndarray
        For each layer, the costs and errors of its levels.
    budget : int

    Returns
    -------
    list of int
        The level of each layer, counted from 0.
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
