"""The accuracy that conversion costs on real clips: drift, and a linear probe over the folds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.progress import ignore_progress

from edgel3_tflm.audio.manifest import LabelledClip, read_manifest
from edgel3_tflm.drift.figures import measure
from edgel3_tflm.evaluation.probe import Features, extract_features, probe
from edgel3_tflm.metrics import cosine_similarity, sqnr_db
from edgel3_tflm.runtime.deployment import Deployment


@pytest.fixture(scope="module")
def clips(esc10: Path) -> list[LabelledClip]:
    return read_manifest(esc10 / "manifest.tsv")


@pytest.fixture(scope="module")
def log_mels(sea_int8: Deployment, clips: list[LabelledClip]) -> Features:
    """Log-mel spectrograms: the input that all models share."""
    return extract_features(
        clips, sea_int8.variant.frontend, lambda decibels: decibels, ignore_progress
    )


@pytest.fixture(scope="module")
def in_float(sea_int8: Deployment, log_mels: Features) -> Features:
    return replace(log_mels, values=sea_int8.embedder("float").embed_log_mel(log_mels.values))


@pytest.fixture(scope="module")
def in_int8(sea_int8: Deployment, log_mels: Features) -> Features:
    return replace(log_mels, values=sea_int8.embedder("int8").embed_log_mel(log_mels.values))


@pytest.fixture(scope="module")
def in_best_int8(sea_quantized: Deployment, log_mels: Features) -> Features:
    return replace(log_mels, values=sea_quantized.embedder("int8").embed_log_mel(log_mels.values))


def accuracy_percent(clips: list[LabelledClip], features: Features) -> float:
    results = probe(clips, features)
    return 100 * sum(each.right for each in results) / sum(each.clips for each in results)


@pytest.fixture(scope="module")
def float_percent(clips: list[LabelledClip], in_float: Features) -> float:
    return accuracy_percent(clips, in_float)


def test_the_float_model_reaches_its_known_accuracy(float_percent: float) -> None:
    assert 74 <= float_percent <= 76


def test_int8_keeps_the_accuracy(clips: list[LabelledClip], in_int8: Features) -> None:
    assert accuracy_percent(clips, in_int8) >= 73.5


def test_the_quantizer_keeps_more_of_the_accuracy(
    clips: list[LabelledClip], float_percent: float, in_best_int8: Features
) -> None:
    assert accuracy_percent(clips, in_best_int8) >= float_percent - 0.5


def test_shuffled_labels_are_near_chance(clips: list[LabelledClip], in_float: Features) -> None:
    """The probe is not trained on the labels of the fold that it is tested on."""
    labels = np.random.default_rng(0).permutation([clip.label for clip in clips])
    shuffled = [replace(clip, label=str(label)) for clip, label in zip(clips, labels, strict=True)]
    # Chance is 10 %. One standard deviation is 1.7 points for 320 clips; three of them give 15.1 %.
    assert accuracy_percent(shuffled, in_float) <= 15.1


def test_drift_of_int8_on_real_clips(in_float: Features, in_int8: Features) -> None:
    figures = measure(in_float.values, in_int8.values, in_float.silent)
    assert figures.cosine_mean >= 0.996
    assert figures.sqnr_db >= 24
    assert figures.silent_windows > 0


def test_drift_of_the_quantizer_s_int8_on_real_clips(
    in_float: Features, in_best_int8: Features
) -> None:
    """The search for the steps used other clips."""
    cosine = cosine_similarity(in_float.values, in_best_int8.values)
    assert cosine.mean() >= 0.9985
    assert np.percentile(cosine[~in_float.silent], 5) >= 0.997
    assert sqnr_db(in_float.values, in_best_int8.values) >= 31


def test_the_manifest_lists_the_candidates(sea_quantized: Deployment) -> None:
    quantizer = sea_quantized.manifest["quantizer"]
    candidates = quantizer["ladder"]
    assert candidates[0]["steps"] == {
        "calibration_method": "minmax",
        "equalization_power": 0,
        "bias_correction": False,
        "adaround": False,
    }
    best = max(candidates, key=lambda each: each["sqnr_db"])
    assert quantizer["steps"] == best["steps"]
    for each in candidates:
        assert {"cosine_mean", "cosine_p5", "sqnr_db"} < set(each)
    for name in ("edgel3_model.h", "edgel3_packed_model.h"):
        assert "AdaRound" in (sea_quantized.directory / name).read_text()


def test_int16x8_drifts_less_than_int8(
    sea_int16x8: Deployment, log_mels: Features, in_float: Features, in_int8: Features
) -> None:
    some = slice(None, None, 20)
    wide = sea_int16x8.embedder("int16x8").embed_log_mel(log_mels.values[some])
    silent = in_float.silent[some]
    assert (
        measure(in_float.values[some], wide, silent).mean_squared_error
        < measure(in_float.values[some], in_int8.values[some], silent).mean_squared_error
    )
