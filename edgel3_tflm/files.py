"""Writing files and directories that appear whole or not at all, and their digests."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgel3_tflm.errors import EdgeL3Error


def sha256_hex(data: bytes) -> str:
    """SHA-256 digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def git_blob_id(data: bytes) -> str:
    """Id git gives a file: SHA-1 over ``blob <size>``, a NUL byte and the bytes."""
    # SHA-1 is what git published; it identifies the authors' file, it guards no secret.
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it.

    Raises
    ------
    EdgeL3Error
        If the disk refuses; what was at ``path`` is as it was.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a temporary name for a file to be written; rename it to ``path`` at the end.

    Raises
    ------
    EdgeL3Error
        As :func:`write_whole`; on any other exception too, what was at ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise EdgeL3Error(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(target: Path, marker: str) -> Iterator[Path]:
    """Fill a directory under a temporary name, then rename it to ``target``.

    A directory already at ``target`` is replaced if it is empty or holds the file ``marker``, which
    shows that this package wrote it. On any exception nothing of the new directory remains and the
    old one is as it was.

    Raises
    ------
    EdgeL3Error
        If ``target`` is a file or a directory of something else, or the disk refuses a write.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        if target.exists() or target.is_symlink():
            _check_replaceable(target, marker)
            target = target.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        temporary.chmod(0o755)  # mkdtemp makes it private
        yield temporary
        if target.exists():
            old = temporary.with_name(temporary.name + ".old")
            target.rename(old)
            try:
                temporary.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)  # the new directory is in place already
        else:
            temporary.rename(target)
    except OSError as error:
        raise EdgeL3Error(
            f"cannot write {target}: {error.strerror or error}; nothing was changed there"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(target: Path, marker: str) -> None:
    if not target.is_dir():
        raise EdgeL3Error(f"{target}: expected a directory to write to, it is a file")
    if target.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise EdgeL3Error(
            f"{target}: expected a directory other than the current one and those above it, which"
            " would be replaced under your feet; choose another"
        )
    if any(target.iterdir()) and not (target / marker).is_file():
        raise EdgeL3Error(
            f"{target}: expected a new, empty or earlier output directory (with {marker}),"
            " it holds other files; choose another"
        )
