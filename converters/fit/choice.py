"""The rule that chooses a candidate, and the Pareto front."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgel3_tflm.converters.fit.measurement import Measurement
from edgel3_tflm.device.estimate import BoardEstimate

_COSINE_DECIMALS = 3
RULE_WITH_LABELS = (
    "of the candidates within the budget, the best accuracy of the linear probe; of those whose"
    " accuracy is at least the lower bound of its 95 % interval, the largest cosine to the teacher"
    f" in {_COSINE_DECIMALS} decimals; of those that are equal, the fastest"
)
RULE_WITHOUT_LABELS = (
    "of the candidates within the budget, the largest cosine to the teacher in"
    f" {_COSINE_DECIMALS} decimals; of those that are equal, the fastest"
)


@dataclass(frozen=True)
class Judged:
    """A measured candidate on a board.

    Parameters
    ----------
    figures : Measurement
    needs : BoardEstimate
    excesses : tuple of str
        The limits that it exceeds.
    """

    figures: Measurement
    needs: BoardEstimate
    excesses: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether it is within the budget."""
        return not self.excesses

    @property
    def quality(self) -> float:
        """Accuracy of the probe in percent, or without labels the cosine to the teacher."""
        accuracy = self.figures.accuracy_percent
        return self.figures.cosine if accuracy is None else accuracy

    @property
    def _costs(self) -> tuple[float, ...]:
        needs = self.needs
        return (-self.quality, needs.seconds.high, needs.flash_bytes, needs.memory.ram_bytes)

    def dominates(self, other: "Judged") -> bool:
        """Return whether it is no worse in quality, time, flash and RAM, and better in one."""
        pairs = list(zip(self._costs, other._costs, strict=True))
        return all(own <= its for own, its in pairs) and any(own < its for own, its in pairs)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        figures = self.figures
        return {
            **asdict(figures),
            "accuracy_percent": figures.accuracy_percent,
            "interval_percent": figures.interval_percent,
            "needs": self.needs.to_json(),
            "excesses": self.excesses,
        }

    def summarize(self) -> dict[str, Any]:
        """Return the figures that the choice depends on, for the winner's manifest."""
        found = self.to_json()
        names = ("digest", "network", "origin", "accuracy_percent", "interval_percent", "cosine")
        return {
            **{name: found[name] for name in (*names, "excesses")},
            "flash_bytes": self.needs.flash_bytes,
            "ram_bytes": self.needs.memory.ram_bytes,
            "seconds": [self.needs.seconds.low, self.needs.seconds.high],
        }


def find_front(candidates: Sequence[Judged]) -> list[Judged]:
    """Return the Pareto front: the candidates that no other one dominates."""
    return [each for each in candidates if not any(other.dominates(each) for other in candidates)]


def choose(candidates: Sequence[Judged]) -> tuple[Judged, str] | None:
    """Return the winner and why it won; None if no candidate is within the budget.

    The rule is ``RULE_WITH_LABELS`` or ``RULE_WITHOUT_LABELS``.
    """
    fitting = [each for each in candidates if each.fits]
    if not fitting:
        return None
    best = max(fitting, key=lambda each: each.quality)
    interval = best.figures.interval_percent
    tied = fitting
    if interval is not None:
        tied = [each for each in fitting if each.quality >= interval[0]]
    winner = max(
        tied,
        key=lambda each: (round(each.figures.cosine, _COSINE_DECIMALS), -each.needs.seconds.high),
    )
    why = f"{len(fitting)} of {len(candidates)} candidates are within the budget"
    if interval is not None:
        why += (
            f"; the best accuracy is {best.quality:.1f} %, 95 % interval from {interval[0]:.1f} %;"
            f" {len(tied)} have at least that"
        )
    why += f"; of these it has the largest cosine, {winner.figures.cosine:.{_COSINE_DECIMALS}f}"
    same = [
        each
        for each in tied
        if f"{each.figures.cosine:.{_COSINE_DECIMALS}f}"
        == f"{winner.figures.cosine:.{_COSINE_DECIMALS}f}"
    ]
    if len(same) > 1:
        why += f", as {len(same) - 1} slower ones have"
    return winner, why
