"""Shows the results of gates, for ``compare`` and ``report diff``."""

from collections.abc import Sequence

from rich.text import Text

from edgel3_tflm.drift.gates import GateResult


def describe_gates(results: Sequence[GateResult]) -> list[Text]:
    """Return a line for each result, which begins with pass or FAIL."""
    return [
        Text.assemble(
            ("pass" if each.passed else "FAIL", "green" if each.passed else "bold red"), f": {each}"
        )
        for each in results
    ]
