"""Recipes: defaults, and one clear line for every wrong value."""

from pathlib import Path

import pytest
from helpers.command_line import run_in_process
from helpers.distillation import PERCENTS, SMALLEST
from helpers.networks.tiny_network import write_weights

from edgel3_tflm.converters.pruning.plan_file import write_plan
from edgel3_tflm.converters.training.recipe import (
    FinetuneRecipe,
    Recipe,
    parse_recipe,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.variants import Plan


class TestRecipes:
    def test_the_rest_has_defaults(self) -> None:
        recipe = parse_recipe(SMALLEST + "[augmentation]\nmix_db = [-3, 4]\n", Recipe)
        assert recipe.student.sparsity == "95.45"
        assert recipe.augmentation.mix_db == (-3.0, 4.0)
        assert recipe.training.steps > 0

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("x =", "TOML"),
            ('[student]\nmodel_type = "sparse"\n', "teacher"),
            (SMALLEST + "[training]\nspeed = 3\n", "training.speed"),
            (SMALLEST + "[training]\nsteps = 0\n", "training.steps"),
            (SMALLEST + "[training]\nsteps = 2.5\n", "training.steps"),
            (SMALLEST + "[training]\nlearning_rate = nan\n", "training.learning_rate"),
            (SMALLEST + "[pruning]\nbegin = 1.5\n", "pruning.begin"),
            (SMALLEST + '[pruning]\nschedule = "never"\n', "pruning.schedule"),
            (SMALLEST + "[augmentation]\nmix_db = [1]\n", "augmentation.mix_db"),
            (SMALLEST + "filters = [1, 1, 1, 1, 1, 1, 1, 1]\n", "teacher.filters"),
            (
                "[student]\nfilters = [1, 1, 1, 1, 1, 1, 1]\n" + SMALLEST[10:],
                "expected 8 numbers of filters",
            ),
            ("[student]\nfilters = [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + SMALLEST[10:], "most 8 items"),
            ("[student]\nfilters = [1, 1, 0, 1, 1, 1, 1, 1]\n" + SMALLEST[10:], "filters.2"),
            ("[student]\nfilters = [1, 1, 1025, 1, 1, 1, 1, 1]\n" + SMALLEST[10:], "filters.2"),
            ("[student]\nfilters = [1, 1, 1.5, 1, 1, 1, 1, 1]\n" + SMALLEST[10:], "filters.2"),
            ("[student]\nfilters = 64\n" + SMALLEST[10:], "student.filters"),
        ],
    )
    def test_a_wrong_value_is_named(self, text: str, part: str) -> None:
        with pytest.raises(EdgeL3Error, match=part):
            parse_recipe(text, Recipe)

    def test_the_stand_ins_recipes_are_valid(self) -> None:
        directory = Path(__file__).parents[3] / "edgel3_tflm" / "standin"
        recipes = [parse_recipe(path.read_text(), Recipe) for path in directory.glob("*.toml")]
        assert {recipe.student.sparsity for recipe in recipes} == {"95.45", "99"}
        assert {recipe.validation.fold for recipe in recipes} == {4}


WRONG = [
    ("validation", "share = 0"),
    ("validation", "share = 1"),
    ("validation", "share = 0.0"),
    ("validation", "fold = 1.5"),
    ("augmentation", "gain_db = [0, -30]"),
    ("augmentation", "gain_db = [0, 1e9]"),
    ("augmentation", "mix_db = [5, -20]"),
    ("augmentation", "noise_db = [-10, -60]"),
    ("augmentation", "noise_db = [-1e9, 0]"),
    ("augmentation", "mix_probability = 1.5"),
    ("augmentation", "filter_probability = -0.5"),
    ("augmentation", "noise_probability = 2"),
    ("augmentation", "filter_deviation_db = -1"),
    ("augmentation", "filter_deviation_db = 1e9"),
    ("augmentation", "band_probability = 1.5"),
    ("augmentation", "band_hz = [9000, 8000]"),
    ("augmentation", "band_hz = [0, 8000]"),
    ("microphone", "noise_probability = 2"),
    ("microphone", "noise_dbfs = [-70, -100]"),
    ("microphone", "dither_probability = -1"),
    ("microphone", "clock_error_percent = 11"),
    ("microphone", "clock_error_percent = -1"),
    ("loss", "microphone = -1"),
    ("loss", "teacher = -1"),
    ("loss", "teacher = 1e300"),
    ("loss", "statistics = -0.1"),
    ("loss", "labels = -0.1"),
    ("loss", "teacher = 0"),
    ("pruning", "begin = 0.7"),
    ("pruning", "begin = 0.6"),
    ("pruning", "begin = -0.1"),
    ("pruning", "end = 1.0"),
    ("pruning", "end = 1.1"),
    ("pruning", "every_steps = 0"),
    ("pruning", "every_steps = 900"),
    ("pruning", 'schedule = "one-shot"\nbegin = 1.0'),
    ("training", "seed = -1"),
    ("training", "seed = 1e99"),
    ("training", "seed = 100000000000000000000"),
    ("training", "steps = 0"),
    ("training", "steps = 12"),
    ("training", "steps = 10000000000"),
    ("training", "batch_windows = 0"),
    ("training", "batch_windows = 10000000000"),
    ("training", "learning_rate = -1"),
    ("training", "learning_rate = 2.0"),
    ("training", "warmup_steps = -5"),
    ("training", "validate_every_steps = 0"),
    ("training", "patience_validations = 0"),
    ("training", 'precision = "float16"'),
]


