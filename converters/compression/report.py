"""Run a sensitivity study and write its scores, plot and plan to a directory.

This needs the extra ``report``.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgel3_tflm._version import __version__
from edgel3_tflm.converters.compression.allocation import (
    Choices,
    Proposal,
    Target,
    list_choices,
    propose,
    uniform_plan,
)
from edgel3_tflm.converters.compression.sensitivity import (
    LayerCurve,
    Sample,
    Score,
    Sensitivity,
    describe_inputs,
    measure_sensitivity,
    score_network,
)
from edgel3_tflm.converters.pruning.plan_file import write_plan
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.files import new_directory, write_whole
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.pages.charts import COLOURS, MARKERS, Chart, Series
from edgel3_tflm.pages.page import Cell, Column, number, render_figures
from edgel3_tflm.pages.static import to_png
from edgel3_tflm.types import Progress

JSON_NAME = "sensitivity.json"
PLOT_NAME = "sensitivity.png"
HTML_NAME = "sensitivity.html"
PLAN_NAME = "plan.toml"

SCORE_TITLES = {
    "mean_squared_error": "mean squared error",
    "cosine_mean": "mean cosine",
    "centred_cosine_mean": "mean centred cosine",
    "probe_percent": "probe, % right",
}
"""Titles of the fields of a score, in tables and plots."""


_MEANINGS = {
    "mean_squared_error": "Mean of (a - b)^2; a: not pruned, b: pruned. 0 is equal.",
    "cosine_mean": "Mean over windows of a.b / (|a| |b|); 1 is equal.",
    "centred_cosine_mean": "The same after the mean embedding is removed; about 0 is chance.",
    "probe_percent": "Percent of the clips that a linear classifier of the embeddings gets right.",
}


@dataclass(frozen=True)
class PlanEvaluation:
    """Scores of a proposed plan and of a uniform plan for the same target.

    The uniform plan has one percentage for all layers. The fields are keys of ``sensitivity.json``.

    Parameters
    ----------
    seen : Score
        Score of the proposed plan on the windows that the curves were measured on.
    kept : Score or None
        Score of the proposed plan on the validation set. None if the validation set is empty.
    uniform_percent : float
        Percent of zeros in each layer of the uniform plan.
    uniform_kept : Score or None
        Score of the uniform plan on the validation set. None if the validation set is empty.
    """

    seen: Score
    kept: Score | None
    uniform_percent: float
    uniform_kept: Score | None


@dataclass(frozen=True)
class SensitivityStudy:
    """The sensitivity curves, and the plan if the study had a target."""

    sensitivity: Sensitivity
    target: Target | None = None
    proposal: Proposal | None = None
    evaluation: PlanEvaluation | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data for ``sensitivity.json``."""
        found = self.sensitivity.to_json()
        if self.target is not None and self.proposal is not None:
            found["plan"] = {
                "target": asdict(self.target),
                "zeros_percent": self.proposal.plan.layers,
                "total_percent": self.proposal.plan.total,
                "packed_bytes_at_most": self.proposal.packed_bytes,
                "modelled_cycles_at_most": self.proposal.cycles,
                "predicted_mean_squared_error": self.proposal.predicted_error,
                "judgement": asdict(self.evaluation) if self.evaluation else None,
            }
        return found


