"""Distillation: recipes, augmentation, zeros kept through training, runs that resume."""

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.progress import ignore_progress
from helpers.tiny_network import write_weights
from typer.testing import CliRunner

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.cli.commands import app
from edgel3_tflm.cli.screen import Steps
from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.converters.pruning.plan_file import write_plan
from edgel3_tflm.converters.pruning.prune import Pruner
from edgel3_tflm.converters.pruning.reduce import reduce_weights
from edgel3_tflm.converters.training.augment import TrainingClip, WindowSource
from edgel3_tflm.converters.training.distill import DistillClip, choose_clips, distill
from edgel3_tflm.converters.training.recipe import (
    Augmentation,
    FinetuneRecipe,
    Recipe,
    Validation,
    parse_recipe,
)
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.embedding.models import ModelChoice
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import Plan, Variant
from edgel3_tflm.networks.weight_files import inspect_weights
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME

SMALLEST = '[student]\nmodel_type = "sparse"\n[teacher]\nmodel_type = "sea"\n'
TINY_RECIPE = """
[student]
model_type = "sea"
emb_dim = 64
filters = [2, 2, 2, 2, 2, 2, 2, 2]
[teacher]
model_type = "sea"
emb_dim = 64
[validation]
share = 0.3
[training]
steps = 6
batch_windows = 2
warmup_steps = 0
validate_every_steps = 2
"""
PERCENTS = (0, 50, 60, 70, 50, 90, 95, 80)


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
    def test_a_choice_that_is_none_is_named(self, text: str, part: str) -> None:
        with pytest.raises(EdgeL3Error, match=part):
            parse_recipe(text, Recipe)

    def test_the_stand_in_s_recipe_is_one(self) -> None:
        path = Path(__file__).parents[3] / "edgel3_tflm" / "standin" / "recipe.toml"
        recipe = parse_recipe(path.read_text(), Recipe)
        assert (recipe.student.sparsity, recipe.validation.fold) == ("95.45", 4)


class TestAugmentation:
    @staticmethod
    def source(augmentation: Augmentation, *clips: TrainingClip) -> WindowSource:
        return WindowSource(clips, window_samples=800, classes=2, augmentation=augmentation, seed=5)

    NOTHING = Augmentation(
        gain_db=(0, 0), mix_probability=0, filter_probability=0, noise_probability=0
    )

    def clip(self, label: int, samples: int = 2000) -> TrainingClip:
        noise = np.random.default_rng(label + 1).normal(0, 0.1, samples)
        return TrainingClip((np.round(noise * 32768) / 32768).astype(np.float32), label)

    def test_a_batch_is_determined_by_its_number(self) -> None:
        source = self.source(Augmentation(), self.clip(0), self.clip(1), self.clip(-1))
        first, again, other = (source.batch(number, 6) for number in (3, 3, 4))
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
        assert (first[0] != other[0]).any()

    def test_without_augmentation_windows_are_cut_from_clips(self) -> None:
        clip = self.clip(1)
        windows, labels = self.source(self.NOTHING, clip).batch(0, 20)
        starts = {
            start
            for window in windows
            for start in range(1201)
            if (clip.samples[start : start + 800] == window).all()
        }
        assert len(starts) > 10
        np.testing.assert_array_equal(labels, [[0, 1, 0]] * 20)

    def test_short_clips_are_padded_and_unknown_classes_are_the_last(self) -> None:
        clip = self.clip(-1, samples=300)
        windows, labels = self.source(self.NOTHING, clip).batch(0, 2)
        np.testing.assert_array_equal(windows[:, :300], [clip.samples] * 2)
        assert not windows[:, 300:].any()
        np.testing.assert_array_equal(labels, [[0, 0, 1]] * 2)

    def test_a_mixture_shares_its_label_by_energy(self) -> None:
        mixing = replace(self.NOTHING, mix_probability=1.0, mix_db=(-10.0, -10.0))
        _, labels = self.source(mixing, self.clip(0), self.clip(1)).batch(0, 60)
        mixed = labels[(labels > 0).sum(axis=1) == 2]
        # At -10 dB a tenth of the energy is added: 1 / 1.1 and 0.1 / 1.1. Float32 labels.
        np.testing.assert_allclose(
            np.sort(mixed)[:, 1:], [[0.1 / 1.1, 1 / 1.1]] * len(mixed), rtol=2e-7
        )
        assert len(mixed) > 10

    @pytest.mark.parametrize(
        "change",
        [
            {"gain_db": (-20.0, -20.0)},
            {"filter_probability": 1.0},
            {"noise_probability": 1.0, "noise_db": (-10.0, -10.0)},
        ],
    )
    def test_each_change_changes_and_stays_finite(self, change: dict[str, object]) -> None:
        clip = self.clip(0)
        plain, _ = self.source(self.NOTHING, clip).batch(0, 1)
        changed, _ = self.source(replace(self.NOTHING, **change), clip).batch(0, 1)
        assert np.isfinite(changed).all()
        assert (changed != plain).mean() > 0.5

    def test_silence_stays_finite(self) -> None:
        silent = TrainingClip(np.zeros(2000, np.float32), 0)
        windows, labels = self.source(replace(Augmentation(), mix_probability=1.0), silent).batch(
            0, 8
        )
        assert np.isfinite(windows).all()
        assert np.isfinite(labels).all()


