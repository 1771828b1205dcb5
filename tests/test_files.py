"""Directories that appear whole or not at all, and git's digest."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import (
    check_directory,
    check_file,
    check_output_directory,
    git_blob_id,
    new_directory,
    new_file,
    sha256_hex,
    write_together,
    write_whole,
)

MARKER = "manifest.json"


def fill(target: Path, text: str = "new") -> None:
    with new_directory(target, MARKER) as directory:
        (directory / MARKER).write_text(text, encoding="utf-8")
        (directory / "sub").mkdir()
        (directory / "sub" / "model.bin").write_bytes(b"\1\2\3")


def listing(directory: Path) -> dict[str, bytes | None]:
    """Everything below a directory: path to contents, None for a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


FILLED = {MARKER: b"new", "sub": None, "sub/model.bin": b"\1\2\3"}


def refusal_of(target: Path) -> str:
    with pytest.raises(EdgeL3Error) as refusal, new_directory(target, MARKER):
        pytest.fail("the directory was offered for writing")
    message = str(refusal.value)
    assert message.isprintable()
    return message


def test_new_directory_holds_what_was_written_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    fill(tmp_path / "out")
    assert listing(tmp_path) == {"out": None} | {f"out/{name}": v for name, v in FILLED.items()}


def test_new_directory_can_be_read_as_widely_as_any_other(tmp_path: Path) -> None:
    fill(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_missing_parents_are_made(tmp_path: Path) -> None:
    fill(tmp_path / "a" / "b" / "out")
    assert listing(tmp_path / "a" / "b" / "out") == FILLED


def test_target_is_absent_until_it_is_whole(tmp_path: Path) -> None:
    with new_directory(tmp_path / "out", MARKER) as directory:
        (directory / MARKER).write_text("new", encoding="utf-8")
        assert not (tmp_path / "out").exists()
        assert directory.parent == tmp_path  # a rename within one file system is atomic
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt(), EdgeL3Error("stop")])
def test_exception_inside_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), new_directory(tmp_path / "out", MARKER) as directory:  # noqa: PT012
        (directory / MARKER).write_text("half", encoding="utf-8")
        raise error
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()])
def test_exception_inside_leaves_the_old_directory_as_it_was(
    tmp_path: Path, error: BaseException
) -> None:
    fill(tmp_path / "out", "old")
    before = listing(tmp_path)
    with pytest.raises(type(error)), new_directory(tmp_path / "out", MARKER) as directory:  # noqa: PT012
        (directory / MARKER).write_text("half", encoding="utf-8")
        raise error
    assert listing(tmp_path) == before


def test_failed_write_inside_is_one_line_and_leaves_the_old_directory(tmp_path: Path) -> None:
    fill(tmp_path / "out", "old")
    before = listing(tmp_path)
    with (
        pytest.raises(EdgeL3Error, match="out: File name too long; nothing was changed there"),
        new_directory(tmp_path / "out", MARKER) as directory,
    ):
        (directory / ("x" * 300)).write_bytes(b"")
    assert listing(tmp_path) == before


def test_directory_that_cannot_be_moved_into_place_leaves_the_old_one(tmp_path: Path) -> None:
    fill(tmp_path / "out", "old")
    before = listing(tmp_path)
    with (
        pytest.raises(EdgeL3Error, match="nothing was changed there"),
        new_directory(tmp_path / "out", MARKER) as directory,
    ):
        directory.rmdir()
    assert listing(tmp_path) == before


def test_earlier_output_is_replaced_whole(tmp_path: Path) -> None:
    fill(tmp_path / "out", "old")
    (tmp_path / "out" / "stale.bin").write_bytes(b"stale")
    fill(tmp_path / "out", "new")
    assert listing(tmp_path / "out") == FILLED
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert listing(tmp_path / "out") == FILLED


def test_directory_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    message = refusal_of(tmp_path)
    assert "holds other files" in message
    assert MARKER in message
    assert listing(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_directory_named_like_the_marker_does_not_count_as_one(tmp_path: Path) -> None:
    (tmp_path / "out" / MARKER).mkdir(parents=True)
    assert "holds other files" in refusal_of(tmp_path / "out")


def test_file_in_the_place_of_the_target_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"data")
    assert "it is a file" in refusal_of(tmp_path / "out")
    assert listing(tmp_path) == {"out": b"data"}


