"""A labelled corpus: clips with their classes and folds, from a manifest."""

import csv
from dataclasses import dataclass
from pathlib import Path

from edgel3_tflm.errors import AudioError


@dataclass(frozen=True)
class LabelledClip:
    """One row of a manifest."""

    path: Path
    label: str
    fold: int


def read_manifest(path: Path) -> list[LabelledClip]:
    """Read a tab-separated manifest with the columns file, label and fold.

    Files are relative to the manifest; other columns are left alone.

    Raises
    ------
    AudioError
        If the manifest cannot be read, lacks a column or a row is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = {"file", "label", "fold"} - set(reader.fieldnames or ())
            if missing:
                raise AudioError(
                    f"{path}: expected tab-separated columns file, label and fold; missing:"
                    f" {', '.join(sorted(missing))}"
                )
            clips = [
                LabelledClip(path.parent / row["file"], row["label"], int(row["fold"]))
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise AudioError(f"{path}: cannot read the manifest: {error}") from error
    if not clips:
        raise AudioError(f"{path}: expected clips, the manifest has no rows")
    return clips
