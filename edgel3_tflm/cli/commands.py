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
from edgel3_tflm.cli.board.device import device_app
from edgel3_tflm.cli.board.estimate import estimate_command
from edgel3_tflm.cli.board.export_app import export_app_command
from edgel3_tflm.cli.board.fit import fit_command
from edgel3_tflm.cli.board.train_head import train_head_command
from edgel3_tflm.cli.command import HELP_NAMES, Command, Group, make_epilog
from edgel3_tflm.cli.convert import convert_command
from edgel3_tflm.cli.embed import embed_command
from edgel3_tflm.cli.info import info_command
from edgel3_tflm.cli.listen import listen_command
from edgel3_tflm.cli.measure.compare import compare_command
from edgel3_tflm.cli.measure.evaluate import evaluate_command
from edgel3_tflm.cli.measure.probe import probe_command
from edgel3_tflm.cli.measure.report import report_app
from edgel3_tflm.cli.retrain.distill import distill_command
from edgel3_tflm.cli.retrain.finetune import finetune_command
from edgel3_tflm.cli.retrain.sensitivity import sensitivity_command
from edgel3_tflm.cli.retrain.study import study_command

app = typer.Typer(
    cls=Group,
    help="EdgeL3 audio embeddings on microcontrollers: embed, convert, measure, deploy.",
    no_args_is_help=True,
    context_settings=HELP_NAMES,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Embed and convert": {
        "embed": embed_command,
        "listen": listen_command,
        "convert": convert_command,
        "info": info_command,
    },
    "Measure": {
        "compare": compare_command,
        "probe": probe_command,
        "evaluate": evaluate_command,
    },
    "On a board": {
        "fit": fit_command,
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
        app.command(
            _name,
            cls=Command,
            context_settings=HELP_NAMES,
            epilog=make_epilog(_name),
            rich_help_panel=_panel,
        )(_command)
app.add_typer(
    device_app,
    name="device",
    context_settings=HELP_NAMES,
    no_args_is_help=True,
    rich_help_panel="On a board",
)
app.add_typer(
    report_app,
    name="report",
    context_settings=HELP_NAMES,
    no_args_is_help=True,
    rich_help_panel="Measure",
)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the command ``edgel3-tflm``.

    If the arguments begin with no command, ``embed`` takes them, because the command of edgel3 is
    called in this way.

    Parameters
    ----------
    args : sequence of str, optional
        Default: the arguments of this process.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    commands = typer.main.get_command(app)
    assert isinstance(commands, typer.core.TyperGroup)  # noqa: S101 - narrows for the type checker
    if _lack_a_command(arguments, commands):
        arguments.insert(0, "embed")
    try:
        commands(arguments)
    except SystemExit as end:
        if end.code:
            raise


def _lack_a_command(arguments: list[str], commands: typer.core.TyperGroup) -> bool:
    """Return whether the arguments begin with a file or with an option of ``embed``."""
    if not arguments:
        return False
    first = Path(arguments[0])
    if arguments[0] in commands.commands:
        return False
    if not arguments[0].startswith("-"):
        return first.exists() or is_audio_file(first)
    own = {name for each in commands.params for name in each.opts}
    return arguments[0] not in {*own, *HELP_NAMES["help_option_names"]}


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
        bool, typer.Option("--verbose", "-v", help="Show the messages of the underlying tools.")
    ] = False,
) -> None:
    del version
    if verbose:
        logging.basicConfig(
            level=logging.DEBUG,
            format="%(message)s",
            handlers=[RichHandler(console=Console(stderr=True))],
        )
        for noisy in ("matplotlib", "urllib3", "h5py", "pyfive"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
