"""The command ``finetune``: audio-visual correspondence, from videos."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edgel3_tflm.cli.retrain.runs import (
    RESUMABLE,
    PlanOption,
    RecipeArgument,
    RunOption,
    describe_ending,
    load_student,
    read_figures,
)
from edgel3_tflm.cli.screen import JsonOption, QuietOption, new_table, open_screen
from edgel3_tflm.errors import VideoError


def finetune_command(
    recipe_file: RecipeArgument,
    videos: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Directory of videos with sound; its subdirectories are searched too.",
        ),
    ],
    weights: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Weights of the audio network to start from. They are cut to the recipe's depth"
            " and filters, and pruned to its plan if they are not pruned yet.",
        ),
    ],
    output: RunOption,
    video_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An .h5 or .h5.gz file of the video network. Default: a first stage trains it"
            " together with the audio network, on the same videos.",
        ),
    ] = None,
    plan: PlanOption = None,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            "-k",
            help="Leave out videos that cannot be decoded, list them, and exit with status 1 at the"
            " end.",
        ),
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a reduced audio network to recognise whether a video frame and a sound match."""
    with open_screen(quiet=quiet, as_json=as_json, interrupted=RESUMABLE) as screen:
        from edgel3_tflm.converters.training.correspondence import finetune
        from edgel3_tflm.converters.training.recipe import FinetuneRecipe, read_recipe
        from edgel3_tflm.converters.training.run_directory import FIGURES_NAME, STUDENT_NAME
        from edgel3_tflm.converters.training.video_network import load_video_weights
        from edgel3_tflm.converters.training.videos import find_videos

        recipe = read_recipe(recipe_file, FinetuneRecipe)
        initial = load_student(recipe.student, weights, plan)
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
                    f" {100 * each.accuracy:.1f} % of validation pairs correct, loss"
                    f" {each.loss:.4f}"
                ),
                on_damaged=on_damaged,
            )
        written = read_figures(output)
        written["damaged"] = {str(path): reason for path, reason in sorted(damaged.items())}
        table = new_table("layer", "weights", "zeros\nbefore", "zeros\nafter")
        for layer in written["layers"]:
            counts = (layer["weights"], layer["zeros_before"], layer["zeros"])
            table.add_row(layer["name"], *(f"{count:,}" for count in counts))
        screen.show(
            written,
            table,
            describe_ending(written["run"]),
            Text(
                f"step {figures.step} chosen: {100 * figures.accuracy:.1f} % of {figures.pairs}"
                f" validation pairs correct (a constant answer: {100 * figures.chance:.1f} %)"
            ),
            Text(f"student: {output / STUDENT_NAME}, figures: {output / FIGURES_NAME}"),
        )
        for reason in damaged.values():
            screen.error(reason)
        if damaged:
            # A video that is damaged in its middle was found and is damaged.
            count = len({video.path for video in found} | damaged.keys())
            screen.error(f"{len(damaged):,} of {count:,} videos cannot be decoded completely")
            raise typer.Exit(1)