def study_sensitivity(
    weights: NetworkWeights,
    sample: Sample,
    *,
    sparsities: Sequence[float],
    layers: Sequence[str],
    target: Target | None,
    output: Path,
    progress: Progress,
) -> SensitivityStudy:
    """Measure the sensitivity curves, find a plan for the target, and write both to a directory.

    If an earlier study with the same weights, clips and sparsities measured some of the curves,
    these are read from the directory, or from the file of an interrupted study
    (:func:`partial_path`). Only the others are measured.

    Parameters
    ----------
    weights : NetworkWeights
    sample : Sample
    sparsities : sequence of float
        In percent.
    layers : sequence of str
        Names of the layers to measure.
    target : Target, optional
        Target of the plan. None measures the curves only.
    output : pathlib.Path
        The directory to write. An error leaves it unchanged.
    progress : callable

    Raises
    ------
    EdgeL3Error
        If a sparsity or layer is invalid, the target cannot be reached, or the directory contains
        other files or cannot be written.
    """
    inputs = describe_inputs(weights, sample, sparsities, layers)
    with new_directory(output, marker=JSON_NAME) as new:
        # Before the long measurement, so that a target that cannot be reached fails at once.
        choices = None if target is None else list_choices(weights, inputs, target, progress)
        partial = partial_path(output)
        sensitivity = measure_sensitivity(
            weights,
            sample,
            inputs,
            progress,
            known=_find_measured([output / JSON_NAME, partial], inputs),
            on_layer=lambda found: _write_json(partial, _describe_partial(found)),
        )
        study = SensitivityStudy(sensitivity)
        if choices is not None:
            study = _propose(weights, sample, sensitivity, choices, progress)
        _write_json(new / JSON_NAME, study.to_json())
        (new / PLOT_NAME).write_bytes(to_png(draw_curves(sensitivity)))
        (new / HTML_NAME).write_text(render_study(study), encoding="utf-8")
        if study.proposal is not None:
            (new / PLAN_NAME).write_bytes(write_plan(study.proposal.plan, _describe_plan(study)))
    partial.unlink(missing_ok=True)
    return study


def partial_path(output: Path) -> Path:
    """Return the path of the file, beside a study's directory, with the curves measured so far."""
    output = output.absolute()
    return output.with_name(f"{output.name}.partial.json")


def describe_partial_study(output: Path) -> str:
    """Return a message that says what an interrupted study left and how to continue it."""
    path = partial_path(output)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        measured, missing = len(found["layers"]), len(found["unmeasured"])
    except (OSError, ValueError, KeyError, TypeError):
        return "nothing was written"
    return (
        f"the curves of {measured} of {measured + missing} layers are in {path}; run the same"
        " command again to measure the others"
    )


def _describe_partial(found: Sensitivity) -> dict[str, Any]:
    measured = {curve.name for curve in found.layers}
    missing = [name for name in found.inputs["layers"] if name not in measured]
    return {"unmeasured": missing, **found.to_json()}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(data, indent=2) + "\n").encode())


def _find_measured(paths: Sequence[Path], inputs: dict[str, Any]) -> list[LayerCurve]:
    """Read the curves that were measured on the same inputs; the list of layers may differ."""
    curves: list[LayerCurve] = []
    for path in paths:
        try:
            found = Sensitivity.from_json(json.loads(path.read_text(encoding="utf-8")))
            same = {**found.inputs, "layers": inputs["layers"]} == inputs
        except (OSError, ValueError, KeyError, TypeError):
            continue
        curves += found.layers if same else ()
    return curves


def _propose(
    weights: NetworkWeights,
    sample: Sample,
    sensitivity: Sensitivity,
    choices: Choices,
    progress: Progress,
) -> SensitivityStudy:
    target, proposal = choices.target, propose(weights, sensitivity, choices)
    progress("evaluate the plan", 0, 0)
    uniform = uniform_plan(weights, target)

    def score_validation(network: NetworkWeights) -> Score | None:
        if not sample.in_validation.any():
            return None
        return score_network(network, weights, sample, validation=True)

    evaluation = PlanEvaluation(
        seen=score_network(proposal.weights, weights, sample, validation=False),
        kept=score_validation(proposal.weights),
        uniform_percent=uniform.total,
        uniform_kept=score_validation(prune(weights, uniform).weights),
    )
    return SensitivityStudy(sensitivity, target, proposal, evaluation)


