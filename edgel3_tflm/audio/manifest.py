"""A labelled corpus: clips with their classes and folds, from a manifest."""

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgel3_tflm.audio.clips import is_audio_file
from edgel3_tflm.errors import AudioError, EdgeL3Error

HOP_S = 0.5
"""Seconds from one window to the next, unless somebody chooses."""
LABEL_SEPARATOR = ";"
"""Between the labels of a clip that has several."""
_LONGEST_LINE = 80


@dataclass(frozen=True)
class LabelledClip:
    """One row of a manifest."""

    path: Path
    label: str
    fold: int


def split_labels(label: str) -> tuple[str, ...]:
    """Labels of a clip: its manifest's column, split at semicolons; none if it is empty."""
    return tuple(part.strip() for part in label.split(LABEL_SEPARATOR) if part.strip())


def read_manifest(path: Path) -> list[LabelledClip]:
    """Read a tab-separated manifest with the columns file, label and fold.

    Files are relative to the manifest; other columns are left alone.

    Raises
    ------
    AudioError
        If the manifest cannot be read, lacks a column, a row is damaged or a file is named twice.
    """
    rows = read_rows(path, ("file", "label", "fold"), delimiter="\t")
    return [
        LabelledClip(path.parent / row["file"], row["label"], row.read_int("fold"))
        for row in _check_files(path, rows)
    ]


def require_files(clips: Sequence[LabelledClip], manifest: Path) -> None:
    """Check that the clips of a manifest are there, before anything takes long.

    Raises
    ------
    AudioError
        If some are not.
    """
    missing = [clip.path for clip in clips if not clip.path.is_file()]
    if missing:
        raise AudioError(
            f"{manifest}: {len(missing)} of {len(clips)} clips are missing, the first is"
            f" {missing[0]}; restore them, or remove their rows"
        )


def read_files(path: Path) -> list[str]:
    """Read which files a manifest names, as it names them; it may have no labels.

    Parameters
    ----------
    path : pathlib.Path
        A tab-separated table with a column ``file``, or a list: a text file with a file a line. It
        is a list if its first line names a file that exists, or could name an audio file.

    Raises
    ------
    AudioError
        If the manifest is neither or cannot be read, a row is damaged or a file is named twice.
    """
    first = next(_read_lines(path), None)
    if first is None:
        raise _empty(path)
    if "file" in first["file"].split("\t"):
        rows = read_rows(path, ("file",), delimiter="\t")
    elif _may_name_a_file(path, first["file"]):
        rows = _read_lines(path)
    else:
        raise AudioError(
            f"{path}: expected tab-separated columns, among them file, or a list of audio files,"
            f" one a line; the first line is {_shorten(first['file'])}"
        )
    return [row["file"] for row in _check_files(path, rows)]


