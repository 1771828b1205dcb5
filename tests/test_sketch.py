"""The sketch: compiles for every board without warnings, within its memory, from one directory."""

import configparser
import dataclasses
import itertools
import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgel3_tflm.boards import BOARDS, Board
from edgel3_tflm.converters import app
from edgel3_tflm.converters.app import (
    LIBRARY_FOLDER,
    MARKER_NAME,
    SKETCH_NAME,
    export_app,
    find_board,
    write_board_header,
    write_platformio,
)
from edgel3_tflm.deployment import Deployment
from edgel3_tflm.errors import EdgeL3Error

ROOT = Path(__file__).parents[1]
MICRO_APP = ROOT / "micro_app"
STUBS = Path(__file__).parent / "arduino_stubs"
EXAMPLES = MICRO_APP / "lib" / "edgel3" / "examples"
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
    """Compile a file as the Arduino tools do; what the compiler says."""
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


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
@needs_arm
def test_an_exported_project_compiles_without_warnings(
    board: Board, standin: Deployment, tmp_path: Path
) -> None:
    export_app(standin, board, tmp_path / "app")
    sources = sources_of(tmp_path / "app" / SKETCH_NAME)

    def build(path: Path) -> str:
        return compile_source(path, board, tmp_path / f"{path.name}.o")

    assert len(sources) > 15
    with ThreadPoolExecutor(2) as threads:
        assert [said for said in threads.map(build, sources) if said] == []


