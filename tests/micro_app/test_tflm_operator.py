"""The engine as TFLite Micro's custom operator: compiled with its headers, run by its interpreter.

The wheel tflite-micro is the interpreter, built for this machine by TFLM's authors; it has no
headers. Those of xmos-ai-tools have changes of their vendor's, which ``upstream_headers`` undoes in
a copy. The wheel promises no binary interface, so both are of fixed versions.
"""

import importlib.metadata
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import emulator
import numpy as np
import numpy.typing as npt
import pytest
import tflite
from helpers.engine_networks import changed, clip_windows, draw_network, draw_windows, seal
from helpers.int8_network import build

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.converters.export.app import LIBRARY_FOLDER, export_app
from edgel3_tflm.converters.export.board_files import SKETCH_NAME
from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
    write_flatbuffer,
)
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.export.packed_flatbuffer import wrap_packed
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.device.client import Device
from edgel3_tflm.device.emulation import Emulator, Program
from edgel3_tflm.device.firmware import ToolError, build_node
from edgel3_tflm.device.wire import Failure
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.engine import Engine, arena_bytes
from edgel3_tflm.runtime.interpreters import RUNTIMES, open_interpreter
from edgel3_tflm.runtime.packed import CUSTOM_CODE, plan_memory, read_packed

Int8Array = npt.NDArray[np.int8]

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "micro_app" / "lib" / "edgel3" / "src"
OPERATOR = SOURCES / "edgel3_tflm.cc"
NODE_ENGINE = SOURCES / "edgel3_node_tflm.cc"
HOST_KERNELS = ROOT / "micro_app" / "host" / "edgel3_kernels_avx512.c"
ENGINE_FILES = [
    SOURCES / "edgel3_engine.c",
    SOURCES / "edgel3_kernels.c",
    SOURCES / "edgel3_packed.c",
    HOST_KERNELS,
]

ENGINE_FILES_M7 = [
    "edgel3_engine.c",
    "edgel3_kernels.c",
    "edgel3_kernels_m7.c",
    "edgel3_loops_m7.S",
    "edgel3_packed.c",
]
BOARD = ROOT / "micro_app" / "boards" / "mps2_an500"

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
    """See that a package has the version that pyproject.toml pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(
        line.split("==") for line in project["optional-dependencies"]["test"] if "==" in line
    )
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
    """Replace the first match, which there must be."""
    changed_text, count = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
    assert count == 1, pattern
    return changed_text


@pytest.fixture(scope="module")
def upstream_headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFLM's headers as they are upstream: names, virtual functions and reduced structures."""
    require(HEADERS)
    vendor = find_package("xmos_ai_tools") / "runtime" / "include"
    folder = tmp_path_factory.mktemp("tflm")
    for name in ("flatbuffers", "signal", "tensorflow"):
        shutil.copytree(vendor / name, folder / name)
    for path in folder.rglob("*.h"):
        text = path.read_text()
        text = re.sub(r"\btflite_micro\b", "tflite", text)
        path.write_text(re.sub(r"\bvirtual (.*\bint sg\))( override)?", r"\1", text))
    # Fields have come since, all behind those that are there; nothing inline reads them.
    path = folder / "tensorflow" / "lite" / "micro" / "micro_interpreter.h"
    fields = r"\1  char fields_that_have_come_since_[512];\n\2"
    path.write_text(substitute(r"(class MicroInterpreter \{.*?\n)(\};)", fields, path.read_text()))
    path = folder / "tensorflow" / "lite" / "core" / "c" / "common.h"
    full, mark, reduced = path.read_text().partition("#else   // defined(TF_LITE_STATIC_MEMORY)?")
    reduced = substitute(
        r"(struct TfLiteTensor \{).*?(\} TfLiteTensor;)",
        r"\1 TfLiteQuantization quantization; TfLiteQuantizationParams params;"
        r" TfLitePtrUnion data; TfLiteIntArray* dims; size_t bytes; TfLiteType type;"
        r" TfLiteAllocationType allocation_type; bool is_variable; \2",
        reduced,
    )
    reduced = substitute(r"(void\* user_data;)", r"TfLiteIntArray* intermediates; \1", reduced)
    path.write_text(full + mark + reduced)
    return folder


