"""JSON and TOML read through pydantic models: what does not fit a model is one line."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from edgel3_tflm.errors import EdgeL3Error, on_one_line

OWN = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Of a file that a person writes: a misspelt key is a choice that was not made, refuse it."""
WRITTEN = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
"""Of a file that a program writes: a later version of the same format may add fields."""
_MAX_FOUND_CHARACTERS = 80

_Model = TypeVar("_Model")


@plain_dataclass(frozen=True)
class Format:
    """What a file states in ``format`` and ``format_version``.

    A later version is one that a reader of this one would misread; fields that it need not know
    may be added without.

    Parameters
    ----------
    name : str
    version : int
    remedy : str
        What to do about a damaged file.
    """

    name: str
    version: int
    remedy: str


@dataclass(frozen=True, config=WRITTEN)
class _Header:
    format: str
    format_version: int


def parse_json(text: bytes | str, model: type[_Model], expected: Format | None = None) -> _Model:
    """Read JSON.

    Parameters
    ----------
    text : bytes or str
    model : type
        A pydantic dataclass or model.
    expected : Format, optional
        What the file must state to be.

    Raises
    ------
    EdgeL3Error
        If the text is not JSON, is of another format or version, or a field is missing or not what
        the model expects.
    """
    if expected is None:
        return _validate(text, model)
    try:
        found = _validate(text, _Header)
        if (found.format, found.format_version) == (expected.name, expected.version):
            return _validate(text, model)
    except EdgeL3Error as error:
        raise EdgeL3Error(f"{error}; {expected.remedy}") from error
    is_newer = found.format == expected.name and found.format_version > expected.version
    raise EdgeL3Error(
        f"expected format {expected.name!r} version {expected.version}, found {found.format!r}"
        f" version {found.format_version}"
        + ("; a newer edgel3-tflm wrote it, install that" if is_newer else "")
    )


def parse_toml(text: bytes | str, model: type[_Model]) -> _Model:
    """Read TOML; parameters and errors as :func:`parse_json`."""
    try:
        document = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
        # By way of JSON, for pydantic's strict mode takes a list for a pair only from there.
        encoded = json.dumps(document)
    except (ValueError, TypeError, RecursionError) as error:  # a TOML date is not JSON
        raise EdgeL3Error(f"expected TOML: {error}") from error
    return _validate(encoded, model)


def read_file(
    path: Path, parse: Callable[[bytes], _Model], error_type: type[EdgeL3Error] = EdgeL3Error
) -> _Model:
    """Read a file by a function that parses it; errors name the file.

    Raises
    ------
    EdgeL3Error
        Of ``error_type``, if the file cannot be read or the function raises an EdgeL3Error.
    """
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise error_type(f"{path}: cannot read: {error.strerror}") from error
    except EdgeL3Error as error:
        raise error_type(f"{path}: {error}") from error


def _validate(text: bytes | str, model: type[_Model]) -> _Model:
    try:
        return TypeAdapter(model).validate_json(text)
    except ValidationError as error:
        raise EdgeL3Error(_describe(error)) from error


def _describe(error: ValidationError) -> str:
    """Describe the first thing that is wrong: field, what was expected, what was found."""
    first = error.errors(include_url=False)[0]
    field = on_one_line(".".join(map(str, first["loc"])))
    where = f"{field}: " if field else ""
    found = on_one_line(repr(first["input"]), _MAX_FOUND_CHARACTERS)
    context: dict[str, Any] = first.get("ctx", {})
    if first["type"] == "json_invalid":
        return f"expected JSON, it is cut or damaged ({context['error']})"
    if first["type"] in ("dataclass_type", "dict_type"):
        return f"{where}expected named fields, found {found}"
    if first["type"] == "missing":
        return f"expected the field {field}, it is missing"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{field}: expected no such field"
    if first["type"] == "value_error":  # a model's own words, which say what was found
        return f"{where}{context['error']}"
    return f"{where}{first['msg'].replace('Input should be', 'expected')}, found {found}"
