"""Sparsity plans of one's own, in TOML: percent of zeros, layer by layer.

.. code-block:: toml

    # where the plan comes from
    [zeros_percent]
    conv1 = 0
    conv2 = 85.5
"""

from pathlib import Path
from typing import cast

from pydantic.dataclasses import dataclass

from edgel3_tflm.errors import EdgeL3Error, on_one_line
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.variants import CONVOLUTIONS, Plan
from edgel3_tflm.schema import OWN, parse_toml, read_file

_TABLE = "zeros_percent"


@dataclass(frozen=True, config=OWN)
class _PlanFile:
    zeros_percent: dict[str, float]


def write_plan(plan: Plan, comment: str) -> bytes:
    """Write a plan as the text of a file that :func:`read_plan` reads.

    Parameters
    ----------
    plan : Plan
        Of one to eight convolutions.
    comment : str
        Where the plan comes from; one line or more.

    Raises
    ------
    EdgeL3Error
        If no network can have the plan.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [f"[{_TABLE}]"]
    lines += [f"conv{number} = {percent}" for number, percent in enumerate(plan.layers, start=1)]
    text = "\n".join(lines) + "\n"
    parse_plan(text)
    return text.encode()


def parse_plan(text: bytes | str) -> Plan:
    """Read a plan; its total is the share of zeros in the kernels of L3 down to its last layer.

    Raises
    ------
    EdgeL3Error
        If the text is not TOML, a key is unknown or missing, or a percent is not a number from 0
        to below 100 with at most four decimals.
    """
    percents = parse_toml(text, _PlanFile).zeros_percent
    names = [f"conv{number}" for number in range(1, len(percents) + 1)]
    if not 1 <= len(percents) <= CONVOLUTIONS or set(percents) != set(names):
        raise EdgeL3Error(
            f"expected conv1, conv2 and so on up to conv{CONVOLUTIONS} at most in [{_TABLE}],"
            f" found {on_one_line(', '.join(percents)) or 'none'}"
        )
    # A whole number stays one, so that a plan is always written in the same way.
    found = (percents[name] for name in names)
    values = [int(value) if value.is_integer() else value for value in found]
    network = VARIANTS["l3-dense"].with_depth(len(values))
    return cast(Plan, network.with_plan(Plan(0, tuple(values))).plan)


def read_plan(path: Path) -> Plan:
    """Read a plan file; errors as :func:`parse_plan`, with the file's name."""
    return read_file(path, parse_plan)
