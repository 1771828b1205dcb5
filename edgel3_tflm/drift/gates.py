"""Gates: limits a build's drift has to keep, and their results as JUnit XML."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from edgel3_tflm.drift.figures import GROUPS, DriftReport
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import METRICS

Kind = Literal["under", "over"]

_LAYER_FIGURES = {
    "layer_sqnr_db": "sqnr_db",
    "layer_weights_sqnr_db": "weights_sqnr_db",
    "layer_saturation": "saturation",
    "layer_cost": "cost",
}
_FRONTEND_FIGURES = ("frontend_log_mel_mean_db", "frontend_log_mel_worst_db")
_DOWNSTREAM_FIGURES = ("neighbour_agreement", "linear_cka")

GATE_NAMES: tuple[str, ...] = (
    *(metric.name for metric in METRICS),
    *(f"{group}.{metric.name}" for group in GROUPS[1:] for metric in METRICS),
    "steps_apart",
    *_LAYER_FIGURES,
    *_FRONTEND_FIGURES,
    *_DOWNSTREAM_FIGURES,
    "accuracy_change_points",
)
"""Figures that a gate may name. Those of windows are checked for every runtime, those of layers for
every layer, the change of accuracy for every classifier; ``sounding.`` and so on in front of a
metric picks a group of windows."""


@dataclass(frozen=True)
class Gate:
    """A limit: fails under it, or over it."""

    name: str
    kind: Kind
    limit: float

    def __str__(self) -> str:
        return f"{self.name} {'>=' if self.kind == 'under' else '<='} {self.limit:g}"


@dataclass(frozen=True)
class GateResult:
    """What a gate found: the value, and the runtime or layer it is of."""

    gate: Gate
    where: str
    value: float

    @property
    def passed(self) -> bool:
        """Whether the limit is kept; what is not a number keeps none."""
        if self.gate.kind == "under":
            return self.value >= self.gate.limit
        return self.value <= self.gate.limit

    def __str__(self) -> str:
        return f"{self.gate.name} of {self.where} is {self.value:.6g}, expected {self.gate}"


def read_gates(under: Sequence[str], over: Sequence[str]) -> tuple[Gate, ...]:
    """Read gates as the command line takes them, ``name=limit``.

    Raises
    ------
    EdgeL3Error
        If a name is unknown or a limit no number.
    """
    return (
        *(_read_gate(text, "under") for text in under),
        *(_read_gate(text, "over") for text in over),
    )


def _read_gate(text: str, kind: Kind) -> Gate:
    name, _, limit_text = text.partition("=")
    if name not in GATE_NAMES:
        metrics = ", ".join(name for name in GATE_NAMES if "." not in name)
        groups = ", ".join(f"{group}." for group in GROUPS[1:])
        raise EdgeL3Error(
            f"unknown metric {name!r}: expected one of {metrics}; a metric of windows may have one"
            f" of {groups} in front"
        )
    try:
        limit = float(limit_text)
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise EdgeL3Error(f"expected {name}=NUMBER, got {text!r}")
    return Gate(name, kind, limit)


def check_gates(report: DriftReport, gates: Sequence[Gate]) -> tuple[GateResult, ...]:
    """Check every gate, in every runtime or layer that it is about.

    Raises
    ------
    EdgeL3Error
        If a gate names a figure that this report has not.
    """
    results = []
    for gate in gates:
        found = [GateResult(gate, where, value) for where, value in _readings(report, gate.name)]
        if not found:
            raise EdgeL3Error(
                f"the gate {gate} has nothing to check: this run did not measure {gate.name}"
                + "".join(f"; {note}" for note in report.notes)
            )
        results += found
    return tuple(results)


def _readings(report: DriftReport, name: str) -> Iterator[tuple[str, float]]:
    """Find the values that a gate's name stands for, each with the runtime or layer it is of."""
    if name in _LAYER_FIGURES:
        for layer in report.layers.layers if report.layers else ():
            value = float(getattr(layer, _LAYER_FIGURES[name]))
            if not (math.isnan(value) and name == "layer_weights_sqnr_db"):  # the input has none
                yield layer.name, value
    elif name in _FRONTEND_FIGURES:
        if report.frontend is not None:
            yield "the C frontend", getattr(report.frontend, name.removeprefix("frontend_"))
    elif name in _DOWNSTREAM_FIGURES:
        value = float(getattr(report.downstream, name))
        if not math.isnan(value):
            yield report.first.subject.name, value
    elif name == "accuracy_change_points":
        for classifier in report.downstream.classifiers:
            yield classifier.name, classifier.change_points.estimate
    elif name == "steps_apart":
        for subject in report.subjects[1:]:
            if not math.isnan(subject.steps_apart):  # a float model has no steps
                yield f"{subject.subject.name} and {report.first.subject.name}", subject.steps_apart
    else:
        group, _, metric = name.rpartition(".")
        for subject in report.subjects:
            if (figures := subject.groups.get(group or GROUPS[0])) is not None:
                yield subject.subject.name, float(getattr(figures, metric))


def to_junit(results: Sequence[GateResult], suite: str) -> str:
    """Write results as JUnit XML: a test case for every gate in every place."""
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
