"""Distillation: zeros, learning, figures, provenance, and runs that are refused."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.distillation import FILTERS, PERCENTS, RECIPE, TINY_RECIPE, train
from helpers.progress import ignore_progress

from edgel3_tflm.audio.clips import read_clip
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.converters.backend import load_backend, load_pruning
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.converters.pruning.prune import Pruner
from edgel3_tflm.converters.training.augment import TrainingClip, WindowSource
from edgel3_tflm.converters.training.distill import distill
from edgel3_tflm.converters.training.recipe import (
    Recipe,
    parse_recipe,
)
from edgel3_tflm.converters.training.split import DistillClip, choose_clips
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.embedding.models import ModelChoice
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weight_files import inspect_weights
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME


@pytest.mark.parametrize("schedule", ["gradual", "one-shot"])
def test_zeros_stay_zero_while_weights_change(schedule: str) -> None:
    keras, tfmot = load_backend().keras, load_pruning()
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


def test_a_student_has_exactly_the_plan_s_zeros(
    distilled: tuple[Path, list[float]], student: Variant
) -> None:
    weights = load_weights(student, distilled[0] / "student.h5.gz")
    for conv, percent in zip(weights.convs, PERCENTS, strict=True):
        assert conv.kernel.size - conv.zeros == round(conv.kernel.size * (1 - percent / 100))


def test_a_student_learns(distilled: tuple[Path, list[float]]) -> None:
    cosines = distilled[1]
    assert len(cosines) == 3
    assert cosines[-1] > cosines[0]
    figures = json.loads((distilled[0] / "figures.json").read_bytes())
    # The dense student of the first validation gets no score.
    assert figures["validation"]["teacher_cosine"] == max(cosines[1:])


def test_logs_are_tensorboard_s(distilled: tuple[Path, list[float]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(distilled[0] / "log"), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"loss/teacher", "loss/statistics", "learning_rate"} <= tags
    assert "loss/microphone" not in tags  # not computed, as its weight is 0
    assert len(events.Tensors("validation/teacher_cosine")) == 3


def test_a_student_s_provenance_is_in_every_artefact(
    clips: Path,
    teacher_of_four: NetworkWeights,
    convert_to: Callable[[ConvertOptions], Deployment],
    tmp_path: Path,
) -> None:
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    train(recipe, recipe.student.variant, teacher_of_four, tmp_path / "run", clips=clips)
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


def test_training_clips_that_are_silent_are_refused(
    teacher_of_four: NetworkWeights, tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(8):
        soundfile.write(tmp_path / "clips" / f"{number}.wav", np.zeros(9000 + number), 8000)
    recipe = parse_recipe(TINY_RECIPE, Recipe)
    with pytest.raises(EdgeL3Error, match="expected sound in the training clips"):
        train(
            recipe,
            recipe.student.variant,
            teacher_of_four,
            tmp_path / "run",
            clips=tmp_path / "clips",
        )


def test_labels_are_required_if_the_loss_needs_them(
    student: Variant, teacher: NetworkWeights, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, loss=replace(RECIPE.loss, labels=0.1))
    with pytest.raises(EdgeL3Error, match=r"classes of the training clips for .* give a manifest"):
        train(recipe, student, teacher, tmp_path)


def test_a_run_without_clips_is_refused(
    student: Variant, teacher: NetworkWeights, tmp_path: Path
) -> None:
    with pytest.raises(EdgeL3Error, match="clips to validate with, found 0 and 0"):
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


def test_a_student_starts_from_weights_with_its_filters_alone(
    student: Variant, teacher: NetworkWeights, tmp_path: Path
) -> None:
    with pytest.raises(EdgeL3Error, match=r"these are of sea-ust-64; .* filters of these weights"):
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


def test_the_microphone_s_term_is_what_the_embedding_loses_relative_to_its_variance(
    teacher_of_four: NetworkWeights, clips: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    recipe = parse_recipe(
        TINY_RECIPE.replace("[2, 2, 2, 2, 2, 2, 2, 2]", "[4, 4, 4, 4, 4, 4, 4, 4]").replace(
            "batch_windows = 2", 'batch_windows = 5\nprecision = "float32"'
        )
        + "[microphone]\nnoise_probability = 1\nnoise_dbfs = [-40, -30]\n[loss]\nmicrophone = 2\n",
        Recipe,
    )
    variant = teacher_of_four.variant
    train(
        recipe,
        variant,
        teacher_of_four,
        tmp_path / "run",
        clips=clips,
        initial=teacher_of_four,
    )
    figures = json.loads((tmp_path / "run" / "figures.json").read_bytes())["validation"]
    assert figures["sixteen_bit_cosine"] == pytest.approx(1, abs=1e-6)  # the clips have 16 bits
    events = EventAccumulator(str(tmp_path / "run" / "log"), size_guidance={"tensors": 0})
    events.Reload()
    terms = [
        tensor_util.make_ndarray(each.tensor_proto) for each in events.Tensors("loss/microphone")
    ]
    assert len(terms) == 6

    # The first term is that of the initial network.
    frontend = variant.frontend
    training, _ = choose_clips(recipe.validation, [], sorted(clips.glob("*.wav")))
    batch = WindowSource(
        [
            TrainingClip(read_clip(clip.path, frontend.sample_rate_hz).samples, clip.label)
            for clip in training
        ],
        window_samples=frontend.window_samples,
        sample_rate_hz=frontend.sample_rate_hz,
        classes=1,
        augmentation=recipe.augmentation,
        microphone=recipe.microphone,
        seed=recipe.training.seed,
    ).batch(0, 5)
    both = np.concatenate([log_mel(windows, frontend) for windows in (batch.heard, batch.sound)])
    inputs = InputMap.of(teacher_of_four).normalise(both)
    network = build_network(teacher_of_four, batch_size=None)
    # In training, the batch norms take the statistics of the batch.
    heard, sound = np.split(network(inputs, training=True).numpy().astype(float), 2)
    lost = np.mean((heard - sound) ** 2) / np.mean(np.var(sound, axis=0))
    assert lost > 1e-3
    assert terms[0] == pytest.approx(lost, rel=1e-3)


@pytest.mark.parametrize(("maps_steps", "unchanged"), [(6, True), (5, False)])
def test_the_maps_learn_before_the_network_does(
    maps_steps: int,
    unchanged: bool,
    teacher_of_four: NetworkWeights,
    clips: Path,
    tmp_path: Path,
) -> None:
    recipe = parse_recipe(
        TINY_RECIPE.replace("[2, 2, 2, 2, 2, 2, 2, 2]", "[4, 4, 4, 4, 4, 4, 4, 4]")
        + f"[loss]\nmaps_steps = {maps_steps}\n",
        Recipe,
    )
    start = teacher_of_four
    cosines = train(recipe, start.variant, start, tmp_path / "run", clips=clips, initial=start)
    assert cosines[1] != cosines[0]
    trained = load_weights(start.variant, tmp_path / "run" / "student.h5.gz")
    same = [
        np.array_equal(after.kernel, before.kernel)
        for after, before in zip(trained.convs, start.convs, strict=True)
    ]
    assert all(same) if unchanged else not any(same)
