"""What is shown of a long job where there is no terminal."""

import io
import re

import pytest
from rich.console import Console
from rich.progress import Progress

from edgel3_tflm.cli.screen import Steps


class Clock:
    """Stands still until it is told."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def follow(steps: int, clock: Clock, first: int = 1) -> list[str]:
    """Lines of a job whose steps take a minute each."""
    written = io.StringIO()
    bars = Progress(disable=True, get_time=clock, speed_estimate_period=3600)
    show = Steps(bars, Console(file=written, width=200))
    for done in range(first, steps + 1):
        show("train", done, steps)
        clock.seconds += 60
    show.finish()
    return written.getvalue().splitlines()


@pytest.mark.parametrize("steps", [1, 3, 10, 1000])
def test_lines_are_bounded_in_number_and_the_last_says_all(steps: int) -> None:
    lines = follow(steps, Clock())
    assert lines[0] == "train ..."
    assert 2 <= len(lines) <= 11
    assert lines[-1] == f"train: {steps:,} of {steps:,} ..."


def test_lines_say_the_time_left() -> None:
    lines = follow(100, Clock())
    assert lines[1] == "train: 10 of 100, 1:30:00 left ..."
    assert lines[9] == "train: 90 of 100, 0:10:00 left ..."


def test_the_time_left_of_a_job_that_goes_on_is_of_its_own_speed() -> None:
    lines = follow(100, Clock(), first=51)
    assert lines[1] == "train: 51 of 100 ..."
    assert lines[2] == "train: 60 of 100, 0:40:00 left ..."


def test_steps_that_take_turns_have_no_more_lines() -> None:
    written = io.StringIO()
    show = Steps(Progress(disable=True), Console(file=written, width=200))
    for done in range(1, 101):
        show("read", done, 100)
        show("write", done, 100)
    shares = [line for line in written.getvalue().splitlines() if re.search(" of 100", line)]
    assert len(shares) == 20


def test_a_line_is_not_broken_where_the_terminal_is_narrow() -> None:
    written = io.StringIO()
    clock = Clock()
    show = Steps(Progress(disable=True, get_time=clock), Console(file=written, width=20))
    step = "int8: percentile 99.999, equalization 0.25"
    for done in (1, 2):
        show(step, done, 2)
        clock.seconds += 60
    assert written.getvalue().splitlines() == [
        f"{step} ...",
        f"{step}: 1 of 2 ...",
        f"{step}: 2 of 2 ...",
    ]
