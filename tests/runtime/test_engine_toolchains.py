"""The C library under several compilers, and under sanitizers."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.networks.engine_networks import Int8Array, draw_windows, seal
from helpers.networks.engine_sweep import BOTH_KERNELS, SPARSITIES, sweep
from helpers.networks.int8_network import build

from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.runtime.c_library.engine import Kernels
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.packed import read_packed

SOURCES = Path(__file__).parents[2] / "micro_app" / "lib" / "edgel3" / "src"


def find_compiler(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"needs {name}; on Debian: apt-get install gcc g++ clang")
    return path


HOST_KERNELS = SOURCES.parents[2] / "host" / "edgel3_kernels_avx512.c"
EXTRA_KERNELS = f"-DEDGEL3_EXTRA_KERNELS={HOST_KERNELS.stem}"
C_FILES = (*sorted(SOURCES.glob("*.c")), HOST_KERNELS)
ENGINE_FILES = (
    SOURCES / "edgel3_engine.c",
    SOURCES / "edgel3_kernels.c",
    SOURCES / "edgel3_packed.c",
    HOST_KERNELS,
)
COMPILERS = {"gcc": ["-std=c99"], "clang": ["-std=c99"], "g++": ["-x", "c++", "-std=c++11"]}


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
            find_compiler(compiler),
            *COMPILERS[compiler],
            *(*strict, EXTRA_KERNELS, f"-I{SOURCES}"),
            *("-c", file, "-o", output),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C library under AddressSanitizer and UndefinedBehaviorSanitizer."""
    path = tmp_path_factory.mktemp("driver") / "engine_driver"
    strict = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [Path(__file__).parents[1] / "native" / "engine_driver.c", *ENGINE_FILES]
    done = subprocess.run(
        [
            *(find_compiler("gcc"), "-std=c99", "-g", "-O1", *strict, *sanitizers),
            *(EXTRA_KERNELS, f"-I{SOURCES}", *sources, "-o", path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return path


def drive(
    driver: Path, kernels: Kernels, windows: Int8Array, models: list[bytes], folder: Path
) -> list[tuple[int, list[bytes]]]:
    """Return status and embeddings of each model. An error of a sanitizer fails the test."""
    inputs = folder / "windows"
    inputs.write_bytes(windows.tobytes())
    paths = []
    for number, model in enumerate(models):
        paths.append(folder / f"model{number}")
        paths[-1].write_bytes(model)
    done = subprocess.run(
        [driver, kernels, inputs, *paths], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(models)
    return [(int(status), [bytes.fromhex(each) for each in rest]) for status, *rest in lines]


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_sanitizers_find_nothing_and_the_bytes_are_the_reference_s(
    driver: Path, tmp_path: Path, kernels: Kernels
) -> None:
    for sparsity in SPARSITIES:
        for rng, network in sweep(sparsity, (7, 65, 199)):
            windows = draw_windows(rng, network)[::3]
            model = build(network)
            expected = open_interpreter(model, "reference").run(windows)
            ((status, found),) = drive(driver, kernels, windows, [pack(model)], tmp_path)
            assert status == 0
            assert found == [embedding.tobytes() for embedding in expected]


def test_sanitizers_find_nothing_in_sea_64(
    driver: Path, sea_generated: Deployment, tmp_path: Path
) -> None:
    windows = np.random.default_rng(0).integers(-128, 128, (2, 64, 50, 1)).astype(np.int8)
    expected = open_interpreter(sea_generated.read_model("int8"), "reference").run(windows)
    blob = sea_generated.read_model("int8", "engine")
    for kernels in BOTH_KERNELS:
        ((status, found),) = drive(driver, kernels, windows, [blob], tmp_path)
        assert status == 0
        assert found == [embedding.tobytes() for embedding in expected]


@pytest.mark.parametrize("kernels", BOTH_KERNELS)
def test_sanitizers_find_nothing_in_damaged_models(
    driver: Path, blob: bytes, tmp_path: Path, kernels: Kernels
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
    results = drive(driver, kernels, windows, models, tmp_path)
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
    driver: Path, blob: bytes, tmp_path: Path
) -> None:
    (tmp_path / "windows").write_bytes(bytes(13 * 11))
    (tmp_path / "model").write_bytes(blob)
    done = subprocess.run(
        [driver, "short", tmp_path / "windows", tmp_path / "model"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