# Compiled --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("g++", ["-std=c++17"]),
        ("clang++", ["-std=c++14"]),
        ("cortex-m7", ["-std=c++17"]),
        ("cortex-m7", ["-std=c++17", "-DTF_LITE_STRIP_ERROR_STRINGS"]),
    ],
)
def test_the_operator_compiles_without_a_warning(
    upstream_headers: Path, tmp_path: Path, compiler: str, options: list[str]
) -> None:
    output = tmp_path / "operator.o"
    includes = ("-isystem", upstream_headers)
    command = [*COMPILERS[compiler], *options, *STRICT, STATIC_MEMORY, *includes, "-c", OPERATOR]
    compile_to(output, command)
    says = "-DTF_LITE_STRIP_ERROR_STRINGS" not in options
    assert (b"convert again" in output.read_bytes()) == says
    if compiler == "cortex-m7":
        assert_needs_only_tflm_and_engine(output)


def assert_needs_only_tflm_and_engine(output: Path) -> None:
    """No heap, no runtime of C++."""
    done = subprocess.run(
        [find_tool("arm-none-eabi-nm"), "--undefined-only", output],
        capture_output=True,
        text=True,
        check=True,
    )
    needed = [line.split()[-1] for line in done.stdout.splitlines()]
    tflm = [name for name in needed if "tflite" in name or "MicroPrintf" in name]
    engine = [name for name in needed if name.startswith("edgel3_")]
    assert {"edgel3_open", "edgel3_run"} < set(engine)
    assert sorted(tflm + engine) == sorted(needed)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_without_tflm_s_headers_there_is_nothing(tmp_path: Path, compiler: str) -> None:
    output = tmp_path / "operator.i"
    for source in (OPERATOR, NODE_ENGINE):
        compile_to(output, [*COMPILERS[compiler], "-std=c++11", *STRICT, "-E", "-P", source])
        assert output.read_text().strip() == ""
    # A sketch can ask.
    asking = tmp_path / "asking.cc"
    asking.write_text(
        '#include "edgel3_tflm.h"\n#ifdef EDGEL3_HAS_TFLM\n#error there are headers\n#endif\n'
    )
    compile_to(output, [*COMPILERS[compiler], "-std=c++11", f"-I{SOURCES}", "-E", asking])


def test_only_the_operator_and_what_runs_it_know_tflm() -> None:
    files = [path for path in SOURCES.iterdir() if "tensorflow/" in path.read_text()]
    assert {path.name for path in files} == {OPERATOR.name, "edgel3_tflm.h", NODE_ENGINE.name}


# Run -------------------------------------------------------------------------------------------

REGISTERER = """
#include "edgel3_tflm.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

extern "C" bool edgel3_register(tflite::MicroMutableOpResolver<200> *resolver) {
  return resolver->AddCustom(EDGEL3_TFLM_OPERATOR, edgel3::TflmRegistration()) == kTfLiteOk;
}
"""

# All models take the same windows, by turns. In a process of its own: the operator has to find
# TFLM's functions, which TensorFlow's must not, and a crash is to be seen as one.
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

# Each model is tried, one after the other; what is written of it ends with a line of its own.
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
        """What each model puts out, (windows, values)."""
        done = self.start(windows, models)
        assert done.returncode == 0, done.stderr
        return [np.load(self.folder / f"outputs{number}.npy") for number in range(len(models))]

    def refuse(self, *models: bytes, arena: int = ARENA_BYTES) -> list[list[str]]:
        """The lines the operator writes as it refuses each of some models."""
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