def test_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "missing")
    refusal_of(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()


def test_link_to_a_directory_is_followed_and_kept(tmp_path: Path) -> None:
    fill(tmp_path / "real", "old")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    fill(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert not (tmp_path / "real").is_symlink()
    assert listing(tmp_path / "real") == FILLED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "real"]


def test_relative_target_lies_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("out"))
    fill(Path("./out/../out"), "new")
    assert listing(tmp_path / "out") == FILLED


@pytest.mark.parametrize("target", [".", "..", "../out", "../out/sub/..", "../link"])
def test_current_directory_is_refused_as_it_would_be_pulled_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    fill(tmp_path / "out", "old")
    (tmp_path / MARKER).write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    before = listing(tmp_path)
    monkeypatch.chdir(tmp_path / "out")
    assert "other than the current one" in refusal_of(Path(target))
    assert listing(tmp_path) == before


def test_file_in_the_place_of_a_parent_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    assert "nothing was changed" in refusal_of(tmp_path / "file" / "deep" / "out")
    assert listing(tmp_path) == {"file": b"data"}


def test_name_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    assert "File name too long" in refusal_of(tmp_path / ("x" * 300))
    assert listing(tmp_path) == {}


def test_parent_without_permission_is_one_line(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    if os.geteuid() == 0:  # root may write anywhere but into a file
        parent.write_bytes(b"")
    else:
        parent.mkdir(mode=0o555)
    assert str(parent) in refusal_of(parent / "out")
    assert listing(tmp_path) == ({"parent": b""} if parent.is_file() else {"parent": None})


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with new_file(target) as first, new_file(target) as second:
        first.write_text("first", encoding="utf-8")
        second.write_text("second", encoding="utf-8")
    assert listing(tmp_path) == {"a.txt": b"first"}  # whoever ends last


def test_writers_of_one_directory_do_not_meet(tmp_path: Path) -> None:
    with new_directory(tmp_path / "out", MARKER) as first:
        (first / MARKER).write_text("first", encoding="utf-8")
        fill(tmp_path / "out", "second")
    assert listing(tmp_path) == {"out": None, f"out/{MARKER}": b"first"}


def test_what_a_killed_writer_left_hurts_no_later_one(tmp_path: Path) -> None:
    for name in (".a.txt.part", ".out.part", ".out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MARKER).write_bytes(b"left")
    left = listing(tmp_path)
    write_whole(tmp_path / "a.txt", b"new")
    fill(tmp_path / "out")
    found = listing(tmp_path)
    assert found.pop("a.txt") == b"new"
    assert {name: each for name, each in found.items() if not name.startswith("out")} == left


def test_a_file_s_permissions_are_those_of_any_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", b"new")
    (tmp_path / "b.txt").write_bytes(b"new")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_long_name_is_one_that_can_be_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("é" * 127), b"new")  # 254 bytes of 255
    fill(tmp_path / ("x" * 255))
    assert len(listing(tmp_path)) == 2 + len(FILLED)


@pytest.mark.parametrize("new", [new_file, lambda path: new_directory(path, MARKER)])
def test_an_error_of_reading_is_none_of_writing(tmp_path: Path, new: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"clip\.wav"), new(tmp_path / "out"):
        (tmp_path / "clip.wav").read_bytes()
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("new", [new_file, lambda path: new_directory(path, MARKER)])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_an_error_of_writing(tmp_path: Path, new: Any, number: int) -> None:
    with pytest.raises(EdgeL3Error, match=r"cannot write .*out: "), new(tmp_path / "out"):
        raise OSError(number, os.strerror(number))  # as of a write to an open file: it names none
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("renames", [1, 2])
def test_an_interruption_while_moving_leaves_the_old_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    fill(tmp_path / "out", "old")
    before = listing(tmp_path)
    rename, done = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        done.append(path)
        if len(done) == renames:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "out", "new")
    assert listing(tmp_path) == before


