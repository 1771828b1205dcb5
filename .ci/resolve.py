"""Print for which Pythons each extra can be installed, system by system, from wheels alone.

uv resolves the dependencies in pyproject.toml as if it ran on each system. Nothing is installed.
The table is in docs/install.md.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SYSTEMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux aarch64": "aarch64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
    "Windows x64": "x86_64-pc-windows-msvc",
}
BASE = "base"
EXTRAS = (BASE, *sys.argv[1:])


def resolves(extra: str, system: str, python: str) -> bool:
    """Whether every package of an extra has a wheel."""
    command = [sys.executable, "-m", "uv", "pip", "compile", str(ROOT / "pyproject.toml")]
    command += ["--only-binary", ":all:", "--python-platform", SYSTEMS[system]]
    command += ["--python-version", python, *(["--extra", extra] if extra != BASE else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return True
    if "No solution found" not in done.stderr:
        sys.exit(done.stderr)  # no network, for example
    print(f"{extra}, {system}, Python {python}: {done.stderr}", file=sys.stderr)
    return False


def main() -> None:
    """Print the table; fail if the base installation lacks a wheel anywhere."""
    cases = list(product(EXTRAS, SYSTEMS, PYTHONS))
    with ThreadPoolExecutor(8) as executor:
        found = dict(zip(cases, executor.map(lambda case: resolves(*case), cases), strict=True))
    print("| extra |", " | ".join(SYSTEMS), "|")
    print("|---" * (1 + len(SYSTEMS)), end="|\n")
    for extra in EXTRAS:
        cells = []
        for system in SYSTEMS:
            pythons = [python for python in PYTHONS if found[extra, system, python]]
            cells.append("all" if len(pythons) == len(PYTHONS) else ", ".join(pythons) or "none")
        print(f"| {extra} |", " | ".join(cells), "|")
    if not all(found[case] for case in cases if case[0] == BASE):
        sys.exit("the base installation lacks a wheel")


if __name__ == "__main__":
    main()
