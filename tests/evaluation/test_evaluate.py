"""Evaluation: known answers, no leaks, and a real model on real clips."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.browser import Browser
from helpers.progress import ignore_progress

from edgel3_tflm.audio.datasets import Dataset, load_dataset
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.evaluation.evaluate import (
    ACCURACY,
    MACRO_AUPRC,
    MICRO_AUPRC,
    Protocol,
    evaluate,
    find_published,
    judge,
    score_clips,
)
from edgel3_tflm.evaluation.probe import Features, extract_features
from edgel3_tflm.runtime.deployment import Deployment

COMMAND = str(Path(sys.executable).with_name("edgel3-tflm"))
WINDOWS = 3
# Larger steps than the published ones, for few windows and few epochs.
QUICK = Protocol(learning_rate=1e-2, most_passes=20)


def dataset_of(directory: Path, rows: list[tuple[str, int]]) -> Dataset:
    """A dataset of (label, fold) rows, without audio."""
    lines = ["file\tlabel\tfold"]
    for number, (label, fold) in enumerate(rows):
        (directory / f"{number}.wav").touch()
        lines.append(f"{number}.wav\t{label}\t{fold}")
    (directory / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return load_dataset(str(directory))


@pytest.fixture
def three_folds(tmp_path: Path) -> Dataset:
    """Sixty clips of two classes in three folds."""
    return dataset_of(tmp_path, [("ab"[n % 2], n // 2 % 3) for n in range(60)])


@pytest.fixture
def tagged(tmp_path: Path) -> Dataset:
    """Sixty clips with none, one or both of two labels, in three folds."""
    return dataset_of(tmp_path, [(("", "a", "b", "a;b")[n % 4], n // 4 % 3) for n in range(60)])


def window_clips(dataset: Dataset) -> np.ndarray:
    return np.repeat(np.arange(len(dataset.clips)), WINDOWS)


def telling(dataset: Dataset) -> np.ndarray:
    """Embeddings from which a classifier learns the labels easily."""
    targets = dataset.targets[window_clips(dataset)].astype(np.float32)
    return np.hstack([targets, noise(len(targets)) * 0.1])


def noise(windows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (windows, 6)).astype(np.float32)


def test_easy_embeddings_are_all_correct_and_noise_is_at_chance(three_folds: Dataset) -> None:
    clip = window_clips(three_folds)
    splits, (accuracy,) = judge(
        three_folds, clip, telling(three_folds), noise(len(clip)), QUICK, ignore_progress
    )
    assert accuracy.name == ACCURACY
    assert [each.name for each in splits] == ["fold 0", "fold 1", "fold 2"]
    assert {(each.train_clips, each.validation_clips, each.test_clips) for each in splits} == {
        (20, 20, 20)
    }
    assert [each.float_score for each in splits] == [100, 100, 100]
    assert (accuracy.in_float.low, accuracy.in_float.high) == (100, 100)
    # Binomial with 60 trials at 1/2: deviation 6.5 points; four deviations.
    assert 50 - 26 < accuracy.quantized.estimate < 50 + 26
    assert accuracy.change.estimate == accuracy.quantized.estimate - 100
    assert accuracy.change.high < 0


def test_equal_embeddings_change_nothing_and_results_repeat(three_folds: Dataset) -> None:
    clip = window_clips(three_folds)
    values = noise(len(clip))
    found = judge(three_folds, clip, values, values, QUICK, ignore_progress)
    _, (accuracy,) = found
    assert (accuracy.change.low, accuracy.change.estimate, accuracy.change.high) == (0, 0, 0)
    assert judge(three_folds, clip, values, values, QUICK, ignore_progress) == found


def test_several_trainings_are_averaged(three_folds: Dataset) -> None:
    clip = window_clips(three_folds)
    values = noise(len(clip))
    split = three_folds.splits[0]
    wanted = three_folds.targets.argmax(axis=1)[split.test]
    single = [
        np.mean(
            score_clips(values, clip, three_folds.targets, split, False, QUICK, seed).argmax(axis=1)
            == wanted
        )
        for seed in range(2)
    ]
    protocol = replace(QUICK, seeds=2)
    splits, _ = judge(three_folds, clip, values, values, protocol, ignore_progress)
    assert splits[0].float_score == pytest.approx(100 * np.mean(single), abs=1e-9)
    assert single[0] != single[1]


def test_a_test_clip_does_not_affect_the_scores_of_others(three_folds: Dataset) -> None:
    clip = window_clips(three_folds)
    values = noise(len(clip))
    split = three_folds.splits[0]
    spoiled = values.copy()
    spoiled[clip == split.test[0]] = 1e3
    before, after = (
        score_clips(each, clip, three_folds.targets, split, False, QUICK, 0)
        for each in (values, spoiled)
    )
    np.testing.assert_array_equal(before[1:], after[1:])
    assert np.any(before[0] != after[0])
    # A training clip does, and a validation clip by when training ends.
    trained = values.copy()
    trained[clip == split.train[0]] = 1e3
    changed = score_clips(trained, clip, three_folds.targets, split, False, QUICK, 0)
    assert np.any(before[1:] != changed[1:])


def test_training_stops_when_the_validation_loss_no_longer_falls(three_folds: Dataset) -> None:
    clip = window_clips(three_folds)
    values = noise(len(clip))
    split = three_folds.splits[0]

    def scores(protocol: Protocol, *, validate: bool = True) -> np.ndarray:
        used = split if validate else replace(split, validate=split.validate[:0])
        return score_clips(values, clip, three_folds.targets, used, False, protocol, 0)

    # The network memorizes noise: the validation loss soon rises, and more epochs change nothing.
    long, longer = (replace(QUICK, most_passes=epochs, patience=3) for epochs in (20, 40))
    np.testing.assert_array_equal(scores(long), scores(longer))
    assert np.any(scores(long, validate=False) != scores(longer, validate=False))


def test_labels_are_judged_by_the_area_under_precision_and_recall(
    tagged: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgel3_tflm.drift.downstream.RESAMPLES", 200)
    clip = window_clips(tagged)
    splits, measures = judge(
        tagged, clip, telling(tagged), noise(len(clip)), QUICK, ignore_progress
    )
    assert [each.name for each in measures] == [MICRO_AUPRC, MACRO_AUPRC]
    assert [each.float_score for each in splits] == [1, 1, 1]
    for each in measures:
        assert (each.in_float.low, each.in_float.estimate, each.in_float.high) == (1, 1, 1)
        # Half of all decisions are positive, so that a guess has 1/2; of 120 decisions a share has
        # a deviation of 0.046: four of them.
        assert abs(each.quantized.estimate - 0.5) < 0.19
        assert each.change.high < 0


def test_the_area_is_the_trapezoids_one() -> None:
    from edgel3_tflm.evaluation.evaluate import _measure_auprc

    scores = np.array([[0.9, 0.1], [0.8, 0.7], [0.3, 0.2]])
    targets = np.array([[True, False], [False, True], [True, False]])
    # Label 0, from the highest score: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1. Its area is
    # 1/2 * 1 + 1/2 * (1/2 + 2/3) / 2 = 19/24. Label 1 is perfect. All six: hit, miss, hit, hit,
    # miss, miss: 1/3 * 1, then 1/3 * (1/2 + 2/3) / 2 and 1/3 * (2/3 + 3/4) / 2.
    micro, macro = _measure_auprc(scores, targets)
    assert macro == pytest.approx((19 / 24 + 1) / 2, rel=1e-12)
    assert micro == pytest.approx(1 / 3 + 7 / 36 + 17 / 72, rel=1e-12)
    # A label that no clip has is left out of the mean.
    with_empty = np.hstack([targets, np.zeros((3, 1), bool)])
    assert _measure_auprc(np.hstack([scores, [[0.0]] * 3]), with_empty)[1] == macro


def test_published_results_are_those_of_the_same_dataset(three_folds: Dataset) -> None:
    assert find_published(three_folds) == ()
    by_title = {
        each.title: each.value for each in find_published(replace(three_folds, task="esc50"))
    }
    assert (by_title["L3"], by_title["SEA-UST 64"]) == (73.65, 44.0)
    assert by_title["EdgeL3"] == 72.25  # 1.4 points below L3
    (area,) = find_published(replace(three_folds, task="sonyc-ust"))
    assert (area.title, area.measure, area.value) == ("SEA-UST 64", MICRO_AUPRC, 0.784)


def test_a_network_is_far_above_shuffled_labels(
    tiny_int8: Deployment, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(str(sounds))
    protocol = replace(QUICK, hop_s=1.0)
    # Embedded once for both evaluations.
    monkeypatch.setattr("edgel3_tflm.evaluation.evaluate.extract_features", cache(extract_features))
    found = evaluate(tiny_int8, dataset, ignore_progress, protocol=protocol)
    (accuracy,) = found.measures
    assert (found.clips, len(found.labels), len(found.splits)) == (20, 3, 3)
    assert found.windows == 3 * found.clips
    labels = np.random.default_rng(0).permutation([clip.label for clip in dataset.clips])
    shuffled = replace(
        dataset,
        clips=tuple(
            replace(clip, label=str(label))
            for clip, label in zip(dataset.clips, labels, strict=True)
        ),
    )
    (chance,) = evaluate(tiny_int8, shuffled, ignore_progress, protocol=protocol).measures
    # Binomial with 20 trials at 1/3: deviation 10.5 points; four deviations.
    assert chance.in_float.estimate < 33.3 + 42
    assert accuracy.in_float.low > chance.in_float.high
    assert accuracy.quantized.low > chance.quantized.high


def cache(function: Callable[..., Features]) -> Callable[..., Features]:
    found: list[Features] = []

    def remember(*arguments: object) -> Features:
        if not found:
            found.append(function(*arguments))
        return found[0]

    return remember


def test_padded_clips_and_classes_of_one_fold_are_named_in_the_result(
    tiny_int8: Deployment, three_folds: Dataset, tmp_path: Path
) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 8000)
    clips = []
    for number, clip in enumerate(three_folds.clips):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, samples[: 8000 if number else 4000], 8000)
        clips.append(replace(clip, path=path))
    alone = next(index for index, clip in enumerate(clips) if index in three_folds.splits[0].test)
    clips[alone] = replace(clips[alone], label="x")
    labels = (*three_folds.labels, "x")
    dataset = replace(three_folds, clips=tuple(clips), labels=labels)
    found = evaluate(tiny_int8, dataset, ignore_progress, protocol=QUICK)
    name = three_folds.splits[0].name
    assert found.to_json()["notes"] == (
        f"{name}: class 'x' cannot be recognised, no clip to learn from has it",
        "shorter than a window of 1 s, so padded with zeros: 1 clips: 0.wav",
    )


def test_choices_out_of_range_are_refused(tiny_int8: Deployment, three_folds: Dataset) -> None:
    for protocol, part in ((Protocol(hop_s=0), "hop"), (Protocol(seeds=0), "one training")):
        with pytest.raises(EdgeL3Error, match=part):
            evaluate(tiny_int8, three_folds, ignore_progress, protocol=protocol)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )


@pytest.fixture(scope="module")
def look_alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ESC-50's layout with two tones in three folds, a clip of each."""
    home = tmp_path_factory.mktemp("esc50")
    (home / "audio").mkdir()
    (home / "meta").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in (1, 2, 3):
        for target, pitch_hz in enumerate((300, 2000)):
            name = f"{fold}-1-A-{target}.wav"
            lines.append(f"{name},{fold},{target},tone{target},False,1,A")
            tone = 0.1 * np.sin(2 * np.pi * pitch_hz * np.arange(8000) / 8000 + fold)
            soundfile.write(home / "audio" / name, tone, 8000)
    (home / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return home


def test_the_command_shows_folds_choices_and_published_results(
    tiny_int8: Deployment, look_alike: Path, tmp_path: Path, browser: Browser
) -> None:
    output = tmp_path / "result.json"
    arguments = [tiny_int8.directory, "--dataset", "esc50", "--data-home", look_alike]
    page = tmp_path / "page.html"
    done = run(*arguments, "-o", output, "--page", page)
    assert done.returncode == 0, done.stderr
    assert "accuracy %: change" in page.read_text()
    for theme in ("light", "dark"):
        assert browser.find_violations(page, theme=theme, width=390) == []
    assert browser.measure_print(page)["outside"] == []
    browser.screenshot(page, "evaluate", width=1200, height=1100)
    for part in (
        "esc50: 6 clips, 6 windows, 2 classes",
        "resampled by soxr",
        "fold 3",
        "MLP 512-128: Adam 0.0001",
        "2000 resamples",
        "EdgeL3",
        "73.65",
        f"result: {output}",
    ):
        assert part in done.stdout
    result = json.loads(output.read_text())
    assert result["measures"][0]["name"] == ACCURACY
    assert [each["test_clips"] for each in result["splits"]] == [2, 2, 2]
    assert result["protocol"]["layers"] == [512, 128]
    assert result["resampler"] == "soxr"
    assert set(result["models_sha256"]) == {"float.tflite", "packed.edgel3"}


def test_the_command_s_errors_are_one_line(
    tiny_int8: Deployment, look_alike: Path, tmp_path: Path
) -> None:
    spoiled = tmp_path / "home"
    shutil.copytree(look_alike, spoiled)
    (spoiled / "audio" / "2-1-A-1.wav").write_bytes(b"no audio")
    for home, part in ((spoiled, "2-1-A-1.wav"), (tmp_path / "none", "--data-home")):
        output = tmp_path / "result.json"
        done = run(
            tiny_int8.directory, "--dataset", "esc50", "--data-home", home, "-o", output, "-q"
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert part in done.stderr
        assert not output.exists()
