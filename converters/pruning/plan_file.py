"""Files of sparsity plans, in TOML: the percent of zeros of each layer.

.. code-block:: toml

    # a comment on the plan's origin
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
    """Return the text of a plan file, which :func:`read_plan` can read.

    Parameters
    ----------
    plan : Plan
        For one to eight convolutions.
    comment : str
        The plan's origin, in one or more lines.

    Raises
    ------
    EdgeL3Error
        If the plan is not valid for any network.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [f"[{_TABLE}]"]
    lines += [f"conv{number} = {percent}" for number, percent in enumerate(plan.layers, start=1)]
    text = "\n".join(lines) + "\n"
    parse_plan(text)
    return text.encode()


def parse_plan(text: bytes | str) -> Plan:
    """Read the text of a plan file.

    Returns
    -------
    Plan
        Its total is the percent of zeros over the kernels of L3, up to the plan's last layer.

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
    # A whole number is read as int, so that the same plan is always written in the same way.
    found = (percents[name] for name in names)
    values = [int(value) if value.is_integer() else value for value in found]
    network = VARIANTS["l3-dense"].with_depth(len(values))
    return cast(Plan, network.with_plan(Plan(0, tuple(values))).plan)


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises
    ------
    EdgeL3Error
        As for :func:`parse_plan`, with the file's name, or if the file cannot be read.
    """
    return read_file(path, parse_plan)
