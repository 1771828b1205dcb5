"""What all commands have in common: flags, examples, and the options of earlier versions."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
EXAMPLES: Mapping[str, tuple[str, str]] = {
    "embed": (
        "embed recordings/ -o embeddings/ --hop 0.5",
        "embed --manifest clips.tsv --model edgel3/ -o dataset/ --scheduler dask",
    ),
    "convert": (
        "convert --sparsity 95.45 -o edgel3/",
        "convert --model-type sea --embedding-size 64 --calibration recordings/",
    ),
    "listen": ("listen edgel3/", "listen edgel3/ street.wav --hop 0.25 --runtime node"),
    "info": ("info edgel3/", "info my_l3.h5.gz --json"),
    "compare": (
        "compare edgel3/ recordings/ -o drift/",
        "compare edgel3/ --manifest clips.tsv --runtime node --fail-under cosine_p5=0.99",
    ),
    "probe": (
        "probe edgel3/ --manifest clips.tsv --fold 4",
        "probe --embeddings other.npz --manifest clips.tsv",
    ),
    "evaluate": (
        "evaluate edgel3/ --dataset esc50 --data-home ESC-50/",
        "evaluate edgel3/ --dataset recordings/ --hop 0.1 --seeds 5",
    ),
    "fit": (
        "fit --board portenta_h7_m7 --manifest clips.tsv -o fit/",
        "fit --flash 1000000 --ram 300000 --ms 500 -o fit/",
    ),
    "estimate": (
        "estimate edgel3/ --board portenta_h7_m7",
        "estimate edgel3/ --battery-mwh 10000 --days 30",
    ),
    "train-head": (
        "train-head edgel3/ --manifest clips.tsv",
        "train-head edgel3/ --manifest clips.tsv --kind sigmoid -o head/",
    ),
    "export-app": (
        "export-app edgel3/ --board portenta_h7_m7 -o app/",
        "export-app edgel3/ --board nicla_vision --runtime tflm -o app/",
    ),
    "sensitivity": (
        "sensitivity --weights my_l3.h5.gz -o plan/ --target-bytes 1000000",
        "sensitivity --model-type sea --embedding-size 64 -o plan/ --target-sparsity 50",
    ),
    "study": ("study --sparsity 95.45", "study --embedding-layer conv6 --no-instructions"),
    "distill": (
        "distill recipe.toml --manifest clips.tsv --teacher-weights sea64.h5.gz -o run/",
        "distill recipe.toml --clips recordings/ --teacher-weights sea64.h5.gz -o run/",
    ),
    "finetune": (
        "finetune recipe.toml --videos videos/ --weights my_l3.h5.gz -o run/",
        "finetune recipe.toml --videos videos/ --weights my_l3.h5.gz --plan plan.toml -o run/",
    ),
    "device monitor": (
        "device monitor --port /dev/ttyACM0",
        "device monitor street.wav --emulate edgel3/ --record windows.csv",
    ),
    "device info": ("device info --port /dev/ttyACM0", "device info --emulate edgel3/"),
    "device embed": (
        "device embed street.wav --port /dev/ttyACM0",
        "device embed street.wav --emulate edgel3/ --record windows.npz",
    ),
    "device compare": (
        "device compare recordings/ --port /dev/ttyACM0 --model edgel3/",
        "device compare recordings/ --emulate edgel3/",
    ),
    "device bench": ("device bench --port /dev/ttyACM0", "device bench --emulate edgel3/"),
    "report diff": (
        "report diff before/ after/",
        "report diff before/ after/ --fail-over cosine_p5=0.001",
    ),
}
"""Two examples for each command, without the name of the program."""

RENAMED: Mapping[str, Mapping[str, str]] = {
    "embed": {"--out": "--output", "--engine": "--scheduler"},
    "convert": {"--emb-dim": "--embedding-size"},
    "sensitivity": {"--emb-dim": "--embedding-size"},
    "export-app": {"--engine": "--runtime"},
    "probe": {"--precision": "--quantization"},
    "study": {"--emulate": "--instructions", "--no-emulate": "--no-instructions"},
}
"""Options of earlier versions, by command, and what they are called now."""


def make_epilog(path: str) -> str:
    """Return the end of a command's help: its two examples."""
    return "\n\n".join(("Examples:", *(f"edgel3-tflm {line}" for line in EXAMPLES[path])))


def notice(old: str, new: str) -> None:
    """Tell on standard error what an argument of an earlier version is called now."""
    typer.echo(f"notice: {old} is now {new}; the old form still works", err=True)


class Command(TyperCommand):
    """A command that understands the options of earlier versions, and shows flags as flags."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for param in self.params:
            _hide_type(param)

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option ``--help`` without the type of its value."""
        option = super().get_help_option(ctx)
        _hide_type(option)
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments after renaming the options of earlier versions."""
        names: list[str] = []
        each = ctx
        while each.parent is not None:
            names.insert(0, each.info_name)
            each = each.parent
        parsed: list[str] = super().parse_args(ctx, _rename(args, RENAMED.get(" ".join(names), {})))
        return parsed


class Group(TyperGroup):
    """A group of commands that shows flags as flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options; those of completion are added only after a group is made."""
        params = super().get_params(ctx)
        for param in params:
            _hide_type(param)
        return params


def _hide_type(param: Any) -> None:
    if getattr(param, "is_flag", False) and param.metavar is None:
        param.metavar = ""


def _rename(args: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Return arguments with the present names of options; report the old ones.

    If both names are given, the present one counts.
    """
    present = {arg.partition("=")[0] for arg in args}
    renamed: list[str] = []
    skip = False
    for number, arg in enumerate(args):
        if arg == "--":
            return [*renamed, *args[number:]]
        if skip:
            skip = False
            continue
        name, equals, value = arg.partition("=")
        new = names.get(name)
        if new is None:
            renamed.append(arg)
            continue
        notice(name, new)
        if new in present:
            skip = not equals
        else:
            renamed.append(new + equals + value)
    return renamed
