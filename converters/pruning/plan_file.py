"""Read and write sparsity plans: TOML files with the percent of zeros in each layer.

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
        Its total is computed for the dense L3: the percent of zeros in all kernels from conv1 to
        the plan's last layer.

    Raises
    ------
    EdgeL3Error
        If the text is not TOML, a key is unknown or missing, or a percent is not a number of
        at least 0 and below 100 with at most four decimals.
    """
    percents = parse_toml(text, _PlanFile).zeros_percent
    names = [f"conv{number}" for number in range(1, len(percents) + 1)]
    if not 1 <= len(percents) <= CONVOLUTIONS or set(percents) != set(names):
        raise EdgeL3Error(
            f"expected the keys conv1, conv2 and so on in [{_TABLE}], without a gap and at most up"
            f" to conv{CONVOLUTIONS}, found {on_one_line(', '.join(percents)) or 'none'}"
        )
    # Whole numbers become int, so that write_plan writes 85 and 85.0 in the same way.
    found = (percents[name] for name in names)
    values = [int(value) if value.is_integer() else value for value in found]
    network = VARIANTS["l3-dense"].with_depth(len(values))
    return cast(Plan, network.with_plan(Plan(0, tuple(values))).plan)


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read, or as for :func:`parse_plan`. The message names the file.
    """
    return read_file(path, parse_plan)
