"""Gates: limits for the figures of a report, and for how much they get worse between two.

Their results can be written as JUnit XML.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edgel3_tflm.drift.downstream import DOWNSTREAM_FIGURES
from edgel3_tflm.drift.figures import FRONTEND_FIGURES, DriftReport
from edgel3_tflm.drift.layers import LAYER_FIGURES
from edgel3_tflm.drift.windows import GROUPS
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import METRICS

if TYPE_CHECKING:  # it loads pydantic, which only a reader of drift.json needs
    from edgel3_tflm.drift.drift_json import DriftFile

Kind = Literal["under", "over", "worse"]

_Report: TypeAlias = "DriftReport | DriftFile"
_Values = Iterator[tuple[str, float]]
"""Values of a figure, each with the runtime, layer or classifier that it was measured for."""


def _read_windows(group: str, metric: str, report: _Report) -> _Values:
    for runtime in report.runtimes:
        if (figures := runtime.groups.get(group)) is not None:
            yield runtime.name, float(getattr(figures, metric))


def _read_steps_apart(report: _Report) -> _Values:
    for runtime in report.runtimes[1:]:
        yield f"{runtime.name} and {report.first.name}", runtime.steps_apart


def _read_layers(figure: str, report: _Report) -> _Values:
    for layer in report.layers.layers if report.layers else ():
        yield layer.name, float(getattr(layer, figure))


def _read_frontend(figure: str, report: _Report) -> _Values:
    if report.frontend is not None:
        yield "the C frontend", float(getattr(report.frontend, figure))


def _read_downstream(figure: str, report: _Report) -> _Values:
    yield report.first.name, float(getattr(report.downstream, figure))


def _read_classifiers(report: _Report) -> _Values:
    for classifier in report.downstream.classifiers:
        yield classifier.name, classifier.change_points.estimate


@dataclass(frozen=True)
class _Figure:
    """A figure that a gate can limit.

    ``nan_is_absent`` states that NaN means that there was nothing to measure, for example no
    weights in the input layer. A gate ignores these values; NaN of any other figure exceeds every
    limit.
    """

    read: Callable[[_Report], _Values]
    higher_is_better: bool
    nan_is_absent: bool = False


def _name_metric(group: str, metric: str) -> str:
    return metric if group == GROUPS[0] else f"{group}.{metric}"


_FIGURES: Mapping[str, _Figure] = {
    **{
        _name_metric(group, metric.name): _Figure(
            partial(_read_windows, group, metric.name), metric.higher_is_better
        )
        for group in GROUPS
        for metric in METRICS
    },
    "steps_apart": _Figure(_read_steps_apart, higher_is_better=False, nan_is_absent=True),
    **{
        f"layer_{name}": _Figure(
            partial(_read_layers, name),
            higher_is_better,
            nan_is_absent=name in ("weights_sqnr_db", "bias_sqnr_db"),
        )
        for name, higher_is_better in LAYER_FIGURES.items()
    },
    **{
        f"frontend_{name}": _Figure(partial(_read_frontend, name), higher_is_better)
        for name, higher_is_better in FRONTEND_FIGURES.items()
    },
    **{
        name: _Figure(partial(_read_downstream, name), higher_is_better, nan_is_absent=True)
        for name, higher_is_better in DOWNSTREAM_FIGURES.items()
    },
    "accuracy_change_points": _Figure(_read_classifiers, higher_is_better=True),
}

GATE_NAMES: tuple[str, ...] = tuple(_FIGURES)
"""Figures that a gate can limit.

