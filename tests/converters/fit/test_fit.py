"""The command fit on a network of four filters, from clips to the winner's deployment."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import run_in_process
from helpers.networks.tiny_network import TINY, draw
from helpers.progress import ignore_progress
from typer.testing import CliRunner

from edgel3_tflm.audio.manifest import read_manifest
from edgel3_tflm.cli.commands import app
from edgel3_tflm.converters.fit import fit as fit_module
from edgel3_tflm.converters.fit.budget import Budget, Limits
from edgel3_tflm.converters.fit.candidates import Candidate, Members, derive, load_candidates
from edgel3_tflm.converters.fit.fit import (
    CURVES_NAME,
    FIGURE_NAME,
    JSON_NAME,
    FitOptions,
    FitResult,
    fit,
)
from edgel3_tflm.converters.fit.measurement import Measurement, Sample
from edgel3_tflm.converters.fit.missing import Distillation
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.converters.training.recipe import Recipe, parse_recipe
from edgel3_tflm.evaluation.probe import extract_features, probe
from edgel3_tflm.networks.catalogue import VARIANTS, find_plan
from edgel3_tflm.networks.sources import find_bundled_variants, load_bundled_weights
from edgel3_tflm.networks.weight_files import pack_weights
from edgel3_tflm.runtime.deployment import Deployment

NARROW = (2,) * 8
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def options(tiny_weights: Path, sounds: Path, short_calibration: Path) -> FitOptions:
    """The given network, and two cuts of it."""
    return FitOptions(
        Budget.of(Limits("portenta_h7_m7")),
        tuple(load_candidates([tiny_weights], bundled=False)),
        Members(depths=(6,), widths=(NARROW,)),
        Sample.of(read_manifest(sounds / "manifest.tsv"), short_calibration, None),
    )


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit") / "out"


@pytest.fixture(scope="module")
def result(options: FitOptions, output: Path) -> FitResult:
    return fit(options, output, ignore_progress, print)


def test_every_member_is_measured(result: FitResult) -> None:
    names = [each.figures.network for each in result.candidates]
    depth, width = TINY.with_depth(6), TINY.with_filters(NARROW)
    assert names == [TINY.name, depth.name, width.name]
    assert [each.figures.is_given for each in result.candidates] == [True, False, False]
    for each in result.candidates:
        assert each.figures.clips == 20
        assert each.needs.flash_bytes > 0
        assert each.figures.device is not None


def test_a_candidates_accuracy_is_that_of_probe(
    result: FitResult,
    options: FitOptions,
    convert_to: Callable[[ConvertOptions], Deployment],
) -> None:
    weights, sample = options.given[0].weights, options.sample
    deployment = convert_to(ConvertOptions(TINY, weights, sample.calibration))
    embed = deployment.embedder("int8").embed_log_mel
    features = extract_features(sample.clips, TINY.frontend, embed, ignore_progress)
    assert result.candidates[0].figures.folds == probe(sample.clips, features)


def test_the_winners_manifest_says_why_it_won(result: FitResult, output: Path) -> None:
    assert result.winner is not None
    deployment = Deployment.load(output / "winner")
    assert deployment.variant.name == result.winner.figures.network
    assert deployment.manifest["quantizer"]["name"] != "TensorFlow Lite"  # searched
    entry = deployment.manifest["fit"]
    assert set(entry) == {"budget", "rule", "reason", "teacher", "winner", "candidates"}
    assert "3 of 3 candidates are within the budget" in entry["reason"]
    assert entry["winner"] == result.winner.figures.digest
    assert len(entry["candidates"]) == 3
    record = json.loads((output / JSON_NAME).read_bytes())
    assert record["winner"] == entry["winner"]
    assert (output / FIGURE_NAME).read_bytes().startswith(PNG)


def test_another_budget_measures_nothing_again(
    result: FitResult, options: FitOptions, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(fit_module, "measure", refuse)
    again = fit(options, output, ignore_progress, print)
    assert again.record == result.record
    narrow = replace(options, budget=Budget.of(Limits(milliseconds=1e-6)))
    nothing = fit(narrow, output, ignore_progress, print)
    assert nothing.winner is None
    assert nothing.deployment is None
    assert [each.figures for each in nothing.candidates] == [
        each.figures for each in result.candidates
    ]


def test_an_interrupted_run_goes_on_and_a_damaged_file_is_measured_again(
    result: FitResult, options: FitOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    made_up = result.candidates[0].figures

    def measure(candidate: Candidate, digest: str, *_: Any) -> Measurement:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(candidate.name)
        return replace(made_up, digest=digest, network=candidate.name)

    monkeypatch.setattr(fit_module, "measure", measure)
    # Nothing is within this limit, so that no winner is converted.
    options = replace(options, budget=Budget.of(Limits(milliseconds=1e-6)))
    with pytest.raises(KeyboardInterrupt):
        fit(options, tmp_path, ignore_progress, print)
    kept = sorted((tmp_path / "candidates").iterdir())
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-100])
    names = list(measured)
    measured.clear()
    found = fit(options, tmp_path, ignore_progress, print)
    assert len(measured) == 2
    assert {*names, *measured} == {each.figures.network for each in found.candidates}


def arguments(options: FitOptions, weights: Path, sounds: Path, output: Path) -> list[Any]:
    calibration = options.sample.calibration
    return [
        "fit", "--no-bundled", "--weights", weights, "--manifest", sounds / "manifest.tsv",
        "--calibration", calibration, "--embedding-layer", "conv6",
        "--filters", ",".join(map(str, NARROW)), "-o", output,
    ]  # fmt: skip


def test_the_command_shows_the_winner(
    result: FitResult,
    options: FitOptions,
    tiny_weights: Path,
    sounds: Path,
    output: Path,
) -> None:
    words = [
        *map(str, arguments(options, tiny_weights, sounds, output)),
        *("--board", "portenta_h7_m7"),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert result.winner is not None
    assert f"winner: {result.winner.figures.network}, {tiny_weights.name}" in done.stdout
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert found == {"directory": str(output), **result.record}
    none = CliRunner().invoke(app, [*words, "--ms", "0.000001"])
    assert none.exit_code == 1
    assert "sqnr" in none.stdout.lower()  # the table is shown nevertheless
    (line,) = [each for each in none.stderr.splitlines() if not each.endswith("...")]
    assert line.startswith("error: no candidate is within the budget; ")
    assert "time" in line


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ((), "expected a board (--board)"),
        (("--ms", "1", "--recipe", "r.toml"), "together with --distill"),
        (("--ms", "1", "--curves"), "together with --manifest"),
        (("--ms", "1", "--battery-mah", "9", "--battery-mwh", "9"), "got both"),
        (("--ms", "1", "--weights", "none.h5"), "none.h5"),
        (("--ms", "1", "--sparsity", "42"), "unknown sparsity '42'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    tmp_path: Path, more: tuple[str, ...], parts: str
) -> None:
    status, messages = run_in_process("fit", "-o", tmp_path / "out", *more)
    assert status == 1
    assert messages.startswith("error: ")
    assert messages.count("\n") == 1
    assert parts in messages
    assert not (tmp_path / "out").exists()


def test_without_labels_the_calibration_clips_give_the_cosine(
    options: FitOptions, sounds: Path, tmp_path: Path
) -> None:
    narrow = replace(
        options,
        budget=Budget.of(Limits(milliseconds=1e-6)),
        members=Members(),
        sample=Sample.of([], sounds, None),
    )
    (only,) = fit(narrow, tmp_path, ignore_progress, print).candidates
    assert only.figures.folds == []
    assert only.figures.accuracy_percent is None
    assert 0.9 < only.quality <= 1  # its own embeddings, mapped


def test_a_sparse_file_is_known_by_its_zeros_and_pruned_to_sparser_plans(tmp_path: Path) -> None:
    (variant,) = [each for each in find_bundled_variants() if each.name == "edgel3-95.45-ft"]
    path = tmp_path / "mine.h5.gz"
    path.write_bytes(pack_weights(load_bundled_weights(variant)))
    (given,) = load_candidates([path], bundled=False)
    assert given.name == "edgel3-95.45-kd"
    found = derive(given, Members())
    assert [each.name for each in found] == [
        f"edgel3-{label}-kd" for label in ("95.45", "97", "98", "99")
    ]
    assert [each.origin for each in found] == [
        "mine.h5.gz",
        *["mine.h5.gz, pruned here"] * 3,
    ]


def test_the_stand_ins_are_tried_and_a_file_given_twice_is_tried_once(
    tiny_weights: Path,
) -> None:
    found = load_candidates([tiny_weights, tiny_weights])
    assert [each.name for each in found] == [
        *(each.name for each in find_bundled_variants()),
        TINY.name,
    ]
    assert found[0].weights.provenance.kind == "bundled"


RECIPE = """
[student]
model_type = "sparse"
filters = {filters}
[teacher]
model_type = "sea"
emb_dim = 64
[validation]
fold = 3
[pruning]
begin = 0.0
end = 0.5
every_steps = 1
[training]
steps = 4
batch_windows = 2
validate_every_steps = 2
"""


def test_distill_trains_the_plans_that_are_missing(
    tiny_weights: Path, sounds: Path, short_calibration: Path, tmp_path: Path
) -> None:
    """A student of another shape than the given network starts from random weights."""
    recipe, output = tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text(RECIPE.format(filters=[*TINY.filters[:-1], 3]))
    words = [
        "fit", "--no-bundled", "--weights", tiny_weights, "--manifest", sounds / "manifest.tsv",
        "--calibration", short_calibration, "--teacher-weights", tiny_weights, "--distill",
        "--recipe", recipe, "--sparsity", "97", "--ms", "0.000001", "--curves", "-o", output,
    ]  # fmt: skip
    status, messages = run_in_process(*words)
    assert status == 1
    assert "error: no candidate is within the budget" in messages
    record = json.loads((output / JSON_NAME).read_bytes())
    given, trained, alone = record["candidates"]
    assert given["network"] == TINY.name
    assert trained["network"] == "edgel3-97-kd-filters-4-4-4-4-4-4-4-3"
    assert (trained["origin"], trained["weights_kind"]) == ("distilled here", "distilled")
    assert (alone["network"], alone["origin"]) == (trained["network"], "pruned alone here")
    assert alone["zeros_percent"] == trained["zeros_percent"] > 90
    assert (output / CURVES_NAME).read_bytes().startswith(PNG)
    assert {name: len(record["baselines"][name]) for name in ("teacher", "statistics")} == {
        "teacher": 1,
        "statistics": 1,
    }
    assert record["test_folds"] == [3]  # the students have not learned from it
    student = output / "distilled" / trained["network"] / "student.h5.gz"
    before = student.read_bytes(), student.stat().st_mtime_ns
    assert run_in_process(*words)[0] == 1
    assert (student.read_bytes(), student.stat().st_mtime_ns) == before
    assert json.loads((output / JSON_NAME).read_bytes()) == record


def test_distill_starts_a_plan_from_the_given_network_of_its_shape(
    tiny_weights: Path, sounds: Path, short_calibration: Path, tmp_path: Path
) -> None:
    (sea,) = load_candidates([tiny_weights], bundled=False)
    dense = VARIANTS["l3-dense"].with_filters(TINY.filters)
    weights = draw(dense)
    given = [sea, Candidate(weights, "drawn", is_given=True)]
    recipe = parse_recipe(RECIPE.format(filters=list(TINY.filters)), Recipe)
    distillation = Distillation(recipe, sea.weights)
    sample = Sample.of(read_manifest(sounds / "manifest.tsv"), short_calibration, [3])
    (choice,) = distillation.list_students(given, Members(plans=(find_plan("97"),)))
    (trained,) = distillation.train(
        choice, given, sample, tmp_path, ignore_progress, lambda _figures: None
    )
    assert trained.weights.sparsity_percent > 90
    (identity,) = tmp_path.glob("distilled/*/recipe.json")
    assert json.loads(identity.read_bytes())["initial"] == weights.provenance.sha256
