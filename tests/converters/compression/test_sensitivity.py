"""Sensitivity: the curves of layers, the plan that follows from them, and the command."""

import itertools
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.browser import Browser
from helpers.command_line import run
from helpers.progress import ignore_progress
from typer.testing import CliRunner

from edgel3_tflm.audio.clips import bundled_clips_directory, find_clips
from edgel3_tflm.audio.manifest import LabelledClip, read_manifest
from edgel3_tflm.cli.commands import app
from edgel3_tflm.cli.screen import Steps
from edgel3_tflm.converters.compression.allocation import (
    Choices,
    LayerChoices,
    Target,
    choose_levels,
    interpolate_errors,
    list_choices,
    measure_cycles,
    measure_packed_bytes,
    propose,
    uniform_plan,
)
from edgel3_tflm.converters.compression.sensitivity import (
    LayerCurve,
    Point,
    Sample,
    Score,
    Sensitivity,
    describe_inputs,
    measure_sensitivity,
    prune_alone,
    sample_clips,
    score_network,
)
from edgel3_tflm.converters.keras.generate import generate_weights
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.converters.pruning.plan_file import read_plan
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.weight_files import pack_weights
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.c_library.cycles import modelled_cycles
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.input_map import InputMap

SEA = find_variant("sea", embedding_size=64)
TINY = SEA.with_filters((4, 6, 8, 8, 12, 12, 16, 16))
LAYERS = [layer.name for layer in TINY.layers]
SPARSITIES = (50, 80, 95)


@pytest.fixture(scope="module")
def sample() -> Sample:
    clips = find_clips([bundled_clips_directory()])
    return sample_clips(clips, TINY.frontend, 12, ignore_progress)


@pytest.fixture(scope="module")
def weights(sample: Sample) -> NetworkWeights:
    """Weights rounded to float16, as in the file of ``weights_file``."""
    drawn = generate_weights(TINY, sample.decibels, lambda *_: None)
    kernels = [conv.kernel.astype(np.float16).astype(np.float32) for conv in drawn.convs]
    convs = [
        replace(conv, kernel=kernel) for conv, kernel in zip(drawn.convs, kernels, strict=True)
    ]
    return replace(drawn, convs=tuple(convs))


