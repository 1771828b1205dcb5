"""Datasets with official splits, read from small look-alikes in their authors' layout."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from edgel3_tflm.audio.datasets import Dataset, Split, load_dataset
from edgel3_tflm.errors import EdgeL3Error

ESC50_HEADER = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
US8K_HEADER = (
    "slice_file_name",
    "fsID",
    "start",
    "end",
    "salience",
    "fold",
    "classID",
    "class",
)
SONYC_COARSE = ("1_engine_presence", "2_machinery-impact_presence", "8_dog_presence")
SONYC_HEADER = (
    "split",
    "sensor_id",
    "audio_filename",
    "annotator_id",
    "1-1_small-sounding-engine_presence",
    *SONYC_COARSE,
    "1_engine_proximity",
)


def write_table(path: Path, *rows: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def esc50(tmp_path: Path) -> Path:
    """Two clips of each of two classes in five folds."""
    rows = []
    for fold in range(1, 6):
        for take in "AB":
            for target, category in ((0, "dog"), (49, "hand_saw")):
                name = f"{fold}-{fold}00{target}-{take}-{target}.wav"
                rows.append((name, fold, target, category, target == 0, f"{fold}00", take))
                touch(tmp_path / "audio" / name)
    write_table(tmp_path / "meta" / "esc50.csv", ESC50_HEADER, *rows)
    return tmp_path


@pytest.fixture
def urbansound8k(tmp_path: Path) -> Path:
    """A clip of each of two classes in ten folds."""
    rows = []
    for fold in range(1, 11):
        for number, label in ((3, "dog_bark"), (8, "siren")):
            name = f"{100 + fold}-{number}-0-0.wav"
            rows.append((name, 100 + fold, 0.0, 4.0, 1, fold, number, label))
            touch(tmp_path / "audio" / f"fold{fold}" / name)
    write_table(tmp_path / "metadata" / "UrbanSound8K.csv", US8K_HEADER, *rows)
    return tmp_path


def sonyc_row(split: str, name: str, annotator: int, *presence: int) -> tuple[object, ...]:
    return (split, 5, name, annotator, -1, *presence, "near")


@pytest.fixture
def sonyc_ust(tmp_path: Path) -> Path:
    rows = [
        sonyc_row("train", "01_1.wav", 31, 1, 0, 0),
        sonyc_row("train", "01_1.wav", 32, 0, 1, 0),
        sonyc_row("train", "01_1.wav", 33, 0, 0, 0),
        sonyc_row("train", "01_1.wav", 0, 0, 0, 1),  # verified, which training does not use
        sonyc_row("train", "01_2.wav", 31, 0, 0, 0),
        sonyc_row("validate", "02_1.wav", 31, 1, 1, 1),
        sonyc_row("validate", "02_1.wav", -2, 1, 1, 1),
        sonyc_row("validate", "02_1.wav", 0, 0, 1, 0),
        sonyc_row("validate", "02_2.wav", 31, 1, 1, 1),  # nobody verified it
        sonyc_row("test", "03_1.wav", 0, 1, 0, -1),
    ]
    write_table(tmp_path / "annotations.csv", SONYC_HEADER, *rows)
    touch(tmp_path / "audio" / "01_1.wav")
    touch(tmp_path / "audio" / "01_2.wav")
    touch(tmp_path / "audio-1" / "02_1.wav")
    touch(tmp_path / "03_1.wav")
    return tmp_path


def names_of(dataset: Dataset, part: np.ndarray) -> set[str]:
    return {dataset.clips[each].path.name for each in part}


def assert_official(dataset: Dataset, folds: int) -> None:
    """Every clip is tested once, in its own fold, and is in no other part of that split."""
    assert [split.name for split in dataset.splits] == [f"fold {n}" for n in range(1, folds + 1)]
    tested = np.concatenate([split.test for split in dataset.splits])
    assert sorted(tested.tolist()) == list(range(len(dataset.clips)))
    for number, split in enumerate(dataset.splits, start=1):
        before = number - 1 or folds
        in_folds = [
            {dataset.clips[each].fold for each in part}
            for part in (split.test, split.validate, split.train)
        ]
        assert in_folds == [{number}, {before}, set(range(1, folds + 1)) - {number, before}]
        assert len(split.test) + len(split.validate) + len(split.train) == len(dataset.clips)


def test_esc_50_has_its_five_folds(esc50: Path) -> None:
    dataset = load_dataset("esc50", esc50)
    assert_official(dataset, 5)
    assert (dataset.labels, dataset.multi_label) == (("dog", "hand_saw"), False)
    for clip in dataset.clips:
        fold, _, _, target = clip.path.stem.split("-")
        assert (clip.fold, clip.label) == (int(fold), {"0": "dog", "49": "hand_saw"}[target])


def test_urbansound8k_has_its_ten_folds(urbansound8k: Path) -> None:
    dataset = load_dataset("urbansound8k", urbansound8k)
    assert_official(dataset, 10)
    assert dataset.labels == ("dog_bark", "siren")
    assert all(clip.path.parent.name == f"fold{clip.fold}" for clip in dataset.clips)


@pytest.mark.parametrize(
    ("name", "label"), [("esc50", "category"), ("urbansound8k", "class_label")]
)
def test_what_is_read_is_what_soundata_reads(
    name: str, label: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    import soundata

    home = request.getfixturevalue(name)
    ours = {clip.path: clip for clip in load_dataset(name, home).clips}
    theirs = soundata.initialize(name, data_home=str(home))
    # Its own index is a download; this one lists the look-alike.
    clips = {path.stem: {"audio": [str(path.relative_to(home)), None]} for path in ours}
    theirs.index_path = tmp_path / "index.json"
    theirs.index_path.write_text(json.dumps({"clips": clips}))
    loaded = theirs.load_clips()
    assert len(loaded) == len(ours)
    for each in loaded.values():
        own = ours[Path(each.audio_path)]
        assert (own.fold, own.label) == (each.fold, getattr(each, label))


def test_sonyc_ust_has_its_own_split_and_coarse_labels(sonyc_ust: Path) -> None:
    dataset = load_dataset("sonyc-ust", sonyc_ust)
    assert dataset.multi_label
    assert dataset.labels == ("1_engine", "2_machinery-impact", "8_dog")
    (split,) = dataset.splits
    assert names_of(dataset, split.train) == {"01_1.wav", "01_2.wav"}
    assert names_of(dataset, split.validate) == {"02_1.wav"}
    assert names_of(dataset, split.test) == {"03_1.wav"}
    by_name = {
        clip.path.name: row.tolist()
        for clip, row in zip(dataset.clips, dataset.targets, strict=True)
    }
    assert by_name == {
        "01_1.wav": [True, True, False],
        "01_2.wav": [False, False, False],
        "02_1.wav": [False, True, False],
        "03_1.wav": [True, False, False],
    }


Manifest = Callable[..., Path]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Write a directory with a manifest."""

    def write(*rows: tuple[str, str, int]) -> Path:
        for name, _, _ in rows:
            touch(tmp_path / name)
        lines = ["file\tlabel\tfold", *("\t".join(map(str, row)) for row in rows)]
        (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


def test_a_directory_with_two_folds_has_no_validation(manifest: Manifest) -> None:
    rows = [(f"{fold}{label}.wav", label, fold) for fold in (1, 7) for label in "ab"]
    dataset = load_dataset(str(manifest(*rows)))
    assert [split.name for split in dataset.splits] == ["fold 1", "fold 7"]
    assert [len(split.validate) for split in dataset.splits] == [0, 0]
    assert not dataset.multi_label


def test_several_labels_or_none_make_a_directory_multi_label(manifest: Manifest) -> None:
    rows = [("1.wav", "a; b", 1), ("2.wav", "", 1), ("3.wav", "b;a", 2), ("4.wav", "c", 2)]
    dataset = load_dataset(str(manifest(*rows)))
    assert (dataset.labels, dataset.multi_label) == (("a", "b", "c"), True)
    assert dataset.targets.sum(axis=1).tolist() == [2, 0, 2, 1]


def test_a_clip_in_two_folds_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    rows = [("1.wav", "a", 1), ("2.wav", "b", 1), ("link.wav", "a", 2), ("3.wav", "b", 2)]
    (tmp_path / "link.wav").symlink_to(tmp_path / "1.wav")
    with pytest.raises(EdgeL3Error, match=r"link\.wav is in the folds 1 and 2"):
        load_dataset(str(manifest(*rows)))


def test_a_recording_in_two_parts_of_a_split_is_refused(sonyc_ust: Path) -> None:
    with (sonyc_ust / "annotations.csv").open("a", newline="") as file:
        csv.writer(file).writerow(sonyc_row("test", "02_1.wav", 0, 1, 0, 0))
    with pytest.raises(EdgeL3Error, match=r"02_1\.wav is in the folds"):
        load_dataset("sonyc-ust", sonyc_ust)


def test_a_split_does_not_take_a_clip_twice() -> None:
    empty = np.array([], np.int64)
    with pytest.raises(ValueError, match="no clip in two parts"):
        Split("fold 1", np.array([0, 1]), empty, np.array([1]))


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([("1.wav", "a", 3), ("2.wav", "b", 3)], "found only fold 3"),
        (
            [("1.wav", "a", 1), ("2.wav", "a", 2)],
            "fold 1: expected at least two classes in the training set",
        ),
        (
            [("1.wav", "a", 1), ("2.wav", "b", 2)],
            "fold 1: expected at least two classes in the training set",
        ),
        (
            [("1.wav", "", 1), *((f"{fold}.wav", "a;b", fold) for fold in (2, 3, 4))],
            "fold 1: expected a label in the test set, found none",
        ),
    ],
)
def test_folds_that_judge_nothing_are_refused(
    manifest: Manifest, rows: list[tuple[str, str, int]], part: str
) -> None:
    with pytest.raises(EdgeL3Error, match=part):
        load_dataset(str(manifest(*rows)))


