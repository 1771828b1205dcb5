"""The sketch: compiles for every board without warnings, within its memory, from one directory."""

import configparser
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgel3_tflm.converters.export import app
from edgel3_tflm.converters.export.app import (
    LIBRARY_FOLDER,
    MARKER_NAME,
    export_app,
)
from edgel3_tflm.converters.export.board_files import (
    SKETCH_NAME,
    write_board_header,
    write_platformio,
)
from edgel3_tflm.converters.export.head import Head
from edgel3_tflm.device.boards import BOARDS, Board, find_board
from edgel3_tflm.device.client import Device, RefusedError
from edgel3_tflm.device.emulation import Emulator
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.engine import Engine

ROOT = Path(__file__).parents[2]
MICRO_APP = ROOT / "micro_app"
STUBS = Path(__file__).parents[1] / "native" / "arduino_stubs"
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
    # Of the library only the model asks for the board: one of each way to pass floats will do.
    if board.name not in ("portenta_h7_m7", "teensy41"):
        library = tmp_path / "app" / SKETCH_NAME / LIBRARY_FOLDER
        sources = [path for path in sources if path.parent != library or "model" in path.name]

    def build(path: Path) -> str:
        return compile_source(path, board, tmp_path / f"{path.name}.o")

    assert len(sources) >= 4
    with ThreadPoolExecutor(2) as threads:
        assert [said for said in threads.map(build, sources) if said] == []


def sections_of(compiled: Path) -> dict[str, int]:
    """Bytes of an object's sections."""
    command = ["arm-none-eabi-objdump", "-h", str(compiled)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines() if line.strip()[:1].isdigit()]
    return {row[1]: int(row[2], 16) for row in rows}


@needs_arm
def test_teensy_keeps_the_model_in_flash_and_the_arena_in_its_second_ram(
    standin: Deployment, tmp_path: Path
) -> None:
    board = find_board("teensy41")
    export_app(standin, board, tmp_path / "app")
    sections = {}
    for name in (f"{SKETCH_NAME}.ino", f"{LIBRARY_FOLDER}/edgel3_packed_model.c"):
        compile_source(tmp_path / "app" / SKETCH_NAME / name, board, tmp_path / "object.o")
        sections |= sections_of(tmp_path / "object.o")

    packed = standin.manifest["packed"]
    assert sections[".progmem"] == packed["bytes"]
    assert sections[".dmabuffers"] >= packed["arena_bytes"] + 256 * 199


@needs_arm
def test_teensy_keeps_a_flatbuffer_in_flash_too(sea_generated: Deployment, tmp_path: Path) -> None:
    board = find_board("teensy41")
    export_app(sea_generated, board, tmp_path / "app", engine="tflm")
    model = tmp_path / "app" / SKETCH_NAME / LIBRARY_FOLDER / "edgel3_model.cc"

    assert compile_source(model, board, tmp_path / "object.o") == ""
    expected = sea_generated.manifest["artefacts"]["int8_packed.tflite"]["bytes"]
    assert sections_of(tmp_path / "object.o")[".progmem"] == expected


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

    # Told in words, whichever way the library came onto the include path.
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


@dataclasses.dataclass(frozen=True)
class Emulation:
    """What a sketch is linked with for the emulated Cortex-M7, compiled once."""

    objects: list[Path]

    def link(self, project: Path, board: Board, output: Path) -> Path:
        """Compile a project's sketch and link it."""
        sketch = project / SKETCH_NAME
        sources = sorted(path for path in sketch.iterdir() if path.suffix in (".ino", ".cpp"))
        objects = compile_for_the_emulator(sources, board, output)
        firmware = output / "sketch.elf"
        link = [ARM_GPP, *board_flags(EMULATED), "-nostartfiles"]
        link += ["--specs=nano.specs", "--specs=nosys.specs", "-Wl,--gc-sections"]
        link += ["-T", str(MICRO_APP / "boards" / "mps2_an500" / "mps2_an500.ld")]
        link += [str(path) for path in (*objects, *self.objects)]
        subprocess.run([*link, "-lm", "-o", str(firmware)], check=True, capture_output=True)
        return firmware


EMULATED = find_board("nucleo_h743zi")
"""Whose way to pass floats all emulated sketches are compiled for."""


def compile_for_the_emulator(sources: list[Path], board: Board, output: Path) -> list[Path]:
    objects = [output / f"{path.name}.o" for path in sources]

    def build(path: Path, compiled: Path) -> str:
        # A compiler of C refuses the options of C++.
        more = ["-fno-threadsafe-statics"] if path.suffix in (".ino", ".cpp", ".cc") else []
        more += ["-O3", "-ffunction-sections", "-mfloat-abi=hard"]
        return compile_source(path, board, compiled, *more)

    with ThreadPoolExecutor(2) as threads:
        assert [said for said in threads.map(build, sources, objects) if said] == []
    return objects


