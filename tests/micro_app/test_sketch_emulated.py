"""The sketch runs on an emulated Cortex-M7, with an Arduino core of the tests."""

import dataclasses
import itertools
import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers.boards.arduino import (
    ARM_GCC,
    ARM_GPP,
    MICRO_APP,
    STUBS,
    board_flags,
    compile_source,
    sources_of,
)

from edgel3_tflm.converters.export.app import (
    LIBRARY_FOLDER,
    export_app,
)
from edgel3_tflm.converters.export.board_files import SKETCH_NAME
from edgel3_tflm.device.boards import Board, find_board
from edgel3_tflm.device.client import RefusedError
from edgel3_tflm.device.emulation import Emulator
from edgel3_tflm.device.wire import Command, Decoder, Packet, encode
from edgel3_tflm.runtime.c_library.engine import Engine
from edgel3_tflm.runtime.deployment import Deployment


@dataclasses.dataclass(frozen=True)
class Emulation:
    """The objects that a sketch is linked with for the emulated Cortex-M7, compiled once."""

    objects: list[Path]

    def build(self, deployment: Deployment, board: Board, output: Path) -> Path:
        """Export a project, compile its sketch and link it."""
        export_app(deployment, board, output / "app")
        return self.link(output / "app", board, output)

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
"""All emulated sketches are compiled for this board's way of passing floats."""


def compile_for_the_emulator(sources: list[Path], board: Board, output: Path) -> list[Path]:
    objects = [output / f"{path.name}.o" for path in sources]

    def build(path: Path, compiled: Path) -> str:
        more = ["-O3", "-ffunction-sections", "-mfloat-abi=hard"]
        # A compiler of C refuses the options of C++, whose features the tests' core lacks.
        if path.suffix in (".ino", ".cpp", ".cc"):
            more += ["-fno-exceptions", "-fno-threadsafe-statics"]
        return compile_source(path, board, compiled, *more)

    with ThreadPoolExecutor(2) as threads:
        assert [said for said in threads.map(build, sources, objects) if said] == []
    return objects


@pytest.fixture(scope="module")
def emulation(sea_generated: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    """The library with a model of SEA-UST 64, and an Arduino core of the tests."""
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
    """Return QEMU's processor time during a pause. An awake board takes all of it."""

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
    firmware = emulation.build(sea_generated, EMULATED, tmp_path)
    packed = sea_generated.read_packed_model()
    assert packed is not None
    samples = np.random.default_rng(0).normal(0, 3000, 8000).astype(np.int16)

    with Emulator(firmware) as emulator, emulator.open_device() as device:
        assert device.info.board == EMULATED.title
        # QEMU has no cycle counter: the sketch detects this and counts microseconds.
        assert device.info.ticks_per_second == 1_000_000
        assert device.self_test() == 0
        embedding = device.embed_pcm(samples)
        window = device.log_mel()
        statistics = device.statistics()
        with pytest.raises(RefusedError):
            next(device.stream())
        busy_s = seconds_of_work(emulator, 1.0)

    # An idle node sleeps.
    assert busy_s < 0.5
    np.testing.assert_array_equal(embedding, Engine(packed).run(window))
    assert statistics.dropped_frames == 0
    assert statistics.engine_ticks > statistics.frontend_ticks > 0


@needs_emulator
def test_a_byte_that_arrives_just_before_sleep_is_read(
    emulation: Emulation, sea_generated: Deployment, tmp_path: Path
) -> None:
    firmware = emulation.build(sea_generated, EMULATED, tmp_path)
    frame = encode(Packet(Command.INFO, 1))

    with Emulator(firmware) as emulator, closing(emulator.connect()) as transport:
        # The core of the tests requests each byte's interrupt between the sketch's check and WFI.
        # No later byte or interrupt ends a sleep that the last byte did not prevent.
        answers: list[Packet] = []
        transport.write(frame[:-1])
        time.sleep(0.5)
        transport.write(frame[-1:])
        decoder, end_s = Decoder(), time.monotonic() + 60
        while not answers and time.monotonic() < end_s:
            answers += decoder.feed(transport.read(1.0))

    assert [(answer.command, answer.sequence) for answer in answers] == [(Command.INFO, 1)]


@needs_emulator
def test_the_sketch_streams_what_its_microphone_hears(
    emulation: Emulation, sea_generated: Deployment, tmp_path: Path
) -> None:
    board = find_board("giga_r1_m7")
    firmware = emulation.build(sea_generated, board, tmp_path)

    with Emulator(firmware, is_idle_skipped=True) as emulator:
        with emulator.open_device() as device:
            events = list(itertools.islice(device.stream(), 8))
            statistics = device.statistics()
        with emulator.open_device() as device:
            measured = re.fullmatch(rf"{board.title}, microphone on at (\d+) Hz", device.info.board)

    assert measured is not None
    # A sample takes 122 us.
    assert abs(int(measured[1]) - 1e6 / 122) <= 2
    # The network takes less time than the ring can buffer: windows follow without a gap. A buffer
    # has 62 ms. At the microphone's own rate, seven windows would take 6832 ms.
    assert statistics.missed_samples == 0
    assert abs(events[-1].milliseconds - events[0].milliseconds - 7000) <= 64
    assert [event.number for event in events] == list(range(1, 9))


@needs_emulator
def test_sound_that_a_busy_node_misses_is_counted_and_windows_go_on(
    emulation: Emulation, sea_generated: Deployment, tmp_path: Path
) -> None:
    board = find_board("giga_r1_m7")
    export_app(sea_generated, board, tmp_path / "app")
    header = tmp_path / "app" / SKETCH_NAME / "edgel3_microphone.h"
    # 62 ms of sound, one buffer; the network takes about 0.3 s of the emulator's time.
    smaller = header.read_text().replace(
        "kMicrophoneRingSamples = 4096", "kMicrophoneRingSamples = 512"
    )
    assert smaller != header.read_text()
    # With closed ears, the sketch does not read the ring while the network runs.
    header.write_text(smaller + "\n#define EDGEL3_NODE_OPENS_EARS 0\n")
    firmware = emulation.link(tmp_path / "app", board, tmp_path)

    with (
        Emulator(firmware, is_idle_skipped=True) as emulator,
        emulator.open_device() as device,
    ):
        stream = device.stream()
        events = list(itertools.islice(stream, 3))
        statistics = device.statistics()
        stream.close()
        embedding = device.embed_pcm(np.zeros(8000, np.int16))

    assert [event.number for event in events] == [1, 2, 3]
    gaps = [b.milliseconds - a.milliseconds for a, b in itertools.pairwise(events)]
    # Between the ends of two windows lie a second of samples and those missed, to a buffer of 512
    # or two. A sample takes 122 us.
    missed = [(gap - 1000) * 1000 / 122 for gap in gaps]
    assert min(missed) > 1000
    assert statistics.missed_samples >= sum(missed) - 2 * 1024
    assert statistics.missed_samples <= (statistics.windows + 1) * (max(missed) + 1024)
    assert len(embedding) == 64
