"""Distillations that are interrupted, damaged or repeated in the same directory."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command_line import run_in_process
from helpers.distillation import RECIPE, TINY_RECIPE, train
from helpers.networks.tiny_network import write_weights

from edgel3_tflm.converters.training.distill import distill
from edgel3_tflm.converters.training.recipe import (
    Recipe,
    parse_recipe,
)
from edgel3_tflm.converters.training.split import choose_clips
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import NetworkWeights


def test_an_interrupted_run_resumes_to_the_same_result(
    distilled: tuple[Path, list[float]], student: Variant, teacher: NetworkWeights, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, student, teacher, tmp_path, stop_at=19)
    assert train(RECIPE, student, teacher, tmp_path) == distilled[1][2:]
    for name in ("student.h5.gz", "figures.json", "dense.h5.gz"):
        assert (tmp_path / name).read_bytes() == (distilled[0] / name).read_bytes(), name


def test_a_resumed_run_logs_no_step_twice(
    clips: Path, teacher_of_four: NetworkWeights, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    recipe = parse_recipe(TINY_RECIPE, Recipe)
    student = recipe.student.variant
    # After the checkpoint of step 4.
    with pytest.raises(KeyboardInterrupt):
        train(recipe, student, teacher_of_four, tmp_path / "run", stop_at=5, clips=clips)
    (log,) = (tmp_path / "run" / "log").iterdir()
    log.write_bytes(log.read_bytes() + b"half a record, as a killed run leaves")
    train(recipe, student, teacher_of_four, tmp_path / "run", clips=clips)
    steps: dict[str, list[int]] = {}
    for path in sorted((tmp_path / "run" / "log").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                steps.setdefault(value.tag, []).append(event.step)
    assert steps["loss/teacher"] == steps["learning_rate"] == list(range(6))
    assert steps["validation/teacher_cosine"] == [1, 3, 5]


@pytest.mark.parametrize("name", ["checkpoint-1.index", "checkpoint-1.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_named(
    clips: Path, teacher_of_four: NetworkWeights, tmp_path: Path, name: str
) -> None:
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    student = recipe.student.variant
    with pytest.raises(KeyboardInterrupt):
        train(recipe, student, teacher_of_four, tmp_path, stop_at=3, clips=clips)
    (found,) = (tmp_path / "checkpoints").glob(name.replace("checkpoint-1", "ckpt-1"))
    found.write_bytes(found.read_bytes()[:-100])
    with pytest.raises(EdgeL3Error, match=r"ckpt-1: expected a whole checkpoint .* remove") as told:
        train(recipe, student, teacher_of_four, tmp_path, clips=clips)
    assert "\n" not in str(told.value)


def test_a_full_disk_is_one_line_and_the_run_can_be_resumed(
    clips: Path, teacher_of_four: NetworkWeights, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    training, validation = choose_clips(recipe.validation, [], sorted(clips.glob("*.wav")))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    steps: list[int] = []

    def fill(step: str, done: int, _total: int) -> None:
        if step == "distill":
            steps.append(done)
            if len(steps) == 4:  # the checkpoint is larger, the student is smaller
                resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, before[1]))

    def train() -> None:
        distill(
            recipe,
            student=recipe.student.variant,
            teacher=teacher_of_four,
            training=training,
            validation=validation,
            output=tmp_path / "run",
            progress=fill,
            on_validation=lambda _: None,
        )

    try:
        with pytest.raises(EdgeL3Error, match=r"cannot write .*run: [^{]*File too large; ") as told:
            train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(told.value)
    train()
    assert steps == [1, 2, 3, 4, 3, 4, 5, 6]


def test_missing_figures_are_named(
    clips: Path, teacher_of_four: NetworkWeights, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    train(recipe, recipe.student.variant, teacher_of_four, tmp_path, clips=clips)
    (tmp_path / "figures.json").unlink()
    with pytest.raises(EdgeL3Error, match=r"figures\.json: expected the figures of this run"):
        train(recipe, recipe.student.variant, teacher_of_four, tmp_path, clips=clips)


def test_another_recipe_is_refused_in_the_same_directory(
    distilled: tuple[Path, list[float]], student: Variant, teacher: NetworkWeights
) -> None:
    other = replace(RECIPE, loss=replace(RECIPE.loss, statistics=0.1))
    with pytest.raises(EdgeL3Error, match="another run"):
        train(other, student, teacher, distilled[0])


def test_a_run_that_failed_before_its_first_checkpoint_may_be_corrected(
    clips: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TINY_RECIPE)
    damaged = clips / "9.wav"
    damaged.write_bytes(b"RIFF, but no more than that")
    command = ("distill", recipe, "--clips", clips, "-o", tmp_path / "run", "--teacher-weights")
    status, messages = run_in_process(*command, write_weights(tmp_path))
    assert status == 1
    assert "9.wav: expected an audio file" in messages.splitlines()[-1]
    damaged.unlink()
    status, messages = run_in_process(*command, write_weights(tmp_path))
    assert status == 0, messages