A metric of windows is checked in every runtime, a figure of layers in every layer, the change of
accuracy for every classifier. A prefix (``sounding.`` and so on) selects a group of windows.
"""


@dataclass(frozen=True)
class Gate:
    """A limit: a least value, a greatest value, or the most that a figure may get worse."""

    name: str
    kind: Kind
    limit: float

    def __str__(self) -> str:
        if self.kind == "worse":
            return f"{self.name} worse by at most {self.limit:g}"
        return f"{self.name} {'>=' if self.kind == 'under' else '<='} {self.limit:g}"


@dataclass(frozen=True)
class GateResult:
    """The value that a gate checked, and the runtime, layer or classifier that it belongs to."""

    gate: Gate
    where: str
    value: float

    @property
    def passed(self) -> bool:
        """Whether the value is within the limit; NaN never is."""
        if self.gate.kind == "under":
            return self.value >= self.gate.limit
        return self.value <= self.gate.limit

    def __str__(self) -> str:
        if self.gate.kind != "worse":
            return f"{self.gate.name} of {self.where} is {self.value:.6g}, expected {self.gate}"
        if math.isnan(self.value):
            return (
                f"{self.gate.name} of {self.where} is a number in one report only, expected"
                f" {self.gate}"
            )
        direction = "better" if self.value < 0 else "worse"
        return (
            f"{self.gate.name} of {self.where} got {direction} by {abs(self.value):.6g}, expected"
            f" {self.gate}"
        )


def read_gates(under: Sequence[str], over: Sequence[str]) -> tuple[Gate, ...]:
    """Read gates as the command line takes them, ``name=limit``.

    Raises
    ------
    EdgeL3Error
        If a name is unknown or a limit is not a number.
    """
    return (
        *(_read_gate(text, "under") for text in under),
        *(_read_gate(text, "over") for text in over),
    )


def read_change_gates(over: Sequence[str]) -> tuple[Gate, ...]:
    """Read gates for the difference of two reports, ``name=change``.

    Raises
    ------
    EdgeL3Error
        If a name is unknown, or a change is not a number or is negative.
    """
    gates = tuple(_read_gate(text, "worse") for text in over)
    for gate in gates:
        if gate.limit < 0:
            raise EdgeL3Error(
                f"expected {gate.name}=CHANGE with a change of at least 0, got {gate.limit:g}"
            )
    return gates


def _read_gate(text: str, kind: Kind) -> Gate:
    name, _, limit_text = text.partition("=")
    if name not in GATE_NAMES:
        metrics = ", ".join(name for name in GATE_NAMES if "." not in name)
        groups = ", ".join(f"{group}." for group in GROUPS[1:])
        raise EdgeL3Error(
            f"unknown metric {name!r}: expected one of {metrics}; the metrics of windows"
            f" take one of the prefixes {groups}"
        )
    try:
        limit = float(limit_text)
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise EdgeL3Error(f"expected {name}=NUMBER, got {text!r}")
    return Gate(name, kind, limit)


def check_gates(report: DriftReport, gates: Sequence[Gate]) -> tuple[GateResult, ...]:
    """Check each gate in every runtime, layer or classifier of a report.

    Raises
    ------
    EdgeL3Error
        If the report has no value for a gate.
    """
    results: list[GateResult] = []
    for gate in gates:
        figure = _FIGURES[gate.name]
        found = [
            GateResult(gate, where, value)
            for where, value in figure.read(report)
            if not (figure.nan_is_absent and math.isnan(value))
        ]
        if not found:
            raise EdgeL3Error(
                f"the gate {gate} has nothing to check: this run did not measure {gate.name}"
                + "".join(f"; {note}" for note in report.notes)
            )
        results += found
    return tuple(results)


def check_changes(
    before: "DriftFile", after: "DriftFile", gates: Sequence[Gate]
) -> tuple[GateResult, ...]:
    """Check by how much figures got worse, in every runtime, layer or classifier of ``before``.

    The value of a result is positive if the figure got worse. It is NaN if the figure is a number
    in one report only, and if its runtime, layer or classifier is missing from ``after``.

    Raises
    ------
    EdgeL3Error
        If no runtime, layer or classifier of both reports has the figure of a gate.
    """
    results: list[GateResult] = []
    for gate in gates:
        figure = _FIGURES[gate.name]
        old, new = dict(figure.read(before)), dict(figure.read(after))
        if not old.keys() & new.keys():
            raise EdgeL3Error(
                f"the gate {gate} has nothing to check: no runtime, layer or classifier has"
                f" {gate.name} in both reports"
            )
        results += [
            GateResult(
                gate, where, _get_worse(value, new.get(where, math.nan), figure.higher_is_better)
            )
            for where, value in old.items()
        ]
    return tuple(results)


def _get_worse(before: float, after: float, higher_is_better: bool) -> float:
    if math.isnan(before) and math.isnan(after):
        return 0.0
    return before - after if higher_is_better else after - before


def gates_json(results: Sequence[GateResult]) -> list[dict[str, Any]]:
    """Return results as plain data; None stands for infinite values and NaN."""
    return [
        {
            "gate": str(result.gate),
            "where": result.where,
            "value": result.value if math.isfinite(result.value) else None,
            "passed": result.passed,
        }
        for result in results
    ]


def to_junit(results: Sequence[GateResult], suite: str) -> str:
    """Write results as JUnit XML: a test case for each result."""
    from xml.etree import ElementTree  # only --junit needs it

    failures = sum(not result.passed for result in results)
    root = ElementTree.Element(
        "testsuite", name=suite, tests=str(len(results)), failures=str(failures), errors="0"
    )
    for result in results:
        case = ElementTree.SubElement(
            root, "testcase", classname=f"{suite}.{result.where}", name=str(result.gate)
        )
        if not result.passed:
            ElementTree.SubElement(case, "failure", message=str(result))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
