"""Published results of these networks, for comparison with measured ones.

Sources: the tables of "EdgeL3: Compressing L3-Net for Mote-Scale Urban Noise Monitoring" (Kumari et
al., talk of May 2019, with the paper of the same name); Srivastava et al., "Specialized Embedding
Approximation for Edge Intelligence" (ICASSP 2021).
"""

from dataclasses import dataclass
from typing import Literal

from edgel3_tflm.networks.catalogue import PLANS, WIDTHS

Task = Literal["avc", "urbansound8k", "esc50", "sonyc-ust"]
"""Audio-visual correspondence, which L3 is trained on, or a downstream dataset."""
Kind = Literal["original", "plan", "depth", "width", "sea"]

L3_PARAMETERS = 4_688_066
"""Parameters of L3's audio part: kernels, biases, gamma and beta of nine BatchNorms (talk)."""

_TALK = "EdgeL3 talk 2019"
_SEA_PAPER = "SEA paper 2021"


@dataclass(frozen=True)
class PublishedScore:
    """The published score of a network in a task.

    Parameters
    ----------
    task : {'avc', 'urbansound8k', 'esc50', 'sonyc-ust'}
    value : float
        Accuracy in percent; for 'sonyc-ust' the micro-averaged area under the precision-recall
        curve, 0 to 1. Measured after fine-tuning, if the network was fine-tuned.
    before_fine_tuning : float, optional
        The score of the reduced network before it was fine-tuned.
    """

    task: Task
    value: float
    before_fine_tuning: float | None = None

    @property
    def measure(self) -> str:
        """Name and unit of ``value``."""
        return "micro-AUPRC" if self.task == "sonyc-ust" else "accuracy %"


@dataclass(frozen=True)
class PublishedResult:
    """A row of a published table.

    Parameters
    ----------
    name : str
        A plan's label, ``conv7`` and so on for a depth, a name in WIDTHS, ``l3``, or a SEA network.
    kind : {'original', 'plan', 'depth', 'width', 'sea'}
    title : str
        Name for tables and reports.
    source : str
        Where the row was published.
    reduction_percent : float, optional
        Weights removed, in percent of L3's.
    megabytes : float, optional
        Size of the non-zero weights as float32, in units of 2**20 bytes.
    scores : tuple of PublishedScore
    """

    name: str
    kind: Kind
    title: str
    source: str
    reduction_percent: float | None = None
    megabytes: float | None = None
    scores: tuple[PublishedScore, ...] = ()

    def score(self, task: Task) -> PublishedScore | None:
        """Return the score in a task; None if none was published."""
        return next((each for each in self.scores if each.task == task), None)


_L3_PERCENT: dict[Task, float] = {"avc": 77.81, "urbansound8k": 75.91, "esc50": 73.65}
_PLAN_MEGABYTES = {
    53.49: 8.317,
    63.48: 6.530,
    72.29: 4.955,
    73.55: 4.730,
    80.87: 3.421,
    87.08: 2.310,
    90.51: 1.697,
    95.45: 0.814,
    97.00: 0.536,
    98.00: 0.357,
    99.00: 0.179,
}
# Published as percentage points below L3, after fine-tuning.
_EDGEL3_LOSS_POINTS: dict[Task, float] = {"avc": 0.22, "urbansound8k": 1.9, "esc50": 1.4}
_EDGEL3_TOTAL = 95.45
# Each depth: reduction, accuracy on UrbanSound8K, accuracy on ESC-50, all in percent.
_DEPTHS = {
    "conv7": (50.42, 74.38, 74.0),
    "conv6": (72.34, 71.74, 68.7),
    "conv5": (86.66, 68.77, 66.6),
}
# Each width: reduction; accuracy on UrbanSound8K before and after fine-tuning; the same on ESC-50.
_WIDTHS = {
    "width-43.14": (43.14, (51.39, 74.0), (34.0, 71.25)),
    "width-64.54": (64.54, (52.16, 71.45), (33.3, 64.7)),
    "width-69.89": (69.89, (48.87, 72.46), (32.6, 67.2)),
}


PUBLISHED_RESULTS: tuple[PublishedResult, ...] = (
    PublishedResult(
        "l3",
        "original",
        "L3",
        _TALK,
        megabytes=18,
        scores=tuple(PublishedScore(task, value) for task, value in _L3_PERCENT.items()),
    ),
    *(
        PublishedResult(
            plan.label,
            "plan",
            "EdgeL3" if plan.total == _EDGEL3_TOTAL else f"L3, {plan.total:.2f} % zeros",
            _TALK,
            plan.total,
            _PLAN_MEGABYTES[plan.total],
            tuple(
                # Two decimals, like the published accuracy of L3.
                PublishedScore(task, round(_L3_PERCENT[task] - points, 2))
                for task, points in _EDGEL3_LOSS_POINTS.items()
            )
            if plan.total == _EDGEL3_TOTAL
            else (),
        )
        for plan in PLANS
    ),
    *(
        PublishedResult(
            name,
            "depth",
            f"L3, embedding from {name}",
            _TALK,
            reduction,
            scores=(PublishedScore("urbansound8k", us8k), PublishedScore("esc50", esc50)),
        )
        for name, (reduction, us8k, esc50) in _DEPTHS.items()
    ),
    *(
        PublishedResult(
            name,
            "width",
            f"L3, filters {' '.join(map(str, WIDTHS[name]))}",
            _TALK,
            reduction,
            scores=(
                PublishedScore("urbansound8k", us8k[1], us8k[0]),
                PublishedScore("esc50", esc50[1], esc50[0]),
            ),
        )
        for name, (reduction, us8k, esc50) in _WIDTHS.items()
    ),
    PublishedResult(
        "sea-ust-64",
        "sea",
        "SEA-UST 64",
        _SEA_PAPER,
        scores=(
            PublishedScore("sonyc-ust", 0.784),
            PublishedScore("urbansound8k", 64.8),
            PublishedScore("esc50", 44.0),
        ),
    ),
)
"""Every published row: L3, eleven plans, three depths, three widths, SEA-UST 64.

The scores of EdgeL3 are those of L3 minus the published losses. The scores of the other plans were
published as curves only.
"""