@pytest.fixture(scope="module")
def library(upstream_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Operator, engine and what registers the operator, for the interpreter to load."""
    require(INTERPRETER)
    folder = tmp_path_factory.mktemp("operator")
    objects = [folder / f"{source.name}.o" for source in ENGINE_FILES]
    extra = f"-DEDGEL3_EXTRA_KERNELS={HOST_KERNELS.stem}"
    c = ("gcc", "-std=c99", "-O2", "-fPIC", extra, f"-I{SOURCES}")
    for source, output in zip(ENGINE_FILES, objects, strict=True):
        compile_to(output, [*c, "-c", source])
    registerer = folder / "registerer.cc"
    registerer.write_text(REGISTERER)
    gemmlowp = find_package("tensorflow") / "include" / "external" / "gemmlowp"
    for source in (registerer, OPERATOR):
        objects.append(folder / f"{source.name}.o")
        compile_for_host(
            source, objects[-1], [STATIC_MEMORY, "-isystem", gemmlowp], upstream_headers
        )
    compile_to(folder / "operator.so", ["g++", "-shared", *objects])
    return folder / "operator.so"


def compile_for_host(
    source: Path, output: Path, options: Sequence[str | Path], headers: Path
) -> None:
    includes = (f"-I{SOURCES}", "-isystem", headers)
    compile_to(output, ["g++", "-std=c++17", "-O2", "-fPIC", *options, *includes, "-c", source])


@pytest.fixture
def interpreter(library: Path, tmp_path: Path) -> Interpreter:
    return Interpreter(library, tmp_path)


def run_engine(blob: bytes, windows: Int8Array) -> Int8Array:
    engine = Engine(blob)
    return np.stack([engine.run(window[:, :, 0]) for window in windows])


def test_sea_64_gives_the_engine_s_bytes(
    interpreter: Interpreter, sea_generated: Deployment, sounds: Path
) -> None:
    windows = clip_windows(sea_generated, find_clips([sounds / "chirp", sounds / "tone"]), 40)
    packed = (sea_generated.directory / "int8_packed.tflite").read_bytes()
    blob = sea_generated.read_model("int8", "engine")
    (found,) = interpreter.run(windows, packed)
    assert len(np.unique(found, axis=0)) > 30
    np.testing.assert_array_equal(found, run_engine(blob, windows))


def test_the_dense_network_runs_beside_it_as_before(
    interpreter: Interpreter, tiny_int8: Deployment
) -> None:
    """TFLM's own kernels, in the same process: the operator leaves them alone."""
    windows = np.random.default_rng(0).integers(-128, 128, (3, 64, 50, 1)).astype(np.int8)
    packed = (tiny_int8.directory / "int8_packed.tflite").read_bytes()
    dense = tiny_int8.read_model("int8")
    found, expected = interpreter.run(windows, packed, dense)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(open_interpreter(dense, "tflm").run(windows), expected)


def test_the_95_45_network_gives_the_engine_s_bytes(
    interpreter: Interpreter, standin: Deployment, sounds: Path
) -> None:
    windows = clip_windows(standin, find_clips([sounds / "tone"])[:1], 1)
    packed = (standin.directory / "int8_packed.tflite").read_bytes()
    (found,) = interpreter.run(windows, packed)
    expected = run_engine(standin.read_model("int8", "engine"), windows)
    np.testing.assert_array_equal(found, expected)


def test_generated_networks_give_the_engine_s_bytes_by_turns(interpreter: Interpreter) -> None:
    """Interpreters that take turns do not disturb each other."""
    rng = np.random.default_rng(0)
    network = draw_network(
        rng, rows=9, columns=33, filters=[8, 15, 11], pools=["none", "2x2", "global"]
    )
    blobs = []
    for sparsity in (0, 0.5, 0.85, 0.98):
        drawn = draw_network(
            rng,
            rows=9,
            columns=33,
            filters=[8, 15, 11],
            pools=["none", "2x2", "global"],
            sparsity=sparsity,
        )
        blobs.append(pack(build(replace(drawn, input=network.input))))
    windows = draw_windows(rng, network)
    outputs = interpreter.run(windows, *(wrap_packed(blob, "a test") for blob in blobs))
    for blob, found in zip(blobs, outputs, strict=True):
        np.testing.assert_array_equal(found, run_engine(blob, windows))
    assert len({found.tobytes() for found in outputs}) == len(blobs)


def test_the_comparison_fails_when_it_should(interpreter: Interpreter, blob: bytes) -> None:
    """One bias is other than the engine's."""
    offset = struct.unpack_from("<I", blob, 64 + 12)[0]
    other = seal(changed(blob, offset + 2, blob[offset + 2] ^ 1))
    windows = np.random.default_rng(1).integers(-128, 128, (4, 13, 11, 1)).astype(np.int8)
    (found,) = interpreter.run(windows, wrap_packed(other, "a test"))
    assert (found != run_engine(blob, windows)).any()


@pytest.fixture
def blob() -> bytes:
    rng = np.random.default_rng(1)
    return pack(
        build(
            draw_network(
                rng, rows=13, columns=11, filters=[12, 24, 10], pools=["none", "2x2", "global"]
            )
        )
    )


def test_the_arena_holds_the_engine_and_little_else(
    interpreter: Interpreter, tiny_int8: Deployment
) -> None:
    packed = (tiny_int8.directory / "int8_packed.tflite").read_bytes()
    done = interpreter.start(np.zeros((1, 64, 50, 1), np.int8), [packed])
    assert done.returncode == 0, done.stderr
    total = re.search(r"Arena allocation total (\d+) bytes", done.stderr)
    assert total is not None, done.stderr
    window_and_embedding = 64 * 50 + 4
    engine = arena_bytes(tiny_int8.read_model("int8", "engine"))
    # TFLM's own records of three tensors and a node.
    assert 0 <= int(total[1]) - engine - window_and_embedding <= 1024


def find_tflm_for_the_cortex_m7() -> tuple[list[str], str]:
    """Give the folders of headers and the library that the environment names."""
    includes, tflm = (os.environ.get(f"EDGEL3_TFLM_{name}") for name in ("INCLUDE", "LIB"))
    if not includes or not tflm:
        pytest.skip(
            "set EDGEL3_TFLM_INCLUDE to the folders of TFLM's and its third parties' headers, and"
            " EDGEL3_TFLM_LIB to TFLM's library, built with TF_LITE_STATIC_MEMORY for cortex-m7"
        )
    return includes.split(os.pathsep), tflm


def test_on_an_emulated_cortex_m7_it_gives_the_engine_s_bytes(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    """With TFLM's own headers and library for the Cortex-M7, where the environment names them."""
    includes, tflm = find_tflm_for_the_cortex_m7()
    packed = tiny_int8.directory / "int8_packed.tflite"
    windows = np.random.default_rng(4).integers(-128, 128, (3, 64, 50, 1)).astype(np.int8)
    (tmp_path / "windows").write_bytes(windows.tobytes())
    (tmp_path / "data.S").write_text(
        ".section .rodata\n.balign 16\n.global test_model, test_windows, test_windows_end\n"
        f'test_model: .incbin "{packed}"\n'
        f'test_windows: .incbin "{tmp_path / "windows"}"\n'
        "test_windows_end:\n"
    )
    c = (*emulator.FLAGS, f"-I{SOURCES}", f"-I{BOARD}")
    vendor = [word for folder in includes for word in ("-isystem", folder)]
    options = [*COMPILERS["cortex-m7"][1:], "-std=c++17", *STRICT, STATIC_MEMORY, *vendor]
    sources = {BOARD / "board.c": c, tmp_path / "data.S": c}
    sources |= {SOURCES / name: c for name in ENGINE_FILES_M7}
    objects = []
    for source, flags in sources.items():
        objects.append(tmp_path / f"{source.name}.o")
        compile_to(objects[-1], ["arm-none-eabi-gcc", *flags, "-c", source])
    for source in (OPERATOR, Path(__file__).parents[1] / "native" / "tflm_main_m7.cc"):
        objects.append(tmp_path / f"{source.name}.o")
        compile_to(objects[-1], ["arm-none-eabi-g++", *c, *options, "-c", source])
    elf = tmp_path / "test.elf"
    script = ("-nostartfiles", "--specs=nosys.specs", "-T", BOARD / "mps2_an500.ld")
    linking = (*script, "-Wl,--gc-sections", "-Wl,--defsym=end=board_bss_end")
    compile_to(elf, ["arm-none-eabi-g++", *emulator.FLAGS, *linking, *objects, tflm])
    done = subprocess.run(
        [
            *(find_tool(emulator.QEMU), "-M", emulator.MACHINE, "-icount", "shift=0"),
            *("-display", "none", "-monitor", "none", "-serial", "none"),
            *("-chardev", "stdio,id=console", "-semihosting-config"),
            *("enable=on,target=native,chardev=console", "-kernel", elf),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done
    *embeddings, arena = done.stdout.split()
    blob = tiny_int8.read_model("int8", "engine")
    assert embeddings == [values.tobytes().hex() for values in run_engine(blob, windows)]
    # The engine, TFLM's own records, window and embedding.
    assert 0 <= int(arena) - plan_memory(blob).arena_bytes - 64 * 50 - 4 <= 1024


# The node with TFLM ----------------------------------------------------------------------------

TFLM_ENGINES = ("tflm", "tflm-builtin")

# The program's main() among TFLM's functions, which the interpreter's package has.
LAUNCH = """#!{python}
import ctypes, os, sys
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
from tflite_micro import runtime
ctypes.CDLL("{program}", mode=ctypes.RTLD_GLOBAL).main()
"""


# The kernels' namespace moved between the headers and the interpreter.
MOVED = """
#include "tensorflow/lite/micro/micro_common.h"
#define MOVED(name)                                                  \\
  namespace tflite {                                                 \\
  namespace micro {                                                  \\
  TFLMRegistration name();                                           \\
  }                                                                  \\
  TFLMRegistration name() { return micro::name(); }                  \\
  }
MOVED(Register_CONV_2D)
MOVED(Register_MAX_POOL_2D)
MOVED(Register_RESHAPE)
"""


def export_model(deployment: Deployment, engine: str, output: Path) -> Path:
    """Export an application; the folder of its library and model."""
    export_app(deployment, BOARDS[0], output, engine=engine)
    return output / SKETCH_NAME / LIBRARY_FOLDER


@pytest.fixture(scope="module")
def node_objects(
    library: Path, upstream_headers: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """What a node with TFLM is made of, but for its model and its main()."""
    folder = tmp_path_factory.mktemp("node")
    compiled = [*ENGINE_FILES, OPERATOR]
    objects = [library.parent / f"{source.name}.o" for source in compiled]
    for source in sorted(set(SOURCES.glob("*.c")) - set(compiled)):
        objects.append(folder / f"{source.name}.o")
        compile_to(objects[-1], ["gcc", "-std=c99", "-O2", "-fPIC", "-c", source])
    gemmlowp = find_package("tensorflow") / "include" / "external" / "gemmlowp"
    moved = folder / "moved.cc"
    moved.write_text(MOVED)
    for source in (NODE_ENGINE, moved):
        objects.append(folder / f"{source.name}.o")
        options = [*STRICT, STATIC_MEMORY, "-isystem", gemmlowp]
        compile_for_host(source, objects[-1], options, upstream_headers)
    return objects


def check_node(device: Device, deployment: Deployment) -> None:
    """What a node of the packed model answers."""
    blob = deployment.read_model("int8", "engine")
    source = deployment.manifest["artefacts"]["int8.tflite"]["sha256"]
    assert device.info.source_sha256.hex() == source[:32]
    assert device.self_test() == Failure(0)
    rng = np.random.default_rng(5)
    windows = rng.integers(-128, 128, (2, 64, 50, 1)).astype(np.int8)
    found = [device.embed_log_mel(window[:, :, 0]) for window in windows]
    np.testing.assert_array_equal(found, run_engine(blob, windows))
    # The log-mel values lie where the interpreter works afterwards.
    embedding = device.embed_pcm(rng.normal(0, 3000, 8000).astype(np.int16))
    window = device.log_mel()
    np.testing.assert_array_equal(
        embedding, run_engine(blob, window[np.newaxis, ..., np.newaxis])[0]
    )


@pytest.mark.parametrize("engine", TFLM_ENGINES)
def test_a_node_in_tflm_s_interpreter_gives_the_engine_s_bytes(
    node_objects: list[Path], tiny_int8: Deployment, tmp_path: Path, engine: str
) -> None:
    model = export_model(tiny_int8, engine, tmp_path / "app")
    main = ROOT / "micro_app" / "boards" / "host" / "node.c"
    objects = [*node_objects, tmp_path / "main.o", tmp_path / "frontend.o", tmp_path / "model.o"]
    c = ["gcc", "-D_POSIX_C_SOURCE=200809L", "-std=c99", "-O2", "-fPIC", f"-I{model}", "-c"]
    compile_to(tmp_path / "main.o", [*c, "-Wall", "-Wextra", "-Werror", main])
    compile_to(tmp_path / "frontend.o", [*c, model / "edgel3_model_frontend.c"])
    compile_to(tmp_path / "model.o", ["g++", "-fPIC", "-c", model / "edgel3_model.cc"])
    program = tmp_path / "node.so"
    compile_to(program, ["g++", "-shared", *objects])
    launcher = tmp_path / "launch"
    launcher.write_text(LAUNCH.format(python=sys.executable, program=program))
    launcher.chmod(0o755)
    with Program(launcher) as running, Device(running.connect(), timeout_s=600) as device:
        check_node(device, tiny_int8)


@pytest.mark.parametrize("engine", TFLM_ENGINES)
def test_a_node_in_tflm_s_interpreter_on_an_emulated_cortex_m7(
    tiny_int8: Deployment, tmp_path: Path, engine: str
) -> None:
    includes, tflm = find_tflm_for_the_cortex_m7()
    model = export_model(tiny_int8, engine, tmp_path / "app")
    options = [f"-DEDGEL3_TFLM_INCLUDE={';'.join(includes)}", f"-DEDGEL3_TFLM_LIBRARY={tflm}"]
    firmware = build_node(model, tmp_path / "build", options=tuple(options))
    with Emulator(firmware) as running, Device(running.connect()) as device:
        check_node(device, tiny_int8)


def test_a_sketch_with_tflm_compiles_without_a_warning(
    upstream_headers: Path, tiny_int8: Deployment, tmp_path: Path
) -> None:
    model = export_model(tiny_int8, "tflm", tmp_path / "app")
    stubs = Path(__file__).parents[1] / "native" / "arduino_stubs"
    platformio = (tmp_path / "app" / "platformio.ini").read_text()
    assert f"-std=gnu++17 {STATIC_MEMORY}" in platformio
    gemmlowp = find_package("tensorflow") / "include" / "external" / "gemmlowp"
    options = ["-std=gnu++17", STATIC_MEMORY, *STRICT, f"-D{BOARDS[0].macros[0]}"]
    includes = ["-isystem", upstream_headers, "-isystem", gemmlowp]
    command = [*COMPILERS["cortex-m7"], *options, *includes]
    sketch = tmp_path / "app" / SKETCH_NAME / f"{SKETCH_NAME}.ino"
    arduino = [f"-I{stubs}", "-include", "Arduino.h", "-xc++"]
    compile_to(tmp_path / "o", [*command, *arduino, "-c", sketch])
    compile_to(tmp_path / "o", [*command, "-c", model / NODE_ENGINE.name])


def test_the_95_45_network_in_tflm_is_refused_for_want_of_ram(
    standin: Deployment, tmp_path: Path
) -> None:
    """The interpreter keeps a copy of the input, and its arena is all taken while it runs."""
    with pytest.raises(EdgeL3Error, match=r"at most 327,680 bytes of RAM .* choose another board"):
        export_app(standin, BOARDS[0], tmp_path / "app", engine="tflm")


def test_a_node_with_tflm_but_without_its_headers_says_what_is_missing(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    model = export_model(tiny_int8, "tflm", tmp_path / "app")
    with pytest.raises(ToolError, match="expected EDGEL3_TFLM_INCLUDE and"):
        build_node(model, tmp_path / "build", "host")


# Refused ---------------------------------------------------------------------------------------


def wrap(
    blob: bytes,
    *,
    like: bytes | None = None,
    model_type: int = tflite.TensorType.UINT8,
    constant: bool = True,
    second_output: bool = False,
    **changes: WrittenTensor,
) -> bytes:
    """Write what ``wrap_packed`` writes, with something else than it does."""
    model = read_packed(like or blob)
    window = WrittenTensor(
        "window",
        tflite.TensorType.INT8,
        (1, model.rows, model.columns, 1),
        (model.input_scale,),
        (model.input_zero_point,),
    )
    embedding = WrittenTensor(
        "embedding",
        tflite.TensorType.INT8,
        (1, model.embedding_size),
        (model.output_scale,),
        (model.output_zero_point,),
    )
    tensors = [
        changes.get("window", window),
        WrittenTensor("model", model_type, (len(blob),), data=blob if constant else None),
        changes.get("embedding", embedding),
    ]
    inputs, outputs = ([0] if constant else [0, 1]), [2]
    if second_output:
        tensors.append(embedding)
        outputs.append(3)
    operator = WrittenOperator(
        tflite.BuiltinOperator.CUSTOM, (0, 1), tuple(outputs), custom_code=CUSTOM_CODE
    )
    return write_flatbuffer(
        tensors, [operator], inputs=inputs, outputs=outputs, description="a test"
    )


def test_the_flatbuffer_that_is_spoiled_below_runs_when_it_is_not(
    interpreter: Interpreter, blob: bytes
) -> None:
    windows = np.random.default_rng(2).integers(-128, 128, (2, 13, 11, 1)).astype(np.int8)
    (found,) = interpreter.run(windows, wrap(blob))
    np.testing.assert_array_equal(found, run_engine(blob, windows))


def test_spoiled_models_are_refused_with_the_engine_s_reason(
    interpreter: Interpreter, blob: bytes
) -> None:
    cases = {
        "the packed model is damaged: its checksum differs": changed(blob, 70, blob[70] ^ 1),
        "the bytes are not a packed model": b"TFL3" + blob[4:],
        "the packed model has another version of the format": changed(blob, 4, 2),
        "the packed model is truncated: fewer bytes than its header says": blob[:-1],
        "a field of the packed model is inconsistent or out of range": seal(
            changed(blob, 64 + 9, 3)
        ),
    }
    lines = interpreter.refuse(*(wrap(spoiled, like=blob) for spoiled in cases.values()))
    assert lines == [[f"the engine refuses its model: {reason}"] for reason in cases]


def test_tensors_that_are_not_the_packed_model_s_are_refused(
    interpreter: Interpreter, blob: bytes
) -> None:
    model = read_packed(blob)
    int8, int16 = tflite.TensorType.INT8, tflite.TensorType.INT16
    scale, zero_point = (model.input_scale,), (model.input_zero_point,)
    shape = (1, model.rows, model.columns, 1)
    next_scale = (float(np.nextafter(np.float32(scale[0]), np.float32(1))),)
    output = ((model.output_scale,), (model.output_zero_point,))
    shapes = [(1, 13, 12, 1), (1, 11, 13, 1), (2, 13, 11, 1), (1, 13, 11), (143,), (1, 13, 11, 2)]
    cases = [
        *(
            (
                "expected an int8 input of shape [1, 13, 11, 1]; convert again",
                wrap(blob, window=WrittenTensor("window", kind, other, scale, zero_point)),
            )
            for kind, other in [(int16, shape), *((int8, other) for other in shapes)]
        ),
        *(
            (
                "expected an int8 output of shape [1, 10]; convert again",
                wrap(blob, embedding=WrittenTensor("embedding", kind, other, *output)),
            )
            for kind, other in [(int16, (1, 10)), (int8, (1, 9)), (int8, (1, 11)), (int8, (10,))]
        ),
        *(
            (
                "the input is not quantized as the packed model's; convert again",
                wrap(blob, window=WrittenTensor("window", int8, shape, *other)),
            )
            for other in [
                (next_scale, zero_point),
                (scale, (zero_point[0] - 1,)),
                (scale, (zero_point[0] + 256,)),
                ((), ()),
            ]
        ),
        (
            "the output is not quantized as the packed model's; convert again",
            wrap(
                blob,
                embedding=WrittenTensor(
                    "embedding", int8, (1, 10), output[0], (model.output_zero_point + 1,)
                ),
            ),
        ),
        *(
            ("expected the packed model as a uint8 constant; convert again", other)
            for other in (wrap(blob, model_type=int8), wrap(blob, constant=False))
        ),
        (
            "expected 2 inputs and 1 output, found 2 and 2; convert again",
            wrap(blob, second_output=True),
        ),
    ]
    assert interpreter.refuse(*(flatbuffer for _, flatbuffer in cases)) == [
        [line] for line, _ in cases
    ]


def test_a_misaligned_model_is_refused(interpreter: Interpreter, blob: bytes) -> None:
    flatbuffer = wrap(blob)
    root = struct.unpack_from("<I", flatbuffer)[0]
    # Only the root's offset counts from the start of the file.
    moved = struct.pack("<I", root + 2) + flatbuffer[4:8] + bytes(2) + flatbuffer[8:]
    assert interpreter.refuse(moved) == [
        ["the packed model is not aligned to 4 bytes; align the flatbuffer to 16"]
    ]


def test_an_arena_that_is_too_small_says_what_the_engine_needs(
    interpreter: Interpreter, blob: bytes
) -> None:
    needed = arena_bytes(blob)
    for size in (needed + 200, needed // 2):
        ((line,),) = interpreter.refuse(wrap(blob), arena=size)
        assert line == f"the engine needs {needed} bytes of the tensor arena; enlarge it"


def test_another_layout_than_tflm_s_library_has_says_so(
    library: Path, upstream_headers: Path, tmp_path: Path, blob: bytes
) -> None:
    """Compiled without the macro that TFLM's own build defines."""
    others = sorted(
        path for path in library.parent.glob("*.o") if not path.match(OPERATOR.name + "*")
    )
    compile_for_host(OPERATOR, tmp_path / "operator.o", [], upstream_headers)
    compile_to(tmp_path / "operator.so", ["g++", "-shared", tmp_path / "operator.o", *others])
    folder = tmp_path / "models"
    folder.mkdir()
    ((line,),) = Interpreter(tmp_path / "operator.so", folder).refuse(wrap(blob))
    assert "TF_LITE_STATIC_MEMORY is not defined as for TFLM's library" in line


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ordinary_runtimes_refuse_the_flatbuffer_in_one_line(
    tiny_int8: Deployment, runtime: str
) -> None:
    packed = (tiny_int8.directory / "int8_packed.tflite").read_bytes()
    reason = {
        "tflm": "Failed to get registration from op code CUSTOM",
        "engine": r"not a packed model; give it the packed\.edgel3 of a deployment",
    }.get(runtime, "unresolved custom op: EDGEL3")
    with pytest.raises(ModelFileError, match=rf"refuses[^\n]*{reason}[^\n]*\Z"):
        open_interpreter(packed, runtime)
