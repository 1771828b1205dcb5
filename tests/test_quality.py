"""What the conversion costs, on the real clips: drift, and a linear probe over the folds."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgel3_tflm.audio import read_windows
from edgel3_tflm.deployment import Deployment
from edgel3_tflm.drift import measure
from edgel3_tflm.frontend import log_mel


@dataclass(frozen=True)
class LabelledWindows:
    decibels: np.ndarray  # (windows, mels, frames)
    clip: np.ndarray  # (windows,), index of the clip
    labels: np.ndarray  # (clips,)
    folds: np.ndarray  # (clips,)


@pytest.fixture(scope="module")
def windows(sea_int8: Deployment, esc10: Path) -> LabelledWindows:
    rows = list(csv.DictReader((esc10 / "manifest.tsv").open(), delimiter="\t"))
    spec = sea_int8.variant.frontend
    batches = [
        log_mel(batch, spec)
        for _, batch in read_windows(
            [esc10 / row["file"] for row in rows],
            sample_rate_hz=spec.sample_rate_hz,
            window_samples=spec.window_samples,
            hop_s=0.5,
        )
    ]
    return LabelledWindows(
        np.concatenate(batches),
        np.repeat(np.arange(len(batches)), [len(batch) for batch in batches]),
        np.array([row["label"] for row in rows]),
        np.array([int(row["fold"]) for row in rows]),
    )


@pytest.fixture(scope="module")
def in_float(sea_int8: Deployment, windows: LabelledWindows) -> np.ndarray:
    return sea_int8.embedder("float").embed_log_mel(windows.decibels)


@pytest.fixture(scope="module")
def in_int8(sea_int8: Deployment, windows: LabelledWindows) -> np.ndarray:
    return sea_int8.embedder("int8").embed_log_mel(windows.decibels)


def probe_accuracy(embeddings: np.ndarray, windows: LabelledWindows) -> float:
    """Percent of clips a linear probe gets right, each fold judged by the others."""
    right = 0
    for fold in np.unique(windows.folds):
        train = windows.folds[windows.clip] != fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        model.fit(embeddings[train], windows.labels[windows.clip[train]])
        scores = model.predict_log_proba(embeddings[~train])
        for clip in np.flatnonzero(windows.folds == fold):
            mean = scores[windows.clip[~train] == clip].mean(axis=0)
            right += model.classes_[mean.argmax()] == windows.labels[clip]
    return 100 * right / len(windows.labels)


def test_the_float_model_reaches_its_known_accuracy(
    in_float: np.ndarray, windows: LabelledWindows
) -> None:
    assert 78 <= probe_accuracy(in_float, windows) <= 79.5


def test_int8_keeps_the_accuracy(in_int8: np.ndarray, windows: LabelledWindows) -> None:
    assert probe_accuracy(in_int8, windows) >= 77


def test_shuffled_embeddings_are_near_chance(
    in_float: np.ndarray, windows: LabelledWindows
) -> None:
    """The probe does not see the labels of the fold it judges."""
    shuffled = np.random.default_rng(0).permutation(windows.labels)
    other = LabelledWindows(windows.decibels, windows.clip, shuffled, windows.folds)
    # Chance is 10 %; 320 clips spread by 1.7 points, three of them are 15.
    assert probe_accuracy(in_float, other) <= 15.1


def test_drift_of_int8_on_real_clips(
    in_float: np.ndarray, in_int8: np.ndarray, windows: LabelledWindows
) -> None:
    silent = (windows.decibels == 0).all(axis=(1, 2))
    figures = measure(in_float, in_int8, silent)
    assert figures.cosine_mean >= 0.996
    assert figures.sqnr_db >= 24
    assert figures.silent_windows == silent.sum() > 0


def test_int16x8_drifts_less_than_int8(
    sea_int16x8: Deployment, in_float: np.ndarray, in_int8: np.ndarray, windows: LabelledWindows
) -> None:
    some = slice(None, None, 20)
    wide = sea_int16x8.embedder("int16x8").embed_log_mel(windows.decibels[some])
    silent = np.zeros(len(wide), bool)
    assert (
        measure(in_float[some], wide, silent).mean_squared_error
        < measure(in_float[some], in_int8[some], silent).mean_squared_error
    )
