"""The C library's folder: what the Arduino Library Manager and PlatformIO accept, one version."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from edgel3_tflm._version import __version__

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "micro_app" / "lib" / "edgel3"
# What the Library Manager's linter requires, and the categories it knows.
REQUIRED = (
    "name",
    "version",
    "author",
    "maintainer",
    "sentence",
    "paragraph",
    "category",
    "url",
    "architectures",
)
CATEGORIES = (
    "Display",
    "Communication",
    "Signal Input/Output",
    "Sensors",
    "Device Control",
    "Timing",
    "Data Storage",
    "Data Processing",
    "Other",
)


def tracked_files() -> list[Path]:
    """Files of the library that are in the repository; those on the disk where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--", "."], cwd=LIBRARY, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return [path for path in LIBRARY.rglob("*") if path.is_file()]
    return [LIBRARY / name for name in listed.stdout.decode().split("\0") if name]


def mentions_x86(path: Path) -> bool:
    """Whether a source asks for an x86 processor or uses its intrinsics."""
    return bool(re.search(r"\bx86|__x86|immintrin|\b_mm\d*_", path.read_text(encoding="utf-8")))


def read_properties() -> dict[str, str]:
    lines = (LIBRARY / "library.properties").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def find_objections(library: Path, files: list[Path]) -> list[str]:
    """What the Library Manager refuses in a folder, or an IDE could not build."""
    found = []
    for path in files:
        name = path.relative_to(library).as_posix()
        if path.is_symlink():
            found.append(f"{name} is a symlink")
        if path.suffix in (".exe", ".o", ".a", ".so", ".elf"):
            found.append(f"{name} is a binary")
        if path.name in (".development", ".gitmodules"):
            found.append(f"{name} is refused by name")
        for part in path.relative_to(library).parts:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", part):
                found.append(f"{name} has a name that not every system can hold")
        folder = name.split("/")[0]
        if path.suffix in (".c", ".cc", ".cpp", ".S", ".h") and folder not in ("src", "test"):
            found.append(f"{name} is a source outside of src")
        if path.suffix in (".ino", ".pde") and path.stem != path.parent.name:
            found.append(f"{name} is not named after its folder")
    return found


def test_the_library_manager_finds_nothing_to_object_to() -> None:
    assert find_objections(LIBRARY, tracked_files()) == []


@pytest.mark.parametrize(
    "name",
    [
        "src/tool.exe",
        ".development",
        "extra.c",
        "src/name with spaces.c",
        "examples/one/two.ino",
        "src/link.h",
    ],
)
def test_what_the_library_manager_refuses_is_found(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "src/link.h":
        path.symlink_to(tmp_path)
    else:
        path.touch()

    assert find_objections(tmp_path, [path])


def test_the_library_has_no_code_for_x86() -> None:
    host = sorted((ROOT / "micro_app" / "host").glob("*.c"))

    assert [path.name for path in tracked_files() if mentions_x86(path)] == []
    assert host
    assert all(mentions_x86(path) for path in host)


def test_properties_are_complete() -> None:
    properties = read_properties()

    assert [key for key in REQUIRED if not properties.get(key)] == []
    assert properties["name"] == LIBRARY.name
    assert properties["category"] in CATEGORIES
    assert (LIBRARY / "src" / properties["includes"]).is_file()
    assert (LIBRARY / "src" / f"{properties['name']}.h").is_file()
    # Required, and a page that can be read: that of the networks, as long as this has none.
    assert f"]({properties['url']})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_platformio_manifest_names_files_that_exist() -> None:
    manifest = json.loads((LIBRARY / "library.json").read_bytes())
    properties = read_properties()

    assert manifest["name"] == properties["name"]
    assert manifest["description"] == properties["sentence"].rstrip(".")
    assert all((LIBRARY / "src" / name).is_file() for name in manifest["headers"])
    listed = [
        Path(example["base"]) / name
        for example in manifest["examples"]
        for name in example["files"]
    ]
    found = [path.relative_to(LIBRARY) for path in (LIBRARY / "examples").rglob("*.ino")]
    assert sorted(listed) == sorted(found)


def test_one_version_everywhere() -> None:
    header = (LIBRARY / "src" / "edgel3_version.h").read_text(encoding="utf-8")
    defined = re.search(r'^#define EDGEL3_VERSION "(.+)"$', header, re.MULTILINE)

    assert defined is not None
    assert {
        defined[1],
        read_properties()["version"],
        json.loads((LIBRARY / "library.json").read_bytes())["version"],
    } == {__version__}


def test_licence_is_that_of_the_project() -> None:
    assert (LIBRARY / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
