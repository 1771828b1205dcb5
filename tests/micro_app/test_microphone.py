"""The sketch's microphone: its measured rate, and the samples that it loses."""

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.boards.arduino import MICRO_APP, STUBS, WARNINGS, sketch_macros

from edgel3_tflm.converters.export.board_files import SKETCH_NAME
from edgel3_tflm.device.boards import find_board


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sketch's microphone, built for this machine with the test's PDM library and clock."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    program = tmp_path_factory.mktemp("microphone") / "microphone"
    sketch = MICRO_APP / SKETCH_NAME
    sources = [
        Path(__file__).parents[1] / "native" / "microphone_main.cpp",
        sketch / "edgel3_microphone.cpp",
    ]
    options = ["-I", str(sketch), "-I", str(STUBS), *sketch_macros(find_board("giga_r1_m7"))]
    options += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [compiler, "-std=gnu++14", "-O1", *WARNINGS, *options, *map(str, sources)]
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
    # Both ends of the measured 0.4 s are rounded down to microseconds: an error of up to 1 in
    # 400,000. The rate itself is rounded too.
    assert abs(measured_hz - rate_hz) <= rate_hz / 400_000 + 1
    assert lost == 0
    # The samples are numbers modulo 2^16, without a gap.
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
    # Two seconds of samples and the discarded ones are missing, modulo 65,536.
    assert (max(gaps) - 1) % 65_536 == lost % 65_536
    assert 96_000 - 256 <= lost <= 96_000 + 1024
