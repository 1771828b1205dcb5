"""The list of packages in pyproject.toml: setuptools leaves out what the list lacks."""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


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
