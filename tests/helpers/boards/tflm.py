"""TFLM's headers and interpreter for the tests of the custom operator.

The wheel tflite-micro is the interpreter, built for this machine by TFLM's authors. It contains no
headers. Those of xmos-ai-tools contain changes of their vendor, which the fixture
``upstream_headers`` undoes in a copy. The wheel promises no binary interface, so both packages have
fixed versions.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgel3_tflm import schema
from edgel3_tflm.runtime.c_library.engine import Engine

Int8Array = npt.NDArray[np.int8]


ROOT = Path(__file__).parents[3]


SOURCES = ROOT / "micro_app" / "lib" / "edgel3" / "src"


OPERATOR = SOURCES / "edgel3_tflm.cc"


NODE_ENGINE = SOURCES / "edgel3_node_tflm.cc"


BUILTIN_ENGINE = SOURCES / "edgel3_node_tflm_builtin.cc"


HOST_KERNELS = ROOT / "micro_app" / "host" / "edgel3_kernels_host.c"


ENGINE_FILES = [
    SOURCES / "edgel3_engine.c",
    SOURCES / "edgel3_kernels.c",
    SOURCES / "edgel3_packed.c",
    HOST_KERNELS,
]


INTERPRETER, HEADERS = "tflite-micro", "xmos-ai-tools"


STRICT = ("-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror")


# TFLM's own build defines it; structures differ without.
STATIC_MEMORY = "-DTF_LITE_STATIC_MEMORY"


COMPILERS = {
    "g++": ("g++", "-fPIC"),
    "clang++": ("clang++",),
    "cortex-m7": (
        *("arm-none-eabi-g++", "-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-d16", "-mfloat-abi=hard"),
        *("-fno-exceptions", "-fno-rtti"),
    ),
}


def find_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(
            f"needs {name}; on Debian: apt-get install gcc g++ clang gcc-arm-none-eabi"
            " libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib"
        )
    return path


def find_package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.fail(f"needs the package {name}; pip install '.[test]'")
    return Path(spec.submodule_search_locations[0])


def require(name: str) -> None:
    """Fail unless a package has the version that pyproject.toml pins."""
    project = schema.tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(
        line.split(";")[0].split("==")
        for line in project["optional-dependencies"]["test"]
        if "==" in line
    )
    if name == HEADERS and sys.version_info >= (3, 13):
        pytest.skip(f"{name} needs NumPy 1, which has no wheel for Python 3.13")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != pinned[name]:
        pytest.fail(
            f"TFLM's headers and its interpreter only match in pinned versions: expected {name}"
            f" {pinned[name]}, found {found}; pip install '.[test]'"
        )


def compile_to(output: Path, command: Sequence[str | Path]) -> None:
    program, *options = command
    done = subprocess.run(
        [find_tool(str(program)), *options, "-o", output], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def substitute(pattern: str, replacement: str, text: str) -> str:
    """Replace the first match; fail if there is none."""
    changed_text, count = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
    assert count == 1, pattern
    return changed_text


REGISTERER = """
#include "edgel3_tflm.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

extern "C" bool edgel3_register(tflite::MicroMutableOpResolver<200> *resolver) {
  return resolver->AddCustom(EDGEL3_TFLM_OPERATOR, edgel3::TflmRegistration()) == kTfLiteOk;
}
"""


# All models run on the same windows, interleaved. This needs a separate process: the operator must
# find TFLM's functions but TensorFlow must not, and the test must notice a crash.
INTERPRET = """
import ctypes, os, sys
from pathlib import Path
import numpy as np, tflite
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
from tflite_micro import runtime

library, folder, arena_bytes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
interpreters, outputs = [], []
for path in sorted(folder.glob("model*"), key=lambda path: int(path.name[5:])):
    model = path.read_bytes()
    interpreters.append(runtime.Interpreter.from_bytes(
        model, custom_op_registerers=["edgel3_register"], arena_size=arena_bytes))
    outputs.append([])