def test_clips_of_the_validation_fold_are_kept_from_training(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(b"%d" % number)
        rows.append(LabelledClip(path, "ab"[number % 2], number % 3))
    training, kept = choose_clips(Validation(fold=2), rows, [])
    assert {clip.path for clip in kept} == {row.path for row in rows if row.fold == 2}
    assert len(training) + len(kept) == 12
    assert {clip.label for clip in training} == {0, 1}
    training, kept = choose_clips(Validation(share=0.5), [], [row.path for row in rows])
    assert kept
    assert training
    fewer, _ = choose_clips(Validation(share=0.5), [], [row.path for row in rows[:6]])
    assert [clip for clip in training if clip in fewer] == fewer  # a file stays where it is


@pytest.mark.parametrize("schedule", ["gradual", "one-shot"])
def test_zeros_are_kept_while_weights_move(schedule: str) -> None:
    _, keras, tfmot = load_backend()
    layer = keras.layers.Conv2D(16, 3)
    layer.build((None, None, None, 8))
    schedules = {
        "gradual": tfmot.PolynomialDecay(0.0, 0.9, 0, 6, power=3, frequency=2),
        "one-shot": tfmot.ConstantSparsity(0.9, begin_step=0, end_step=0, frequency=1),
    }
    pruner = Pruner({layer: schedules[schedule]})
    generator = np.random.default_rng(0)
    zeros = []
    for step in range(12):
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel + generator.normal(0, 0.1, kernel.shape), bias])
        pruner.apply(step)
        zeros.append(layer.get_weights()[0] == 0)
    assert zeros[-1].sum() == round(0.9 * 9 * 8 * 16)
    pruned_at = 6 if schedule == "gradual" else 0
    for later in zeros[pruned_at:]:
        np.testing.assert_array_equal(later, zeros[-1])
    if schedule == "gradual":
        assert zeros[0].sum() < zeros[2].sum() < zeros[4].sum() < zeros[6].sum()


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("teacher")
    return write_weights(directory, find_variant("sea", embedding_size=64))


@pytest.fixture(scope="module")
def teacher(teacher_file: Path) -> NetworkWeights:
    return load_weights(find_variant("sea", embedding_size=64), teacher_file)


@pytest.fixture(scope="module")
def student() -> Variant:
    """A small network with a plan: the sparse family's own are too slow to train in a test."""
    return replace(
        find_variant("sea", embedding_size=64), name="small", plan=Plan(0, PERCENTS), published=None
    )


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


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    directory = tmp_path / "clips"
    directory.mkdir()
    for number in range(8):
        noise = np.random.default_rng(number).normal(0, 0.1, 9000)
        soundfile.write(directory / f"{number}.wav", noise, 8000)
    return directory


@pytest.fixture
def teacher_of_four(tmp_path: Path) -> NetworkWeights:
    """One of four filters, whose embeddings take no time."""
    (tmp_path / "teacher").mkdir()
    path = write_weights(tmp_path / "teacher")
    return load_weights(find_variant("sea", embedding_size=64), path)


def run(
    recipe: Recipe,
    student: Variant,
    teacher: NetworkWeights,
    output: Path,
    stop_at: int = 0,
    clips: Path | None = None,
) -> list[float]:
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
    )
    return cosines


@pytest.fixture(scope="module")
def finished(
    student: Variant, teacher: NetworkWeights, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[float]]:
    output = tmp_path_factory.mktemp("distill")
    return output, run(RECIPE, student, teacher, output)