@pytest.fixture(scope="module")
def weights_file(weights: NetworkWeights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.h5.gz"
    path.write_bytes(pack_weights(weights))
    return path


@pytest.fixture(scope="module")
def sensitivity(weights: NetworkWeights, sample: Sample) -> Sensitivity:
    inputs = describe_inputs(weights, sample, SPARSITIES, LAYERS)
    return measure_sensitivity(weights, sample, inputs, ignore_progress)


def embed_in_keras(weights: NetworkWeights, decibels: np.ndarray) -> np.ndarray:
    network = build_network(weights, batch_size=None)
    return network(InputMap.of(weights).normalise(decibels), training=False).numpy()


def test_a_curve_has_the_error_of_the_network_with_that_layer_pruned(
    weights: NetworkWeights, sample: Sample, sensitivity: Sensitivity
) -> None:
    decibels = sample.decibels[~sample.in_validation]
    reference = embed_in_keras(weights, decibels)
    for position, percent in ((0, 50), (4, 80), (7, 95)):
        curve = sensitivity.layers[position]
        (point,) = [each for each in curve.points if abs(each.percent - percent) < 1]
        pruned = prune_alone(weights, position, percent)
        assert point.zeros == pruned.convs[position].zeros
        assert sum(conv.zeros for conv in pruned.convs) == point.zeros
        difference = embed_in_keras(pruned, decibels) - reference
        error = np.mean(difference.astype(np.float64) ** 2)
        # Sums of at most 9 * 16 products over eight layers, with the BatchNorm folded or not: each
        # embedding is off by far less than 8 * 144 roundings of 2^-24, and an error counts twice.
        relative = 2 * 8 * 144 * 2**-24 * np.sqrt(np.mean(reference**2) / error)
        assert point.score.mean_squared_error == pytest.approx(error, rel=2 * relative)


def test_a_curve_starts_at_the_given_network(sensitivity: Sensitivity) -> None:
    assert [curve.name for curve in sensitivity.layers] == LAYERS
    for curve in sensitivity.layers:
        assert curve.points[0] == Point(0, 0.0, Score(0.0, 1.0, 1.0))
        zeros = [point.zeros for point in curve.points]
        assert len(zeros) == 1 + len(SPARSITIES)
        assert zeros == sorted(set(zeros))


def test_sparsities_that_a_layer_has_already_are_not_measured(
    weights: NetworkWeights, sample: Sample
) -> None:
    sparse = prune_alone(weights, 6, 80)
    inputs = describe_inputs(sparse, sample, SPARSITIES, ["conv7"])
    (curve,) = measure_sensitivity(sparse, sample, inputs, ignore_progress).layers
    assert [round(point.percent) for point in curve.points] == [80, 95]
    assert curve.points[0].score == Score(0.0, 1.0, 1.0)


def test_the_curves_do_not_depend_on_the_validation_set_of_every_fourth_clip(
    weights: NetworkWeights, sample: Sample
) -> None:
    assert [clip.is_kept for clip in sample.clips] == [False, False, False, True] * 3
    spoiled = sample.decibels.copy()
    spoiled[sample.in_validation] = -80
    inputs = describe_inputs(weights, sample, [80], ["conv8"])
    seen, same = (
        measure_sensitivity(weights, replace(sample, decibels=decibels), inputs, ignore_progress)
        for decibels in (sample.decibels, spoiled)
    )
    assert seen == same


def test_the_loudest_windows_are_taken(tmp_path: Path) -> None:
    samples = np.zeros(3 * 8000)
    samples[8000:16_000] = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write(tmp_path / "late.wav", samples, 8000)
    alone = sample_clips([tmp_path / "late.wav"], SEA.frontend, 1, ignore_progress)
    three = sample_clips([tmp_path / "late.wav"], SEA.frontend, 3, ignore_progress)
    assert len(alone.decibels) == 1
    assert three.decibels[1].tolist() == alone.decibels[0].tolist()


def test_levels_are_those_of_an_exhaustive_search() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        costs = [generator.integers(0, 1000, 6) for _ in range(4)]
        errors = [generator.random(6) for _ in range(4)]
        budget = int(sum(each.min() for each in costs) + generator.integers(0, 1500))
        combinations = [
            (sum(each[i] for each, i in zip(errors, chosen, strict=True)), chosen)
            for chosen in itertools.product(range(6), repeat=4)
            if sum(each[i] for each, i in zip(costs, chosen, strict=True)) <= budget
        ]
        # Costs are rounded up to a part of at most 1500 / 20,000: whole costs lose nothing, but
        # four that together leave less than four parts.
        tight = [
            error
            for error, chosen in combinations
            if sum(each[i] for each, i in zip(costs, chosen, strict=True)) < budget
        ]
        found = choose_levels(costs, errors, budget)
        assert sum(each[i] for each, i in zip(costs, found, strict=True)) <= budget
        error = sum(each[i] for each, i in zip(errors, found, strict=True))
        assert min(combinations)[0] <= error <= min(tight, default=np.inf)


def test_errors_grow_between_the_measured_ones(weights: NetworkWeights) -> None:
    conv = weights.convs[6]
    size = conv.kernel.size
    points = [
        Point(round(size * share), 100 * share, Score(error, 1.0, 1.0))
        for share, error in ((0, 0.0), (0.5, 1.0), (0.8, 0.5), (0.95, 4.0))
    ]
    zeros = np.arange(0, round(size * 0.95) + 1)
    choices = LayerChoices(100 * zeros / size, zeros, size - zeros)
    errors = interpolate_errors(conv, choices, LayerCurve("conv7", size, tuple(points)))
    assert (np.diff(errors) >= 0).all()
    # An error that is lower by chance counts as the largest error before it.
    assert errors[[point.zeros for point in points]].tolist() == [0, 1, 1, 4]


@pytest.mark.parametrize("percent", [30, 72.5, 94])
def test_a_plan_meets_a_target_of_zeros(
    weights: NetworkWeights, sensitivity: Sensitivity, percent: float
) -> None:
    choices = list_choices(
        weights, sensitivity.inputs, Target("sparsity", percent), ignore_progress
    )
    proposal = propose(weights, sensitivity, choices)
    # The largest layer has a quarter of the weights, and 1 % is its coarsest step.
    assert percent <= proposal.weights.sparsity_percent < percent + 0.25
    assert prune(weights, proposal.plan).weights.sparsity_percent == pytest.approx(
        proposal.weights.sparsity_percent, abs=1e-12
    )


def test_a_layer_that_was_not_measured_stays_as_it_is(
    weights: NetworkWeights, sample: Sample
) -> None:
    inputs = describe_inputs(weights, sample, SPARSITIES, ["conv7", "conv8"])
    measured = measure_sensitivity(weights, sample, inputs, ignore_progress)
    choices = list_choices(weights, inputs, Target("sparsity", 40), ignore_progress)
    plan = propose(weights, measured, choices).plan
    assert plan.layers[:6] == (0,) * 6
    assert min(plan.layers[6:]) > 0


def test_targets_that_cannot_be_met_or_are_met_already_are_refused(
    weights: NetworkWeights, sensitivity: Sensitivity
) -> None:
    def choose(target: Target) -> Choices:
        return list_choices(weights, sensitivity.inputs, target, ignore_progress)

    with pytest.raises(EdgeL3Error, match="cannot reach 96 % zeros"):
        choose(Target("sparsity", 96))
    with pytest.raises(EdgeL3Error, match="cannot reach a packed model of 500 bytes"):
        choose(Target("bytes", 500))
    with pytest.raises(EdgeL3Error, match="cannot reach 5 modelled cycles"):
        choose(Target("cycles", 5))
    size = measure_packed_bytes(weights)
    with pytest.raises(EdgeL3Error, match="nothing to prune"):
        choose(Target("bytes", size))
    choose(Target("bytes", size - 1))
    with pytest.raises(EdgeL3Error, match="between 0 and 100"):
        Target("sparsity", 100)


def test_the_converted_plan_takes_no_more_bytes_than_the_target(
    weights: NetworkWeights,
    weights_file: Path,
    sensitivity: Sensitivity,
    convert_to: Callable[[ConvertOptions], Deployment],
) -> None:
    target = Target("bytes", 4000)
    choices = list_choices(weights, sensitivity.inputs, target, ignore_progress)
    proposal = propose(weights, sensitivity, choices)
    deployment = convert_to(ConvertOptions(SEA.with_plan(proposal.plan), weights_file))
    packed = deployment.read_packed_model()
    assert packed is not None
    assert len(packed) <= proposal.packed_bytes <= 4000
    # The remaining bytes are fewer than one step of a layer.
    assert len(packed) > 3800


def test_the_converted_plan_takes_no_more_cycles_than_the_target(
    weights: NetworkWeights,
    weights_file: Path,
    sensitivity: Sensitivity,
    convert_to: Callable[[ConvertOptions], Deployment],
) -> None:
    target = Target("cycles", 0.75 * measure_cycles(weights))
    choices = list_choices(weights, sensitivity.inputs, target, ignore_progress)
    proposal = propose(weights, sensitivity, choices)
    deployment = convert_to(ConvertOptions(SEA.with_plan(proposal.plan), weights_file))
    packed = deployment.read_packed_model()
    assert packed is not None
    cycles = sum(modelled_cycles(packed).values())
    assert cycles <= proposal.cycles <= target.value
    # The remaining cycles are fewer than one step of a layer.
    assert cycles > 0.95 * target.value
    # The first layers have the largest maps: a plan for time prunes them more than one for size.
    by_size = propose(
        weights,
        sensitivity,
        list_choices(
            weights, sensitivity.inputs, Target("bytes", proposal.packed_bytes), ignore_progress
        ),
    )
    assert by_size.cycles > proposal.cycles


def test_a_plan_is_better_than_a_uniform_plan_on_other_clips(
    sea_weights: Path, esc10: Path
) -> None:
    """A plan that was found on synthetic clips is better for a trained network on real clips."""
    weights = load_weights(SEA, sea_weights)
    sample = sample_clips(
        find_clips([bundled_clips_directory()]), SEA.frontend, 24, ignore_progress
    )
    inputs = describe_inputs(weights, sample, [50, 70], LAYERS)
    measured = measure_sensitivity(weights, sample, inputs, ignore_progress)
    target = Target("sparsity", 50)
    choices = list_choices(weights, inputs, target, ignore_progress)
    proposal = propose(weights, measured, choices)
    uniform = prune(weights, uniform_plan(weights, target)).weights
    assert uniform.sparsity_percent == pytest.approx(proposal.weights.sparsity_percent, abs=0.1)
    real = sample_clips(find_clips([esc10]), SEA.frontend, 24, ignore_progress)
    planned, same = (
        score_network(each, weights, real, validation=False) for each in (proposal.weights, uniform)
    )
    assert planned.mean_squared_error < same.mean_squared_error
    assert planned.centred_cosine_mean > same.centred_cosine_mean


def test_labelled_clips_are_probed_and_their_last_fold_is_the_validation_set(
    tiny_weights: Path, sounds: Path
) -> None:
    weights = load_weights(SEA, tiny_weights)
    clips = [
        clip for clip in read_manifest(sounds / "manifest.tsv") if clip.label in ("noise", "tone")
    ]
    sample = sample_clips(clips, SEA.frontend, None, ignore_progress)
    assert len(sample.clip) == len(clips) == 14
    assert {clip.fold for clip in sample.clips if clip.is_kept} == {3}
    inputs = describe_inputs(weights, sample, [50, 99.9], ["conv1"])
    (curve,) = measure_sensitivity(weights, sample, inputs, ignore_progress).layers
    given, _, last = (point.score.probe_percent for point in curve.points)
    # The given network separates noise from tones; with a single weight left in conv1 it does not.
    assert given is not None
    assert last is not None
    assert given > 90
    assert last < given


def test_labels_that_cannot_be_probed_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(4)]
    for path in paths:
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    for labels, folds in (("aaaa", (1, 1, 2, 2)), ("abab", (1, 1, 1, 1))):
        clips = [LabelledClip(*each) for each in zip(paths, labels, folds, strict=True)]
        with pytest.raises(EdgeL3Error, match="at least two classes outside each fold"):
            sample_clips(clips, SEA.frontend, None, ignore_progress)