for window in np.load(folder / "windows.npy"):
    for interpreter, found in zip(interpreters, outputs):
        interpreter.set_input(window[np.newaxis], 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0)[0])
for number, (interpreter, found) in enumerate(zip(interpreters, outputs)):
    np.save(folder / f"outputs{number}.npy", np.stack(found))
    interpreter.print_allocations()
"""


ARENA_BYTES = 64 * 1024 * 1024


# Tries one model after the other. The messages about each end with a line "accepted" or "refused".
REFUSE = """
import ctypes, os, sys
from pathlib import Path
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
from tflite_micro import runtime

library, folder, arena_bytes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
for path in sorted(folder.glob("model*"), key=lambda path: int(path.name[5:])):
    try:
        runtime.Interpreter.from_bytes(path.read_bytes(),
            custom_op_registerers=["edgel3_register"], arena_size=arena_bytes)
        print("accepted", file=sys.stderr, flush=True)
    except RuntimeError as error:
        print("refused", error, file=sys.stderr, flush=True)
"""


REFUSED = "refused TFLM failed to allocate tensors"


@dataclass(frozen=True)
class Interpreter:
    """TFLM's interpreter with the operator registered, in another process."""

    library: Path
    folder: Path

    def start(
        self,
        windows: Int8Array,
        models: Sequence[bytes],
        arena: int = ARENA_BYTES,
        script: str = INTERPRET,
    ) -> subprocess.CompletedProcess[str]:
        for path in self.folder.iterdir():
            path.unlink()
        np.save(self.folder / "windows.npy", windows)
        for number, model in enumerate(models):
            (self.folder / f"model{number}").write_bytes(model)
        return subprocess.run(
            [sys.executable, "-c", script, self.library, self.folder, str(arena)],
            capture_output=True,
            text=True,
            timeout=300,
        )

    def run(self, windows: Int8Array, *models: bytes) -> list[Int8Array]:
        """Return the outputs of each model, shape (windows, values)."""
        done = self.start(windows, models)
        assert done.returncode == 0, done.stderr
        return [np.load(self.folder / f"outputs{number}.npy") for number in range(len(models))]

    def refuse(self, *models: bytes, arena: int = ARENA_BYTES) -> list[list[str]]:
        """Return the lines that the operator writes when it refuses each of some models."""
        done = self.start(np.empty((0, 1, 1, 1), np.int8), models, arena, REFUSE)
        assert done.returncode == 0, done
        lines: list[list[str]] = [[]]
        for line in map(str.strip, done.stderr.splitlines()):
            if line.startswith("EDGEL3: "):
                lines[-1].append(line.removeprefix("EDGEL3: "))
            elif line.startswith(("accepted", "refused")):
                assert line.startswith(REFUSED), (line, lines)
                lines.append([])
        assert len(lines) == len(models) + 1
        return lines[:-1]


def compile_for_host(
    source: Path, output: Path, options: Sequence[str | Path], headers: Path
) -> None:
    includes = (f"-I{SOURCES}", "-isystem", headers)
    compile_to(output, ["g++", "-std=c++17", "-O2", "-fPIC", *options, *includes, "-c", source])


def run_engine(blob: bytes, windows: Int8Array) -> Int8Array:
    engine = Engine(blob)
    return np.stack([engine.run(window[:, :, 0]) for window in windows])


def find_tflm_for_the_cortex_m7() -> tuple[list[str], str]:
    """Return the folders of headers and the library that the environment variables contain."""
    includes, tflm = (os.environ.get(f"EDGEL3_TFLM_{name}") for name in ("INCLUDE", "LIB"))
    if not includes or not tflm:
        pytest.skip(
            "set EDGEL3_TFLM_INCLUDE to the folders of TFLM's and its third parties' headers, and"
            " EDGEL3_TFLM_LIB to TFLM's library, built with TF_LITE_STATIC_MEMORY for cortex-m7"
        )
    return includes.split(os.pathsep), tflm