WRITE_PAST_A_LIMIT = """
import resource, sys
from pathlib import Path
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import new_directory

limit, size = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with new_directory(Path(sys.argv[1]), "manifest.json") as directory:
        (directory / "manifest.json").write_bytes(b"{}")
        (directory / "model.bin").write_bytes(bytes(size))
except EdgeL3Error as error:
    print(error)
"""


def write_past_a_limit(target: Path, limit: int, size: int) -> str:
    """Write a file of ``size`` bytes where the system allows ``limit``; what was printed."""
    process = subprocess.run(
        [sys.executable, "-c", WRITE_PAST_A_LIMIT, str(target), str(limit), str(size)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_write_that_the_system_refuses_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    printed = write_past_a_limit(target, limit=4096, size=1_000_000)
    assert printed == f"cannot write {target}: File too large; nothing was changed there\n"
    assert listing(tmp_path) == {}


def test_write_that_the_system_refuses_leaves_the_old_directory(tmp_path: Path) -> None:
    fill(tmp_path / "out", "old")
    before = listing(tmp_path)
    assert "File too large" in write_past_a_limit(tmp_path / "out", limit=4096, size=1_000_000)
    assert listing(tmp_path) == before


def test_write_within_the_limit_is_not_refused(tmp_path: Path) -> None:
    assert write_past_a_limit(tmp_path / "out", limit=1_000_000, size=1_000_000) == ""
    assert (tmp_path / "out" / "model.bin").stat().st_size == 1_000_000


def test_a_place_is_checked_and_left_as_it_was_before_it_is_written_to(tmp_path: Path) -> None:
    fill(tmp_path / "earlier")
    before = listing(tmp_path)
    for name in ("earlier", "new", "new/below"):
        check_directory(tmp_path / name, MARKER)
        check_output_directory(tmp_path / name)
    check_file(tmp_path / "new.json")
    check_file(tmp_path / "earlier" / MARKER)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("file", ["expected a directory", "it is a file"]),
        ("file/below", ["cannot write", "Not a directory"]),
        ("other", ["it holds other files"]),
        ("/proc/below", ["cannot write /proc/below", "choose another"]),
    ],
)
def test_a_directory_that_could_not_be_written_is_refused_early(
    tmp_path: Path, name: str, parts: list[str]
) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("text")
    with pytest.raises(EdgeL3Error) as refusal:
        check_directory(tmp_path / name, MARKER)
    assert all(part in str(refusal.value) for part in parts)
    if name != "other":  # whose files embed leaves alone
        with pytest.raises(EdgeL3Error):
            check_output_directory(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "part"),
    [("", "it is a directory"), ("none/x", "directory that exists"), ("/proc/x", "cannot write")],
)
def test_a_file_that_could_not_be_written_is_refused_early(
    tmp_path: Path, name: str, part: str
) -> None:
    with pytest.raises(EdgeL3Error, match=part):
        check_file(tmp_path / name)


@pytest.mark.parametrize("data", [b"", b"hello\n", bytes(range(256)) * 1000])
def test_git_blob_id_is_the_one_git_gives(tmp_path: Path, data: bytes) -> None:
    git = shutil.which("git")
    assert git is not None, "this test needs git"
    (tmp_path / "blob").write_bytes(data)
    process = subprocess.run(
        [git, "hash-object", "--no-filters", str(tmp_path / "blob")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert git_blob_id(data) == process.stdout.strip()


def test_git_blob_id_depends_on_every_byte() -> None:
    data = b"blob of eleven bytes"
    assert git_blob_id(data) != git_blob_id(data + b"\0")
    assert git_blob_id(data) != git_blob_id(data.replace(b"v", b"w"))


def test_sha256_is_the_standard_one() -> None:
    # FIPS 180-2, appendix B.1.
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    write_together(tmp_path, {"a.txt": b"old", "b.txt": b"old"})
    (tmp_path / "c.txt").mkdir()  # a file cannot take its place
    with pytest.raises(EdgeL3Error, match="cannot write"):
        write_together(tmp_path, {"a.txt": b"new", "c.txt": b"new"})
    with pytest.raises(EdgeL3Error, match="cannot write"):
        write_together(tmp_path, {"a.txt": b"new", "missing/b.txt": b"new"})

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == {
        "a.txt": b"old",
        "b.txt": b"old",
    }
