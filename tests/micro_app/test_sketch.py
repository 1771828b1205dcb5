"""The sketch compiles for every board without warnings, within the board's memory."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.boards.arduino import MICRO_APP, compile_source, needs_arm, sources_of

from edgel3_tflm.converters.export import app
from edgel3_tflm.converters.export.app import (
    LIBRARY_FOLDER,
    export_app,
)
from edgel3_tflm.converters.export.board_files import BOARD_HEADER_NAME, SKETCH_NAME
from edgel3_tflm.device.boards import BOARDS, Board, find_board
from edgel3_tflm.device.footprint import plan_footprint
from edgel3_tflm.runtime.deployment import Deployment

EXAMPLES = MICRO_APP / "lib" / "edgel3" / "examples"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
@needs_arm
def test_an_exported_project_compiles_without_warnings(
    board: Board, standin: Deployment, tmp_path: Path
) -> None:
    export_app(standin, board, tmp_path / "app")
    sources = sources_of(tmp_path / "app" / SKETCH_NAME)

    def build(path: Path) -> str:
        return compile_source(path, board, tmp_path / f"{path.name}.o")

    assert len(sources) >= 20
    with ThreadPoolExecutor(2) as threads:
        assert [said for said in threads.map(build, sources) if said] == []


def test_no_file_of_the_sketch_can_hide_one_of_a_core() -> None:
    # A core's own files find headers in the sketch's folder first.
    names = [path.name for path in (MICRO_APP / SKETCH_NAME).iterdir()]

    assert [name for name in names if not name.startswith("edgel3_")] == []


@needs_arm
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_only_boards_that_can_wake_sleep(board: Board, standin: Deployment, tmp_path: Path) -> None:
    export_app(standin, board, tmp_path / "app")
    sketch = tmp_path / "app" / SKETCH_NAME / f"{SKETCH_NAME}.ino"
    assert compile_source(sketch, board, tmp_path / "o") == ""
    command = ["arm-none-eabi-objdump", "-d", str(tmp_path / "o")]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert ("wfi" in code) is (board.name != "teensy41")


def sizes_of(compiled: Path) -> list[int]:
    """Bytes of an object's variables."""
    command = ["arm-none-eabi-nm", "--print-size", str(compiled)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(words[1], 16) for words in map(str.split, listed.splitlines()) if len(words) == 4]


def sections_of(compiled: Path) -> dict[str, int]:
    """Bytes of an object's sections."""
    command = ["arm-none-eabi-objdump", "-h", str(compiled)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines() if line.strip()[:1].isdigit()]
    return {row[1]: int(row[2], 16) for row in rows}


@needs_arm
def test_teensy_copies_the_model_from_flash_and_has_the_arena_beside_the_core(
    standin: Deployment, tmp_path: Path
) -> None:
    board = find_board("teensy41")
    export_app(standin, board, tmp_path / "app")
    sketch, model = (
        tmp_path / "app" / SKETCH_NAME / name
        for name in (f"{SKETCH_NAME}.ino", f"{LIBRARY_FOLDER}/edgel3_packed_model.c")
    )
    for source in (sketch, model):
        assert compile_source(source, board, tmp_path / f"{source.name}.o") == ""
    packed = standin.manifest["packed"]
    assert sections_of(tmp_path / f"{model.name}.o")[".progmem"] == packed["bytes"]
    assert sections_of(tmp_path / f"{sketch.name}.o")[".dmabuffers"] == packed["bytes"]
    assert packed["fast_arena_bytes"] in sizes_of(tmp_path / f"{sketch.name}.o")


@needs_arm
def test_a_model_larger_than_the_memory_for_its_copy_stays_in_flash(
    standin: Deployment, tmp_path: Path
) -> None:
    board = find_board("teensy41")
    assert board.model_memory is not None
    export_app(standin, board, tmp_path / "app")
    header = tmp_path / "app" / SKETCH_NAME / BOARD_HEADER_NAME
    text = header.read_text()
    less = standin.manifest["packed"]["bytes"] - 1
    header.write_text(text.replace(f"{board.model_memory.budget_bytes}u", f"{less}u"))

    sketch = tmp_path / "app" / SKETCH_NAME / f"{SKETCH_NAME}.ino"
    assert compile_source(sketch, board, tmp_path / "object.o") == ""
    assert sections_of(tmp_path / "object.o")[".dmabuffers"] == 1


