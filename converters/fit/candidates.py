"""The networks that are tried: given weights, and what pruning and cuts make of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgel3_tflm.converters.pruning.reduce import reduce_weights
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import PLANS, VARIANTS
from edgel3_tflm.networks.sources import find_bundled_variants, load_bundled_weights
from edgel3_tflm.networks.variants import Plan, Variant
from edgel3_tflm.networks.weight_files import inspect_weights
from edgel3_tflm.networks.weights import NetworkWeights

# Published plans are rounded to whole percents, and so are the zeros of published weights.
_PLAN_TOLERANCE_PERCENT = 0.5
DEFAULT_PLANS = tuple(plan for plan in PLANS if plan.total >= 95)
"""The published plans whose networks are small enough for a microcontroller."""


@dataclass(frozen=True)
class Members:
    """Members of the family, beside the given networks themselves.

    Parameters
    ----------
    plans : tuple of Plan
        Those with more zeros than a given L3 network are tried on it.
    depths : tuple of int
        Numbers of convolutions that are kept.
    widths : tuple of tuple of int
        Numbers of filters that are kept.
    """

    plans: tuple[Plan, ...] = DEFAULT_PLANS
    depths: tuple[int, ...] = ()
    widths: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A network to measure.

    Parameters
    ----------
    weights : NetworkWeights
        Its variant has the plan to which ``convert`` prunes.
    origin : str
        Where the weights come from, for tables.
    is_given : bool
        Whether these are weights as they were given or trained, neither pruned nor cut here.
    """

    weights: NetworkWeights
    origin: str
    is_given: bool

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.weights.variant.name


def load_candidates(files: Sequence[Path], *, bundled: bool = True) -> list[Candidate]:
    """Load the stand-ins and the given weight files.

    Raises
    ------
    WeightsError
        If a file is damaged or contains no network of the family.
    """
    found = []
    if bundled:
        for variant in find_bundled_variants():
            weights = load_bundled_weights(variant)
            found.append(Candidate(weights, f"stand-in {_percent(weights)}", is_given=True))
    for path in files:
        weights = _with_plan(inspect_weights(path))
        found.append(Candidate(weights, path.name, is_given=True))
    digests = [each.weights.provenance.sha256 for each in found]
    return [each for at, each in enumerate(found) if digests.index(digests[at]) == at]


def derive(candidate: Candidate, members: Members) -> list[Candidate]:
    """Return a candidate and what pruning to sparser plans, or a cut, makes of it.

    Plans are those of L3; a cut needs a network with more layers or filters.
    """
    weights = candidate.weights
    found = [candidate]
    if is_l3(weights.variant):
        found += [
            Candidate(
                replace(weights, variant=_planned(weights.variant, plan)),
                f"{candidate.origin}, pruned here",
                is_given=False,
            )
            for plan in members.plans
            if plan.total > weights.sparsity_percent + _PLAN_TOLERANCE_PERCENT
        ]
    cuts: list[tuple[int | None, tuple[int, ...] | None]] = [
        *((depth, None) for depth in members.depths if depth < len(weights.variant.filters)),
        *((None, width) for width in members.widths if _is_narrower(width, weights.variant)),
    ]
    found += [
        Candidate(reduce_weights(weights, *cut), f"{candidate.origin}, cut here", is_given=False)
        for cut in cuts
    ]
    return found


def is_l3(variant: Variant) -> bool:
    """Return whether a network has the layers of L3, for which the plans are."""
    dense = VARIANTS["l3-dense"]
    return (variant.frontend, variant.filters) == (dense.frontend, dense.filters)


def _is_narrower(width: tuple[int, ...], variant: Variant) -> bool:
    own = variant.filters
    return (
        len(width) == len(own)
        and width != own
        and all(less <= more for less, more in zip(width, own, strict=True))
    )


def _planned(variant: Variant, plan: Plan) -> Variant:
    return VARIANTS[f"edgel3-{plan.label}-{variant.retrain_type or 'kd'}"]


def _with_plan(weights: NetworkWeights) -> NetworkWeights:
    """Return weights under the name of the plan whose zeros they have.

    A file of the sparse family that is not published is read as the dense L3, which has its shapes.
    """
    if not is_l3(weights.variant) or weights.variant.plan is not None:
        return weights
    for plan in PLANS:
        if all(
            abs(100 * conv.zeros / conv.kernel.size - percent) <= _PLAN_TOLERANCE_PERCENT
            for conv, percent in zip(weights.convs, plan.layers, strict=True)
        ):
            trained = "ft" if weights.provenance.kind == "fine-tuned" else "kd"
            return replace(weights, variant=VARIANTS[f"edgel3-{plan.label}-{trained}"])
    return weights


def _percent(weights: NetworkWeights) -> str:
    plan = weights.variant.plan
    return f"{weights.sparsity_percent:.4g} %" if plan is None else f"{plan.label} %"


def find_reference(candidates: Sequence[Candidate]) -> Candidate:
    """Return the given network with the most weights that are not zero; of equals, the first.

    Raises
    ------
    EdgeL3Error
        If there is no candidate.
    """
    if not candidates:
        raise EdgeL3Error("expected at least one network to try; give --weights FILE")
    return max(
        candidates,
        key=lambda each: sum(conv.kernel.size - conv.zeros for conv in each.weights.convs),
    )
