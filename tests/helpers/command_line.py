"""Running the command line, and what an error looks like."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from edgel3_tflm.cli.commands import app

COMMAND = [str(Path(sys.executable).with_name("edgel3-tflm"))]


def run(
    *arguments: object, limit: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=limit,
    )


def run_in_process(*arguments: object) -> tuple[int, str]:
    """Run a command in this process, which has TensorFlow loaded: status and messages."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr


def assert_one_error_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.endswith("...")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    for part in parts:
        assert part in errors[0]
