"""Run a sensitivity study and write its scores, plot and plan to a directory.

This needs the extra ``report``.
"""

import io
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
from edgel3_tflm.errors import RuntimeUnavailableError, install_hint
from edgel3_tflm.files import new_directory, write_whole
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.types import Progress

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError as error:
    raise RuntimeUnavailableError(
        f"plots need the package {error.name}, which is not installed; {install_hint('report')}"
    ) from error

JSON_NAME = "sensitivity.json"
PLOT_NAME = "sensitivity.png"
PLAN_NAME = "plan.toml"

SCORE_TITLES = {
    "mean_squared_error": "mean squared error",
    "cosine_mean": "mean cosine",
    "centred_cosine_mean": "mean centred cosine",
    "probe_percent": "probe, % right",
}
"""Titles of the fields of a score, in tables and plots."""


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
        (new / PLOT_NAME).write_bytes(plot_curves(sensitivity))
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


def plot_curves(sensitivity: Sensitivity) -> bytes:
    """Plot each score against sparsity, with one line for each layer; return a PNG image."""
    curves = sensitivity.layers
    names = [name for name in SCORE_TITLES if getattr(curves[0].points[0].score, name) is not None]
    figure = Figure(figsize=(5.2 * len(names), 4.2), layout="constrained", dpi=110)
    colours = mpl.colormaps["viridis"].resampled(len(curves) + 1)
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), number)
        for position, curve in enumerate(curves):
            axes.plot(
                [point.percent for point in curve.points],
                [getattr(point.score, name) for point in curve.points],
                marker="o",
                markersize=3,
                color=colours(position),
                label=curve.name,
            )
        axes.set(xlabel="zeros in the layer, %", ylabel=SCORE_TITLES[name])
        if name == "mean_squared_error":
            axes.set_yscale("symlog", linthresh=_least_error(sensitivity))
        if number == 1:
            axes.legend(frameon=False, title="pruned alone")
    figure.suptitle(sensitivity.inputs["variant"])
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _least_error(sensitivity: Sensitivity) -> float:
    """Return the smallest error above zero. The plot's error axis is linear below it."""
    errors = [
        point.score.mean_squared_error for curve in sensitivity.layers for point in curve.points
    ]
    return min((error for error in errors if error > 0), default=1.0)
