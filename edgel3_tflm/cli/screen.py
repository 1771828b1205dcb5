"""Output of the commands: results, progress, and errors on one line."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.weights import SUBSTITUTE_KINDS
from edgel3_tflm.runtime.deployment import Deployment

_SPEED_PERIOD_S = 3600
"""rich measures the speed over this time. One step of a training can take a minute."""
_LINES_A_STEP = 10

_log = logging.getLogger(__name__)

_END_SIGNALS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""Signals that ask a command to end, and Python's default handler of each."""

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class Screen:
    """Prints results to standard output, progress and errors to standard error."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._out = Console(soft_wrap=True, highlight=False)
        self._err = Console(stderr=True, highlight=False)

    def show(self, result: dict[str, Any], *renderables: Any) -> None:
        """Print a result, as JSON or as tables and text."""
        try:
            if self.as_json:
                sys.stdout.write(json.dumps(result, indent=2) + "\n")
            elif not self.quiet:
                for each in renderables:
                    self._out.print(each)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # the reader closed the pipe
        except OSError as error:
            # Python flushes the buffer again when it ends, and would fail once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise EdgeL3Error(f"cannot write the result: {error.strerror}") from error

    def error(self, message: str) -> None:
        """Print an error on one line."""
        line = " ".join(message.splitlines())
        self._err.print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator["Steps"]:
        """Show the steps of a long job."""
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        disabled = self.quiet or not self._err.is_terminal
        with Progress(
            *columns,
            console=self._err,
            speed_estimate_period=_SPEED_PERIOD_S,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=disabled,
        ) as bars:
            steps = Steps(bars, None if self.quiet or self._err.is_terminal else self._err)
            yield steps
            steps.finish()


class Steps:
    """Progress callback: bars on a terminal, a few lines for each step elsewhere."""

    def __init__(self, bars: Progress, lines: Console | None) -> None:
        self._bars = bars
        self._lines = lines
        self._step: str | None = None
        self._task: Any = None
        self._shown: dict[str, int] = {}
        """Number of lines printed for each step."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show the progress of a step: ``done`` of ``total``, which is 0 if unknown."""
        if step != self._step:
            self.finish()
            self._step = step
            self._task = self._bars.add_task(step, total=total or None)
            if self._lines is not None:
                self._lines.print(Text(f"{step} ..."), soft_wrap=True)
        if total:
            self._bars.update(self._task, completed=done, total=total)
            self._print_share(step, done, total)

    def _print_share(self, step: str, done: int, total: int) -> None:
        """Print a line after each tenth of a step."""
        share = done * _LINES_A_STEP // total
        if self._lines is None or share <= self._shown.get(step, 0):
            return
        self._shown[step] = share
        left_s = self._find_task().time_remaining
        left = "" if left_s is None or done >= total else f", {timedelta(seconds=left_s)} left"
        line = f"{step}: {done:,} of {total:,}{left} ..."
        self._lines.print(Text(line), soft_wrap=True)

    def note(self, line: str) -> None:
        """Print a line that stays on the screen."""
        if not self._bars.disable:
            self._bars.console.print(Text(line), soft_wrap=True)
        elif self._lines is not None:
            self._lines.print(Text(line), soft_wrap=True)

    def finish(self) -> None:
        """Mark the running step as done."""
        if self._task is not None:
            task = self._find_task()
            done = task.completed if task.total else 1
            self._bars.update(self._task, completed=done, total=done)

    def _find_task(self) -> Task:
        return self._bars.tasks[self._bars.task_ids.index(self._task)]


@contextmanager
def open_screen(
    *,
    quiet: bool = False,
    as_json: bool = False,
    interrupted: str | Callable[[], str] = "nothing was written",
) -> Iterator[Screen]:
    """Turn errors that the user can correct into one line and an exit status.

    Ctrl-C and SIGTERM raise KeyboardInterrupt inside the command, so that it can clean up. The exit
    status is then 130 or 143.

    Parameters
    ----------
    quiet, as_json : bool
    interrupted : str or callable
        States what the command leaves after Ctrl-C or SIGTERM.
    """
    screen = Screen(quiet=quiet, as_json=as_json)
    received: int | None = None

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = number
        signal.default_int_handler(number, frame)

    # Signals that are ignored, or that the caller handles, are left alone.
    in_main_thread = threading.current_thread() is threading.main_thread()
    handled = [
        (number, default)
        for number, default in _END_SIGNALS.items()
        if in_main_thread and signal.getsignal(number) is default
    ]
    for number, _ in handled:
        signal.signal(number, interrupt)
    try:
        yield screen
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        # A library may replace KeyboardInterrupt by an error of its own, as TensorFlow does.
        if received is not None or isinstance(error, KeyboardInterrupt):
            how = "terminated" if received == signal.SIGTERM else "interrupted"
            left = interrupted if isinstance(interrupted, str) else interrupted()
            screen.error(f"{how}; {left}")
            raise typer.Exit(128 + (received or signal.SIGINT)) from error
        if isinstance(error, EdgeL3Error):
            screen.error(str(error))
            raise typer.Exit(1) from error
        if isinstance(error, MemoryError):
            screen.error("out of memory; nothing was written")
            raise typer.Exit(1) from error
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            _log.debug("%s", error, exc_info=error)
            screen.error(_describe(error))
            raise typer.Exit(1) from error
        raise
    finally:
        for number, default in handled:
            signal.signal(number, default)


def _describe(error: OSError) -> str:
    """Describe an error of the operating system, with the file if it is known."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{error.filename}: {reason}"


def new_table(*columns: str) -> Table:
    """Return an empty table: text in the first column, numbers in the others."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], overflow="fold", min_width=8)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def describe_weights(kind: str, description: str) -> Text:
    """Return where weights come from; a notice if they are substitutes.

    Parameters
    ----------
    kind : str
        As in :class:`~edgel3_tflm.networks.weights.Provenance`.
    description : str
    """
    if kind in SUBSTITUTE_KINDS:
        return Text(f"NOTICE: {description}", style="bold yellow")
    return Text(description)


def describe_provenance(deployment: Deployment) -> Text:
    """Return where the weights of a deployment come from."""
    weights = deployment.manifest["weights"]
    return describe_weights(weights["kind"], weights["description"])