@pytest.fixture(scope="module")
def emulation(sea_generated: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    """The library with SEA-64's filters, and an Arduino core of ours."""
    folder = tmp_path_factory.mktemp("emulation")
    export_app(sea_generated, EMULATED, folder / "app")
    sources = sources_of(folder / "app" / SKETCH_NAME / LIBRARY_FOLDER)
    sources += [STUBS / "mps2_core.cpp", MICRO_APP / "boards" / "mps2_an500" / "board.c"]
    return Emulation(compile_for_the_emulator(sources, EMULATED, folder))


needs_emulator = pytest.mark.skipif(
    not (shutil.which(ARM_GCC) and shutil.which("qemu-system-arm")),
    reason=f"needs {ARM_GCC} and qemu-system-arm",
)


def seconds_of_work(emulator: Emulator, seconds: float) -> float:
    """Processor time that QEMU takes meanwhile: all of it, where what it emulates is awake."""

    def used() -> float:
        fields = Path(f"/proc/{emulator._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(seconds)
    return used() - before


@needs_emulator
def test_the_sketch_answers_its_host_with_the_engines_bytes(
    emulation: Emulation, sea_generated: Deployment, tmp_path: Path
) -> None:
    board = find_board("nucleo_h743zi")
    export_app(sea_generated, board, tmp_path / "app")
    firmware = emulation.link(tmp_path / "app", board, tmp_path)
    packed = sea_generated.read_packed_model()
    assert packed is not None
    samples = np.random.default_rng(0).normal(0, 3000, 8000).astype(np.int16)

    with Emulator(firmware) as emulator, Device(emulator.connect()) as device:
        assert device.info.board == board.title
        # QEMU counts no cycles: the sketch finds that out and takes the microseconds.
        assert device.info.ticks_per_second == 1_000_000
        assert device.self_test() == 0
        embedding = device.embed_pcm(samples)
        window = device.log_mel()
        statistics = device.statistics()
        with pytest.raises(RefusedError):
            next(device.stream())
        busy_s = seconds_of_work(emulator, 1.0)

    # With nothing to do it sleeps, but for a look every millisecond.
    assert busy_s < 0.5
    np.testing.assert_array_equal(embedding, Engine(packed).run(window))
    assert statistics.dropped_frames == 0
    assert statistics.engine_ticks > statistics.frontend_ticks > 0


@needs_emulator
def test_the_sketch_streams_what_its_microphone_hears(
    emulation: Emulation, sea_generated: Deployment, tmp_path: Path
) -> None:
    board = find_board("giga_r1_m7")
    export_app(sea_generated, board, tmp_path / "app")
    firmware = emulation.link(tmp_path / "app", board, tmp_path)

    with Emulator(firmware, is_idle_skipped=True) as emulator:
        with Device(emulator.connect(), timeout_s=600) as device:
            events = list(itertools.islice(device.stream(), 2))
            statistics = device.statistics()
        with Device(emulator.connect()) as device:
            assert device.info.board == f"{board.title}, microphone on at 8000 Hz"

    # The network takes less than what the ring holds: window follows window, in buffers of 32 ms.
    assert statistics.missed_samples == 0
    gaps = [b.milliseconds - a.milliseconds for a, b in itertools.pairwise(events)]
    assert all(abs(gap - 1000) <= 33 for gap in gaps)
    assert [event.number for event in events] == [1, 2]


@needs_emulator
def test_sound_that_a_busy_node_misses_is_counted_and_windows_go_on(
    emulation: Emulation, sea_generated: Deployment, tmp_path: Path
) -> None:
    board = find_board("giga_r1_m7")
    export_app(sea_generated, board, tmp_path / "app")
    header = tmp_path / "app" / SKETCH_NAME / "microphone.h"
    # 64 ms of sound; the network takes about 0.3 s of the emulator's time.
    smaller = header.read_text().replace(
        "kMicrophoneRingSamples = 4096", "kMicrophoneRingSamples = 512"
    )
    assert smaller != header.read_text()
    header.write_text(smaller)
    firmware = emulation.link(tmp_path / "app", board, tmp_path)

    with (
        Emulator(firmware, is_idle_skipped=True) as emulator,
        Device(emulator.connect(), timeout_s=600) as device,
    ):
        stream = device.stream()
        events = list(itertools.islice(stream, 3))
        statistics = device.statistics()
        stream.close()
        embedding = device.embed_pcm(np.zeros(8000, np.int16))

    assert [event.number for event in events] == [1, 2, 3]
    gaps = [b.milliseconds - a.milliseconds for a, b in itertools.pairwise(events)]
    # Between the ends of two windows lie 8000 samples and those missed, to a buffer of 256 or two.
    missed = [8 * gap - 8000 for gap in gaps]
    assert min(missed) > 1000
    assert statistics.missed_samples >= sum(missed) - 2 * 512
    assert statistics.missed_samples <= (statistics.windows + 1) * (max(missed) + 512)
    assert len(embedding) == 64


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


def make_head(model_sha256: str, size: int) -> Head:
    weights = np.ones((2, size), np.int8)
    values = np.array([0.5, -0.25], np.float32)
    return Head("softmax", ("dog", "rain"), weights, values, values, 5, model_sha256, {})


@needs_arm
def test_a_head_is_part_of_the_project(standin: Deployment, tmp_path: Path) -> None:
    digest = standin.manifest["artefacts"]["int8.tflite"]["sha256"]
    make_head(digest, 512).write(tmp_path / "head")

    exported = export_app(standin, BOARDS[0], tmp_path / "app", tmp_path / "head")

    sketch = tmp_path / "app" / SKETCH_NAME
    assert exported.classes == 2
    for name in (f"{LIBRARY_FOLDER}/edgel3_model_head.c", f"{SKETCH_NAME}.ino"):
        assert compile_source(sketch / name, BOARDS[0], tmp_path / "o") == ""
    listed = subprocess.run(
        ["arm-none-eabi-nm", str(tmp_path / "o")], capture_output=True, text=True, check=True
    )
    assert "U edgel3_model_head" in listed.stdout


def test_the_head_of_another_model_is_refused(standin: Deployment, tmp_path: Path) -> None:
    make_head("0" * 64, 512).write(tmp_path / "head")

    with pytest.raises(EdgeL3Error, match="run train-head again"):
        export_app(standin, BOARDS[0], tmp_path / "app", tmp_path / "head")

    assert not (tmp_path / "app").exists()


def test_the_command_takes_the_head_beside_the_model(standin: Deployment, tmp_path: Path) -> None:
    digest = standin.manifest["artefacts"]["int8.tflite"]["sha256"]
    shutil.copytree(standin.directory, tmp_path / "model")
    make_head(digest, 512).write(tmp_path / "model")
    command = [str(Path(sys.executable).with_name("edgel3-tflm")), "export-app", "--json"]
    command += [str(tmp_path / "model"), "--board", "teensy41", "-o", str(tmp_path / "app")]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["classes"] == 2
    assert (tmp_path / "app" / "platformio.ini").read_text() == write_platformio(
        [find_board("teensy41")], is_exported=True
    )


def test_exporting_again_gives_the_same_bytes(standin: Deployment, tmp_path: Path) -> None:
    export_app(standin, BOARDS[0], tmp_path / "app")
    first = json.loads((tmp_path / "app" / MARKER_NAME).read_bytes())

    export_app(standin, BOARDS[0], tmp_path / "app")

    assert json.loads((tmp_path / "app" / MARKER_NAME).read_bytes()) == first


def test_nothing_is_written_for_a_board_that_is_too_small(
    standin: Deployment, tmp_path: Path
) -> None:
    small = dataclasses.replace(BOARDS[0], ram_bytes=300_000)

    with pytest.raises(EdgeL3Error, match=r"at most 103,392 bytes of RAM .* got 279,840 bytes"):
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


def test_unknown_engines_are_named_with_those_there_are(
    sea_generated: Deployment, tmp_path: Path
) -> None:
    command = [str(Path(sys.executable).with_name("edgel3-tflm")), "export-app"]
    command += [str(sea_generated.directory), "--board", "teensy41", "-o", str(tmp_path / "app")]
    done = subprocess.run([*command, "--engine", "tflite"], capture_output=True, text=True)

    assert done.returncode == 1
    assert "unknown engine 'tflite': expected one of packed, tflm, tflm-builtin" in done.stderr
    assert not (tmp_path / "app").exists()


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sketch's microphone on this machine, with a PDM library and a clock of the test's own."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    program = tmp_path_factory.mktemp("microphone") / "microphone"
    sketch = MICRO_APP / SKETCH_NAME
    sources = [
        Path(__file__).parents[1] / "native" / "microphone_main.cpp",
        sketch / "microphone.cpp",
    ]
    includes = ["-I", str(STUBS), "-I", str(sketch), f"-D{find_board('giga_r1_m7').macros[0]}"]
    command = [compiler, "-std=gnu++14", "-O1", *WARNINGS, *includes, *map(str, sources)]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def listen(program: Path, rate_hz: float, samples: int, sleep_us: int) -> list[int]:
    command = [str(program), str(rate_hz), str(samples), str(sleep_us)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
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

    # 0.1 s, then 0.4 s while the rate is measured.
    assert first % 65_536 >= 0.5 * 48_000


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
