"""Effect of drift on neighbours and classifiers, and intervals, on data with known answers."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.progress import ignore_progress

from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.drift.compare import compare
from edgel3_tflm.drift.downstream import (
    Downstream,
    bootstrap,
    bootstrap_mean,
    measure_downstream,
)
from edgel3_tflm.errors import install_hint
from edgel3_tflm.runtime.deployment import Deployment

CLIPS, WINDOWS = 24, 3


@pytest.fixture(scope="module")
def labelled() -> list[LabelledClip]:
    """Two classes in three folds."""
    return [LabelledClip(Path(f"{n}.wav"), "ab"[n % 2], n // 8) for n in range(CLIPS)]


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    """Embeddings that depend on class and clip; the windows of a clip are close together."""
    rng = np.random.default_rng(0)
    of_clip = rng.normal(0, 1, (CLIPS, 6)) + 4 * (np.arange(CLIPS) % 2)[:, None]
    values = np.repeat(of_clip, WINDOWS, axis=0) + rng.normal(0, 0.01, (CLIPS * WINDOWS, 6))
    return values.astype(np.float32)


def measure(
    reference: np.ndarray, other: np.ndarray, labelled: list[LabelledClip | None]
) -> Downstream:
    clip = np.repeat(np.arange(len(labelled)), WINDOWS)
    sounding = np.ones(len(clip), bool)
    return measure_downstream(reference, other, clip, sounding, labelled, ignore_progress)


def test_equal_embeddings_change_nothing(
    embeddings: np.ndarray, labelled: list[LabelledClip]
) -> None:
    same = measure(embeddings, embeddings, [*labelled])
    assert same.neighbour_agreement == 1
    assert same.linear_cka == pytest.approx(1, abs=1e-12)
    assert [each.name for each in same.classifiers] == ["linear probe", "MLP 512-128"]
    for each in same.classifiers:
        assert each.clips == CLIPS
        assert each.float_percent == each.quantized_percent
        assert (each.change_points.low, each.change_points.high) == (0, 0)
    assert same.classifiers[0].float_percent.estimate == 100
    assert measure(embeddings, embeddings, [*labelled]) == same  # seeded


def test_random_embeddings_change_every_figure(
    embeddings: np.ndarray, labelled: list[LabelledClip]
) -> None:
    noise = np.random.default_rng(1).normal(0, 1, embeddings.shape).astype(np.float32)
    lost = measure(embeddings, noise, [*labelled])
    assert lost.neighbour_agreement < 0.2
    assert lost.linear_cka < 0.5
    for each in lost.classifiers:
        assert each.quantized_percent.estimate < 80
        assert each.change_points.high < 0


def test_classifiers_need_labels_in_two_folds(
    embeddings: np.ndarray, labelled: list[LabelledClip]
) -> None:
    unlabelled = measure(embeddings, embeddings, [None] * CLIPS)
    assert (unlabelled.classifiers, unlabelled.note) == ((), "")
    one_fold = measure(
        embeddings, embeddings, [LabelledClip(each.path, each.label, 1) for each in labelled]
    )
    assert one_fold.classifiers == ()
    assert one_fold.note == (
        "classifiers: not tested: expected labelled clips in two folds or more, found fold 1 alone"
    )
    class_a_fold = measure(
        embeddings,
        embeddings,
        [LabelledClip(each.path, each.label, ord(each.label)) for each in labelled],
    )
    assert class_a_fold.classifiers == ()
    assert "two classes or more outside fold 97" in class_a_fold.note
    half = [each if number < 16 else None for number, each in enumerate(labelled)]
    judged = measure(embeddings, embeddings, half)
    assert (judged.classifiers[0].clips, judged.note) == (16, "")


def test_a_comparison_notes_that_its_labels_have_one_fold(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    clips = [LabelledClip(tmp_path / f"{label}.wav", label, 2) for label in "ab"]
    for number, clip in enumerate(clips):
        samples = np.random.default_rng(number).normal(0, 0.1, 8000)
        soundfile.write(clip.path, samples, 8000)
    report = compare(tiny_int8, [], labelled=clips, hop_s=1.0, progress=ignore_progress)
    expected = "classifiers: not tested: expected labelled clips in two folds or more, found fold 2"
    assert any(note.startswith(expected) for note in report.notes)
    assert report.to_json()["downstream"]["note"].startswith(expected)


def test_a_comparison_names_a_class_that_one_fold_alone_has(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    rows = [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2)]
    clips = [LabelledClip(tmp_path / f"{n}.wav", *row) for n, row in enumerate(rows)]
    for number, clip in enumerate(clips):
        samples = np.random.default_rng(number).normal(0, 0.1, 8000)
        soundfile.write(clip.path, samples, 8000)
    report = compare(tiny_int8, [], labelled=clips, hop_s=1.0, progress=ignore_progress)
    assert report.downstream.classifiers
    note = "fold 1: class 'c' cannot be recognised, no clip to learn from has it"
    assert [each for each in report.notes if "cannot be recognised" in each] == [note]


def test_without_scikit_learn_a_note_says_how_to_install_it(
    embeddings: np.ndarray, labelled: list[LabelledClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgel3_tflm.drift.downstream.find_spec", lambda _: None)
    assert install_hint("probe") in measure(embeddings, embeddings, [*labelled]).note


def test_neighbours_are_of_other_clips_and_one_clip_has_none(embeddings: np.ndarray) -> None:
    moved = embeddings.copy()
    moved[0] += 0.02 * (moved[1] - moved[0])  # nearer to its own clip's windows: no matter
    assert measure(embeddings, moved, [None] * CLIPS).neighbour_agreement == 1
    assert np.isnan(measure(embeddings[:3], embeddings[:3], [None]).neighbour_agreement)


def test_the_bootstrap_s_interval_has_the_width_that_theory_gives() -> None:
    values = np.zeros(400)
    values[:100] = 100.0
    interval = bootstrap_mean(values)
    # Standard error of a share of 1/4 over 400: 100 sqrt(3 / 16 / 400) = 2.165 points. Of 2000
    # resamples a 2.5 % quantile is known within some 3 % of its distance.
    assert interval.estimate == 25
    assert interval.low == pytest.approx(25 - 1.96 * 2.165, abs=0.35)
    assert interval.high == pytest.approx(25 + 1.96 * 2.165, abs=0.35)
    constant = bootstrap_mean(np.full(5, 7.0))
    assert (constant.low, constant.high) == (7, 7)


def test_figures_that_are_not_means_use_the_same_resamples() -> None:
    values = np.random.default_rng(2).normal(0, 1, 200)
    mean, median, zero = bootstrap(
        lambda rows: [values[rows].mean(), float(np.median(values[rows])), 0 * values[rows[0]]],
        len(values),
    )
    assert (mean.estimate, median.estimate) == (values.mean(), np.median(values))
    # Standard error of a mean of 200 with deviation near 1: 0.071; of a median, sqrt(pi / 2) times
    # that. Of 2000 resamples a 2.5 % quantile is known within some 3 % of its distance; a median's
    # error is the density's there, which 200 values know within some 30 %.
    error = values.std() / np.sqrt(200)
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert median.high - median.low == pytest.approx(2 * 1.96 * 1.2533 * error, rel=0.4)
    assert (zero.low, zero.estimate, zero.high) == (0, 0, 0)
