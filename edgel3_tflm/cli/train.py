"""The commands that train: ``distill`` and ``finetune``."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.manifest import read_manifest, require_files
from edgel3_tflm.cli.screen import JsonOption, QuietOption, new_table, open_screen
from edgel3_tflm.errors import VideoError
from edgel3_tflm.networks.hints import Hints
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.weights import NetworkWeights

if TYPE_CHECKING:
    from edgel3_tflm.converters.training.recipe import StudentChoice

_GOING_ON = "the same command goes on from the last checkpoint"

_RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="TOML file with every choice of the run.")
]
_RunOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="DIR", help="Directory of the run; goes on if one is there."
    ),
]
_PlanOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Instead of the recipe's sparsity: percent of zeros by layer (TOML)."
    ),
]


def distill_command(
    recipe_file: _RecipeArgument,
    output: _RunOption,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="MANIFEST", help="Labelled clips: columns file, label and fold."),
    ] = None,
    clips: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="More clips: a file or a directory; repeatable."),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The teacher's weights; the published ones if none."),
    ] = None,
    student_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the student starts from, cut to its depth and filters; random if none.",
        ),
    ] = None,
    plan: _PlanOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a pruned student the embedding of a teacher."""
    with open_screen(quiet=quiet, as_json=as_json, interrupted=_GOING_ON) as screen:
        from edgel3_tflm.converters.pruning.plan_file import read_plan
        from edgel3_tflm.converters.training.distill import choose_clips, distill
        from edgel3_tflm.converters.training.loop import FIGURES_NAME, STUDENT_NAME
        from edgel3_tflm.converters.training.recipe import Recipe, read_recipe

        recipe = read_recipe(recipe_file, Recipe)
        initial = None
        student = recipe.student.variant
        if plan is not None:
            student = student.with_plan(read_plan(plan))
            recipe.find_pruning_steps()
        if student_weights is not None:
            initial = _load_reduced(recipe.student, student_weights, plan)
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
                    f" {each.teacher_cosine:.4f} (always its mean: {each.mean_cosine:.4f})"
                ),
            )
        run = _read_figures(output)["run"]
        screen.show(
            {**asdict(figures), "run": run},
            _describe_ending(run),
            Text(
                f"kept step {figures.step}: cosine to the teacher {figures.teacher_cosine:.4f} over"
                f" {figures.windows} windows kept from training"
            ),
            Text(f"student: {output / STUDENT_NAME}, figures: {output / FIGURES_NAME}"),
        )


def finetune_command(
    recipe_file: _RecipeArgument,
    videos: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Videos with sound, searched for in all of DIR."),
    ],
    weights: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The audio network to start from, cut to the recipe's depth and filters and"
            " pruned to its plan where it is not yet.",
        ),
    ],
    output: _RunOption,
    video_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An .h5 or .h5.gz file of the video network; if none, a first stage trains it"
            " together with the audio network, on the same videos.",
        ),
    ] = None,
    plan: _PlanOption = None,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going", "-k", help="Name videos that cannot be decoded, and go on without them."
        ),
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a reduced audio network by whether a video's frame and a sound belong together."""
    with open_screen(quiet=quiet, as_json=as_json, interrupted=_GOING_ON) as screen:
        from edgel3_tflm.converters.training.correspondence import finetune, load_video_weights
        from edgel3_tflm.converters.training.loop import FIGURES_NAME, STUDENT_NAME
        from edgel3_tflm.converters.training.recipe import FinetuneRecipe, read_recipe
        from edgel3_tflm.converters.training.videos import find_videos

        recipe = read_recipe(recipe_file, FinetuneRecipe)
        initial = _load_reduced(recipe.student, weights, plan)
        video = None if video_weights is None else load_video_weights(recipe.video, video_weights)
        damaged: dict[Path, str] = {}
        steps = {"video": recipe.video_training.steps, "audio": recipe.training.steps}
        with screen.progress() as progress:

            def note_damaged(error: VideoError) -> None:
                if error.path not in damaged:
                    damaged[error.path] = str(error)
                    progress.note(str(error))

            on_damaged = note_damaged if keep_going else None
            found = find_videos(
                videos, lambda done, total: progress("read videos", done, total), on_damaged
            )
            figures = finetune(
                recipe,
                initial=initial,
                video=video,
                videos=found,
                output=output,
                progress=progress,
                on_validation=lambda stage, each: progress.note(
                    f"{stage} network, step {each.step} of {steps[stage]}:"
                    f" {100 * each.accuracy:.1f} % of held pairs right, loss {each.loss:.4f}"
                ),
                on_damaged=on_damaged,
            )
        written = _read_figures(output)
        written["damaged"] = {str(path): reason for path, reason in sorted(damaged.items())}
        table = new_table("layer", "weights", "zeros\nbefore", "zeros\nafter")
        for layer in written["layers"]:
            counts = (layer["weights"], layer["zeros_before"], layer["zeros"])
            table.add_row(layer["name"], *(f"{count:,}" for count in counts))
        screen.show(
            written,
            table,
            _describe_ending(written["run"]),
            Text(
                f"kept step {figures.step}: {100 * figures.accuracy:.1f} % of {figures.pairs} pairs"
                f" of held videos right (the same answer for all: {100 * figures.chance:.1f} %)"
            ),
            Text(f"student: {output / STUDENT_NAME}, figures: {output / FIGURES_NAME}"),
        )
        for reason in damaged.values():
            screen.error(reason)
        if damaged:
            count = len(found) + len(damaged)
            screen.error(f"{len(damaged):,} of {count:,} videos cannot be decoded everywhere")
            raise typer.Exit(1)


def _read_figures(output: Path) -> dict[str, Any]:
    from edgel3_tflm.converters.training.loop import FIGURES_NAME

    figures: dict[str, Any] = json.loads((output / FIGURES_NAME).read_bytes())
    return figures


def _describe_ending(run: dict[str, Any]) -> Text:
    return Text(f"{run['reason']}; kept by {run['kept_by']}")


def _load_reduced(choice: "StudentChoice", path: Path, plan: Path | None) -> NetworkWeights:
    """Load weights of the network that a choice names, and cut them as it says."""
    from edgel3_tflm.converters.pruning.plan_file import read_plan
    from edgel3_tflm.converters.pruning.reduce import reduce_weights

    whole = load_weights(choice.uncut, path, hints=Hints(recipe_table="student"))
    weights = reduce_weights(whole, choice.depth, choice.filters)
    if plan is None:
        return weights
    return replace(weights, variant=weights.variant.with_plan(read_plan(plan)))
