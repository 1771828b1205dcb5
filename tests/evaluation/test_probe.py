"""The linear probe: manifests, folds, and features of known accuracy."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.command_line import assert_one_error_line, run
from helpers.progress import ignore_progress

from edgel3_tflm.audio.log_mel import log_mel_statistics
from edgel3_tflm.audio.manifest import LabelledClip, read_manifest
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.evaluation.probe import (
    Features,
    extract_features,
    map_cosine,
    probe,
    read_embeddings,
)
from edgel3_tflm.networks.catalogue import find_variant

CLASSES, FOLDS, WINDOWS = 3, 2, 4


def clips() -> list[LabelledClip]:
    return [
        LabelledClip(Path(f"{number}.wav"), "abc"[number % CLASSES], 1 + number // 30)
        for number in range(60)
    ]


def features(values: np.ndarray) -> Features:
    count = len(values)
    clip = np.arange(count) // WINDOWS
    return Features(
        values.astype(np.float32), clip, np.arange(count) % WINDOWS, np.zeros(count, bool)
    )


def separable(noise: float) -> Features:
    centres = 10 * np.eye(CLASSES)
    labels = np.arange(60).repeat(WINDOWS) % CLASSES
    generator = np.random.default_rng(0)
    return features(centres[labels] + generator.normal(0, noise, (240, CLASSES)))


def test_separable_classes_are_all_right() -> None:
    results = probe(clips(), separable(noise=0.1))
    assert [(each.fold, each.right, each.clips) for each in results] == [(1, 30, 30), (2, 30, 30)]


def test_features_without_information_are_near_chance() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (240, 8))
    right = sum(each.right for each in probe(clips(), features(noise)))
    # Binomial with 60 trials at 1/3: mean 20, deviation 3.7; four deviations.
    assert 5 <= right <= 35


def test_only_the_given_folds_are_tested() -> None:
    assert [each.fold for each in probe(clips(), separable(0.1), [2])] == [2]
    with pytest.raises(EdgeL3Error, match="7"):
        probe(clips(), separable(0.1), [7])


def test_one_fold_alone_is_refused() -> None:
    alone = [LabelledClip(clip.path, clip.label, 1) for clip in clips()]
    with pytest.raises(EdgeL3Error, match="two folds"):
        probe(alone, separable(0.1))


def test_one_class_outside_a_fold_is_refused_by_name() -> None:
    alone = [LabelledClip(clip.path, "ab"[clip.fold - 1], clip.fold) for clip in clips()]
    with pytest.raises(EdgeL3Error, match="outside fold 1 to learn from, found 'b' alone"):
        probe(alone, separable(0.1))


@pytest.mark.parametrize(
    ("silent", "where"),
    [
        (slice(None), "in fold 1"),
        (slice(0, 120), "in fold 1"),
        (slice(120, None), "outside fold 1"),
    ],
)
def test_a_linear_map_of_silence_alone_is_refused(silent: slice, where: str) -> None:
    student = separable(noise=3)
    mask = np.zeros(240, bool)
    mask[silent] = True
    teacher = Features(student.values, student.clip, student.position, mask)
    with pytest.raises(EdgeL3Error, match=f"windows with sound {where} .* all are silent"):
        map_cosine(clips(), student, teacher)


def test_the_command_names_a_class_that_one_fold_alone_has(tmp_path: Path) -> None:
    rows = [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2)]
    names = [f"{number}.wav" for number in range(len(rows))]
    lines = [f"{name}\t{label}\t{fold}" for name, (label, fold) in zip(names, rows, strict=True)]
    manifest = tmp_path / "m.tsv"
    manifest.write_text("\n".join(["file\tlabel\tfold", *lines]))
    path = write_embeddings(tmp_path / "e.npz", clip=names, embedding=np.eye(5))
    done = run("probe", "--manifest", manifest, "--embeddings", path, "--json")
    assert done.returncode == 0, done.stderr
    note = "fold 1: class 'c' cannot be recognised, no clip to learn from has it"
    assert json.loads(done.stdout)["notes"] == [note]
    assert note in run("probe", "--manifest", manifest, "--embeddings", path).stdout
    assert (
        json.loads(
            run("probe", "--manifest", manifest, "--embeddings", path, "--json", "--fold", 2).stdout
        )["notes"]
        == []
    )
    manifest.write_text("\n".join(["file\tlabel\tfold", *lines[1:4]]))
    # Folds are checked before clips are read: these do not exist.
    assert_one_error_line(
        run("probe", "--manifest", manifest, "--statistics", "sea"),
        "outside fold 1",
        "found 'a' alone",
    )


def test_a_linear_map_is_found_and_silence_is_left_out() -> None:
    student = separable(noise=3)
    matrix = np.random.default_rng(2).normal(0, 1, (CLASSES, 5))
    teacher = features(student.values @ matrix + 2)
    silent = np.zeros(240, bool)
    silent[::3] = True
    spoiled = teacher.values.copy()
    spoiled[silent] = -100
    teacher = Features(spoiled, teacher.clip, teacher.position, silent)
    # The ridge's penalty of 1 against 80 standardised rows shrinks the map by about 1 %.
    assert map_cosine(clips(), student, teacher) > 0.999


def test_a_map_is_not_fitted_on_the_fold_it_is_tested_on() -> None:
    student = features(np.random.default_rng(3).normal(0, 1, (240, 100)))
    teacher = features(np.random.default_rng(4).normal(0, 1, (240, 5)))
    # Cosines of unrelated directions in five dimensions: mean 0, deviation 0.45 / sqrt(240) = 0.03.
    assert abs(map_cosine(clips(), student, teacher)) < 0.15


def test_windows_that_only_one_side_has_are_left_out() -> None:
    student = separable(noise=1)
    teacher = features(student.values @ np.ones((CLASSES, 2)) + [1, 2])
    keep = teacher.position < WINDOWS - 1
    shorter = Features(
        teacher.values[keep], teacher.clip[keep], teacher.position[keep], teacher.silent[keep]
    )
    assert map_cosine(clips(), student, shorter) > 0.999


def test_statistics_are_mean_and_deviation_over_time() -> None:
    decibels = np.array([[[0, -2], [-4, -4]]], np.float32)
    np.testing.assert_array_equal(log_mel_statistics(decibels), [[-1, -4, 1, 0]])


def test_the_command_names_the_resampler(tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(4)]
    rng = np.random.default_rng(0)
    for name in names:
        soundfile.write(tmp_path / name, rng.normal(0, 0.1, 16000), 16000)
    lines = [f"{name}\t{'ab'[n % 2]}\t{n // 2}" for n, name in enumerate(names)]
    manifest = tmp_path / "m.tsv"
    manifest.write_text("\n".join(["file\tlabel\tfold", *lines]))
    done = run("probe", "--manifest", manifest, "--statistics", "sea", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resampler"] == "soxr"


def test_features_are_of_whole_windows_and_name_the_clips_that_were_padded(tmp_path: Path) -> None:
    corpus = []
    for name, samples in (("a", 15_000), ("b", 4000), ("c", 8000)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, samples), 8000)
        corpus.append(LabelledClip(path, name, 1))
    spec = find_variant("sea", embedding_size=64).frontend
    found = extract_features(corpus, spec, log_mel_statistics, ignore_progress)
    assert found.clip.tolist() == [0, 0, 1, 2]
    assert found.notes == ("shorter than a window of 1 s, so padded with zeros: 1 clips: b.wav",)


def test_a_manifest_is_read_relative_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("label\tfile\tnote\tfold\nrain\ta/b.ogg\tx\t3\n")
    assert read_manifest(path) == [LabelledClip(tmp_path / "a" / "b.ogg", "rain", 3)]


@pytest.mark.parametrize(
    "text",
    ["", "file\tlabel\nx\ty\n", "file\tlabel\tfold\n", "file\tlabel\tfold\nx\ty\tz\n", "\0"],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.tsv"
    path.write_text(text)
    with pytest.raises(AudioError, match=r"m\.tsv"):
        read_manifest(path)


PAIR = [LabelledClip(Path(f"corpus/{name}.wav"), name, 1) for name in "ab"]
MANIFEST = Path("corpus/m.tsv")


def write_embeddings(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_embeddings_come_in_the_order_of_the_clips(tmp_path: Path, dtype: Any) -> None:
    path = write_embeddings(
        tmp_path / "e.npz",
        clip=["b.wav", "a.wav", "other.wav", "./b.wav"],
        embedding=np.array([[1, 2], [3, 4], [5, 6], [7, 8]], dtype),
    )
    read = read_embeddings(path, MANIFEST, PAIR)
    np.testing.assert_array_equal(read.values, [[3, 4], [1, 2], [7, 8]])
    assert (read.clip.tolist(), read.position.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert read.values.dtype == np.float32
    assert not read.silent.any()


def test_embeddings_are_probed_as_features_are(tmp_path: Path) -> None:
    own = separable(noise=0.1)
    names = [f"{number}.wav" for number in own.clip]
    path = write_embeddings(tmp_path / "e.npz", clip=names, embedding=own.values)
    read = read_embeddings(path, Path("m.tsv"), clips())
    assert probe(clips(), read) == probe(clips(), own)


TWO = ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"clip": TWO}, "embedding.npy"),
        ({"embedding": np.ones((2, 3))}, "clip.npy"),
        ({"clip": TWO, "embedding": np.ones((2, 3), int)}, "int64"),
        ({"clip": TWO, "embedding": np.ones(2)}, r"\(2,\)"),
        ({"clip": TWO, "embedding": np.ones((3, 3))}, "each row"),
        ({"clip": TWO, "embedding": np.ones((2, 0))}, "each row"),
        ({"clip": [0, 1], "embedding": np.ones((2, 3))}, "text"),
        ({"clip": [b"a.wav", b"b.wav"], "embedding": np.ones((2, 3))}, "text"),
        ({"clip": TWO, "embedding": np.full((2, 3), np.nan)}, "finite"),
        ({"clip": TWO, "embedding": np.full((2, 3), 1e300)}, "finite"),
        ({"clip": ["a.wav", "B.wav"], "embedding": np.ones((2, 3))}, "1 of 2 .* b.wav"),
        ({"clip": np.array(TWO, object), "embedding": np.ones((2, 3))}, "allow_pickle"),
    ],
)
def test_malformed_embeddings_are_refused(
    tmp_path: Path, arrays: dict[str, Any], part: str
) -> None:
    path = write_embeddings(tmp_path / "e.npz", **arrays)
    with pytest.raises(EdgeL3Error, match=rf"e\.npz: .*{part}"):
        read_embeddings(path, MANIFEST, PAIR)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_cut_file_of_embeddings_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_embeddings(tmp_path / "e.npz", clip=TWO, embedding=np.ones((2, 3)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EdgeL3Error, match=r"e\.npz: expected an \.npz file"):
        read_embeddings(path, MANIFEST, PAIR)


def test_a_header_that_claims_a_huge_shape_is_refused(tmp_path: Path) -> None:
    path = write_embeddings(tmp_path / "e.npz", clip=TWO, embedding=np.ones((2, 3)))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["embedding.npy"] = members["embedding.npy"].replace(
        b"(2, 3), }          ", b"(2, 1000000000000)}"
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(EdgeL3Error, match=r"e\.npz: expected an \.npz file"):
        read_embeddings(path, MANIFEST, PAIR)


def test_an_array_over_the_bound_is_refused_before_it_unpacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_embeddings(tmp_path / "e.npz", clip=TWO, embedding=np.ones((2, 300)))
    monkeypatch.setattr("edgel3_tflm.evaluation.probe._MAX_ARRAY_BYTES", 4800)
    with pytest.raises(EdgeL3Error, match="at most 4800 bytes, found 4928"):
        read_embeddings(path, MANIFEST, PAIR)
