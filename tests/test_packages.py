"""The packages that pyproject.toml lists, which are in the wheel, and the locked versions."""

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LOCKED_FOR = {
    "python_version": "3.11",
    "python_full_version": "3.11.2",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}


def test_the_list_of_packages_has_every_folder_of_modules_and_no_other() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders, packages = settings["package-dir"], settings["packages"]
    # The links in edgel3_tflm/ lead to the other folders; rglob does not follow them.
    found = {
        ".".join((name, *path.parent.relative_to(ROOT / folder).parts))
        for name, folder in folders.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found <= set(packages)
    # The packages that have no modules contain data.
    for package in set(packages) - found:
        name = max((each for each in folders if f"{package}.".startswith(f"{each}.")), key=len)
        assert (ROOT / folders[name]).joinpath(*package[len(name) :].split(".")).is_dir(), package


def test_the_locked_versions_are_those_that_the_tests_need() -> None:
    """`make lock` writes them again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / ".ci" / "requirements.txt").read_text().splitlines()
    locked = dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+) \\$", "\n".join(lines), re.MULTILINE))

    def check(requirements: list[str]) -> None:
        for requirement in map(Requirement, requirements):
            if requirement.marker is not None and not requirement.marker.evaluate(LOCKED_FOR):
                continue
            if requirement.name == project["name"]:
                for extra in requirement.extras:
                    check(extras[extra])
                continue
            name = re.sub(r"[._-]+", "-", requirement.name).lower()
            assert requirement.specifier.contains(locked[name], prereleases=True), name

    check(project["dependencies"] + extras["test"])
    assert all(line.startswith("    --hash=sha256:") for line in lines if line.startswith(" "))
