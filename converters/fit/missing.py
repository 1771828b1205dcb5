"""Trains the members of the family that no weights are given of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from edgel3_tflm.audio.clips import bundled_clips_directory, find_clips
from edgel3_tflm.converters.fit.candidates import Candidate, Members, find_reference
from edgel3_tflm.converters.fit.measurement import Sample
from edgel3_tflm.converters.training.distill import DENSE_NAME, DistillationFigures, distill
from edgel3_tflm.converters.training.recipe import Recipe, StudentChoice, read_recipe
from edgel3_tflm.converters.training.run_directory import STUDENT_NAME
from edgel3_tflm.converters.training.split import choose_clips
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.types import Progress

_DIRECTORY = "distilled"


def read_fit_recipe(path: Path | None) -> Recipe:
    """Read a recipe for ``distill``; by default that of the stand-in, which ships with the package.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read or is no such recipe.
    """
    shipped = Path(str(files("edgel3_tflm.standin"))) / "recipe.toml"
    return read_recipe(path or shipped, Recipe)


@dataclass(frozen=True)
class Distillation:
    """How missing members are trained.

    Parameters
    ----------
    recipe : Recipe
        Each plan replaces the ``sparsity`` of its student, and each depth or width is one of the
        dense L3.
    teacher : NetworkWeights
    """

    recipe: Recipe
    teacher: NetworkWeights

    def list_students(self, given: Sequence[Candidate], members: Members) -> list[StudentChoice]:
        """Return the plans, depths and widths of which no weights are given."""
        student = self.recipe.student
        choices = [
            *(replace(student, model_type="sparse", sparsity=plan.label) for plan in members.plans),
            *(
                replace(student, model_type="dense", filters=None, embedding_layer=f"conv{depth}")
                for depth in members.depths
            ),
            *(
                replace(student, model_type="dense", filters=width, embedding_layer=None)
                for width in members.widths
            ),
        ]
        names = {each.weights.variant.name for each in given}
        plans = {each.weights.variant.plan for each in given}
        return [
            each
            for each in choices
            if each.variant.name not in names
            and (each.variant.plan is None or each.variant.plan not in plans)
        ]

    def train(
        self,
        choice: StudentChoice,
        given: Sequence[Candidate],
        sample: Sample,
        output: Path,
        progress: Progress,
        on_validation: Callable[[DistillationFigures], None],
    ) -> list[Candidate]:
        """Train a student in a directory of its own below ``output``, or continue its run.

        A student with a plan starts from the given network of its shape that has the fewest zeros,
        or else from random weights.

        Returns
        -------
        list of Candidate
            The student. If it has a plan and started from random weights, also the network before
            it was pruned, which is pruned to the plan and not trained further.

        Raises
        ------
        EdgeL3Error
            As :func:`edgel3_tflm.converters.training.distill.distill`.
        """
        student = choice.variant
        initial = None if student.plan is None else _find_initial(student, given)
        directory = output / _DIRECTORY / student.name
        training, validation = choose_clips(
            self.recipe.validation,
            sample.clips if sample.is_labelled else [],
            find_clips([sample.calibration or bundled_clips_directory()]),
        )
        try:
            distill(
                replace(self.recipe, student=choice),
                student=student,
                teacher=self.teacher,
                training=training,
                validation=validation,
                output=directory,
                progress=progress,
                on_validation=on_validation,
                initial=initial,
            )
        except EdgeL3Error as error:
            raise EdgeL3Error(f"{student.name}: {error}") from error
        trained = load_weights(choice.uncut, directory / STUDENT_NAME)
        if student.plan is not None:
            trained = replace(trained, variant=student)
        found = [Candidate(trained, "distilled here", is_given=True)]
        if student.plan is not None and initial is None:
            dense = load_weights(choice.uncut, directory / DENSE_NAME)
            dense = replace(dense, variant=student)
            found.append(Candidate(dense, "pruned alone here", is_given=False))
        return found


def _find_initial(student: Variant, given: Sequence[Candidate]) -> NetworkWeights | None:
    fitting = [each for each in given if _shape(each.weights.variant) == _shape(student)]
    return find_reference(fitting).weights if fitting else None


def _shape(variant: Variant) -> tuple[object, ...]:
    return variant.frontend, variant.filters, variant.final_relu