def test_a_student_has_exactly_the_plan_s_zeros(
    finished: tuple[Path, list[float]], student: Variant
) -> None:
    weights = load_weights(student, finished[0] / "student.h5.gz")
    for conv, percent in zip(weights.convs, PERCENTS, strict=True):
        assert conv.kernel.size - conv.zeros == round(conv.kernel.size * (1 - percent / 100))


def test_a_student_learns(finished: tuple[Path, list[float]]) -> None:
    cosines = finished[1]
    assert len(cosines) == 3
    assert cosines[-1] > cosines[0]
    figures = json.loads((finished[0] / "figures.json").read_bytes())
    assert figures["validation"]["teacher_cosine"] == max(cosines[1:])  # dense ones do not count


def test_an_interrupted_run_resumes_to_the_same_result(
    finished: tuple[Path, list[float]], student: Variant, teacher: NetworkWeights, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, student, teacher, tmp_path, stop_at=19)
    assert run(RECIPE, student, teacher, tmp_path) == finished[1][2:]
    for name in ("student.h5.gz", "figures.json", "dense.h5.gz"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes(), name


def test_a_run_that_goes_on_logs_no_step_twice(
    clips: Path, teacher_of_four: NetworkWeights, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    recipe = parse_recipe(TINY_RECIPE, Recipe)
    student = recipe.student.variant
    # After the checkpoint of step 4.
    with pytest.raises(KeyboardInterrupt):
        run(recipe, student, teacher_of_four, tmp_path / "run", stop_at=5, clips=clips)
    (log,) = (tmp_path / "run" / "log").iterdir()
    log.write_bytes(log.read_bytes() + b"half a record, as a killed run leaves")
    run(recipe, student, teacher_of_four, tmp_path / "run", clips=clips)
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
        run(recipe, student, teacher_of_four, tmp_path, stop_at=3, clips=clips)
    (found,) = (tmp_path / "checkpoints").glob(name.replace("checkpoint-1", "ckpt-1"))
    found.write_bytes(found.read_bytes()[:-100])
    with pytest.raises(EdgeL3Error, match=r"ckpt-1: expected a whole checkpoint .* remove") as told:
        run(recipe, student, teacher_of_four, tmp_path, clips=clips)
    assert "\n" not in str(told.value)


def test_a_disk_that_is_full_is_one_line_and_the_run_goes_on_from_there(
    clips: Path, teacher_of_four: NetworkWeights, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    training, validation = choose_clips(recipe.validation, [], sorted(clips.glob("*.wav")))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    steps: list[int] = []

    def fill(step: str, done: int, _total: int) -> None:
        if step == "distill":
            steps.append(done)
            if len(steps) == 4:  # its checkpoint takes more; the student takes less
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


def test_figures_that_are_gone_are_named(
    clips: Path, teacher_of_four: NetworkWeights, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    run(recipe, recipe.student.variant, teacher_of_four, tmp_path, clips=clips)
    (tmp_path / "figures.json").unlink()
    with pytest.raises(EdgeL3Error, match=r"figures\.json: expected the figures of this run"):
        run(recipe, recipe.student.variant, teacher_of_four, tmp_path, clips=clips)


def test_training_clips_that_are_silent_are_refused(
    teacher_of_four: NetworkWeights, tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(8):
        soundfile.write(tmp_path / "clips" / f"{number}.wav", np.zeros(9000 + number), 8000)
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    with pytest.raises(EdgeL3Error, match="expected sound in the training clips"):
        run(
            recipe,
            recipe.student.variant,
            teacher_of_four,
            tmp_path / "run",
            clips=tmp_path / "clips",
        )


def test_a_student_says_what_it_is_wherever_it_goes(
    clips: Path,
    teacher_of_four: NetworkWeights,
    convert_to: Callable[[ConvertOptions], Deployment],
    tmp_path: Path,
) -> None:
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    run(recipe, recipe.student.variant, teacher_of_four, tmp_path / "run", clips=clips)
    path = tmp_path / "run" / "student.h5.gz"
    said = json.loads((tmp_path / "run" / "figures.json").read_bytes())["student"]["description"]
    assert re.match(r"distilled by edgel3-tflm \S+, step \d; teacher: weights file tiny", said)
    provenance = inspect_weights(path).provenance
    assert provenance.kind == "distilled"
    assert provenance.description == (
        f"weights file student.h5.gz given by the user; it says of itself: {said}"
    )
    sea_64 = find_variant("sea", embedding_size=64)
    deployment = convert_to(ConvertOptions(sea_64, path, calibration=clips))
    assert deployment.manifest["weights"]["kind"] == "distilled"
    assert said in deployment.manifest["weights"]["description"]
    for source, weights in ((deployment.directory, "auto"), (sea_64, path)):
        model = ModelChoice(source, weights=weights).open()
        assert model.weights_kind == "distilled"
        assert said in model.provenance[0]
    report = compare(
        deployment, [clips], runtimes=[DEFAULT_RUNTIME], hop_s=1.0, progress=ignore_progress
    )
    assert said in json.dumps(report.to_json())


def test_another_recipe_does_not_go_on_in_the_same_directory(
    finished: tuple[Path, list[float]], student: Variant, teacher: NetworkWeights
) -> None:
    other = replace(RECIPE, loss=replace(RECIPE.loss, statistics=0.1))
    with pytest.raises(EdgeL3Error, match="another run"):
        run(other, student, teacher, finished[0])


def test_logs_are_tensorboard_s(finished: tuple[Path, list[float]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0] / "log"), size_guidance={"tensors": 0})
    events.Reload()
    assert {"loss/teacher", "loss/statistics", "learning_rate"} <= set(events.Tags()["tensors"])
    assert len(events.Tensors("validation/teacher_cosine")) == 3


def test_labels_are_asked_for_where_the_loss_needs_them(
    student: Variant, teacher: NetworkWeights, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, loss=replace(RECIPE.loss, labels=0.1))
    with pytest.raises(EdgeL3Error, match="manifest"):
        run(recipe, student, teacher, tmp_path)


def test_nothing_to_validate_with_is_refused(
    student: Variant, teacher: NetworkWeights, tmp_path: Path
) -> None:
    with pytest.raises(EdgeL3Error, match="validate"):
        distill(
            RECIPE,
            student=student,
            teacher=teacher,
            training=[],
            validation=[],
            output=tmp_path,
            progress=ignore_progress,
            on_validation=lambda _: None,
        )


FILTERS = (3, 2, 4, 2, 3, 4, 2, 5)


def test_a_student_starts_from_weights_with_its_filters_alone(
    student: Variant, teacher: NetworkWeights, tmp_path: Path
) -> None:
    with pytest.raises(EdgeL3Error, match=r"these are of sea-ust-64; .* their filters"):
        distill(
            RECIPE,
            student=student.with_filters(FILTERS),
            teacher=teacher,
            training=[DistillClip(tmp_path, "")],
            validation=[DistillClip(tmp_path, "")],
            output=tmp_path,
            progress=ignore_progress,
            on_validation=lambda _: None,
            initial=teacher,
        )


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
        kept = round(layer["weights"] * (1 - layer["plan_percent"] / 100))
        assert layer["weights"] - layer["zeros"] == max(1, kept), layer["name"]
    report = compare(
        deployment, [clips], runtimes=[DEFAULT_RUNTIME], hop_s=0.5, progress=ignore_progress
    )
    assert len(report.clips) == 8
    assert deployment.embedder("int8").embed(np.ones((1, 48_000), np.float32)).shape == (1, 4)


def test_the_command_starts_from_a_bigger_network_s_weights_stops_and_goes_on(
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
        status, messages = run_here(*command)
    assert status == 130
    last = "error: interrupted; the same command goes on from the last checkpoint"
    assert messages.splitlines()[-1] == last
    second = CliRunner().invoke(app, command)
    assert second.exit_code == 0, second.stderr
    assert "step 2 of 6:" not in second.stderr  # it went on behind it
    assert "step 6 of 6:" in second.stderr
    assert "distill: 6 of 6 ..." in second.stderr
    assert "all 6 steps were taken; kept by the greatest mean cosine" in second.stdout
    assert "kept step" in second.stdout
    # Nothing was learned at that rate: it is what it started from.
    student = inspect_weights(tmp_path / "run" / "student.h5.gz")
    cut = reduce_weights(teacher, 5, filters)
    assert student.variant == cut.variant
    for given, kept in zip(cut.convs, student.convs, strict=True):
        np.testing.assert_array_equal(kept.kernel, given.kernel.astype(np.float16))


def run_here(*arguments: object) -> tuple[int, str]:
    """Run a command in this process, which has TensorFlow loaded: status and messages."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr


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
    status, messages = run_here(*command, "--teacher-weights", write_weights(tmp_path))
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
    status, messages = run_here("distill", recipe, "-o", tmp_path / "run", *words)
    assert status == 1
    (line,) = messages.splitlines()
    assert line.startswith(f"error: {teacher_file}: ")
    assert line.endswith(
        f'; these are the shapes of {table}.model_type = "sea" and {table}.emb_dim = 64;'
        " change the recipe or the file"
    )


def test_a_teacher_without_published_weights_is_asked_for_by_its_own_option(
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[student]\nmodel_type = "sea"\n[teacher]\nmodel_type = "dense"\n')
    status, messages = run_here("distill", recipe, "-o", tmp_path / "run")
    assert status == 1
    assert messages.splitlines() == [
        "error: l3-dense: no weights are published for this network; give --teacher-weights FILE"
    ]


def test_a_clip_that_is_missing_is_an_error_of_audio(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: cannot read the clip: No such file"):
        choose_clips(Validation(), [], [tmp_path / "gone.wav"])


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
    status, messages = run_here(*command, "--teacher-weights", write_weights(tmp_path))
    assert status == 1
    (line,) = messages.splitlines()
    assert line.startswith(f"error: {recipe}: recipe"), line
    assert table in line
    assert choice.split("\n")[-1].split(" = ")[0] in line
    assert not (tmp_path / "run").exists()


def test_a_labelled_clip_that_is_given_again_without_label_stays_where_it_is(
    tmp_path: Path,
) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    labelled = [LabelledClip(tmp_path / name, "x", fold) for name, fold in (("a", 1), ("b", 2))]
    paths = [tmp_path / name for name in "abc"]
    training, kept = choose_clips(Validation(fold=2), labelled, paths)
    assert [clip.path.name for clip in training] == ["a", "c"]
    assert [clip.path.name for clip in kept] == ["b"]


def test_a_validation_fold_that_no_clip_is_of_is_named(tmp_path: Path) -> None:
    clips = [LabelledClip(tmp_path / "not read.wav", "a", fold) for fold in (1, 2)]
    with pytest.raises(EdgeL3Error, match="no clip is in fold 3, expected one of the folds 1, 2"):
        choose_clips(Validation(fold=3), clips, [])
    with pytest.raises(EdgeL3Error, match="no clip is in fold 3, expected labelled clips"):
        choose_clips(Validation(fold=3), [], [tmp_path / "not read.wav"])


def test_pruning_that_ends_after_the_run_is_refused_for_a_plan_of_its_own_too(
    clips: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[student]\nmodel_type = "sea"\n' + SMALLEST.split("\n", 2)[2])
    recipe.write_text(recipe.read_text() + "[training]\nsteps = 6\n")
    parse_recipe(recipe.read_text(), Recipe)  # nothing of it is pruned
    (tmp_path / "plan.toml").write_bytes(write_plan(Plan(0, PERCENTS), "of a test"))
    command = ("distill", recipe, "--clips", clips, "-o", tmp_path / "run")
    command += ("--plan", tmp_path / "plan.toml")
    status, messages = run_here(*command, "--teacher-weights", write_weights(tmp_path))
    assert status == 1
    assert "pruning ends at step 11" in messages
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_the_other_command_is_told_so() -> None:
    with pytest.raises(EdgeL3Error, match="it is a recipe for finetune"):
        parse_recipe('[student]\nmodel_type = "sparse"\n[fusion]\nunits = 4\n', Recipe)
    with pytest.raises(EdgeL3Error, match="it is a recipe for distill"):
        parse_recipe(SMALLEST, FinetuneRecipe)


def test_a_run_that_failed_before_its_first_checkpoint_may_be_corrected(
    clips: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TINY_RECIPE)
    damaged = clips / "9.wav"
    damaged.write_bytes(b"RIFF, but no more than that")
    command = ("distill", recipe, "--clips", clips, "-o", tmp_path / "run", "--teacher-weights")
    status, messages = run_here(*command, write_weights(tmp_path))
    assert status == 1
    assert "9.wav: expected an audio file" in messages.splitlines()[-1]
    damaged.unlink()
    status, messages = run_here(*command, write_weights(tmp_path))
    assert status == 0, messages
