"""A plan for a whole network from the curves of its layers.

Errors of the layers are taken to add up, and a dynamic program over a divided budget finds the
sparsities with the least sum: Frantar and Alistarh, "SPDY: Accurate Pruning with Speedup
Guarantees" (ICML 2022), section 3.1, with weights or bytes in place of time. Between two measured
sparsities the error is taken to grow with the sum of the squared weights that go.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgel3_tflm.converters.chain import Layer, Quantization, fold, quantize_layer
from edgel3_tflm.converters.pack import measure_weights
from edgel3_tflm.converters.prune import prune
from edgel3_tflm.converters.sensitivity import LayerCurve, Progress, Sensitivity
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.packed import CHANNEL_TABLE_BYTES, HEADER, RECORD, round_up
from edgel3_tflm.variants import Plan
from edgel3_tflm.weights import ConvWeights, NetworkWeights

Goal = Literal["sparsity", "bytes"]

# Finer where half a point is much of what is left.
_STEPS_PERCENT = np.concatenate([np.arange(1, 90), np.arange(90, 100, 0.25)])
# prune() takes a layer as pruned that lacks half a point or one weight.
_LEAST_STEP_PERCENT = 1.0
_LEAST_STEP_WEIGHTS = 2
_BUDGET_PARTS = 20_000
_UNIFORM_PERCENT = 0.02

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


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


@dataclass(frozen=True, eq=False)
class _Levels:
    """What a layer may become: percents of zeros, and for each its cost and its error."""

    percents: FloatArray
    costs: IntArray
    errors: FloatArray


def propose_for_sparsity(
    weights: NetworkWeights, sensitivity: Sensitivity, percent: float, progress: Progress
) -> Proposal:
    """Propose a plan with at least this share of zeros over all kernels.

    Parameters
    ----------
    weights : NetworkWeights
        What the curves were measured on.
    sensitivity : Sensitivity
        Layers without a curve stay as they are.
    percent : float
    progress : callable

    Raises
    ------
    EdgeL3Error
        If the network has as many zeros already, or the sparsities that were tried give fewer.
    """
    if not 0 < percent < 100:
        raise EdgeL3Error(
            f"expected a target sparsity between 0 and 100 (percent), got {percent:g}"
        )
    size = sum(conv.kernel.size for conv in weights.convs)
    # Rounded away: a percentage like 95.45 is a hair off as a binary fraction.
    budget = math.floor(round(size * (100 - percent) / 100, 6))

    def describe(nonzeros: int) -> str:
        return f"{100 * (1 - nonzeros / size):.2f} % zeros"

    return _propose(
        weights, sensitivity, "sparsity", budget, f"{percent:g} % zeros", describe, progress
    )


def propose_for_bytes(
    weights: NetworkWeights, sensitivity: Sensitivity, budget: int, progress: Progress
) -> Proposal:
    """Propose a plan whose packed model takes at most so many bytes of flash.

    Parameters
    ----------
    weights : NetworkWeights
        What the curves were measured on.
    sensitivity : Sensitivity
        Layers without a curve stay as they are.
    budget : int
    progress : callable

    Raises
    ------
    EdgeL3Error
        If the network is as small already, or the sparsities that were tried leave it larger.
    """

    def describe(found: int) -> str:
        return f"{found:,} bytes"

    return _propose(weights, sensitivity, "bytes", budget, f"{budget:,} bytes", describe, progress)


def uniform_plan(weights: NetworkWeights, goal: Goal, cost: int) -> Plan:
    """Find the plan of one percentage for all layers that costs as much as another plan at most.

    Layers that have more zeros already keep them.

    Parameters
    ----------
    weights : NetworkWeights
    goal : {'sparsity', 'bytes'}
    cost : int
        Weights that are not zero, or bytes of the packed model.
    """
    low, high = 0.0, 99.99
    while high - low > _UNIFORM_PERCENT:
        middle = (low + high) / 2
        pruned = prune(weights, _same_everywhere(weights, middle)).weights
        low, high = (low, middle) if _measure(pruned, goal) <= cost else (middle, high)
    return _same_everywhere(weights, math.ceil(100 * high) / 100)


def _same_everywhere(weights: NetworkWeights, percent: float) -> Plan:
    return Plan(percent, (percent,) * len(weights.convs))


def count_nonzeros(weights: NetworkWeights) -> int:
    """Kernel weights that are not zero."""
    return sum(conv.kernel.size - conv.zeros for conv in weights.convs)


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


def _measure(weights: NetworkWeights, goal: Goal) -> int:
    return count_nonzeros(weights) if goal == "sparsity" else measure_packed_bytes(weights)


def _propose(
    weights: NetworkWeights,
    sensitivity: Sensitivity,
    goal: Goal,
    target: int,
    wanted: str,
    describe: Callable[[int], str],
    progress: Progress,
) -> Proposal:
    if (given := _measure(weights, goal)) <= target:
        raise EdgeL3Error(
            f"nothing to prune: expected a target that the network misses, {wanted} it keeps as it"
            f" is ({describe(given)})"
        )
    curves = {curve.name: curve for curve in sensitivity.layers}
    tried = sensitivity.inputs["sparsities"]
    layers = []
    for number, (conv, layer) in enumerate(zip(weights.convs, fold(weights), strict=True)):
        progress(f"levels of each layer ({goal})", number, len(weights.convs))
        layers.append(_list_levels(conv, layer, curves.get(layer.name), tried, goal))
    # What no level of any layer changes: headers and tables, as bytes; nothing, as weights.
    budget = target - (given - sum(int(levels.costs[0]) for levels in layers))
    while True:
        least = sum(int(levels.costs.min()) for levels in layers)
        if least > budget:
            raise EdgeL3Error(
                f"cannot reach {wanted}: with {tried[-1]:g} % in each"
                f" of {', '.join(curves)} there are {describe(least + target - budget)}; try higher"
                " --sparsities or more layers"
            )
        chosen = _choose(
            [levels.costs for levels in layers], [each.errors for each in layers], budget
        )
        percents = tuple(
            float(levels.percents[level]) for levels, level in zip(layers, chosen, strict=True)
        )
        pruned = prune(weights, Plan(100.0, percents)).weights
        # Weights of one magnitude stay or go together: pruned may be a few fewer than planned.
        excess = _measure(pruned, goal) - target
        if excess <= 0:
            break
        budget -= excess
    return Proposal(
        Plan(round(pruned.sparsity_percent, 2), percents),
        pruned,
        measure_packed_bytes(pruned),
        float(sum(levels.errors[level] for levels, level in zip(layers, chosen, strict=True))),
    )


def _list_levels(
    conv: ConvWeights,
    layer: Layer,
    curve: LayerCurve | None,
    measured_percents: Sequence[float],
    goal: Goal,
) -> _Levels:
    """List what a layer may become; the first is what it is."""
    size = conv.kernel.size
    given = 100 * conv.zeros / size
    least = given + max(_LEAST_STEP_PERCENT, 100 * _LEAST_STEP_WEIGHTS / size)
    steps = np.union1d(_STEPS_PERCENT, measured_percents)
    most = 0.0 if curve is None else measured_percents[-1]
    # Of what is kept as given the plan says no more than it has.
    percents = np.concatenate(
        [[math.floor(100 * given) / 100], steps[(steps >= least) & (steps <= most)]]
    )
    zeros = np.concatenate([[conv.zeros], np.rint(percents[1:] * size / 100).astype(np.int64)])
    magnitudes = np.sort(abs(conv.kernel), axis=None).astype(np.float64)
    if curve is None:
        errors = np.zeros(1)
    else:
        lost = np.concatenate([[0], np.cumsum(magnitudes**2)])
        measured = [point.zeros for point in curve.points]
        found = [point.score.mean_squared_error for point in curve.points]
        # Of a layer that matters much the error may even shrink: no plan should bet on that.
        errors = np.interp(lost[zeros], lost[measured], np.maximum.accumulate(found))
    if goal == "sparsity":
        return _Levels(percents, size - zeros, errors)
    codes = _quantize(layer)
    costs = [
        _measure_kernel(codes, abs(conv.kernel) >= (magnitudes[count] if count < size else np.inf))
        for count in zeros
    ]
    return _Levels(percents, np.array(costs), errors)


def _quantize(layer: Layer) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Int8 codes of a kernel, rounded to the nearest, and with no weight rounded to zero."""
    unused = Quantization.of_range(0, 1)
    codes = quantize_layer(layer, unused, unused).kernel
    return codes, np.where(codes == 0, np.sign(layer.kernel), codes).astype(np.int8)


def _measure_kernel(
    codes: tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]], mask: npt.NDArray[np.bool_]
) -> int:
    return max(
        measure_weights((each * mask).transpose(3, 0, 1, 2).reshape(mask.shape[3], -1))
        for each in codes
    )


def _choose(costs: Sequence[IntArray], errors: Sequence[FloatArray], budget: int) -> list[int]:
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
