"""Building the node's firmware out of a deployment; needs no extra, only CMake and a compiler."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

from edgel3_tflm.errors import EdgeL3Error, on_one_line

Board = Literal["mps2_an500", "host"]
"""The emulated Cortex-M7, or this machine."""

COMPILER = "arm-none-eabi-gcc"
QEMU = "qemu-system-arm"
_TIMEOUT_S = 600
_PACKAGES = {
    "cmake": "cmake",
    COMPILER: "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    QEMU: "qemu-system-arm",
}
_CMAKE_ERROR = re.compile(r"^CMake Error(?: at .*:\n((?:(?:  .*)?\n)+)|: (.*))", re.MULTILINE)
_TOOL_ERROR = re.compile(r"^.*(?:error:|undefined reference|will not fit).*", re.MULTILINE)


class ToolError(EdgeL3Error):
    """A tool that is missing or fails."""


def find_sources() -> Path:
    """Return the directory of the C library, the sketch and the boards, ``micro_app``.

    Raises
    ------
    ToolError
        If this installation lacks it.
    """
    directory = Path(str(files("edgel3_tflm"))) / "micro_app"
    if not (directory / "CMakeLists.txt").is_file():
        raise ToolError(
            f"expected the C sources in {directory}, this installation lacks them; install"
            " edgel3-tflm again"
        )
    return directory


def has_compiler() -> bool:
    """Whether firmware can be built here."""
    return all(shutil.which(tool) for tool in ("cmake", COMPILER))


def build_node(
    deployment: Path,
    directory: Path,
    board: Board = "mps2_an500",
    *,
    head: Path | None = None,
    options: tuple[str, ...] = (),
) -> Path:
    """Build a deployment's node with CMake.

    Parameters
    ----------
    deployment : pathlib.Path
        What convert wrote.
    directory : pathlib.Path
        Where to build; what is there already is used again.
    board : {'mps2_an500', 'host'}
    head : pathlib.Path, optional
        Directory of the C files that train-head wrote, if they are not in the deployment.
    options : tuple of str
        More of CMake's.

    Returns
    -------
    pathlib.Path
        The program.

    Raises
    ------
    ToolError
        If a tool is missing or fails.
    """
    sources = find_sources()
    configuration = [f"-DEDGEL3_DEPLOYMENT={deployment.resolve()}", *options]
    # Said in either case: what is built already may have had another.
    configuration.append(f"-DEDGEL3_HEAD={head.resolve() if head is not None else ''}")
    if board == "mps2_an500":
        find_tool(COMPILER)
        toolchain = sources / "boards" / board / "toolchain.cmake"
        configuration.append(f"-DCMAKE_TOOLCHAIN_FILE={toolchain}")
    cmake = find_tool("cmake")
    run_tool([cmake, "-S", sources, "-B", directory, *configuration])
    run_tool([cmake, "--build", directory, "--parallel", "2"])
    return directory / ("node.elf" if board == "mps2_an500" else "node")


def find_tool(program: str) -> str:
    """Return a program's path.

    Raises
    ------
    ToolError
        If it is not installed; the message names its Debian package.
    """
    found = shutil.which(program)
    if found is None:
        raise ToolError(
            f"expected {program} on the path, found none; on Debian:"
            f" apt-get install {_PACKAGES[program]}"
        )
    return found


def run_tool(command: Sequence[str | Path], *, timeout_s: float = _TIMEOUT_S) -> str:
    """Run a program and return what it wrote to standard output.

    Raises
    ------
    ToolError
        If it fails or does not end in time. The message has the first error that it reported, on
        one line, and the path of a file with all that it wrote.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603 - the callers' tools, with our own paths
            command,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        log = _keep_log((error.stderr or b"") + (error.stdout or b""))
        raise ToolError(
            f"{name} did not end within {timeout_s:g} s; what it wrote is in {log}"
        ) from error
    except OSError as error:
        raise ToolError(f"cannot run {command[0]}: {error.strerror}; install it again") from error
    if done.returncode != 0:
        said = done.stderr + done.stdout
        raise ToolError(
            f"{name} ended with code {done.returncode}:"
            f" {_first_error(said.decode(errors='replace'))}; the whole log is in {_keep_log(said)}"
        )
    return done.stdout.decode(errors="replace")


def _first_error(log: str) -> str:
    """Return the first error in a tool's output, on one line; its last line if none is marked."""
    if found := _CMAKE_ERROR.search(log):
        line = found[1] or found[2]
    elif found := _TOOL_ERROR.search(log):
        line = found[0]
    else:
        line = (log.strip().splitlines() or ["it wrote nothing"])[-1]
    return on_one_line(" ".join(line.split()))


def _keep_log(said: bytes) -> str:
    with tempfile.NamedTemporaryFile(prefix="edgel3-", suffix=".log", delete=False) as log:
        log.write(said)
    return log.name
