"""The directory of a training run: the run's inputs, its figures, and how it ended."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import write_whole

STUDENT_NAME = "student.h5.gz"
FIGURES_NAME = "figures.json"
_RECIPE_NAME = "recipe.json"
# TensorFlow writes this file beside each checkpoint.
_CHECKPOINT_STATE = "checkpoint"


def claim_directory(output: Path, identity: Mapping[str, Any]) -> None:
    """Record a run's inputs in its directory, or check that it contains a run of the same inputs.

    If the directory contains another run without a checkpoint, the new run replaces it.

    Parameters
    ----------
    output : pathlib.Path
        Created if it does not exist.
    identity : mapping
        Everything that the result depends on, as values that JSON can represent.

    Raises
    ------
    EdgeL3Error
        If the directory contains another run with a checkpoint, or cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeL3Error(f"cannot write {output}: {error.strerror or error}") from error
    path = output / _RECIPE_NAME
    text = json.dumps(identity, indent=1).encode()
    has_begun = any(output.rglob(_CHECKPOINT_STATE))
    if has_begun and path.exists() and path.read_bytes() != text:
        raise EdgeL3Error(
            f"{output}: expected a new directory, or one with a run of the same"
            f" {', '.join(identity)}; it contains another run; choose another directory or remove"
            " this one"
        )
    write_whole(path, text)


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Parameters
    ----------
    steps_taken, steps : int
        Training steps that the run took, and training steps in its recipe.
    reason : str
        Why the run took no more steps.
    kept_by : str
        The rule that selected the student among the validated networks.
    """

    steps_taken: int
    steps: int
    reason: str
    kept_by: str


def write_figures(directory: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures of a run as JSON."""
    write_whole(directory / FIGURES_NAME, (json.dumps(figures, indent=1) + "\n").encode())


def add_ending(directory: Path, ending: Ending) -> dict[str, Any]:
    """Add a run's ending to the figures in its directory, and write them again.

    Returns
    -------
    dict
        The figures.

    Raises
    ------
    EdgeL3Error
        If the file is missing or damaged.
    """
    path = directory / FIGURES_NAME
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        figures = {**found, "run": asdict(ending)}
    except (OSError, ValueError, TypeError) as error:
        raise EdgeL3Error(
            f"{path}: expected the figures of this run; the file is missing or damaged ({error});"
            f" remove {directory} and train again"
        ) from error
    write_figures(directory, figures)
    return figures