def run_here(*arguments: object) -> tuple[int, str, str]:
    """Run the command in this process, which has TensorFlow loaded: status, output, messages."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.stdout, done.stderr


def test_the_command_measures_once_and_proposes_plans(
    weights_file: Path, tmp_path: Path, browser: Browser
) -> None:
    output = tmp_path / "study"
    common = ("sensitivity", "--model-type", "sea", "--weights", weights_file, "-o", output)
    common += ("--windows", 8, "--sparsities", "50,90")
    done = run(*common)
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    (head, *_) = [line for line in table if "conv1 " in line and "conv8" in line]
    assert len(head) <= 80
    assert sum(line.split()[:2] == ["50", "%"] for line in table) == 3  # one in each table
    first = json.loads((output / "sensitivity.json").read_text())
    assert (output / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    page = output / "sensitivity.html"
    assert page.read_text().count("suffers most: 89 % zeros") >= 3  # a chart for each score
    assert browser.find_violations(page, theme="light", width=1200) == []
    assert browser.measure_print(page)["outside"] == []
    browser.screenshot(page, "sensitivity", width=1200, height=1100)
    assert not (output / "plan.toml").exists()

    milliseconds = ("--target-ms", 100, "--board", "portenta_h7_m7")
    status, _, messages = run_here(*common, *milliseconds)
    assert (status, "nothing to prune" in messages) == (1, True), messages

    status, shown, messages = run_here(*common, "--target-sparsity", 70, "--json")
    assert status == 0, messages
    assert "embed ..." not in messages
    second = json.loads((output / "sensitivity.json").read_text())
    assert json.loads(shown) == {"directory": str(output), **second}
    plan = second.pop("plan")
    assert second == first
    assert read_plan(output / "plan.toml").layers == tuple(plan["zeros_percent"])
    assert plan["judgement"]["kept"]["mean_squared_error"] > 0

    before = (output / "sensitivity.json").read_bytes()
    status, _, messages = run_here(*common, "--target-sparsity", 95)
    assert status == 1
    assert "cannot reach 95 % zeros" in messages
    assert (output / "sensitivity.json").read_bytes() == before

    (output / "sensitivity.json").write_text("{}")
    status, _, messages = run_here(*common)
    assert status == 0, messages
    assert "embed ..." in messages
    assert json.loads((output / "sensitivity.json").read_text()) == first


def test_a_clip_that_is_missing_is_named_with_its_manifest(
    weights_file: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "clips.tsv"
    manifest.write_text("file\tlabel\tfold\ngone.wav\tx\t1\n")
    common = ("sensitivity", "--model-type", "sea", "--weights", weights_file)
    status, _, messages = run_here(*common, "--manifest", manifest, "-o", tmp_path / "study")
    assert status == 1
    assert messages.splitlines() == [
        f"error: {manifest}: 1 of 1 clips are missing, the first is {tmp_path / 'gone.wav'};"
        " restore them, or remove their rows"
    ]


def test_ctrl_c_keeps_the_layers_that_were_measured(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("sensitivity", "--model-type", "sea", "--weights", weights_file)
    common += ("--windows", 8, "--sparsities", "50,90", "-o")
    assert run_here(*common, tmp_path / "whole")[0] == 0
    partial = tmp_path / "plan.partial.json"

    def press_after_two_layers(_: Steps, step: str, *__: int) -> None:
        measured = json.loads(partial.read_text())["layers"] if partial.exists() else []
        if step == "embed" and len(measured) == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Steps, "__call__", press_after_two_layers)
        status, _, messages = run_here(*common, tmp_path / "plan")
    assert status == 130
    (line,) = messages.splitlines()
    assert "2 of 8 layers" in line
    assert str(partial) in line
    assert not (tmp_path / "plan").exists()
    found = json.loads(partial.read_text())
    assert [layer["name"] for layer in found["layers"]] == LAYERS[:2]
    assert found["unmeasured"] == LAYERS[2:]

    # If the result has this value, the curve was read from the file.
    found["layers"][0]["points"][1]["score"]["mean_squared_error"] = 0.125
    partial.write_text(json.dumps(found))
    assert run_here(*common, tmp_path / "plan")[0] == 0
    whole, resumed = (
        json.loads((tmp_path / name / "sensitivity.json").read_text()) for name in ("whole", "plan")
    )
    whole["layers"][0]["points"][1]["score"]["mean_squared_error"] = 0.125
    assert resumed == whole
    assert not partial.exists()


def test_layers_that_were_measured_are_not_measured_again(
    weights: NetworkWeights, sample: Sample, sensitivity: Sensitivity
) -> None:
    steps: list[tuple[str, int, int]] = []
    again = measure_sensitivity(
        weights,
        sample,
        sensitivity.inputs,
        lambda *step: steps.append(step),
        known=sensitivity.layers[:6] + sensitivity.layers[7:],
    )
    assert again == sensitivity
    # The network as given, and one layer.
    assert steps[-1] == ("embed", 2 * len(sample.clip), 2 * len(sample.clip))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (("--sparsities", "50,x"), "'50,x'"),
        (("--sparsities", "50,100"), "got 100"),
        (("--layers", "conv9"), "unknown layer 'conv9'"),
        (("--windows", "0"), "at least one window"),
        (("--target-bytes", "1", "--target-cycles", "5"), "got --target-bytes and --target-cycles"),
        (("--target-ms", "5"), "expected --target-ms MILLISECONDS and --board BOARD, got one"),
        (("--target-ms", "5", "--board", "uno"), "unknown board 'uno'"),
        (("--clips", "a", "--manifest", "b"), "got both"),
        (("--clips", "nowhere"), "nowhere: no such file"),
    ],
)
def test_bad_choices_are_refused_in_one_line(
    weights_file: Path, tmp_path: Path, choices: tuple[str, ...], message: str
) -> None:
    common = ("sensitivity", "--model-type", "sea", "--weights", weights_file)
    status, shown, messages = run_here(*common, "-o", tmp_path / "study", *choices)
    assert (status, shown) == (1, "")
    (error,) = (line for line in messages.splitlines() if not line.endswith("..."))
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "study").exists()