def test_a_missing_clip_is_named(esc50: Path) -> None:
    (esc50 / "audio" / "3-3000-A-0.wav").unlink()
    with pytest.raises(EdgeL3Error, match=r"20 clips, 1 missing, .*3-3000-A-0\.wav; restore"):
        load_dataset("esc50", esc50)


@pytest.mark.parametrize("name", ["esc50", "urbansound8k", "sonyc-ust"])
def test_a_wrong_home_says_where_to_put_the_data(name: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeL3Error, match=rf"{tmp_path}: expected .*--data-home.*--download"):
        load_dataset(name, tmp_path)


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeL3Error, match=r"esc50, urbansound8k, sonyc-ust or a directory with"):
        load_dataset(str(tmp_path))


def test_a_directory_has_no_other_home_and_no_download(manifest: Manifest, tmp_path: Path) -> None:
    directory = str(manifest(("1.wav", "a", 1), ("2.wav", "b", 2)))
    with pytest.raises(EdgeL3Error, match="expected --data-home and --download only with esc50"):
        load_dataset(directory, tmp_path)
    with pytest.raises(EdgeL3Error, match="expected --data-home and --download only with esc50"):
        load_dataset(directory, download=True)


@pytest.mark.parametrize(
    ("header", "row", "part"),
    [
        (("filename", "category"), ("a.wav", "dog"), "comma-separated columns,.*missing: fold"),
        (
            ("filename", "fold", "category"),
            ("a.wav", "x", "dog"),
            "whole number, found fold 'x' in line 2",
        ),
        (("filename", "fold", "category"), ("a.wav", 1), "3 columns in line 2, found 2"),
    ],
)
def test_a_damaged_table_is_refused(
    tmp_path: Path, header: Sequence[str], row: Sequence[object], part: str
) -> None:
    write_table(tmp_path / "meta" / "esc50.csv", header, row)
    with pytest.raises(EdgeL3Error, match=rf"esc50\.csv: .*{part}"):
        load_dataset("esc50", tmp_path)


