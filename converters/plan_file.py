"""Sparsity plans of one's own, in TOML: percent of zeros, layer by layer.

.. code-block:: toml

    # where the plan comes from
    [zeros_percent]
    conv1 = 0
    conv2 = 85.5
"""

import tomllib
from pathlib import Path
from typing import cast

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.variants import CONVOLUTIONS, VARIANTS, Plan

_TABLE = "zeros_percent"


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


def parse_plan(text: str) -> Plan:
    """Read a plan; its total is the share of zeros in the kernels of L3 down to its last layer.

    Raises
    ------
    EdgeL3Error
        If the text is not TOML, a key is unknown or missing, or a percent is not a number from 0
        to below 100 with at most four decimals.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EdgeL3Error(f"expected a plan in TOML: {error}") from error
    percents = document.get(_TABLE)
    if set(document) != {_TABLE} or not isinstance(percents, dict):
        raise EdgeL3Error(
            f"expected one table [{_TABLE}], found {', '.join(sorted(document)) or 'nothing'}"
        )
    names = [f"conv{number}" for number in range(1, len(percents) + 1)]
    if not 1 <= len(percents) <= CONVOLUTIONS or set(percents) != set(names):
        raise EdgeL3Error(
            f"expected conv1, conv2 and so on up to conv{CONVOLUTIONS} at most in [{_TABLE}],"
            f" found {', '.join(percents) or 'none'}"
        )
    values = []
    for name in names:
        value = percents[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise EdgeL3Error(f"{_TABLE}.{name}: expected a number, found {value!r}")
        values.append(value)
    network = VARIANTS["l3-dense"].with_depth(len(values))
    return cast(Plan, network.with_plan(Plan(0, tuple(values))).plan)


def read_plan(path: Path) -> Plan:
    """Read a plan file; errors as :func:`parse_plan`, with the file's name."""
    try:
        return parse_plan(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeL3Error(f"{path}: cannot read the plan: {error}") from error
    except EdgeL3Error as error:
        raise EdgeL3Error(f"{path}: {error}") from error