@needs_arm
def test_teensy_keeps_the_model_in_flash_and_the_arena_in_its_second_ram(
    standin: Deployment, tmp_path: Path
) -> None:
    board = find_board("teensy41")
    export_app(standin, board, tmp_path / "app")
    sections = {}
    for name in (f"{SKETCH_NAME}.ino", f"{LIBRARY_FOLDER}/edgel3_packed_model.c"):
        compile_source(tmp_path / "app" / SKETCH_NAME / name, board, tmp_path / "object.o")
        listed = subprocess.run(
            ["arm-none-eabi-objdump", "-h", str(tmp_path / "object.o")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        rows = [line.split() for line in listed.splitlines() if line.strip()[:1].isdigit()]
        sections |= {row[1]: int(row[2], 16) for row in rows}

    packed = standin.manifest["packed"]
    assert sections[".progmem"] == packed["bytes"]
    assert sections[".dmabuffers"] >= packed["arena_bytes"] + 256 * 199


@needs_arm
@pytest.mark.parametrize("budget", ["RAM", "FLASH"])
def test_a_sketch_beyond_its_budget_does_not_compile(
    budget: str, standin: Deployment, tmp_path: Path
) -> None:
    board = find_board("portenta_h7_m7")
    # The node's own assertion counts less than the sketch's: a budget between the two.
    less = {"RAM": "290000u", "FLASH": "400000u"}[budget]
    export_app(standin, board, tmp_path / "app")
    header = tmp_path / "app" / SKETCH_NAME / "board.h"
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

    assert "edgel3_model_frontend.h" in said


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


def test_board_facts_in_c_and_for_platformio_are_those_of_boards_py() -> None:
    assert (MICRO_APP / SKETCH_NAME / "board.h").read_text() == write_board_header()
    assert (MICRO_APP / "platformio.ini").read_text() == write_platformio()


def test_platformio_has_an_environment_for_every_board() -> None:
    parser = configparser.ConfigParser()
    parser.read(MICRO_APP / "platformio.ini")

    environments = [name for name in parser.sections() if name.startswith("env:")]
    assert environments == [f"env:{board.name}" for board in BOARDS]
    assert all(parser[f"env:{board.name}"]["board"] == board.name for board in BOARDS)
    assert (MICRO_APP / parser["platformio"]["src_dir"] / f"{SKETCH_NAME}.ino").is_file()


def test_an_exported_project_is_whole_and_says_what_it_holds(
    standin: Deployment, tmp_path: Path
) -> None:
    exported = export_app(standin, BOARDS[0], tmp_path / "app")

    marker = json.loads((tmp_path / "app" / MARKER_NAME).read_bytes())
    found = {
        path.relative_to(tmp_path / "app").as_posix()
        for path in (tmp_path / "app").rglob("*")
        if path.is_file()
    }
    assert found == {*marker["files"], MARKER_NAME}
    assert len(found) == exported.files
    assert marker["weights"] == standin.manifest["weights"]["description"]
    assert not any(path.is_symlink() for path in (tmp_path / "app").rglob("*"))
    library = {path.name for path in (MICRO_APP / "lib" / "edgel3" / "src").iterdir()}
    assert library <= {path.name for path in (tmp_path / "app" / SKETCH_NAME).rglob("*")}


def test_exporting_again_gives_the_same_bytes(standin: Deployment, tmp_path: Path) -> None:
    export_app(standin, BOARDS[0], tmp_path / "app")
    first = json.loads((tmp_path / "app" / MARKER_NAME).read_bytes())

    export_app(standin, BOARDS[0], tmp_path / "app")

    assert json.loads((tmp_path / "app" / MARKER_NAME).read_bytes()) == first


def test_nothing_is_written_for_a_board_that_is_too_small(
    standin: Deployment, tmp_path: Path
) -> None:
    small = dataclasses.replace(BOARDS[0], ram_bytes=300_000)

    with pytest.raises(EdgeL3Error, match=r"at most 103,392 bytes of RAM .* takes 228,896"):
        export_app(standin, small, tmp_path / "app")

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_the_disk_refuses(
    standin: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(app, "_write_readme", refuse)

    with pytest.raises(EdgeL3Error, match="No space left"):
        export_app(standin, BOARDS[0], tmp_path / "app")

    assert list(tmp_path.iterdir()) == []


def test_an_unpacked_deployment_is_refused(standin: Deployment, tmp_path: Path) -> None:
    artefacts = {
        name: entry for name, entry in standin.manifest["artefacts"].items() if "packed" not in name
    }
    manifest = {**standin.manifest, "artefacts": artefacts, "packed": {"refused": "too odd"}}

    with pytest.raises(EdgeL3Error, match=r"could not be packed \(too odd\)"):
        export_app(dataclasses.replace(standin, manifest=manifest), BOARDS[0], tmp_path / "app")


def test_unknown_boards_are_named_with_those_there_are() -> None:
    with pytest.raises(EdgeL3Error, match="unknown board 'uno': expected one of portenta_h7_m7"):
        find_board("uno")


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sketch's microphone on this machine, with a PDM library and a clock of the test's own."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    program = tmp_path_factory.mktemp("microphone") / "microphone"
    sketch = MICRO_APP / SKETCH_NAME
    sources = [Path(__file__).parent / "microphone_main.cpp", sketch / "microphone.cpp"]
    includes = ["-I", str(STUBS), "-I", str(sketch), f"-D{find_board('giga_r1_m7').macros[0]}"]
    command = [compiler, "-std=gnu++14", "-O1", *WARNINGS, *includes, *map(str, sources)]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def listen(program: Path, rate_hz: float, samples: int, sleep_us: int) -> list[int]:
    command = [str(program), str(rate_hz), str(samples), str(sleep_us)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [int(word) for word in printed.stdout.split()]


@pytest.mark.parametrize("rate_hz", [48_000, 48_780.5])
def test_the_microphones_true_rate_is_measured(microphone: Path, rate_hz: float) -> None:
    measured_hz, usable, lost, *samples = listen(microphone, rate_hz, 20_000, 0)

    assert usable
    # Both ends of the measured time are rounded down to microseconds: 1 in 400,000, and its own.
    assert abs(measured_hz - rate_hz) <= rate_hz / 400_000 + 1
    assert lost == 0
    # Without a gap; counted in 16 bits.
    assert all((b - a) % 65_536 == 1 for a, b in itertools.pairwise(samples))


def test_the_first_buffers_are_thrown_away(microphone: Path) -> None:
    _, _, _, first, *_ = listen(microphone, 48_000, 512, 0)

    # Sixteen buffers, then 0.4 s while the rate is measured.
    assert first % 65_536 >= 16 * 256 + 0.4 * 48_000


def test_a_rate_that_is_another_one_is_refused(microphone: Path) -> None:
    measured_hz, usable, *rest = listen(microphone, 16_000, 512, 0)

    assert (measured_hz, usable, rest) == (pytest.approx(16_000, abs=2), 0, [])


def test_what_is_heard_while_nobody_reads_is_counted_as_lost(microphone: Path) -> None:
    _, usable, lost, *samples = listen(microphone, 48_000, 20_000, 2_000_000)

    gaps = [(b - a) % 65_536 for a, b in itertools.pairwise(samples)]
    assert usable
    assert len([gap for gap in gaps if gap != 1]) == 1
    # Two seconds, and what was thrown away with them, 65,536 as the count has it.
    assert (max(gaps) - 1) % 65_536 == lost % 65_536
    assert 96_000 - 256 <= lost <= 96_000 + 1024
