"""Write the embeddings of an audio file as .npz."""

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
from edgel3_tflm.files import make_directory, new_file

_log = logging.getLogger(__name__)


def plan_outputs(
    sources: Iterable[Path],
    output_dir: str | PathLike[str] | None = None,
    suffix: str | None = None,
) -> dict[Path, Path]:
    """Return the output path of each source.

    Parameters
    ----------
    sources : iterable of pathlib.Path
    output_dir, suffix : optional
        As for :func:`edgel3_tflm.process_file`.

    Raises
    ------
    EdgeL3Error
        If two sources have the same output path.
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
    """Return the path to which the embeddings of an audio file are written.

    Parameters
    ----------
    filepath : path
        The audio file.
    suffix : str
        With the extension. An underscore is put before it unless it begins with a dot.
    output_dir : path, optional
        By default the directory of the audio file.

    Examples
    --------
    >>> get_output_path("sounds/street.wav", "edgel3.npz", "out")
    'out/street_edgel3.npz'
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
    """Embed an audio file and write the result as .npz, completely or not at all.

    The file contains the arrays of edgel3: ``embedding``, shape (n, d), float32, and
    ``timestamps``, shape (n,), in seconds. A third array, ``provenance``, contains lines of text.
    The first describes the weights, the last the resampler.

    Parameters
    ----------
    embedder : StreamEmbedder
    source, target : pathlib.Path
    progress : callable
        Called after each batch with the time of its last window in seconds.

    Returns
    -------
    int
        Number of windows.

    Raises
    ------
    EdgeL3Error
        If the audio file cannot be read, or the output cannot be written.
    """
    make_directory(target.parent)
    with new_file(target) as temporary, tempfile.TemporaryFile(dir=target.parent) as rows:
        # The header of an .npy file contains the number of rows, which is known only at the end.
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
