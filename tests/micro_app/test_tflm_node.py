"""The node whose network runs in TFLM's interpreter."""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.boards.arduino import compile_source, needs_arm, sources_of
from helpers.boards.tflm import (
    BUILTIN_ENGINE,
    ENGINE_FILES,
    NODE_ENGINE,
    OPERATOR,
    ROOT,
    SOURCES,
    STATIC_MEMORY,
    STRICT,
    compile_for_host,
    compile_to,
    find_package,
    find_tflm_for_the_cortex_m7,
    run_engine,
)

from edgel3_tflm.converters.export.app import LIBRARY_FOLDER, TFLM_RECORD_BYTES, export_app
from edgel3_tflm.converters.export.board_files import SKETCH_NAME
from edgel3_tflm.device import footprint as footprints
from edgel3_tflm.device.boards import BOARDS, Board
from edgel3_tflm.device.client import Device
from edgel3_tflm.device.emulation import Emulator, Program
from edgel3_tflm.device.firmware import ToolError, build_node
from edgel3_tflm.device.wire import Failure
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.deployment import Deployment

TFLM_ENGINES = ("tflm", "tflm-builtin")


# Runs the program's main() with TFLM's functions from the interpreter's package.
LAUNCH = """#!{python}
import ctypes, os, sys
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
from tflite_micro import runtime
ctypes.CDLL("{program}", mode=ctypes.RTLD_GLOBAL).main()
"""


# The kernels have another namespace in the headers than in the interpreter.
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
    """Export an application and return the folder of its library and model."""
    export_app(deployment, BOARDS[0], output, engine=engine)
    return output / SKETCH_NAME / LIBRARY_FOLDER