@pytest.mark.parametrize(("table", "choice"), WRONG)
def test_a_wrong_choice_is_refused_before_a_clip_is_read_or_anything_written(
    table: str, choice: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"{SMALLEST}[{table}]\n{choice}\n")
    (tmp_path / "0.wav").write_bytes(b"no audio: to read it is another error")
    command = ("distill", recipe, "--clips", tmp_path, "-o", tmp_path / "run")
    status, messages = run_in_process(*command, "--teacher-weights", write_weights(tmp_path))
    assert status == 1
    (line,) = messages.splitlines()
    assert line.startswith(f"error: {recipe}: recipe"), line
    assert table in line
    assert choice.split("\n")[-1].split(" = ")[0] in line
    assert not (tmp_path / "run").exists()


def test_pruning_that_ends_after_the_run_is_refused_for_a_plan_of_its_own_too(
    clips: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[student]\nmodel_type = "sea"\n' + SMALLEST.split("\n", 2)[2])
    recipe.write_text(recipe.read_text() + "[training]\nsteps = 6\n")
    parse_recipe(recipe.read_text(), Recipe)  # the recipe alone prunes nothing
    (tmp_path / "plan.toml").write_bytes(write_plan(Plan(0, PERCENTS), "of a test"))
    command = ("distill", recipe, "--clips", clips, "-o", tmp_path / "run")
    command += ("--plan", tmp_path / "plan.toml")
    status, messages = run_in_process(*command, "--teacher-weights", write_weights(tmp_path))
    assert status == 1
    assert "pruning ends at step 11" in messages
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_the_other_command_is_recognised() -> None:
    with pytest.raises(EdgeL3Error, match="it is a recipe for finetune"):
        parse_recipe('[student]\nmodel_type = "sparse"\n[fusion]\nunits = 4\n', Recipe)
    with pytest.raises(EdgeL3Error, match="it is a recipe for distill"):
        parse_recipe(SMALLEST, FinetuneRecipe)


def test_a_network_to_fine_tune_is_named_so() -> None:
    recipe = parse_recipe('[student]\nmodel_type = "sparse"\n', FinetuneRecipe)
    assert recipe.student.variant.name == "edgel3-95.45-ft"


@pytest.mark.parametrize(
    ("table", "choice"),
    [
        ("validation", "share = 0"),
        ("validation", "share = 1"),
        ("validation", "pairs = 0"),
        ("validation", "pairs = 1000000000000"),
        ("fusion", "units = 0"),
        ("fusion", "units = 1000000000000"),
        ("video", "frame_pixels = 7"),
        ("video", "filters = [8, 8]"),
        ("training", "seed = -1"),
        ("training", "warmup_steps = -5"),
        ("video_training", "seed = -1"),
        ("video_training", "batch_windows = 1000000000000"),
    ],
)
def test_a_wrong_choice_of_a_fine_tuning_is_refused(table: str, choice: str) -> None:
    text = f'[student]\nmodel_type = "sparse"\n[{table}]\n{choice}\n'
    with pytest.raises(EdgeL3Error, match=rf"recipe, {table}\.{choice.split()[0]}: "):
        parse_recipe(text, FinetuneRecipe)
