"""The synthetic clips and the tiny network have the properties that other tests rely on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from helpers.progress import ignore_progress
from helpers.sounds import synthetic_clips

from edgel3_tflm.audio.clips import find_clips, read_clip
from edgel3_tflm.audio.manifest import read_manifest
from edgel3_tflm.evaluation.probe import extract_features, probe
from edgel3_tflm.metrics import cosine_similarity, sqnr_db
from edgel3_tflm.runtime.deployment import Deployment


def test_clips_are_the_same_each_time(sounds: Path, tmp_path: Path) -> None:
    again = synthetic_clips.write_clips(tmp_path)
    files = sorted(path.relative_to(sounds) for path in sounds.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in files:
        assert (again / name).read_bytes() == (sounds / name).read_bytes(), name


def test_the_manifest_names_every_clip(sounds: Path) -> None:
    clips = read_manifest(sounds / "manifest.tsv")
    assert sorted(clip.path for clip in clips) == find_clips([sounds])
    assert {(clip.label, clip.fold) for clip in clips} == {
        (label, fold) for label in synthetic_clips.CLASSES for fold in synthetic_clips.FOLDS
    }


def test_one_clip_is_silent_one_nearly_and_the_others_are_loud(sounds: Path) -> None:
    levels = {
        path.relative_to(sounds).as_posix(): np.sqrt(np.mean(read_clip(path, 16_000).samples ** 2))
        for path in find_clips([sounds])
    }
    assert levels.pop(synthetic_clips.SILENT) == 0
    assert 0 < levels.pop(synthetic_clips.QUIET) < 2e-4
    assert min(levels.values()) > 0.02


def test_the_tiny_network_separates_the_classes(tiny_int8: Deployment, sounds: Path) -> None:
    clips = read_manifest(sounds / "manifest.tsv")
    spec = tiny_int8.variant.frontend
    log_mels = extract_features(clips, spec, lambda decibels: decibels, ignore_progress)
    in_float, in_int8 = (
        tiny_int8.embedder(precision).embed_log_mel(log_mels.values)
        for precision in ("float", "int8")
    )
    # No value of the embedding is dead or constant.
    assert (in_float.max(axis=0) > 0).all()
    assert (in_float.std(axis=0) > 0.1 * in_float.mean(axis=0)).all()
    # int8 differs from float, but far less than the classes differ.
    assert 0.99 < cosine_similarity(in_float, in_int8).min() < 1 - 1e-6
    assert 20 < sqnr_db(in_float, in_int8) < 40
    for values in (in_float, in_int8):
        results = probe(clips, replace(log_mels, values=values))
        right = sum(each.right for each in results)
        # Chance is one third.
        assert right >= 0.75 * len(clips)