@dataclass(frozen=True, slots=True)  # there may be a million
class Row:
    """A row of a table; ``row[column]`` is its text in that column.

    ``line`` is where it begins, counted from 1.
    """

    table: Path
    line: int
    fields: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        """Return the text in a column."""
        return self.fields[column]

    def read_int(self, column: str) -> int:
        """Return the whole number in a column.

        Raises
        ------
        AudioError
            If it is none.
        """
        try:
            return int(self[column])
        except ValueError as error:
            raise AudioError(
                f"{self.table}: expected a whole number, found {column} {self[column]!r} in line"
                f" {self.line}"
            ) from error


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str) -> Iterator[Row]:
    """Read a table whose first line names its columns.

    Parameters
    ----------
    path : pathlib.Path
    columns : sequence of str
        Those that must be there; others may be.
    delimiter : str
        A comma or a tab.

    Yields
    ------
    Row
        At least one.

    Raises
    ------
    AudioError
        If the table cannot be read, lacks a column or rows, or a row has not as many columns as the
        first line.
    """
    line = 1
    rows = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names: list[str] = []
            for values in reader:
                if not names:
                    names = values
                    _check_columns(path, columns, names, delimiter)
                elif values:
                    if len(values) != len(names):
                        raise AudioError(
                            f"{path}: expected {len(names)} columns in line {line}, found"
                            f" {len(values)}"
                        )
                    rows += 1
                    yield Row(path, line, dict(zip(names, values, strict=True)))
                line = reader.line_num + 1
    except csv.Error as error:
        raise AudioError(f"{path}: cannot read line {line}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if not rows:
        raise _empty(path)


def _check_columns(
    path: Path, columns: Sequence[str], names: Sequence[str], delimiter: str
) -> None:
    if names and (missing := sorted(set(columns) - set(names))):
        kind = "tab" if delimiter == "\t" else "comma"
        raise AudioError(
            f"{path}: expected {kind}-separated columns, among them {', '.join(columns)}; missing:"
            f" {', '.join(missing)}; the first line is {_shorten(delimiter.join(names))}"
        )


def _read_lines(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield Row(path, line, {"file": text.rstrip("\n")})
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _may_name_a_file(path: Path, name: str) -> bool:
    if os.path.isfile(path.parent / name):  # noqa: PTH113 - Path's raises if the name is too long
        return True
    return is_audio_file(Path(name)) and not set("\t,;") & set(name)


def _check_files(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Pass on rows that name a file, each another one."""
    seen: dict[str, int] = {}
    for row in rows:
        if not row["file"].strip() or "\0" in row["file"]:
            raise AudioError(
                f"{path}: expected a file in line {row.line}, found {_shorten(row['file'])}"
            )
        before = seen.setdefault(str(path.parent / row["file"]), row.line)
        if before != row.line:
            raise AudioError(
                f"{path}: expected each clip once, {row['file']} is in lines {before} and"
                f" {row.line}; remove one"
            )
        yield row


def _unreadable(path: Path, error: Exception) -> AudioError:
    return AudioError(f"{path}: cannot read the manifest: {error}")


def _empty(path: Path) -> AudioError:
    return AudioError(f"{path}: expected clips, the manifest has no rows")


def _shorten(line: str) -> str:
    return repr(line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "...")


def list_folds(clips: Sequence[LabelledClip], wanted: Sequence[int] | None = None) -> list[int]:
    """Return the folds of clips, sorted, or those wanted of them, each once.

    Raises
    ------
    EdgeL3Error
        If no clip is in a fold that is wanted.
    """
    known = sorted({clip.fold for clip in clips})
    for fold in wanted or ():
        if fold not in known:
            there = f"one of the folds {', '.join(map(str, known))}" if known else "labelled clips"
            raise EdgeL3Error(f"no clip is in fold {fold}, expected {there}")
    return list(dict.fromkeys(wanted)) if wanted else known


def split_by_fold(
    clips: Sequence[LabelledClip], folds: Iterable[int]
) -> list[tuple[str, list[int], list[int]]]:
    """Return for each fold its name, and the indices of the clips outside it and in it."""
    return [
        (
            f"fold {fold}",
            [index for index, clip in enumerate(clips) if clip.fold != fold],
            [index for index, clip in enumerate(clips) if clip.fold == fold],
        )
        for fold in folds
    ]


def note_unlearned_classes(
    labels: Sequence[Collection[str]], splits: Iterable[tuple[str, Iterable[int], Iterable[int]]]
) -> tuple[str, ...]:
    """Return a sentence for each class that clips to judge have and no clip to learn from has.

    Parameters
    ----------
    labels : sequence of collection of str
        Of each clip.
    splits : iterable of (str, iterable of int, iterable of int)
        A split's name, and the indices of the clips to learn from and to judge.
    """
    notes = []
    for name, train, test in splits:
        learned = {label for index in train for label in labels[index]}
        judged = {label for index in test for label in labels[index]}
        notes += [
            f"{name}: class {label!r} cannot be recognised, no clip to learn from has it"
            for label in sorted(judged - learned)
        ]
    return tuple(notes)
