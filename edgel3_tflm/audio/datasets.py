"""Labelled datasets with their official splits.

Tables and audio are read as their authors publish them, in the layout that soundata unpacks.
soundata is used for the download only: it cannot load a dataset from disk without its own index,
which is a further download, and it does not have SONYC-UST.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from logging import NullHandler, getLogger
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.manifest import (
    LABEL_SEPARATOR,
    LabelledClip,
    read_manifest,
    read_rows,
    split_labels,
)
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError, install_hint
from edgel3_tflm.networks.published import Task
from edgel3_tflm.types import IntArray

DATASETS: tuple[Task, ...] = ("esc50", "urbansound8k", "sonyc-ust")
MANIFEST_NAME = "manifest.tsv"
"""A directory with a file of this name is a dataset of the user."""

_SONYC_TABLE = "annotations.csv"
_SONYC_SPLITS = ("train", "validate", "test")
_PRESENCE = "_presence"
_GROUND_TRUTH = 0


@dataclass(frozen=True)
class Split:
    """Training set, validation set and test set: indices of clips, shape (n,), without overlap.

    The validation set decides when training stops. It may be empty.
    """

    name: str
    train: IntArray
    validate: IntArray
    test: IntArray

    def __post_init__(self) -> None:
        parts = np.concatenate([self.train, self.validate, self.test])
        if len(np.unique(parts)) < len(parts):
            raise ValueError(f"{self.name}: expected no clip in two parts of a split")


@dataclass(frozen=True)
class Dataset:
    """Clips with their labels and their splits.

    Parameters
    ----------
    name : str
    task : {'esc50', 'urbansound8k', 'sonyc-ust'}, optional
        The published results to compare with; None for a dataset of the user.
    clips : tuple of LabelledClip
    labels : tuple of str
        All labels, sorted.
    multi_label : bool
        Whether a clip may have no label or several.
    splits : tuple of Split
    """

    name: str
    task: Task | None
    clips: tuple[LabelledClip, ...]
    labels: tuple[str, ...]
    multi_label: bool
    splits: tuple[Split, ...]

    @property
    def targets(self) -> npt.NDArray[np.bool_]:
        """Whether a clip has a label: booleans, shape (clips, labels)."""
        own = [split_labels(clip.label) for clip in self.clips]
        return np.array([[label in each for label in self.labels] for each in own])


def load_dataset(name: str, data_home: Path | None = None, *, download: bool = False) -> Dataset:
    """Load ESC-50 or UrbanSound8K with their folds, SONYC-UST with its split, or a directory.

    A dataset with folds has one split for each fold: this fold is the test set, the fold before it
    is the validation set (for the first fold, the last one), and the others are the training set.
    L3-Net's authors split in this way. With two folds there is no validation set. SONYC-UST has its
    own training, validation and test set.

    Parameters
    ----------
    name : str
        One of ``DATASETS``, or a directory with a ``manifest.tsv`` for
        :func:`edgel3_tflm.audio.manifest.read_manifest`. Semicolons separate several labels of a
        clip.
    data_home : pathlib.Path, optional
        The directory of a dataset in ``DATASETS``; soundata's directory if not given.
    download : bool
        Let soundata download the dataset first.

    Raises
    ------
    EdgeL3Error
        If the dataset is missing or damaged, lacks clips, has a clip in two folds, has only one
        fold, or cannot be downloaded.
    """
    if name not in DATASETS:
        if data_home is not None or download:
            raise EdgeL3Error(
                f"expected --data-home and --download only with {', '.join(DATASETS)}, got the"
                f" directory {name}"
            )
        dataset = _load_directory(Path(name))
    else:
        home = data_home or default_home(name)
        if download:
            _download(name, home)
        dataset = _LOADERS[name](home)
    missing = [clip.path for clip in dataset.clips if not clip.path.is_file()]
    if missing:
        raise EdgeL3Error(
            f"{name}: expected the audio of {len(dataset.clips)} clips, {len(missing)} missing,"
            f" the first is {missing[0]}; restore the missing files"
        )
    for split in dataset.splits:
        if not dataset.targets[split.test].any():
            raise EdgeL3Error(f"{name}: {split.name}: expected a label in the test set, found none")
    return dataset


def default_home(name: str) -> Path:
    """Return the directory in which soundata keeps a dataset."""
    return Path.home() / "sound_datasets" / name


def _download(name: str, home: Path) -> None:
    if name == "sonyc-ust":
        raise EdgeL3Error(
            "soundata does not fetch sonyc-ust: unpack annotations.csv and the audio archives of"
            f" https://doi.org/10.5281/zenodo.3966543 into {home}, then leave out --download"
        )
    getLogger().addHandler(NullHandler())  # else soundata sets up logging to the terminal
    import tarfile
    import zipfile
    from http.client import HTTPException

    try:
        import urllib.request  # noqa: F401 - soundata 1.0.1 uses it and does not import it

        import soundata
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"fetching {name} needs soundata; {install_hint('evaluate')}"
        ) from error
    try:
        soundata.initialize(name, data_home=str(home)).download(partial_download=["all"])
    except (OSError, EOFError, HTTPException, zipfile.BadZipFile, tarfile.TarError) as error:
        raise EdgeL3Error(
            f"{name}: soundata could not fetch it into {home}: {error}; fetch and unpack it there"
            " yourself, then leave out --download"
        ) from error


def _load_directory(directory: Path) -> Dataset:
    path = directory / MANIFEST_NAME
    if not path.is_file():
        raise EdgeL3Error(
            f"{directory}: expected {', '.join(DATASETS)} or a directory with a {MANIFEST_NAME}"
            " (tab-separated columns file, label and fold)"
        )
    return _with_folds(str(directory), None, read_manifest(path))


def _find_table(home: Path, name: str, title: str) -> Path:
    path = home / name
    if not path.is_file():
        raise EdgeL3Error(
            f"{home}: expected {title} here, its {name} is missing; unpack it there, give another"
            " directory with --data-home, or try --download"
        )
    return path


def _load_esc50(home: Path) -> Dataset:
    path = _find_table(home, "meta/esc50.csv", "ESC-50")
    rows = read_rows(path, ("filename", "fold", "category"), delimiter=",")
    clips = [
        LabelledClip(home / "audio" / row["filename"], row["category"], row.read_int("fold"))
        for row in rows
    ]
    return _with_folds("esc50", "esc50", clips)


def _load_urbansound8k(home: Path) -> Dataset:
    path = _find_table(home, "metadata/UrbanSound8K.csv", "UrbanSound8K")
    rows = read_rows(path, ("slice_file_name", "fold", "class"), delimiter=",")
    clips = [
        LabelledClip(
            home / "audio" / f"fold{row['fold']}" / row["slice_file_name"],
            row["class"],
            row.read_int("fold"),
        )
        for row in rows
    ]
    return _with_folds("urbansound8k", "urbansound8k", clips)


def _load_sonyc_ust(home: Path) -> Dataset:
    """Load SONYC-UST with its coarse labels, as in the authors' baseline for DCASE 2020 Task 5.

    In the training set, a recording has a label if at least one volunteer heard it. The other two
    sets have the labels that the authors agreed on (annotator 0), without the recordings that lack
    them.
    """
    path = _find_table(home, _SONYC_TABLE, "SONYC-UST")
    rows = list(read_rows(path, ("split", "audio_filename", "annotator_id"), delimiter=","))
    # The names of coarse labels begin with 3_, those of fine labels with 3-2_, for example.
    columns = [
        name
        for name in rows[0].fields
        if name.endswith(_PRESENCE) and name.split("_")[0].isdecimal()
    ]
    if not columns:
        raise EdgeL3Error(f"{path}: expected coarse labels, columns such as 1_engine_presence")
    heard: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row["split"] not in _SONYC_SPLITS:
            raise EdgeL3Error(
                f"{path}: expected a split of {', '.join(_SONYC_SPLITS)}, found {row['split']!r}"
            )
        annotator = row.read_int("annotator_id")
        if annotator > _GROUND_TRUTH if row["split"] == "train" else annotator == _GROUND_TRUTH:
            labels = heard.setdefault((row["split"], row["audio_filename"]), set())
            labels |= {name.removesuffix(_PRESENCE) for name in columns if row[name] == "1"}
    # Archives unpack into audio/ or into folders of their own, depending on the version.
    audio = {each.name: each for each in home.rglob("*.wav")}
    clips = [
        LabelledClip(
            audio.get(name, home / "audio" / name),
            LABEL_SEPARATOR.join(sorted(labels)),
            _SONYC_SPLITS.index(split),
        )
        for (split, name), labels in sorted(heard.items())
    ]
    _refuse_leaks(path, clips)
    folds = np.array([clip.fold for clip in clips])
    parts = [np.flatnonzero(folds == number) for number in range(len(_SONYC_SPLITS))]
    for part, wanted in zip(parts, _SONYC_SPLITS, strict=True):
        if len(part) == 0:
            raise EdgeL3Error(f"{path}: expected recordings to {wanted}, found none")
    return Dataset(
        "sonyc-ust",
        "sonyc-ust",
        tuple(clips),
        tuple(sorted(name.removesuffix(_PRESENCE) for name in columns)),
        True,
        (Split("test", *parts),),
    )


_LOADERS = {
    "esc50": _load_esc50,
    "urbansound8k": _load_urbansound8k,
    "sonyc-ust": _load_sonyc_ust,
}


def _with_folds(name: str, task: Task | None, clips: Sequence[LabelledClip]) -> Dataset:
    _refuse_leaks(name, clips)
    own = [split_labels(clip.label) for clip in clips]
    folds = np.array([clip.fold for clip in clips])
    known = sorted(set(folds.tolist()))
    if len(known) < 2:
        raise EdgeL3Error(
            f"{name}: expected clips in at least two folds, found only fold {known[0]}"
        )
    splits = []
    for position, fold in enumerate(known):
        test = folds == fold
        validate = folds == known[position - 1] if len(known) > 2 else np.zeros(len(folds), bool)
        train = np.flatnonzero(~(test | validate))
        if len({label for clip in train for label in own[clip]}) < 2:
            raise EdgeL3Error(
                f"{name}: fold {fold}: expected at least two classes in the training set"
            )
        splits.append(Split(f"fold {fold}", train, np.flatnonzero(validate), np.flatnonzero(test)))
    return Dataset(
        name,
        task,
        tuple(clips),
        tuple(sorted({label for each in own for label in each})),
        any(len(each) != 1 for each in own),
        tuple(splits),
    )


def _refuse_leaks(name: object, clips: Sequence[LabelledClip]) -> None:
    """Refuse a clip in two folds: it would be in a training set and in its test set."""
    seen: dict[Path, LabelledClip] = {}
    for clip in clips:
        before = seen.setdefault(clip.path.resolve(), clip)
        if before.fold != clip.fold:
            raise EdgeL3Error(
                f"{name}: {clip.path.name} is in the folds {before.fold} and {clip.fold}, expected"
                " it in one"
            )
