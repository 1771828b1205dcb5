"""Recipes of short distillations, and a function that runs them."""

from pathlib import Path

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.converters.training.distill import distill
from edgel3_tflm.converters.training.recipe import (
    Recipe,
    parse_recipe,
)
from edgel3_tflm.converters.training.split import choose_clips
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import NetworkWeights

SMALLEST = '[student]\nmodel_type = "sparse"\n[teacher]\nmodel_type = "sea"\n'
TINY_RECIPE = """
[student]
model_type = "sea"
embedding_size = 64
filters = [2, 2, 2, 2, 2, 2, 2, 2]
[teacher]
model_type = "sea"
embedding_size = 64
[validation]
share = 0.3
[training]
steps = 6
batch_windows = 2
warmup_steps = 0
validate_every_steps = 2
"""
PERCENTS = (0, 50, 60, 70, 50, 90, 95, 80)
FILTERS = (3, 2, 4, 2, 3, 4, 2, 5)
RECIPE = parse_recipe(
    SMALLEST
    + """
[validation]
share = 0.3
[loss]
statistics = 0.5
[pruning]
begin = 0.25
end = 0.5
every_steps = 2
[training]
steps = 24
batch_windows = 4
warmup_steps = 4
validate_every_steps = 8
""",
    Recipe,
)


def train(
    recipe: Recipe,
    student: Variant,
    teacher: NetworkWeights,
    output: Path,
    stop_at: int = 0,
    clips: Path | None = None,
    initial: NetworkWeights | None = None,
) -> list[float]:
    """Distil; interrupt after ``stop_at`` steps. Returns the cosine of each validation."""
    paths = clips.glob("*.wav") if clips else bundled_clips_directory().glob("s*.flac")
    training, validation = choose_clips(recipe.validation, [], sorted(paths))

    def progress(step: str, done: int, _total: int) -> None:
        if step == "distill" and done == stop_at:
            raise KeyboardInterrupt

    cosines: list[float] = []
    distill(
        recipe,
        student=student,
        teacher=teacher,
        training=training,
        validation=validation,
        output=output,
        progress=progress,
        on_validation=lambda figures: cosines.append(figures.teacher_cosine),
        initial=initial,
    )
    return cosines
