"""The functions of the module ``edgel3.cli``, for scripts that call them."""

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from edgel3_tflm.cli.embed import embed_command
from edgel3_tflm.embedding.api import process_file
from edgel3_tflm.embedding.loading import load_embedding_model
from edgel3_tflm.errors import EdgeL3Error

_Number = TypeVar("_Number", int, float)


def positive_float(value: Any) -> float:
    """Convert a value to a positive float.

    Raises
    ------
    argparse.ArgumentTypeError
        If the value is not a positive number.
    """
    return _read_positive(value, float)


def positive_int(value: Any) -> int:
    """Convert a value to a positive int; errors as :func:`positive_float`."""
    return _read_positive(value, int)


def _read_positive(value: Any, kind: Callable[[Any], _Number]) -> _Number:
    try:
        number = kind(value)
    except (ValueError, TypeError):
        number = kind(0)
    if not number > 0:
        raise ArgumentTypeError(f"expected a positive {number.__class__.__name__}, got {value!r}")
    return number


def get_file_list(input_list: Iterable[str]) -> list[str]:
    """Return the given files, and the files directly in the given directories.

    Raises
    ------
    argparse.ArgumentTypeError
        If the argument is a single string or not iterable.
    EdgeL3Error
        If a path does not exist.
    """
    if isinstance(input_list, str) or not isinstance(input_list, Iterable):
        raise ArgumentTypeError(f"expected a list of paths, got {input_list!r}")
    found: list[str] = []
    for item in map(Path, input_list):
        if item.is_dir():
            found += sorted(str(path) for path in item.iterdir() if path.is_file())
        elif item.is_file():
            found.append(str(item.absolute()))
        else:
            raise EdgeL3Error(f"{item}: no such file or directory")
    return found


_THEIR_NAMES = {
    "output": "output_dir",
    "hop": "hop_size",
    "embedding_size": "emb_dim",
}
"""edgel3's names of arguments that have another name here."""


def parse_args(args: Sequence[str]) -> Namespace:
    """Parse the arguments of the command ``embed``; return them under edgel3's names."""
    parser = typer.Typer(add_completion=False)
    parser.command()(embed_command)
    context = typer.main.get_command(parser).make_context("edgel3-tflm embed", list(args))
    found = Namespace(**context.params)
    for ours, theirs in _THEIR_NAMES.items():
        setattr(found, theirs, getattr(found, ours))
    found.inputs = [str(path) for path in found.inputs]
    found.output_dir = None if found.output_dir is None else str(found.output_dir)
    return found


def run(
    inputs: str | Iterable[str],
    output_dir: str | None = None,
    suffix: str | None = None,
    model_type: str = "sparse",
    emb_dim: int = 128,
    retrain_type: str = "ft",
    sparsity: float = 95.45,
    center: bool = True,
    hop_size: float = 0.1,
    verbose: bool = False,
) -> None:
    """Write the embeddings of files, and of all files in directories.

    Arguments and errors are those of :func:`edgel3_tflm.process_file`. If there are no files, a
    line says so and the process ends with status 255.
    """
    if not isinstance(inputs, Iterable):
        raise EdgeL3Error(f"expected a path or a list of paths, got {inputs!r}")
    files = [inputs] if isinstance(inputs, str) else get_file_list(inputs)
    if not files:
        typer.echo(f"Edgel3: No WAV files found in {inputs}. Aborting.")
        sys.exit(-1)
    model = load_embedding_model(model_type, emb_dim, retrain_type, sparsity)
    for file in files:
        if verbose:
            typer.echo(f"Edgel3: Processing: {file}")
        process_file(file, output_dir, suffix, model, center=center, hop_size=hop_size)
    if verbose:
        typer.echo("Edgel3: Done!")
