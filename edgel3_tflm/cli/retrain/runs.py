"""What the commands ``distill`` and ``finetune`` share."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from edgel3_tflm.networks.hints import Hints
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.weights import NetworkWeights

if TYPE_CHECKING:
    from edgel3_tflm.converters.training.recipe import StudentChoice

RESUMABLE = "the same command continues from the last checkpoint"
"""What an interrupted run leaves."""

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="TOML file with all settings of the run.")
]
RunOption = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Directory of the run. A run that was interrupted there is continued.",
    ),
]
PlanOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="TOML file with the percent of zeros of each layer, instead of the recipe's sparsity.",
    ),
]


def read_figures(output: Path) -> dict[str, Any]:
    """Return the figures that a run wrote to its directory."""
    from edgel3_tflm.converters.training.run_directory import FIGURES_NAME

    figures: dict[str, Any] = json.loads((output / FIGURES_NAME).read_bytes())
    return figures


def describe_ending(run: dict[str, Any]) -> Text:
    """Return why a run ended and how its student was chosen."""
    return Text(f"{run['reason']}; student chosen by {run['kept_by']}")


def load_student(choice: "StudentChoice", path: Path, plan: Path | None) -> NetworkWeights:
    """Load the weights that a student starts from, cut to its depth and filters.

    Parameters
    ----------
    choice : StudentChoice
        The recipe's network.
    path : pathlib.Path
        Weight file of the uncut network.
    plan : pathlib.Path or None
        File with the percent of zeros of each layer, instead of the recipe's sparsity.

    Raises
    ------
    EdgeL3Error
        If a file cannot be read or belongs to another network.
    """
    from edgel3_tflm.converters.pruning.plan_file import read_plan
    from edgel3_tflm.converters.pruning.reduce import reduce_weights

    whole = load_weights(choice.uncut, path, hints=Hints(recipe_table="student"))
    weights = reduce_weights(whole, choice.depth, choice.filters)
    if plan is None:
        return weights
    return replace(weights, variant=weights.variant.with_plan(read_plan(plan)))
