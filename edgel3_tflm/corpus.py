"""A labelled corpus: clips with their classes and folds, from a manifest."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgel3_tflm.errors import AudioError

HOP_S = 0.5
"""Seconds from one window to the next, unless somebody chooses."""
LABEL_SEPARATOR = ";"
"""Between the labels of a clip that has several."""


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
        If the manifest cannot be read, lacks a column or a row is damaged.
    """
    rows = read_rows(path, ("file", "label", "fold"), delimiter="\t")
    try:
        return [
            LabelledClip(path.parent / row["file"], row["label"], int(row["fold"])) for row in rows
        ]
    except ValueError as error:
        raise AudioError(f"{path}: cannot read the manifest: {error}") from error


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


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str) -> list[dict[str, str]]:
    """Read a table whose first line names its columns.

    Parameters
    ----------
    path : pathlib.Path
    columns : sequence of str
        Those that must be there; others may be.
    delimiter : str
        A comma or a tab.

    Returns
    -------
    list of dict of str to str
        At least one; ``columns`` are whole in each.

    Raises
    ------
    AudioError
        If the table cannot be read, lacks a column or rows, or a row is cut.
    """
    kind = "tab" if delimiter == "\t" else "comma"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise AudioError(
                    f"{path}: expected {kind}-separated columns {', '.join(columns[:-1])} and"
                    f" {columns[-1]}; missing: {', '.join(sorted(missing))}"
                )
            rows = []
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise AudioError(f"{path}: line {reader.line_num} is cut")
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AudioError(f"{path}: cannot read the manifest: {error}") from error
    if not rows:
        raise AudioError(f"{path}: expected clips, the manifest has no rows")
    return rows
