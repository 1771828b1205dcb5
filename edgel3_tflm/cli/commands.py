"""The command line: ``edgel3-tflm COMMAND``."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import is_audio_file
from edgel3_tflm.cli.board import (
    estimate_command,
    export_app_command,
    train_head_command,
)
from edgel3_tflm.cli.convert import convert_command
from edgel3_tflm.cli.device import device_app
from edgel3_tflm.cli.drift import compare_command, report_app
from edgel3_tflm.cli.embed import embed_command
from edgel3_tflm.cli.evaluate import evaluate_command
from edgel3_tflm.cli.info import info_command
from edgel3_tflm.cli.probe import probe_command
from edgel3_tflm.cli.sensitivity import sensitivity_command
from edgel3_tflm.cli.study import study_command
from edgel3_tflm.cli.train import distill_command, finetune_command

app = typer.Typer(
    help="EdgeL3 audio embeddings on microcontrollers: embed, convert, measure, deploy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Embed and convert": {
        "embed": embed_command,
        "convert": convert_command,
        "info": info_command,
    },
    "Measure": {
        "compare": compare_command,
        "probe": probe_command,
        "evaluate": evaluate_command,
    },
    "On a board": {
        "estimate": estimate_command,
        "train-head": train_head_command,
        "export-app": export_app_command,
    },
    "Prune and retrain": {
        "sensitivity": sensitivity_command,
        "study": study_command,
        "distill": distill_command,
        "finetune": finetune_command,
    },
}
for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_command)
app.add_typer(device_app, name="device", no_args_is_help=True, rich_help_panel="On a board")
app.add_typer(report_app, name="report", no_args_is_help=True, rich_help_panel="Measure")


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the command ``edgel3-tflm``.

    Arguments without a command are those of ``embed``, as edgel3's own command has them.

    Parameters
    ----------
    args : sequence of str, optional
        The process's own if not given.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if _are_edgel3_s(arguments):
        arguments.insert(0, "embed")
    try:
        app(arguments)
    except SystemExit as end:
        if end.code:
            raise


def _are_edgel3_s(arguments: list[str]) -> bool:
    """Whether arguments begin with a file, or an option that is the command ``embed``'s."""
    if not arguments:
        return False
    first = Path(arguments[0])
    commands = typer.main.get_command(app)
    assert isinstance(commands, typer.core.TyperGroup)  # noqa: S101 - narrows for the type checker
    if arguments[0] in commands.commands:
        return False
    if not arguments[0].startswith("-"):
        return first.exists() or is_audio_file(first)
    own = {name for each in commands.params for name in each.opts}
    return arguments[0] not in {*own, "--help"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgel3-tflm {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the tools underneath say.")
    ] = False,
) -> None:
    del version
    if verbose:
        logging.basicConfig(
            level=logging.DEBUG,
            format="%(message)s",
            handlers=[RichHandler(console=Console(stderr=True))],
        )
        for noisy in ("matplotlib", "urllib3", "h5py"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
