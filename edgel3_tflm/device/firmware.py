"""Builds the node's firmware from a deployment; needs CMake and a compiler, but no extra."""

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

Target = Literal["mps2_an500", "host"]
"""What a node is built for: the emulated Cortex-M7, or this machine."""

COMPILER = "arm-none-eabi-gcc"
QEMU = "qemu-system-arm"
_TIMEOUT_S = 600
_PACKAGES = {
    "cmake": "cmake",
    COMPILER: "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    QEMU: "qemu-system-arm",
    "gcc": "gcc libc6-dev",
    "llvm-mc-14": "llvm-14",
    "llvm-mca-14": "llvm-14",
}
_CMAKE_ERROR = re.compile(r"^CMake Error(?: at .*:\n((?:(?:  .*)?\n)+)|: (.*))", re.MULTILINE)
_TOOL_ERROR = re.compile(r"^.*(?:error:|undefined reference|will not fit).*", re.MULTILINE)


class ToolError(EdgeL3Error):
    """A tool is missing, or fails."""


def find_sources() -> Path:
    """Return the directory of the C library, the sketch and the boards, ``micro_app``.

    Raises
    ------
    ToolError
        If the installation lacks it.
    """
    directory = Path(str(files("edgel3_tflm"))) / "micro_app"
    if not (directory / "CMakeLists.txt").is_file():
        raise ToolError(
            f"expected the C sources in {directory}, this installation lacks them; install"
            " edgel3-tflm again"
        )
    return directory


def has_compiler() -> bool:
    """Whether CMake and the cross compiler for firmware are installed."""
    return all(shutil.which(tool) for tool in ("cmake", COMPILER))


def build_node(
    deployment: Path,
    directory: Path,
    target: Target = "mps2_an500",
    *,
    head: Path | None = None,
    options: tuple[str, ...] = (),
) -> Path:
    """Build a deployment's node with CMake.

    Parameters
    ----------
    deployment : pathlib.Path
        Directory that ``convert`` wrote.
    directory : pathlib.Path
        Build directory. CMake reuses what an earlier build left there.
    target : {'mps2_an500', 'host'}
    head : pathlib.Path, optional
        Directory of the C files that ``train-head`` wrote, if they are not in the deployment.
    options : tuple of str
        Additional options for CMake.

    Returns
    -------
    pathlib.Path
        The ELF file, or the program for this machine.

    Raises
    ------
    ToolError
        If a tool is missing or fails.
    """
    sources = find_sources()
    configuration = [f"-DEDGEL3_DEPLOYMENT={deployment.resolve()}", *options]
    # Always given, because an earlier build in this directory may have had another head.
    configuration.append(f"-DEDGEL3_HEAD={head.resolve() if head is not None else ''}")
    if target == "mps2_an500":
        find_tool(COMPILER)
        toolchain = sources / "boards" / target / "toolchain.cmake"
        configuration.append(f"-DCMAKE_TOOLCHAIN_FILE={toolchain}")
    cmake = find_tool("cmake")
    run_tool([cmake, "-S", sources, "-B", directory, *configuration])
    run_tool([cmake, "--build", directory, "--parallel", "2"])
    return directory / ("node.elf" if target == "mps2_an500" else "node")


def find_tool(program: str) -> str:
    """Return the path of an installed program.

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
    """Run a program and return its standard output.

    Raises
    ------
    ToolError
        If it fails or does not end in time. The message contains the program's first error, on one
        line, and the path of a file with its whole output.
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
            f"{name} did not end within {timeout_s:g} s; its output is in {log}"
        ) from error
    except OSError as error:
        raise ToolError(f"cannot run {command[0]}: {error.strerror}; install it again") from error
    if done.returncode != 0:
        output = done.stderr + done.stdout
        first_error = _first_error(output.decode(errors="replace"))
        raise ToolError(
            f"{name} ended with code {done.returncode}: {first_error}; the whole log is in"
            f" {_keep_log(output)}"
        )
    return done.stdout.decode(errors="replace")


def _first_error(log: str) -> str:
    """Return the first error in a tool's output on one line, or its last line if none is marked."""
    if found := _CMAKE_ERROR.search(log):
        line = found[1] or found[2]
    elif found := _TOOL_ERROR.search(log):
        line = found[0]
    else:
        line = (log.strip().splitlines() or ["it wrote nothing"])[-1]
    return on_one_line(" ".join(line.split()))


def _keep_log(output: bytes) -> str:
    with tempfile.NamedTemporaryFile(prefix="edgel3-", suffix=".log", delete=False) as log:
        log.write(output)

    return log.name