@pytest.mark.parametrize(
    ("header", "rows", "part"),
    [
        (SONYC_HEADER[:4], [("train", 1, "a.wav", 1)], "coarse labels"),
        (SONYC_HEADER, [sonyc_row("train", "a.wav", 1, 0, 0, 0)], "recordings to validate"),
        (SONYC_HEADER, [sonyc_row("other", "a.wav", 1, 0, 0, 0)], "found 'other'"),
    ],
)
def test_damaged_annotations_are_refused(
    tmp_path: Path, header: Sequence[str], rows: list[Sequence[object]], part: str
) -> None:
    write_table(tmp_path / "annotations.csv", header, *rows)
    with pytest.raises(EdgeL3Error, match=rf"annotations\.csv: .*{part}"):
        load_dataset("sonyc-ust", tmp_path)


def test_soundata_fetches_the_audio_and_not_its_index(
    esc50: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundata

    asked = []

    class Fetcher:
        def download(self, partial_download: list[str]) -> None:
            asked.append(partial_download)

    monkeypatch.setattr(soundata, "initialize", lambda *_, **__: Fetcher())
    assert len(load_dataset("esc50", esc50, download=True).clips) == 20
    assert asked == [["all"]]
    load_dataset("esc50", esc50)
    assert asked == [["all"]]  # only when it is asked for


def test_a_fetch_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlretrieve", refuse)
    with pytest.raises(EdgeL3Error, match=r"esc50: soundata could not fetch .*no network.*unpack"):
        load_dataset("esc50", tmp_path, download=True)


def test_what_soundata_has_not_is_said_where_to_get(tmp_path: Path) -> None:
    with pytest.raises(EdgeL3Error, match=r"https://doi\.org/10\.5281/zenodo\.3966543 into"):
        load_dataset("sonyc-ust", tmp_path, download=True)
