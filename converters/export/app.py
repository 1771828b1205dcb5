"""Writes the application for a board: a project directory that builds without Python.

The project contains one sketch folder with the sketch, and with the C library and the model under
``src/edgel3``. The Arduino IDE opens this folder directly, and PlatformIO builds the same files.
"""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgel3_tflm._version import __version__
from edgel3_tflm.converters.export import c_array
from edgel3_tflm.converters.export.board_files import (
    BOARD_HEADER_NAME,
    PLATFORMIO_NAME,
    SKETCH_NAME,
    write_platformio,
)
from edgel3_tflm.converters.export.head import find_head
from edgel3_tflm.converters.export.tflm_sources import TREE_SCRIPT, find_tflm
from edgel3_tflm.device.boards import Board
from edgel3_tflm.device.firmware import find_sources
from edgel3_tflm.device.footprint import (
    Footprint,
    MemoryPlan,
    choose_memory,
    count_levels_bytes,
    plan_footprint,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import new_directory, sha256_hex
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.artefacts import (
    PACKED_FLATBUFFER_NAME,
    PACKED_MODEL_NAME,
    quantized_model_name,
)
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.packed import read_packed, round_up
from edgel3_tflm.runtime.tensors import TensorSpec

MARKER_NAME = "app.json"
FORMAT = "edgel3-tflm application"
LIBRARY_FOLDER = Path("src") / "edgel3"
"""Folder of library and model in an exported sketch."""
OPTIONS_NAME = "edgel3_node_options.h"
ENGINES = ("packed", "tflm", "tflm-builtin")
"""What runs the network on a board: the library's engine alone, the library's engine as a custom
operator in the interpreter of TensorFlow Lite Micro (TFLM), or TFLM's own dense kernels."""
_PACKED_FILES = (c_array.PACKED_SOURCE_NAME, c_array.PACKED_HEADER_NAME)
_FRONTEND_FILES = (c_array.FRONTEND_SOURCE_NAME, c_array.FRONTEND_HEADER_NAME)
TFLM_RECORD_BYTES = 2048
"""Allowance for TFLM's interpreter and its records of the network: of a graph of one operator, or
what builds for a microcontroller need more than the build for a host. In C:
EDGEL3_NODE_TFLM_BYTES."""
_SKETCH_SUFFIXES = (".ino", ".h", ".cpp")
_LIBRARY_SUFFIXES = (".c", ".cc", ".h", ".S")
_BUILTIN_SOURCE_NAME = "edgel3_node_tflm_builtin.cc"


@dataclass(frozen=True)
class _Network:
    """The C files of a network, its size in flash, and the RAM of a node that runs it."""

    files: dict[str, bytes]
    model_bytes: int
    footprint: Footprint


def _check_constant(deployment: Deployment, header: str, constant: str) -> None:
    """Raise an error if a deployment of an older version lacks a constant that the node needs."""
    if f"EDGEL3_{constant}" not in (deployment.directory / header).read_text():
        raise EdgeL3Error(
            f"{deployment.directory}: expected EDGEL3_{constant} in {header}, found none; convert"
            " again"
        )


def _read_network(deployment: Deployment, engine: str) -> _Network:
    """Return the C files of the network for an engine."""
    packed = {name: (deployment.directory / name).read_bytes() for name in _PACKED_FILES}
    footprint = plan_footprint(deployment)
    if engine == "packed":
        _check_constant(deployment, c_array.PACKED_HEADER_NAME, "PACKED_MODEL_FAST_ARENA_BYTES")
        return _Network(packed, footprint.flash["model"], footprint)
    quantized = quantized_model_name("int8")
    source_sha256 = deployment.manifest["artefacts"][quantized]["sha256"]
    blob = deployment.read_model("int8", "engine")
    model = read_packed(blob)
    shape = (1, model.rows, model.columns, 1)
    kind = np.dtype(np.int8)
    window = TensorSpec(shape, kind, model.input_scale, model.input_zero_point)
    embedding = TensorSpec(
        (1, model.embedding_size), kind, model.output_scale, model.output_zero_point
    )
    input_bytes = model.rows * model.columns
    levels_bytes = count_levels_bytes(deployment.variant.frontend)
    if engine == "tflm":
        flatbuffer = (deployment.directory / PACKED_FLATBUFFER_NAME).read_bytes()
        # With closed ears, the frontend's levels are in the engine's arena, after its state.
        node_arena_bytes, fast_arena_bytes = (
            max(memory.arena_bytes, round_up(memory.state + levels_bytes, 16)) + TFLM_RECORD_BYTES
            for memory in (plan_memory(blob), plan_memory(blob, widen=True))
        )
        window_bytes = round_up(input_bytes, 16) + round_up(model.embedding_size, 16)
        arena_bytes = node_arena_bytes + window_bytes
        arena_source = "of engine, window, embedding and TFLM's records"
        runner = "edgel3_node_tflm_packed"
    else:
        flatbuffer = deployment.read_model("int8")
        arena_bytes = deployment.manifest["arena_bytes"]
        if arena_bytes is None:
            raise EdgeL3Error(
                f"{deployment.directory}: expected an arena that convert measured, found none;"
                " convert on Linux x86-64 with the package tflite-micro, or choose another engine"
            )
        tflm_bytes = arena_bytes + c_array.ARENA_HEADROOM_BYTES + TFLM_RECORD_BYTES
        node_arena_bytes = fast_arena_bytes = tflm_bytes + levels_bytes
        window_bytes = input_bytes
        arena_source = "on TFLM's host build"
        runner = "edgel3_node_tflm_builtin"
    banner = c_array.write_banner(
        flatbuffer, deployment.variant, deployment.manifest["weights"]["description"]
    )
    constants = c_array.write_constants(deployment.variant, deployment.input_map, window, embedding)
    header = c_array.write_header(
        banner,
        constants,
        model_bytes=len(flatbuffer),
        arena_bytes=arena_bytes,
        arena_source=arena_source,
    )
    # All engines must compute the embedding that the reference kernels compute.
    found = re.search(r"SELF_TEST_CRC32 (\w+)", packed[c_array.PACKED_HEADER_NAME].decode())
    if found is None:
        raise EdgeL3Error(
            f"{deployment.directory}: expected a checksum for the self-test in"
            f" {c_array.PACKED_HEADER_NAME}, found none; convert again"
        )
    tflm_header = c_array.write_tflm_header(
        banner,
        engine=runner,
        arena_bytes=node_arena_bytes,
        fast_arena_bytes=fast_arena_bytes,
        window_bytes=window_bytes,
        source_sha256=source_sha256,
        self_test_crc32=found[1],
        opens_ears=engine == "tflm",
    )
    files = {
        c_array.SOURCE_NAME: c_array.write_source(flatbuffer, banner),
        c_array.HEADER_NAME: header,
        c_array.TFLM_HEADER_NAME: tflm_header,
    }
    ram = {
        **footprint.ram,
        "arena": fast_arena_bytes,
        "window": max(window_bytes, footprint.ram["window"]),
    }
    return _Network(
        {name: text.encode() for name, text in files.items()},
        len(flatbuffer),
        replace(
            footprint,
            ram=ram,
            spare_arena_bytes=fast_arena_bytes - node_arena_bytes,
            # TFLM's own kernels cannot be interrupted.
            ears_bytes=footprint.ears_bytes if engine == "tflm" else None,
        ),
    )


@dataclass(frozen=True)
class ExportedApp:
    """A written project directory.

    Parameters
    ----------
    directory : pathlib.Path
    board : Board
    engine : str
        One of ``ENGINES``.
    model : str
        Name of the network.
    memory : MemoryPlan
    classes : int
        Number of classes of the head; 0 without a head.
    files : int
        Number of files in the directory.
    """

    directory: Path
    board: Board
    engine: str
    model: str
    memory: MemoryPlan
    classes: int
    files: int

    def to_json(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {
            "directory": str(self.directory),
            "board": self.board.name,
            "engine": self.engine,
            "model": self.model,
            **self.memory.to_json(),
            "classes": self.classes,
            "files": self.files,
        }


def export_app(
    deployment: Deployment,
    board: Board,
    output: Path,
    head: Path | None = None,
    *,
    engine: str = ENGINES[0],
    tflm: Path | None = None,
) -> ExportedApp:
    """Write a project: sketch, library, model, build files and a README.

    Parameters
    ----------
    deployment : Deployment
        An int8 deployment with a packed model.
    board : Board
    output : pathlib.Path
        Directory to write. It appears whole or not at all.
    head : pathlib.Path, optional
        Head that ``train-head`` wrote for this deployment, file or directory. If None, the head in
        the deployment's directory is used, if there is one.
    engine : str
        One of ``ENGINES``.
    tflm : pathlib.Path, optional
        Sources of TFLM, as for :func:`find_tflm`, which the project then contains. Only for engines
        in TFLM. If None, PlatformIO downloads a library.

    Returns
    -------
    ExportedApp

    Raises
    ------
    EdgeL3Error
        If the deployment has no packed model, the engine is unknown, the sources of TFLM do not
        fit, the head was trained for another model, the model is too large for the board, or the
        directory cannot be written.
    """
    if engine not in ENGINES:
        raise EdgeL3Error(f"unknown engine {engine!r}: expected one of {', '.join(ENGINES)}")
    if tflm is not None and engine == "packed":
        raise EdgeL3Error(
            f"{tflm}: expected sources of TFLM with the engine tflm or tflm-builtin only, got the"
            " engine packed, which does not use TFLM"
        )
    for source in (deployment.directory, *filter(None, (head, tflm))):
        if output.resolve() in (source.resolve(), *source.resolve().parents):
            raise EdgeL3Error(
                f"{output}: expected a directory that does not contain {source}, because export-app"
                " replaces it; choose another"
            )
    missing = [
        name
        for name in (PACKED_MODEL_NAME, *_PACKED_FILES, *_FRONTEND_FILES)
        if name not in deployment.manifest["artefacts"]
    ]
    if missing:
        refused = deployment.manifest.get("packed", {}).get("refused")
        reason = f"it could not be packed ({refused})" if refused else "convert again, as int8"
        raise EdgeL3Error(
            f"{deployment.directory}: expected {', '.join(missing)}, found none of that name;"
            f" {reason}"
        )
    _check_constant(deployment, c_array.FRONTEND_HEADER_NAME, "MODEL_FRONTEND_LEVELS_BYTES")
    network = _read_network(deployment, engine)
    tables = {name: (deployment.directory / name).read_bytes() for name in _FRONTEND_FILES}
    model = network.files | tables
    trained = find_head(head, deployment)
    classes = 0
    if trained is not None:
        classes = len(trained.labels)
        model |= trained.write_c()
    footprint = network.footprint
    least_bytes = footprint.ram["arena"] + footprint.ram["window"] - footprint.spare_arena_bytes
    _check_budget(board, network.model_bytes, least_bytes)
    memory = choose_memory(board, footprint)
    sources = find_sources()
    tflm_sources = None if tflm is None else find_tflm(tflm, dense=engine == "tflm-builtin")
    with new_directory(output, marker=MARKER_NAME) as directory:
        sketch = directory / SKETCH_NAME
        library = sketch / LIBRARY_FOLDER
        library.mkdir(parents=True)
        for path in sorted((sources / SKETCH_NAME).iterdir()):
            if path.suffix in _SKETCH_SUFFIXES:
                shutil.copyfile(path, sketch / path.name)
        for path in sorted((sources / "lib" / "edgel3" / "src").iterdir()):
            # It needs C++17 and TFLM's kernels.
            if path.name == _BUILTIN_SOURCE_NAME and engine != "tflm-builtin":
                continue
            if path.suffix in _LIBRARY_SUFFIXES:
                shutil.copyfile(path, library / path.name)
        shutil.copyfile(sources / "lib" / "edgel3" / "LICENSE", directory / "LICENSE")
        if tflm_sources is not None:
            tflm_sources.write(library)
        model[OPTIONS_NAME] = _write_options(memory)
        for name, data in model.items():
            (library / name).write_bytes(data)
        (directory / PLATFORMIO_NAME).write_text(
            write_platformio(
                [board], is_exported=True, uses_tflm=engine != "packed", has_tflm=tflm is not None
            ),
            encoding="utf-8",
        )
        readme = _write_readme(deployment, board, engine, needs_tflm=tflm is None)
        (directory / "README.md").write_text(readme, encoding="utf-8")
        digests = {
            path.relative_to(directory).as_posix(): sha256_hex(path.read_bytes())
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        marker = {
            "format": FORMAT,
            "format_version": 1,
            "generator": f"edgel3-tflm {__version__}",
            "board": board.name,
            "engine": engine,
            "arena": memory.arena,
            "ears": memory.ears,
            "model": deployment.variant.name,
            "weights": deployment.manifest["weights"]["description"],
            "classes": classes,
            "files": digests,
        }
        (directory / MARKER_NAME).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    return ExportedApp(
        output, board, engine, deployment.variant.name, memory, classes, len(digests) + 1
    )


def _write_options(memory: MemoryPlan) -> bytes:
    """Return the header that tells the node what to give up."""
    return f"""\
// Open ears (1) or the fastest kernels (0), if the budget does not allow both.
#define EDGEL3_NODE_PREFERS_EARS {int(memory.ears == "open")}
""".encode()


def _check_budget(board: Board, flash_bytes: int, ram_bytes: int) -> None:
    """Raise an error if model or arena alone exceed the board's budget.

    The sketch's static assertions check the total of all parts when it is compiled.
    """
    for name, found, budget in (
        ("flash", flash_bytes, board.flash_budget_bytes),
        ("RAM", ram_bytes, board.ram_budget_bytes),
    ):
        if found > budget:
            raise EdgeL3Error(
                f"expected a model of at most {budget:,} bytes of {name} for {board.title}, got"
                f" {found:,} bytes; choose another board, engine or network"
            )


def _write_readme(deployment: Deployment, board: Board, engine: str, *, needs_tflm: bool) -> str:
    microphone = (
        "The board has no microphone with a driver, so audio comes from the host."
        if board.microphone is None
        else f"The board's microphone is {board.microphone.where}."
    )
    steps = f"""\
- PlatformIO: run `pio run -t upload` in this directory.
- Arduino IDE: open `{SKETCH_NAME}/{SKETCH_NAME}.ino`, choose the board, upload. The sketch's folder
  contains library and model, so you need not install a library.
- arduino-cli: `arduino-cli compile -b {board.fqbn} -u -p PORT {SKETCH_NAME}`.
"""
    if engine != "packed" and needs_tflm:
        steps = f"""\
The network runs in TensorFlow Lite Micro (TFLM), which this project does not contain. With
PlatformIO, `pio run -t upload` in this directory downloads a library of it (`lib_deps` in
`{PLATFORMIO_NAME}`). For the Arduino IDE, or for the newest TFLM, export again with its sources:

    git clone https://github.com/tensorflow/tflite-micro && pip install numpy pillow
    (cd tflite-micro && python3 {TREE_SCRIPT} ../tflm)
    edgel3-tflm export-app ... --tflm tflm

We tried neither PlatformIO nor the Arduino IDE: the sources were compiled with the options of the
boards' cores, and the node with TFLM was run on an emulated Cortex-M7.
"""
    if engine == "tflm-builtin" and board.fqbn.startswith("arduino:mbed"):
        steps += """
The kernels of the current TFLM need C++17. The Arduino IDE and arduino-cli compile for this board
as C++14 and cannot build them. PlatformIO can, with `-std=gnu++17` in `platformio.ini`. The library
Chirale_TensorFlowLite 2.0.0 compiles as C++14, too.
"""
    return f"""\
# {deployment.variant.name} on {board.title}

Written by edgel3-tflm {__version__}. {deployment.manifest["weights"]["description"]}

{steps}
{microphone} Node and host exchange binary frames, which `{SKETCH_NAME}/src/edgel3/edgel3_wire.h`
defines. The sketch does not compile if its memory exceeds the board's budget
(`{SKETCH_NAME}/{BOARD_HEADER_NAME}`).
"""
