"""A node hears the next window while its network runs; built for this machine."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.boards.arduino import MICRO_APP, WARNINGS
from helpers.sounds.frontend_windows import deployed_frontend

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.pcm import to_int16
from edgel3_tflm.device.wire import Command, Decoder, Info, LiveEvent, Statistics
from edgel3_tflm.runtime.c_library.engine import Engine
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.packed import read_packed

LIBRARY = MICRO_APP / "lib" / "edgel3" / "src"
WINDOW = 8000
BLOCK = 100


@dataclass(frozen=True)
class Node:
    """The program of ``ears_main.c``, and what this machine computes for the same samples."""

    program: Path
    deployment: Deployment
    rows: int

    def hear(
        self,
        sound: npt.NDArray[np.int16],
        per_row: int,
        *,
        lost: tuple[int, int] = (0, 0),
        ears: str,
    ) -> tuple[list[LiveEvent], Statistics]:
        """Return the node's results; ``lost`` is a position and a number of samples."""
        command = [self.program, str(per_row), *map(str, lost), ears]
        done = subprocess.run(command, input=sound.tobytes(), capture_output=True)
        assert done.returncode == 0, done.stderr
        said, *answers = Decoder().feed(done.stdout)
        info = Info.parse(said.body)
        events = [LiveEvent.parse(a.body, info) for a in answers if a.command == Command.LIVE]
        assert answers[-1].command == Command.STATISTICS
        return events, Statistics.parse(answers[-1].body)

    def check(self, events: list[LiveEvent], sound: npt.NDArray[np.int16]) -> None:
        """Assert that each embedding is that of the samples from its position on."""
        packed = self.deployment.read_packed_model()
        assert packed is not None
        engine, frontend = Engine(packed), deployed_frontend(self.deployment)
        for event in events:
            frontend.log_mel(sound[event.first_sample : event.first_sample + WINDOW])
            np.testing.assert_array_equal(event.embedding, engine.run(frontend.quantize()))


@pytest.fixture(scope="module")
def node(tiny_int8: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Node:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("ears") / "ears"
    main = Path(__file__).parents[1] / "native" / "ears_main.c"
    kernels = MICRO_APP / "host" / "edgel3_kernels_host.c"
    tables = ("edgel3_packed_model.c", "edgel3_model_frontend.c")
    sources = [main, kernels, *LIBRARY.glob("*.c")]
    sources += [tiny_int8.directory / name for name in tables]
    options = ["-std=c99", "-O1", *WARNINGS, f"-I{LIBRARY}", f"-I{tiny_int8.directory}"]
    options += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    options += [f"-DEDGEL3_EXTRA_KERNELS={kernels.stem}"]
    subprocess.run(["gcc", *options, *sources, "-lm", "-o", program], check=True)
    packed = tiny_int8.read_packed_model()
    assert packed is not None
    rows = sum(conv.rows for conv in read_packed(packed).convolutions)
    return Node(program, tiny_int8, rows)


@pytest.fixture(scope="module")
def sound() -> npt.NDArray[np.int16]:
    """Twelve seconds of several clips."""
    clips = sorted(bundled_clips_directory().iterdir())[::9][:6]
    windows = read_windows(clips, sample_rate_hz=8000, window_samples=WINDOW, hop_s=1.0)
    parts = [to_int16(group[:2]).ravel() for _, group in windows]
    return np.concatenate(parts)[: 12 * WINDOW]


def test_windows_follow_without_a_gap_where_the_network_is_fast_enough(
    node: Node, sound: npt.NDArray[np.int16]
) -> None:
    # The network takes nearly a window's time.
    events, statistics = node.hear(sound, (WINDOW - BLOCK) // node.rows, ears="open")

    assert [event.first_sample for event in events] == list(range(0, len(sound), WINDOW))
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert (statistics.skipped_samples, statistics.missed_samples) == (0, 0)
    assert statistics.covered_samples == len(sound)
    assert statistics.coverage == 1
    node.check(events, sound)


def test_the_time_of_hearing_is_not_that_of_the_network(
    node: Node, sound: npt.NDArray[np.int16]
) -> None:
    # The program's clock advances only while the node hears between two rows.
    events, _ = node.hear(sound, 1, ears="open")
    assert {event.engine_ticks for event in events} == {0}


@pytest.mark.parametrize("windows_per_run", [1.25, 2.5])
def test_a_slow_network_gets_the_sound_of_the_present(
    node: Node, sound: npt.NDArray[np.int16], windows_per_run: float
) -> None:
    per_row = round(windows_per_run * WINDOW / node.rows)
    run = node.rows * per_row
    events, statistics = node.hear(sound, per_row, ears="open")

    node.check(events, sound)
    firsts = [event.first_sample for event in events]
    assert firsts[0] == 0
    # The network begins when the window is complete and the run before has ended.
    begin = WINDOW
    for number, first in enumerate(firsts[1:], 1):
        run_ends, window_ends = begin + run, first + WINDOW
        begin = max(run_ends, window_ends)
        # No window waits for half of its length. Once the network's time is known, none waits. A
        # window that is complete before the run ends begins its own with the next block.
        assert run_ends - window_ends < WINDOW / 2
        assert number == 1 or 0 <= window_ends - run_ends <= 2 * BLOCK + per_row
    assert statistics.missed_samples == 0
    assert statistics.skipped_samples > 0
    covered = len(events) * WINDOW
    assert statistics.covered_samples == covered
    # The rest is a window that is not complete.
    assert len(sound) - WINDOW - BLOCK <= covered + statistics.skipped_samples <= len(sound)


def test_a_gap_begins_another_window_and_is_counted(
    node: Node, sound: npt.NDArray[np.int16]
) -> None:
    lost = (2 * WINDOW + 3000, 700)
    events, statistics = node.hear(sound, 5, lost=lost, ears="open")

    begin = sum(lost)
    whole = (len(sound) - begin) // WINDOW
    expected = [0, WINDOW, *(begin + number * WINDOW for number in range(whole))]
    assert [event.first_sample for event in events] == expected
    assert [event.missed_samples for event in events] == [0, 0, *[700] * whole]
    assert (statistics.missed_samples, statistics.skipped_samples) == (700, 3000)
    node.check(events, sound)


def test_closed_ears_give_the_same_bytes(node: Node, sound: npt.NDArray[np.int16]) -> None:
    (opened, _), (closed, statistics) = (
        node.hear(sound, 5, ears=ears) for ears in ("open", "closed")
    )

    # The program's microphone waits while the network runs.
    assert statistics.coverage == 1
    assert [event.first_sample for event in closed] == [event.first_sample for event in opened]
    for one, other in zip(opened, closed, strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)
