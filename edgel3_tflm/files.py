"""Atomic writes of files and directories, checks before long work, and digests."""

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgel3_tflm.errors import EdgeL3Error

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write to an open file. Python reports them without a file name."""


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 digest as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def git_blob_id(data: bytes) -> str:
    """Return git's id of a file: SHA-1 over ``blob <size>``, a NUL byte and the contents."""
    # git publishes SHA-1 ids. Here they identify the authors' file and protect no secret.
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it.

    Raises
    ------
    EdgeL3Error
        If the system refuses a write. An earlier file at ``path`` is then unchanged.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def write_together(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write several files to a directory under temporary names, then rename them all.

    Raises
    ------
    EdgeL3Error
        If the system refuses a write. Earlier files of these names are then unchanged.
    """
    with ExitStack() as stack:
        for name, data in files.items():
            stack.enter_context(new_file(directory / name)).write_bytes(data)


def make_directory(path: Path) -> None:
    """Make a directory and its missing parents. An existing directory is no error.

    Raises
    ------
    EdgeL3Error
        If the system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeL3Error(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield an empty file under a temporary name; rename it to ``path`` at the end.

    The temporary name is unique and in the same directory. On any exception an earlier file at
    ``path`` is unchanged.

    Raises
    ------
    EdgeL3Error
        If the system refuses a write. Other exceptions of the body pass unchanged.
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
    """Yield a directory under a temporary name; rename it to ``target`` at the end.

    An earlier directory at ``target`` is replaced if it is empty or contains the file ``marker``,
    which shows that this package wrote it. On any exception the new directory is removed and the
    earlier one is unchanged.

    Raises
    ------
    EdgeL3Error
        If ``target`` is a file or a directory with other contents, or if the system refuses a
        write. Other exceptions of the body pass unchanged.
    """
    target = Path(target)
    unchanged = "; nothing was changed there"
    with _one_line(target, advice=unchanged):
        if target.exists() or target.is_symlink():
            _check_replaceable(target, marker)
            target = target.resolve()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # a parent is a file
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
        # After an exception between the two renames, move the earlier directory back.
        if old.exists() and not target.exists():
            old.rename(target)
        _remove(temporary)
        _remove(old)


def _temporary_name(path: Path) -> str:
    """Return a unique name for the same directory, cut to what file systems allow."""
    return f".{path.name[:40]}.{secrets.token_hex(8)}"


def _remove(path: Path) -> None:
    """Remove a file or a directory if it exists and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def _one_line(target: Path, temporary: Path | None = None, *, advice: str = "") -> Iterator[None]:
    """Turn errors of the system into one line; with ``temporary``: only errors of writing there."""
    try:
        yield
    except OSError as error:
        if temporary is not None and not _is_write_error(error, temporary):
            raise
        raise EdgeL3Error(f"cannot write {target}: {error.strerror or error}{advice}") from error


def _is_write_error(error: OSError, temporary: Path) -> bool:
    """Return whether a write to a path failed: the error contains it, or the disk is full."""
    if error.filename is None:
        return error.errno in _DISK_FULL
    if isinstance(error.filename, int):  # a file descriptor
        return False
    return Path(os.fsdecode(error.filename)).is_relative_to(temporary)


def check_directory(target: Path, marker: str) -> None:
    """Check, before long work, that :func:`new_directory` can write ``target``.

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
    """Check, before long work, that :func:`write_whole` can write ``target``.

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
    """Check, before long work, that files can be written to a directory, or that it can be made.

    Raises
    ------
    EdgeL3Error
        If ``directory`` is a file or cannot be written to.
    """
    if (directory.exists() or directory.is_symlink()) and not directory.is_dir():
        raise EdgeL3Error(f"{directory}: expected a directory to write to, it is a file")
    _check_writable(directory, directory)


def _check_writable(directory: Path, target: Path) -> None:
    """Write and delete a temporary file in a directory or its nearest existing parent."""
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
    """Check that a path is a directory that :func:`new_directory` may replace."""
    if not target.is_dir():
        raise EdgeL3Error(f"{target}: expected a directory to write to, it is a file")
    if target.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise EdgeL3Error(
            f"{target}: expected a directory other than the current one and its parents, because"
            " the output replaces the directory; choose another"
        )
    if any(target.iterdir()) and not (target / marker).is_file():
        raise EdgeL3Error(
            f"{target}: expected a new, empty or earlier output directory (with {marker}),"
            " it holds other files; choose another"
        )
