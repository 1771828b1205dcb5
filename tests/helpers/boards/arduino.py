"""Compiles a sketch as the Arduino tools do, with headers that stand in for a board's core."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edgel3_tflm.device.boards import Board

ROOT = Path(__file__).parents[3]


MICRO_APP = ROOT / "micro_app"


STUBS = Path(__file__).parents[2] / "native" / "arduino_stubs"


ARM_GCC, ARM_GPP = "arm-none-eabi-gcc", "arm-none-eabi-g++"


WARNINGS = ["-Wall", "-Wextra", "-Werror"]


CPP = ["-x", "c++", "-std=gnu++14", "-fno-exceptions", "-fno-rtti"]


needs_arm = pytest.mark.skipif(shutil.which(ARM_GCC) is None, reason=f"needs {ARM_GCC}")


def board_flags(board: Board) -> list[str]:
    # The mbed cores pass floats in integer registers, the others do not.
    abi = "softfp" if "mbed" in board.fqbn else "hard"
    processor = ["-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-d16", f"-mfloat-abi={abi}"]
    return [*processor, "-Os", *WARNINGS, f"-D{board.macros[0]}", "-I", str(STUBS)]


def compile_source(path: Path, board: Board, output: Path, *more: str) -> str:
    """Compile a file as the Arduino tools do, and return the compiler's messages."""
    language = {
        ".ino": [ARM_GPP, *CPP, "-include", "Arduino.h"],
        ".cpp": [ARM_GPP, *CPP],
        ".cc": [ARM_GPP, *CPP],
        ".c": [ARM_GCC, "-std=gnu11"],
        ".S": [ARM_GCC, "-x", "assembler-with-cpp"],
    }[path.suffix]
    command = [*language, *board_flags(board), *more, "-c", str(path), "-o", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def sources_of(directory: Path) -> list[Path]:
    suffixes = (".ino", ".cpp", ".cc", ".c", ".S")
    return sorted(path for path in directory.rglob("*") if path.suffix in suffixes)
