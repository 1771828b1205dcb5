"""Embeddings of a file, written as .npz."""

import logging
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path

import numpy as np

from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import new_file

_log = logging.getLogger(__name__)


def plan_outputs(
    sources: Iterable[Path],
    output_dir: str | PathLike[str] | None = None,
    suffix: str | None = None,
) -> dict[Path, Path]:
    """Tell where each file's embeddings go.

    Raises
    ------
    EdgeL3Error
        If two would go to one place.
    """
    plan: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for source in sources:
        target = Path(get_output_path(source, f"{suffix or ''}.npz", output_dir))
        other = taken.setdefault(target, source)
        if other != source:
            raise EdgeL3Error(
                f"{other} and {source} would both be written to {target}: give them in two runs,"
                " with other output directories or suffixes"
            )
        plan[source] = target
    return plan


def get_output_path(
    filepath: str | PathLike[str], suffix: str, output_dir: str | PathLike[str] | None = None
) -> str:
    """Path of a file's embeddings.

    Parameters
    ----------
    filepath : path
        The audio file.
    suffix : str
        With its extension; joined to the file's name by an underscore unless it begins with a dot.
    output_dir : path, optional
        The file's own if not given.
    """
    path = Path(filepath)
    joint = "" if suffix.startswith(".") else "_"
    return str(Path(output_dir or path.parent) / f"{path.stem}{joint}{suffix}")


def write_embeddings(
    embedder: StreamEmbedder,
    source: Path,
    target: Path,
    progress: Callable[[float], None] = lambda _: None,
) -> int:
    """Write the embeddings of a file as .npz, whole or not at all.

    Arrays as edgel3 has them: ``embedding``, shape (n, d), float32, and ``timestamps``, shape (n,),
    seconds. ``provenance`` holds lines of text: where the weights come from is the first, the
    resampler the last.

    Parameters
    ----------
    embedder : StreamEmbedder
    source, target : pathlib.Path
    progress : callable
        Takes the time of the last window, in seconds, again and again.

    Returns
    -------
    int
        How many windows.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read, or the disk refuses a write.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeL3Error(f"cannot write {target}: {error.strerror or error}") from error
    with new_file(target) as temporary, tempfile.TemporaryFile(dir=target.parent) as rows:
        # How many rows there are stands before them in an array's file, and is known at the end.
        all_times = []
        for embeddings, times in embedder.embed_file(source):
            rows.write(embeddings.astype("<f4", copy=False).tobytes())
            all_times.append(times)
            progress(float(times[-1]))
        timestamps = np.concatenate(all_times)
        rows.seek(0)
        shape = (len(timestamps), embedder.model.variant.embedding_size)
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open("embedding.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)  # type: ignore[no-untyped-call]
                shutil.copyfileobj(rows, member)
            with archive.open("timestamps.npy", "w") as member:
                np.save(member, timestamps, allow_pickle=False)
            with archive.open("provenance.npy", "w") as member:
                np.save(member, np.array(embedder.provenance), allow_pickle=False)
    _log.info("%s: %d embeddings", target, len(timestamps))
    return len(timestamps)
