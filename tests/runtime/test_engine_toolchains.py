"""The C library under several compilers, and under sanitizers."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers.networks.engine_networks import Int8Array, draw_windows, seal
from helpers.networks.engine_sweep import EXTREMES, KERNELS, SPARSITIES, draw_extreme, sweep
from helpers.networks.int8_network import build

from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.runtime.c_library.engine import Engine
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.packed import read_packed

SOURCES = Path(__file__).parents[2] / "micro_app" / "lib" / "edgel3" / "src"


def find_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(
            f"needs {name}; on Debian: apt-get install gcc g++ clang gcc-aarch64-linux-gnu"
            " libc6-dev-arm64-cross qemu-user"
        )
    return path


HOST_KERNELS = SOURCES.parents[2] / "host" / "edgel3_kernels_host.c"
EXTRA_KERNELS = f"-DEDGEL3_EXTRA_KERNELS={HOST_KERNELS.stem}"
C_FILES = (*sorted(SOURCES.glob("*.c")), HOST_KERNELS)
ENGINE_FILES = (
    SOURCES / "edgel3_engine.c",
    SOURCES / "edgel3_kernels.c",
    SOURCES / "edgel3_packed.c",
    HOST_KERNELS,
)
COMPILERS = {
    "gcc": ["-std=c99"],
    "clang": ["-std=c99"],
    "g++": ["-x", "c++", "-std=c++11"],
    "aarch64-linux-gnu-gcc": ["-std=c99"],
}


@pytest.mark.parametrize(
    ("compiler", "file"),
    [
        pytest.param(compiler, file, id=f"{compiler}-{file.name}")
        for compiler in COMPILERS
        for file in C_FILES
        # GCC 12's own AVX-512 headers warn when they are compiled as C++.
        if (compiler, file) != ("g++", HOST_KERNELS)
    ],
)
def test_sources_compile_without_a_warning(compiler: str, file: Path, tmp_path: Path) -> None:
    # With optimisation, because some warnings need an analysis of the data flow.
    strict = ["-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    output = tmp_path / "out.o"
    done = subprocess.run(
        [
            find_tool(compiler),
            *COMPILERS[compiler],
            *(*strict, EXTRA_KERNELS, f"-I{SOURCES}"),
            *("-c", file, "-o", output),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Machine:
    """A processor, and how to compile a program for it and run it.

    Parameters
    ----------
    compiler : str
    emulator : tuple of str
        The command that runs a program; empty for this processor.
    as_evex : bool
        Compile AVX-VNNI's instructions in the encoding of AVX-512 VNNI.
    """

    compiler: str
    emulator: tuple[str, ...] = ()
    as_evex: bool = False


HERE = Machine("gcc")
WITH_EVEX = Machine("gcc", as_evex=True)
AARCH64 = Machine(
    "aarch64-linux-gnu-gcc", emulator=("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
)
MACHINES = {
    **dict.fromkeys(KERNELS, HERE),
    "neon": HERE if "neon" in KERNELS else AARCH64,
    "avxvnni": HERE if "avxvnni" in KERNELS else WITH_EVEX,
}
"""The processor that runs each set of kernels."""

STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
DRIVER = Path(__file__).parents[1] / "native" / "engine_driver.c"


def compile_as_evex(command: list[str], folder: Path) -> Path:
    """Compile the host kernels so that a processor with AVX-512 runs those for AVX-VNNI.

    The compiled code remains the same: the assembler writes VPDPBUSD in the other encoding, and the
    kernels do not ask whether the processor has AVX-VNNI.
    """
    for header in HOST_KERNELS.parent.glob("*.h"):
        shutil.copy(header, folder)
    text = HOST_KERNELS.read_text()
    check = "(eax >> 4 & 1u) != 0"
    assert text.count(check) == 1
    source = folder / HOST_KERNELS.name
    source.write_text(text.replace(check, "(eax >> 4 & 1u) <= 1"))
    assembly = folder / "kernels.s"
    subprocess.run([*command, "-S", source, "-o", assembly], check=True)
    text = assembly.read_text()
    assert "{vex} vpdpbusd" in text
    assembly.write_text(text.replace("{vex} vpdpbusd", "{evex} vpdpbusd"))
    return assembly


class Drivers:
    """The C library under AddressSanitizer and UndefinedBehaviorSanitizer, built when needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[Machine, Path] = {}

    def command(self, machine: Machine) -> list[str | Path]:
        """Return the command that runs the driver of a machine, without its arguments."""
        if machine not in self._built:
            folder = self._folder / str(len(self._built))
            folder.mkdir()
            path = folder / "engine_driver"
            compiler = [find_tool(machine.compiler), "-std=c99", "-g", "-O1", *STRICT, *SANITIZERS]
            compiler += [EXTRA_KERNELS, f"-I{SOURCES}"]
            sources = list(ENGINE_FILES)
            if machine.as_evex:
                sources[-1] = compile_as_evex(compiler, folder)
            done = subprocess.run(
                [*compiler, DRIVER, *sources, "-o", path], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            self._built[machine] = path
        emulator = (
            [find_tool(machine.emulator[0]), *machine.emulator[1:]] if machine.emulator else []
        )
        return [*emulator, self._built[machine]]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("drivers"))


@pytest.fixture(params=MACHINES)
def kernels(request: pytest.FixtureRequest) -> str:
    """The name of a set of kernels. Each set runs, on this processor or on an emulated one."""
    if request.param == "avxvnni" and not {"avxvnni", "avx512"} & set(KERNELS):
        pytest.skip("needs a processor with AVX-VNNI or AVX-512 VNNI")
    return str(request.param)