@needs_arm
@pytest.mark.parametrize("name", ["portenta_h7_m7", "giga_r1_m7"])
def test_ears_in_a_memory_of_their_own_take_no_flash(
    name: str, standin: Deployment, tmp_path: Path
) -> None:
    board = find_board(name)
    exported = export_app(standin, board, tmp_path / "app")
    sketch = tmp_path / "app" / SKETCH_NAME / f"{SKETCH_NAME}.ino"
    assert compile_source(sketch, board, tmp_path / "object.o") == ""

    assert (exported.memory.arena, exported.memory.ears) == ("fast", "open")
    assert sections_of(tmp_path / "object.o")[".dtcm"] == plan_footprint(standin).ears_bytes
    command = ["arm-none-eabi-readelf", "--sections", "--wide", str(tmp_path / "object.o")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (section,) = [line for line in listed.splitlines() if " .dtcm " in line]
    assert " NOBITS " in section


@needs_arm
def test_teensy_keeps_a_flatbuffer_in_flash_too(sea_generated: Deployment, tmp_path: Path) -> None:
    board = find_board("teensy41")
    export_app(sea_generated, board, tmp_path / "app", engine="tflm")
    model = tmp_path / "app" / SKETCH_NAME / LIBRARY_FOLDER / "edgel3_model.cc"

    assert compile_source(model, board, tmp_path / "object.o") == ""
    expected = sea_generated.manifest["artefacts"]["int8_packed.tflite"]["bytes"]
    assert sections_of(tmp_path / "object.o")[".progmem"] == expected


@needs_arm
@pytest.mark.parametrize(
    ("spare_bytes", "arena", "size"),
    [(10_000, "fast", "fast_arena_bytes"), (-10_000, "least", "arena_bytes")],
)
def test_the_budget_decides_on_the_arena(
    spare_bytes: int, arena: str, size: str, standin: Deployment, tmp_path: Path
) -> None:
    board = find_board("nucleo_h743zi")
    ram_bytes = sum(plan_footprint(standin).ram.values())
    budget = ram_bytes + spare_bytes
    tight = replace(board, core_ram_bytes=board.ram_bytes - budget)
    exported = export_app(standin, tight, tmp_path / "app")
    header = tmp_path / "app" / SKETCH_NAME / BOARD_HEADER_NAME
    text = header.read_text()
    header.write_text(text.replace(f"{board.ram_budget_bytes}u", f"{budget}u"))

    sketch = tmp_path / "app" / SKETCH_NAME / f"{SKETCH_NAME}.ino"
    assert compile_source(sketch, board, tmp_path / "o") == ""

    assert exported.memory.arena == arena
    assert standin.manifest["packed"][size] in sizes_of(tmp_path / "o")


@needs_arm
@pytest.mark.parametrize("cycles", [1, 10**12])
def test_an_exported_sketch_divides_the_ram_as_planned(
    cycles: int, standin: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = find_board("nicla_vision")
    planned = replace(plan_footprint(standin), cycles={"fast": cycles, "least": 2 * cycles})
    monkeypatch.setattr(app, "plan_footprint", lambda _: planned)
    exported = export_app(standin, board, tmp_path / "app")

    sketch = tmp_path / "app" / SKETCH_NAME / f"{SKETCH_NAME}.ino"
    assert compile_source(sketch, board, tmp_path / "o") == ""

    # A network without work hears more with open ears, one with much work with fast kernels.
    assert exported.memory.gives_up == ("fast kernels" if cycles == 1 else "ears")
    size, closed = ("arena_bytes", False) if cycles == 1 else ("fast_arena_bytes", True)
    sizes = sizes_of(tmp_path / "o")
    assert standin.manifest["packed"][size] in sizes
    assert (planned.ears_bytes in sizes) is not closed


@needs_arm
@pytest.mark.parametrize("budget", ["RAM", "FLASH"])
def test_a_sketch_beyond_its_budget_does_not_compile(
    budget: str, standin: Deployment, tmp_path: Path
) -> None:
    board = find_board("portenta_h7_m7")
    # A budget between the requirement of the node's assertion and that of the sketch's.
    less = {"RAM": "280000u", "FLASH": "400000u"}[budget]
    export_app(standin, board, tmp_path / "app")
    header = tmp_path / "app" / SKETCH_NAME / BOARD_HEADER_NAME
    name = f"EDGEL3_BOARD_{budget}_BUDGET_BYTES"
    text = header.read_text()
    value = {"RAM": board.ram_budget_bytes, "FLASH": board.flash_budget_bytes}[budget]
    header.write_text(text.replace(f"{name} {value}u", f"{name} {less}"))

    said = compile_source(
        tmp_path / "app" / SKETCH_NAME / f"{SKETCH_NAME}.ino", board, tmp_path / "o"
    )

    assert "static assertion failed" in said


@needs_arm
def test_a_sketch_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    shutil.copytree(MICRO_APP / SKETCH_NAME, tmp_path / SKETCH_NAME)
    library = MICRO_APP / "lib" / "edgel3" / "src"

    said = compile_source(
        tmp_path / SKETCH_NAME / f"{SKETCH_NAME}.ino",
        BOARDS[0],
        tmp_path / "o",
        "-I",
        str(library),
    )

    # The message is the same for every way of adding the library to the include path.
    assert "#error" in said
    assert "edgel3_model_frontend.h is not on the include path: write a project" in said


@needs_arm
@pytest.mark.parametrize(
    "example", sorted(EXAMPLES.rglob("*.ino")), ids=lambda path: str(path.stem)
)
def test_examples_compile_without_warnings(
    example: Path, standin: Deployment, tmp_path: Path
) -> None:
    sketch = tmp_path / example.name
    shutil.copyfile(example, sketch)
    for name in ("edgel3_packed_model.h", "edgel3_packed_model.c"):
        shutil.copyfile(standin.directory / name, tmp_path / name)
    library = MICRO_APP / "lib" / "edgel3" / "src"

    for board in BOARDS:
        assert compile_source(sketch, board, tmp_path / "o", "-I", str(library)) == ""
