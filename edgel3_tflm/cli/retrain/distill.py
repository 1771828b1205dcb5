"""The command ``distill``: a pruned student learns the embedding of a teacher."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.manifest import read_manifest, require_files
from edgel3_tflm.cli.options import MANIFEST_HELP
from edgel3_tflm.cli.retrain.runs import (
    RESUMABLE,
    PlanOption,
    RecipeArgument,
    RunOption,
    describe_ending,
    load_student,
    read_figures,
)
from edgel3_tflm.cli.screen import JsonOption, QuietOption, open_screen
from edgel3_tflm.networks.hints import Hints
from edgel3_tflm.networks.sources import load_weights


def distill_command(
    recipe_file: RecipeArgument,
    output: RunOption,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="MANIFEST", help=f"Labelled clips: {MANIFEST_HELP}."),
    ] = None,
    clips: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="More training clips: a file or a directory; repeatable."
        ),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The teacher's weights. Default: the published ones."),
    ] = None,
    student_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights that the student starts from, cut to its depth and filters. Default:"
            " random weights.",
        ),
    ] = None,
    plan: PlanOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a pruned student network to reproduce the embedding of a teacher network."""
    with open_screen(quiet=quiet, as_json=as_json, interrupted=RESUMABLE) as screen:
        from edgel3_tflm.converters.pruning.plan_file import read_plan
        from edgel3_tflm.converters.training.distill import distill
        from edgel3_tflm.converters.training.recipe import Recipe, read_recipe
        from edgel3_tflm.converters.training.run_directory import FIGURES_NAME, STUDENT_NAME
        from edgel3_tflm.converters.training.split import choose_clips

        recipe = read_recipe(recipe_file, Recipe)
        initial = None
        student = recipe.student.variant
        if plan is not None:
            student = student.with_plan(read_plan(plan))
            recipe.find_pruning_steps()
        if student_weights is not None:
            initial = load_student(recipe.student, student_weights, plan)
            student = initial.variant
        labelled = read_manifest(manifest) if manifest else []
        if manifest is not None:
            require_files(labelled, manifest)
        training, validation = choose_clips(recipe.validation, labelled, find_clips(clips or []))
        with screen.progress() as progress:
            figures = distill(
                recipe,
                student=student,
                teacher=load_weights(
                    recipe.teacher.variant,
                    teacher_weights,
                    hints=Hints("--teacher-weights", recipe_table="teacher"),
                ),
                initial=initial,
                training=training,
                validation=validation,
                output=output,
                progress=progress,
                on_validation=lambda each: progress.note(
                    f"step {each.step} of {recipe.training.steps}: cosine to the teacher"
                    f" {each.teacher_cosine:.4f} (a constant, its mean: {each.mean_cosine:.4f}),"
                    f" to itself at 16 bits {each.sixteen_bit_cosine:.4f}"
                ),
            )
        run = read_figures(output)["run"]
        screen.show(
            {**asdict(figures), "run": run},
            describe_ending(run),
            Text(
                f"step {figures.step} chosen: cosine to the teacher {figures.teacher_cosine:.4f}"
                f" over {figures.windows} windows of the validation set"
            ),
            Text(f"student: {output / STUDENT_NAME}, figures: {output / FIGURES_NAME}"),
        )
