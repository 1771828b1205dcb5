"""Writing files and directories that appear whole or not at all, and their digests."""

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgel3_tflm.errors import EdgeL3Error

# What a write to an open file ends with where the disk, or what a user may have of it, is full.
_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, unless it is there.

    Raises
    ------
    EdgeL3Error
        If the disk refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeL3Error(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give an empty file under a temporary name; rename it to ``path`` at the end.

    The name is one that no other writer has, in the same directory. On any exception what was at
    ``path`` is as it was.

    Raises
    ------
    EdgeL3Error
        If the disk refuses a write. Other errors of the body pass as they are.
    """
    temporary = path.with_name(_temporary_name(path) + ".part")
    try:
        with _one_line(path):
            temporary.touch(exist_ok=False)
        with _one_line(path, temporary):
            yield temporary
        with _one_line(path):
            temporary.replace(path)
    finally:
        _remove(temporary)


@contextmanager
def new_directory(target: Path, marker: str) -> Iterator[Path]:
    """Fill a directory under a temporary name, then rename it to ``target``.

    A directory already at ``target`` is replaced if it is empty or holds the file ``marker``, which
    shows that this package wrote it. On any exception nothing of the new directory remains and the
    old one is as it was.

    Raises
    ------
    EdgeL3Error
        If ``target`` is a file or a directory of something else, or the disk refuses a write. Other
        errors of the body pass as they are.
    """
    target = Path(target)
    unchanged = "; nothing was changed there"
    with _one_line(target, advice=unchanged):
        if target.exists() or target.is_symlink():
            _check_replaceable(target, marker)
            target = target.resolve()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # a file is there
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
    temporary = target.with_name(_temporary_name(target))
    old = temporary.with_name(temporary.name + ".old")
    try:
        with _one_line(target, advice=unchanged):
            temporary.mkdir()
        with _one_line(target, temporary, advice=unchanged):
            yield temporary
        with _one_line(target, advice=unchanged):
            if target.exists():
                target.rename(old)
            temporary.rename(target)
    finally:
        # After an error or an interruption between the two renames the old one goes back.
        if old.exists() and not target.exists():
            old.rename(target)
        _remove(temporary)
        _remove(old)


def _temporary_name(path: Path) -> str:
    """Name beside a path that nothing else has; a long one is cut, for the system to take it."""
    return f".{path.name[:40]}.{secrets.token_hex(8)}"


def _remove(path: Path) -> None:
    """Remove a file or a directory if it is there; one that cannot be removed stays."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def _one_line(target: Path, temporary: Path | None = None, *, advice: str = "") -> Iterator[None]:
    """Turn errors of the system into one line; with ``temporary`` those of writing there only."""
    try:
        yield
    except OSError as error:
        if temporary is not None and not _is_of_writing(error, temporary):
            raise
        raise EdgeL3Error(f"cannot write {target}: {error.strerror or error}{advice}") from error


def _is_of_writing(error: OSError, temporary: Path) -> bool:
    """Whether a write to a path failed: the error names it, or says that a disk takes no more."""
    if error.filename is None:
        return error.errno in _NO_MORE
    if isinstance(error.filename, int):  # a file that was opened by its descriptor
        return False
    return Path(os.fsdecode(error.filename)).is_relative_to(temporary)


def check_directory(target: Path, marker: str) -> None:
    """Check before long work that :func:`new_directory` could write ``target`` now.

    Raises
    ------
    EdgeL3Error
        As :func:`new_directory`.
    """
    if target.exists() or target.is_symlink():
        _check_replaceable(target, marker)
        target = target.resolve()
    _check_writable(target.parent, target)


def check_file(target: Path) -> None:
    """Check before long work that :func:`write_whole` could write ``target`` now.

    Raises
    ------
    EdgeL3Error
        If ``target`` is a directory, or its directory is missing or cannot be written to.
    """
    if target.is_dir():
        raise EdgeL3Error(f"{target}: expected a file to write, it is a directory")
    if not target.parent.is_dir():
        raise EdgeL3Error(f"{target}: expected a file in a directory that exists")
    _check_writable(target.parent, target)


def check_output_directory(directory: Path) -> None:
    """Check before long work that files can be written to ``directory``, which may be made.

    Raises
    ------
    EdgeL3Error
        If it is a file, or a file cannot be written to it.
    """
    if (directory.exists() or directory.is_symlink()) and not directory.is_dir():
        raise EdgeL3Error(f"{directory}: expected a directory to write to, it is a file")
    _check_writable(directory, directory)


def _check_writable(directory: Path, target: Path) -> None:
    """Write a file that vanishes to a directory, or to the nearest one above it that exists."""
    while not (directory.exists() or directory.is_symlink()) and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise EdgeL3Error(
            f"cannot write {target}: {directory}: {error.strerror or error}; choose another"
        ) from error


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