@pytest.fixture(scope="module")
def node_objects(
    library: Path, upstream_headers: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The objects of a node with TFLM, without its model and its main()."""
    folder = tmp_path_factory.mktemp("node")
    compiled = [*ENGINE_FILES, OPERATOR]
    objects = [library.parent / f"{source.name}.o" for source in compiled]
    for source in sorted(set(SOURCES.glob("*.c")) - set(compiled)):
        objects.append(folder / f"{source.name}.o")
        compile_to(objects[-1], ["gcc", "-std=c99", "-O2", "-fPIC", "-c", source])
    gemmlowp = find_package("tensorflow") / "include" / "external" / "gemmlowp"
    moved = folder / "moved.cc"
    moved.write_text(MOVED)
    for source in (NODE_ENGINE, BUILTIN_ENGINE, moved):
        objects.append(folder / f"{source.name}.o")
        options = [*STRICT, STATIC_MEMORY, "-isystem", gemmlowp]
        compile_for_host(source, objects[-1], options, upstream_headers)
    return objects


def check_node(device: Device, deployment: Deployment) -> None:
    """Check the answers of a node with the packed model."""
    blob = deployment.read_model("int8", "engine")
    source = deployment.manifest["artefacts"]["int8.tflite"]["sha256"]
    assert device.info.source_sha256.hex() == source[:32]
    assert device.self_test() == Failure(0)
    rng = np.random.default_rng(5)
    windows = rng.integers(-128, 128, (2, 64, 50, 1)).astype(np.int8)
    found = [device.embed_log_mel(window[:, :, 0]) for window in windows]
    np.testing.assert_array_equal(found, run_engine(blob, windows))
    # The frontend works in memory of the interpreter and of the engine, which then run again.
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
    with Emulator(firmware) as running, running.open_device() as device:
        check_node(device, tiny_int8)


def test_a_node_in_tflm_takes_the_fast_arena_where_the_budget_has_room(
    standin: Deployment, tmp_path: Path
) -> None:
    includes, tflm = find_tflm_for_the_cortex_m7()
    options = (f"-DEDGEL3_TFLM_INCLUDE={';'.join(includes)}", f"-DEDGEL3_TFLM_LIBRARY={tflm}")
    window = np.random.default_rng(7).integers(-128, 128, (1, 256, 199, 1)).astype(np.int8)
    expected = run_engine(standin.read_model("int8", "engine"), window)[0]
    ticks = {}
    for arena in ("fast", "least"):
        model = export_model(standin, "tflm", tmp_path / arena)
        if arena == "least":
            header = model / "edgel3_tflm_model.h"
            # More than any budget.
            larger = re.sub(r"(?<=_FAST_ARENA_BYTES )(?=\d)", "9", header.read_text())
            header.write_text(larger)
        firmware = build_node(model, tmp_path / f"{arena}-build", options=options)
        with Emulator(firmware) as running, Device(running.connect(), timeout_s=600) as device:
            np.testing.assert_array_equal(device.embed_log_mel(window[0, :, :, 0]), expected)
            ticks[arena] = device.statistics().engine_ticks

    # The kernels that need the larger arena take fewer instructions.
    assert ticks["fast"] < ticks["least"]


@needs_arm
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_sketch_with_tflm_compiles_as_the_board_s_core_does(
    board: Board, upstream_headers: Path, tiny_int8: Deployment, tmp_path: Path
) -> None:
    exported = export_app(tiny_int8, board, tmp_path / "app", engine="tflm")
    platformio = (exported.directory / "platformio.ini").read_text()
    assert "build_flags = -std=gnu++17\n" in platformio
    gemmlowp = find_package("tensorflow") / "include" / "external" / "gemmlowp"
    headers = ["-isystem", str(upstream_headers), "-isystem", str(gemmlowp)]
    # The vendor's older flatbuffers takes every Arduino core for one that lacks <utility>.
    headers.append("-DARDUINOSTL_M_H")
    sources = sources_of(exported.directory / SKETCH_NAME)
    sources = [path for path in sources if path.suffix not in (".c", ".S")]

    assert {OPERATOR.name, NODE_ENGINE.name, f"{SKETCH_NAME}.ino"} < {path.name for path in sources}
    for path in sources:
        said = compile_source(path, board, tmp_path / "o", "-Wconversion", STATIC_MEMORY, *headers)
        assert said == "", path.name


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_95_45_network_in_tflm_fits_every_board(
    board: Board, standin: Deployment, tmp_path: Path
) -> None:
    exported = export_app(standin, board, tmp_path / "app", engine="tflm")
    assert exported.memory.arena == "fast"
    model = exported.directory
    header = (model / SKETCH_NAME / LIBRARY_FOLDER / "edgel3_tflm_model.h").read_text()
    sizes = re.findall(r"_TFLM_MODEL_(\w+)_BYTES (\d+)", header)
    least, fast, window = [int(size) for _, size in sizes]

    # The log-mel values are in the engine's arena, and the frontend works in the interpreter's
    # input. Node and microphone come in addition.
    assert [name for name, _ in sizes] == ["ARENA", "FAST_ARENA", "WINDOW"]
    blob = standin.read_model("int8", "engine")
    assert least - TFLM_RECORD_BYTES == plan_memory(blob).arena_bytes
    assert fast - TFLM_RECORD_BYTES == plan_memory(blob, widen=True).arena_bytes
    assert window == 256 * 199 + 512
    others = footprints.ASSUMED_NODE_BYTES + footprints.MICROPHONE_RING_BYTES
    assert least + window + others <= 300_000
    assert fast + window + others <= board.ram_budget_bytes


def test_a_board_with_less_ram_has_the_least_arena(standin: Deployment, tmp_path: Path) -> None:
    small = dataclasses.replace(BOARDS[0], core_ram_bytes=200 * 1024)

    exported = export_app(standin, small, tmp_path / "app", engine="tflm")
    assert exported.memory.arena == "least"


def test_c_and_the_converter_reserve_as_much_for_tflm() -> None:
    header = (SOURCES / "edgel3_node_tflm.h").read_text()

    assert f"#define EDGEL3_NODE_TFLM_BYTES {TFLM_RECORD_BYTES}u\n" in header


def test_a_network_in_tflm_that_is_too_large_is_refused(
    standin: Deployment, tmp_path: Path
) -> None:
    small = dataclasses.replace(BOARDS[0], core_ram_bytes=256 * 1024)

    with pytest.raises(EdgeL3Error, match=r"at most 262,144 bytes of RAM .* choose another board"):
        export_app(standin, small, tmp_path / "app", engine="tflm")


def test_a_node_with_tflm_but_without_its_headers_says_what_is_missing(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    model = export_model(tiny_int8, "tflm", tmp_path / "app")
    with pytest.raises(ToolError, match="expected EDGEL3_TFLM_INCLUDE and"):
        build_node(model, tmp_path / "build", "host")