def drive(
    drivers: Drivers, kernels: str, windows: Int8Array, models: list[bytes], folder: Path
) -> list[tuple[int, list[bytes]]]:
    """Return status and embeddings of each model. An error of a sanitizer fails the test."""
    inputs = folder / "windows"
    inputs.write_bytes(windows.tobytes())
    paths = []
    for number, model in enumerate(models):
        paths.append(folder / f"model{number}")
        paths[-1].write_bytes(model)
    machine = MACHINES[kernels]
    # The search for leaks does not work in an emulator.
    leaks = {"ASAN_OPTIONS": "detect_leaks=0"} if machine.emulator else {}
    done = subprocess.run(
        [*drivers.command(machine), kernels, inputs, *paths],
        capture_output=True,
        text=True,
        env={**os.environ, **leaks},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(models)
    return [(int(status), [bytes.fromhex(each) for each in rest]) for status, *rest in lines]


def test_sanitizers_find_nothing_and_the_bytes_are_the_reference_s(
    drivers: Drivers, tmp_path: Path, kernels: str
) -> None:
    drawn = [each for sparsity in SPARSITIES for each in sweep(sparsity, (7, 65, 199))]
    for rng, network in drawn + [draw_extreme(values) for values in EXTREMES]:
        windows = draw_windows(rng, network)[::3]
        model = build(network)
        expected = open_interpreter(model, "reference").run(windows)
        ((status, found),) = drive(drivers, kernels, windows, [pack(model)], tmp_path)
        assert status == 0
        assert found == [embedding.tobytes() for embedding in expected]


def test_sanitizers_find_nothing_in_sea_64(
    drivers: Drivers, sea_generated: Deployment, tmp_path: Path, kernels: str
) -> None:
    windows = np.random.default_rng(0).integers(-128, 128, (2, 64, 50, 1)).astype(np.int8)
    expected = open_interpreter(sea_generated.read_model("int8"), "reference").run(windows)
    blob = sea_generated.read_model("int8", "engine")
    ((status, found),) = drive(drivers, kernels, windows, [blob], tmp_path)
    assert status == 0
    assert found == [embedding.tobytes() for embedding in expected]


def test_sanitizers_find_nothing_in_damaged_models(
    drivers: Drivers, blob: bytes, tmp_path: Path, kernels: str
) -> None:
    """The checksum of each damaged model is right, so that the checks of all fields are needed."""
    rng = np.random.default_rng(7)
    records_end = 64 + 4 * 32
    models = []
    for _ in range(400):
        # Half of the changes are in the header and the records.
        end = records_end if rng.random() < 0.5 else len(blob)
        spoiled = bytearray(blob)
        for position in rng.integers(16, end, rng.integers(1, 4)):
            spoiled[position] = rng.integers(256) if rng.random() < 0.5 else spoiled[position] ^ 1
        models.append(seal(bytes(spoiled)))
    models += [blob[:size] for size in range(0, 200, 7)]
    windows = rng.integers(-128, 128, (1, 13, 11, 1)).astype(np.int8)
    results = drive(drivers, kernels, windows, models, tmp_path)
    statuses = {status for status, _ in results}
    accepted, truncated, inconsistent = 0, 2, 6
    assert statuses == {accepted, truncated, inconsistent}
    ran = 0
    for (status, embeddings), model in zip(results, models, strict=True):
        if status == accepted:
            assert read_packed(model).embedding_size == 10  # Python's reader accepts it, too
            ran += len(embeddings)
            assert all(len(embedding) == 10 for embedding in embeddings)
    assert ran > 10


def test_sanitizers_find_an_arena_that_is_shorter_than_it_is_said_to_be(
    drivers: Drivers, blob: bytes, tmp_path: Path
) -> None:
    (tmp_path / "windows").write_bytes(bytes(13 * 11))
    (tmp_path / "model").write_bytes(blob)
    done = subprocess.run(
        [*drivers.command(HERE), "short", tmp_path / "windows", tmp_path / "model"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 processor")
def test_only_kernels_with_the_processor_s_instructions_are_used(
    blob: bytes, tmp_path: Path
) -> None:
    """Emulated processors: one without AVX2, one with."""
    windows = np.random.default_rng(1).integers(-128, 128, (1, 13, 11, 1)).astype(np.int8)
    (tmp_path / "windows").write_bytes(windows.tobytes())
    (tmp_path / "model").write_bytes(blob)
    program = tmp_path / "engine_driver"
    command = [find_tool("gcc"), "-std=c99", "-O1", EXTRA_KERNELS, f"-I{SOURCES}", DRIVER]
    subprocess.run([*command, *ENGINE_FILES, "-o", program], check=True)
    expected = Engine(blob, "portable").run(windows[0, :, :, 0]).tobytes().hex()
    for processor, runs in (("Westmere", ["portable"]), ("Haswell", ["portable", "avx2"])):
        for kernels in ("best", "portable", "avx2", "avxvnni", "avx512", "neon"):
            done = subprocess.run(
                [
                    *(find_tool("qemu-x86_64"), "-cpu", processor, program, kernels),
                    *(tmp_path / "windows", tmp_path / "model"),
                ],
                capture_output=True,
                text=True,
            )
            if kernels in ("best", *runs):
                assert done.stdout.split() == ["0", expected], done.stderr
            else:
                assert done.returncode == 2
                assert "this processor lacks them" in done.stderr
