"""The command distill: students of other shapes, interruption, and wrong input."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import run_in_process
from helpers.distillation import FILTERS, SMALLEST
from helpers.networks.tiny_network import write_weights
from helpers.progress import ignore_progress
from typer.testing import CliRunner

from edgel3_tflm.cli.commands import app
from edgel3_tflm.cli.screen import Steps
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.converters.pruning.reduce import reduce_weights
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.weight_files import inspect_weights
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME


def distill_command(recipe: Path, clips: Path, teacher: Path, *more: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("edgel3-tflm")),
        "distill",
        str(recipe),
        "-o",
        str(recipe.parent / "run"),
        "--clips",
        str(clips),
        "--teacher-weights",
        str(teacher),
        *more,
    ]


def test_a_student_with_a_depth_and_filters_of_its_own_converts_and_compares(
    teacher_file: Path,
    clips: Path,
    convert_to: Callable[[ConvertOptions], Deployment],
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[student]\nmodel_type = "sparse"\nsparsity = "90.5"\nembedding_layer = "conv6"\n'
        f"filters = {list(FILTERS[:6])}\n"
        '[teacher]\nmodel_type = "sea"\nemb_dim = 64\n[validation]\nshare = 0.3\n'
        "[pruning]\nbegin = 0.0\nend = 0.5\nevery_steps = 1\n"
        "[training]\nsteps = 4\nbatch_windows = 2\nvalidate_every_steps = 2\n"
    )
    done = subprocess.run(
        distill_command(recipe, clips, teacher_file), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    options = ConvertOptions(
        find_variant(sparsity="90.5"), tmp_path / "run" / "student.h5.gz", calibration=clips
    )
    deployment = convert_to(options)
    student = find_variant(sparsity="90.5").with_depth(6).with_filters(FILTERS[:6])
    assert deployment.variant == student
    manifest = deployment.manifest
    assert manifest["variant"]["name"] == "edgel3-90.5-ft-conv6-filters-3-2-4-2-3-4"
    assert manifest["weights"]["pruned_layers"] == []  # the plan's zeros were learned
    for layer in manifest["layers"]:
        nonzero = round(layer["weights"] * (1 - layer["plan_percent"] / 100))
        assert layer["weights"] - layer["zeros"] == max(1, nonzero), layer["name"]
    report = compare(
        deployment, [clips], runtimes=[DEFAULT_RUNTIME], hop_s=0.5, progress=ignore_progress
    )
    assert len(report.clips) == 8
    assert deployment.embedder("int8").embed(np.ones((1, 48_000), np.float32)).shape == (1, 4)


def test_the_command_starts_from_a_larger_network_s_weights_stops_and_continues(
    teacher_file: Path,
    clips: Path,
    teacher: NetworkWeights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filters = (4, 4, 6, 6, 8)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[student]\nmodel_type = "sea"\nemb_dim = 64\nembedding_layer = "conv5"\n'
        f'filters = {list(filters)}\n[teacher]\nmodel_type = "sea"\nemb_dim = 64\n'
        "[validation]\nshare = 0.3\n[training]\nsteps = 6\nbatch_windows = 2\n"
        "validate_every_steps = 2\nlearning_rate = 0.0\n"
    )
    command = distill_command(recipe, clips, teacher_file, "--student-weights", str(teacher_file))[
        1:
    ]

    def press(self: Steps, line: str) -> None:
        note(self, line)
        if line.startswith("step 2 "):
            signal.raise_signal(signal.SIGINT)

    note = Steps.note
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "note", press)
        status, messages = run_in_process(*command)
    assert status == 130
    last = "error: interrupted; the same command continues from the last checkpoint"
    assert messages.splitlines()[-1] == last
    second = CliRunner().invoke(app, command)
    assert second.exit_code == 0, second.stderr
    assert "step 2 of 6:" not in second.stderr  # it continued after this step
    assert "step 6 of 6:" in second.stderr
    assert "distill: 6 of 6 ..." in second.stderr
    assert "all 6 steps were taken; student chosen by the largest mean cosine" in second.stdout
    assert re.search(r"step \d chosen: cosine to the teacher", second.stdout)
    # Nothing is learned at a learning rate of 0: the student equals its initial weights.
    student = inspect_weights(tmp_path / "run" / "student.h5.gz")
    cut = reduce_weights(teacher, 5, filters)
    assert student.variant == cut.variant
    for given, trained in zip(cut.convs, student.convs, strict=True):
        np.testing.assert_array_equal(trained.kernel, given.kernel.astype(np.float16))


@pytest.mark.parametrize("validation", ["share = 0.3", "fold = 1"])
def test_a_clip_that_is_missing_is_named_with_its_manifest(
    clips: Path, tmp_path: Path, validation: str
) -> None:
    manifest = clips / "clips.tsv"
    manifest.write_text(
        "file\tlabel\tfold\n" + "".join(f"{number}.wav\tx\t{number % 2}\n" for number in range(8))
    )
    (clips / "3.wav").unlink()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(SMALLEST + f"[validation]\n{validation}\n")
    command = ("distill", recipe, "--manifest", manifest, "-o", tmp_path / "run")
    status, messages = run_in_process(*command, "--teacher-weights", write_weights(tmp_path))
    assert status == 1
    (line,) = messages.splitlines()
    assert line.startswith(f"error: {manifest}: ")
    assert "3.wav" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("table", "option"), [("teacher", "--teacher-weights"), ("student", "--student-weights")]
)
def test_weights_of_another_network_are_refused_with_the_recipe_s_keys(
    table: str, option: str, teacher_file: Path, tmp_path: Path
) -> None:
    chosen = {"student": 64, "teacher": 64} | {table: 128}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "".join(f'[{key}]\nmodel_type = "sea"\nemb_dim = {chosen[key]}\n' for key in chosen)
    )
    files = {"--teacher-weights": write_weights(tmp_path), option: teacher_file}
    words = [word for pair in files.items() for word in pair]
    status, messages = run_in_process("distill", recipe, "-o", tmp_path / "run", *words)
    assert status == 1
    (line,) = messages.splitlines()
    assert line.startswith(f"error: {teacher_file}: ")
    assert line.endswith(
        f'; these are the shapes of {table}.model_type = "sea" and {table}.embedding_size = 64;'
        " change the recipe or the file"
    )


def test_a_teacher_without_published_weights_is_asked_for_by_its_own_option(
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[student]\nmodel_type = "sea"\n[teacher]\nmodel_type = "dense"\n')
    status, messages = run_in_process("distill", recipe, "-o", tmp_path / "run")
    assert status == 1
    assert messages.splitlines() == [
        "error: l3-dense: no weights are published for this network; give --teacher-weights FILE"
    ]
