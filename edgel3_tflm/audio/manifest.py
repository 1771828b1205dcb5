"""Manifests of corpora: tables of clips with labels and folds, and lists of clips."""

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgel3_tflm.audio.clips import is_audio_file
from edgel3_tflm.errors import AudioError, EdgeL3Error

HOP_S = 0.5
"""Default number of seconds from one window to the next."""
LABEL_SEPARATOR = ";"
"""Separates the labels of a clip that has several."""
_LONGEST_LINE = 80


@dataclass(frozen=True)
class LabelledClip:
    """One row of a manifest."""

    path: Path
    label: str
    fold: int


def split_labels(label: str) -> tuple[str, ...]:
    """Return the labels in the column ``label`` of a manifest: none, one, or several."""
    return tuple(part.strip() for part in label.split(LABEL_SEPARATOR) if part.strip())


def read_manifest(path: Path) -> list[LabelledClip]:
    """Read a tab-separated manifest with the columns file, label and fold.

    Files are relative to the manifest. Other columns are ignored.

    Raises
    ------
    AudioError
        If the manifest cannot be read or lacks a column, if a row is damaged, or if two rows name
        the same file.
    """
    rows = read_rows(path, ("file", "label", "fold"), delimiter="\t")
    return [
        LabelledClip(path.parent / row["file"], row["label"], row.read_int("fold"))
        for row in _check_files(path, rows)
    ]


def require_files(clips: Sequence[LabelledClip], manifest: Path) -> None:
    """Check that the clips of a manifest exist, before a long computation starts.

    Raises
    ------
    AudioError
        If a clip is missing.
    """
    missing = [clip.path for clip in clips if not clip.path.is_file()]
    if missing:
        raise AudioError(
            f"{manifest}: {len(missing)} of {len(clips)} clips are missing, the first is"
            f" {missing[0]}; restore them, or remove their rows"
        )


def read_files(path: Path) -> list[str]:
    """Return the files in a manifest, as they are written there; labels are not needed.

    Parameters
    ----------
    path : pathlib.Path
        A tab-separated table with a column ``file``, or a list: a text file with one file a line.
        It is a list if its first line is the path of a file, or has the suffix of an audio file.

    Raises
    ------
    AudioError
        If the manifest is neither or cannot be read, if a row is damaged, or if two rows name the
        same file.
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


@dataclass(frozen=True, slots=True)  # slots: a table may have a million rows
class Row:
    """A row of a table; ``row[column]`` is the text in a column.

    ``line`` is the number of the row's first line, counted from 1.
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
            If the text is no whole number.
        """
        try:
            return int(self[column])
        except ValueError as error:
            raise AudioError(
                f"{self.table}: expected a whole number, found {column} {self[column]!r} in line"
                f" {self.line}"
            ) from error


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str) -> Iterator[Row]:
    """Read a table whose first line has the names of its columns.

    Parameters
    ----------
    path : pathlib.Path
    columns : sequence of str
        Columns that the table must have. It may have others.
    delimiter : str
        A comma or a tab.

    Yields
    ------
    Row
        At least one.

    Raises
    ------
    AudioError
        If the table cannot be read, lacks a column, or has no rows, or if a row has another number
        of columns than the first line.
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
    """Yield the rows; refuse a row without a file, and a file that a row before has."""
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
    """Return the folds of clips, sorted, or the wanted folds, each once.

    Raises
    ------
    EdgeL3Error
        If a wanted fold has no clip.
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
    """Return for each fold its name, the indices of the clips outside it, and of those in it."""
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
    """Return a sentence for each class that occurs in the test clips but not in the training clips.

    Parameters
    ----------
    labels : sequence of collection of str
        The labels of each clip.
    splits : iterable of (str, iterable of int, iterable of int)
        A split's name, the indices of its training clips, and the indices of its test clips.
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
