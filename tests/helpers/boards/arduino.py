"""Compiles a sketch as the Arduino tools do, with headers that stand in for a board's core."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgel3_tflm.device.boards import Board

ROOT = Path(__file__).parents[3]


MICRO_APP = ROOT / "micro_app"


STUBS = Path(__file__).parents[2] / "native" / "arduino_stubs"


ARM_GCC, ARM_GPP = "arm-none-eabi-gcc", "arm-none-eabi-g++"


WARNINGS = ["-Wall", "-Wextra", "-Werror"]


needs_arm = pytest.mark.skipif(shutil.which(ARM_GCC) is None, reason=f"needs {ARM_GCC}")


@dataclass(frozen=True)
class Recipe:
    """How a core's platform.txt and boards.txt compile a sketch."""

    c: str
    cpp: str
    both: str = ""
    macros: tuple[str, ...] = ()


RECIPES = {
    "arduino": Recipe(
        c="-std=gnu11",
        cpp="-std=gnu++14 -fno-rtti -Wvla",
        both="-mfloat-abi=softfp -mfpu=fpv5-d16 -funsigned-char -fomit-frame-pointer",
        macros=("ARDUINO_ARCH_MBED",),
    ),
    "teensy": Recipe(
        c="-std=gnu11",
        cpp="-std=gnu++17 -fno-exceptions -fno-rtti -fno-threadsafe-statics -felide-constructors",
        both="-mfloat-abi=hard -mfpu=fpv5-d16 -ffunction-sections -fdata-sections",
    ),
    "STMicroelectronics": Recipe(
        c="-std=gnu17",
        cpp="-std=gnu++17 -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-use-cxa-atexit",
        both="-mfloat-abi=hard -mfpu=fpv5-sp-d16 --param max-inline-insns-single=500",
        macros=("ARDUINO_ARCH_STM32",),
    ),
}
"""By the first part of a board's name in the Arduino IDE."""


def find_recipe(board: Board) -> Recipe:
    return RECIPES[board.fqbn.split(":")[0]]


def sketch_macros(board: Board) -> list[str]:
    """Return the options that define the macros by which a sketch knows its board and core."""
    return [f"-D{macro}" for macro in ("ARDUINO", board.macros[0], *find_recipe(board).macros)]


def board_flags(board: Board) -> list[str]:
    processor = ["-mcpu=cortex-m7", "-mthumb", *find_recipe(board).both.split()]
    return [*processor, "-Os", *WARNINGS, *sketch_macros(board)]


def find_sketch(source: Path) -> Path:
    """Return the sketch's folder of a source. The Arduino tools search it before the core's."""
    folders = (folder for folder in source.parents if list(folder.glob("*.ino")))
    return next(folders, source.parent)


def compile_source(path: Path, board: Board, output: Path, *more: str) -> str:
    """Compile a file as the Arduino tools do, and return the compiler's messages."""
    recipe = find_recipe(board)
    cpp = [ARM_GPP, "-x", "c++", *recipe.cpp.split()]
    language = {
        ".ino": [*cpp, "-include", "Arduino.h"],
        ".cpp": cpp,
        ".cc": cpp,
        ".c": [ARM_GCC, *recipe.c.split()],
        ".S": [ARM_GCC, "-x", "assembler-with-cpp"],
    }[path.suffix]
    command = [*language, *board_flags(board), "-I", str(find_sketch(path)), "-I", str(STUBS)]
    command += [*more, "-c", str(path), "-o", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def sources_of(directory: Path) -> list[Path]:
    suffixes = (".ino", ".cpp", ".cc", ".c", ".S")
    return sorted(path for path in directory.rglob("*") if path.suffix in suffixes)