def _describe_plan(study: SensitivityStudy) -> str:
    inputs, proposal = study.sensitivity.inputs, study.proposal
    assert proposal is not None  # noqa: S101 - narrows for the type checker
    seen = inputs["windows"] - inputs["windows_kept"]
    return (
        f"Proposed by edgel3-tflm {__version__} for {inputs['variant']}: {study.target}.\n"
        f"Weights: {inputs['weights']['description']}; SHA-256 {inputs['weights']['sha256']}.\n"
        f"Each layer was pruned alone and scored on {seen} windows; errors are assumed to add up.\n"
        f"{proposal.plan.total:g} % zeros in all; packed at most {proposal.packed_bytes:,} bytes;"
        f" at most {proposal.cycles:,} modelled cycles."
    )


def draw_curves(sensitivity: Sensitivity) -> tuple[Chart, ...]:
    """Return a chart of each score against sparsity, with one line for each layer."""
    curves = sensitivity.layers
    names = [name for name in SCORE_TITLES if getattr(curves[0].points[0].score, name) is not None]
    least = _least_error(sensitivity)
    return tuple(_draw_score(curves, name, least) for name in names)


def _draw_score(curves: Sequence[LayerCurve], name: str, least: float) -> Chart:
    is_error = name == "mean_squared_error"
    sign = -1 if is_error else 1
    most = min(curves, key=lambda each: sign * getattr(each.points[-1].score, name))
    return Chart(
        f"{most.name} suffers most: {most.points[-1].percent:.0f} % zeros ({SCORE_TITLES[name]})",
        "zeros in the layer, pruned alone, %",
        SCORE_TITLES[name] + (" (log)" if is_error else ""),
        tuple(
            Series(
                curve.name,
                [point.percent for point in curve.points],
                # An error of 0 has no place on a logarithmic axis.
                [
                    max(value, least) if is_error else value
                    for value in (getattr(point.score, name) for point in curve.points)
                ],
                "line",
                COLOURS[position % len(COLOURS)],
                MARKERS[(position + position // len(COLOURS)) % len(MARKERS)],
                "solid" if position < len(COLOURS) else "dash",
            )
            for position, curve in enumerate(curves)
        ),
        log_y=is_error,
        height=420,
    )


def render_study(study: SensitivityStudy) -> str:
    """Return the study as an HTML page."""
    sensitivity = study.sensitivity
    charts = draw_curves(sensitivity)
    names = [
        name
        for name in SCORE_TITLES
        if getattr(sensitivity.layers[0].points[0].score, name) is not None
    ]
    columns = [
        Column("layer"),
        Column("zeros, %"),
        *(Column(SCORE_TITLES[name], _MEANINGS[name]) for name in names),
    ]
    rows: list[list[str | Cell]] = [
        [
            curve.name,
            number(point.percent),
            *(number(getattr(point.score, name), name) for name in names),
        ]
        for curve in sensitivity.layers
        for point in curve.points
    ]
    inputs = sensitivity.inputs
    lead = [
        inputs["weights"]["description"],
        f"Each layer was pruned alone, and scored on {inputs['windows'] - inputs['windows_kept']}"
        " windows against the network that was not pruned.",
    ]
    if study.proposal is not None:
        plan = ", ".join(f"{percent:g}" for percent in study.proposal.plan.layers)
        lead.append(
            f"Plan for {study.target}: {plan} % zeros in the layers,"
            f" {study.proposal.plan.total:g} % in all; packed at most"
            f" {study.proposal.packed_bytes:,} bytes; at most {study.proposal.cycles:,} modelled"
            " cycles."
        )
    return render_figures(
        f"Sensitivity of {inputs['variant']} to pruning",
        lead,
        charts,
        {"All scores": (columns, rows)},
    )


def _least_error(sensitivity: Sensitivity) -> float:
    """Return the smallest error above zero, where the plot's error axis begins."""
    errors = [
        point.score.mean_squared_error for curve in sensitivity.layers for point in curve.points
    ]
    return min((error for error in errors if error > 0), default=1.0)
