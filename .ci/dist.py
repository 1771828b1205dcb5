"""`make dist`: wheel, source distribution and bill of materials, built from the last commit.

Wheel and source distribution are built twice, in two directories. The script fails if they differ.
"""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"


def git(*arguments: str) -> bytes:
    """Return what a git command prints."""
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=True).stdout


def build(directory: Path, epoch: int) -> dict[str, bytes]:
    """Build the last commit in a directory; return the files' contents by their names."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as sources:
        sources.extractall(directory, filter="data")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", directory / "dist", directory],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    found = {path.name: path.read_bytes() for path in (directory / "dist").iterdir()}
    return {
        name: date(data, epoch) if name.endswith(".tar.gz") else data
        for name, data in found.items()
    }


def date(archive: bytes, epoch: int) -> bytes:
    """Give a source distribution's members one date and no owner; setuptools writes their own."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as old,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=epoch) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old, key=lambda member: member.name):
            member.mtime, member.uid, member.gid = epoch, 0, 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member))
    return packed.getvalue()


def main() -> int:
    """Build, compare and write; return 0 if the two builds are equal."""
    if git("status", "--porcelain"):
        print("expected no changes since the last commit: commit or discard them", file=sys.stderr)
        return 1
    epoch = int(git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        files, again = build(Path(first), epoch), build(Path(second) / "again", epoch)
        if files != again:
            differing = [name for name in files if files[name] != again.get(name)]
            print(f"two builds differ: {', '.join(differing)}", file=sys.stderr)
            return 1
    DIST.mkdir(exist_ok=True)
    for name, data in files.items():
        (DIST / name).write_bytes(data)
    wheel = next(DIST / name for name in files if name.endswith(".whl"))
    write_bill_of_materials(wheel)
    print("\n".join(str(DIST / name) for name in sorted(files)))
    return 0


def write_bill_of_materials(wheel: Path) -> None:
    """Write the CycloneDX list of the wheel and what it installs without extras."""
    with tempfile.TemporaryDirectory() as scratch:
        python = Path(scratch) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", scratch], check=True)
        pip = [sys.executable, "-m", "pip", "--quiet", "--python", python]
        subprocess.run([*pip, "install", wheel], check=True)
        subprocess.run(
            [
                *(sys.executable, "-m", "cyclonedx_py", "environment", python),
                *("--pyproject", ROOT / "pyproject.toml", "--output-reproducible"),
                *("--output-file", DIST / f"{wheel.stem}.cdx.json"),
            ],
            check=True,
        )


if __name__ == "__main__":
    sys.exit(main())
