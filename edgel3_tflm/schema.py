"""Readers of JSON and TOML that check the contents by pydantic models."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from edgel3_tflm.errors import EdgeL3Error, on_one_line
from edgel3_tflm.types import Format

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Configuration for files that a person writes. Unknown keys are errors: they may be misspelt."""
WRITTEN = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
"""Configuration for files that a program writes. Unknown keys are ignored: later versions of the
same format may add fields."""
_MAX_FOUND_CHARACTERS = 80

_Model = TypeVar("_Model")


@dataclass(frozen=True, config=WRITTEN)
class _Header:
    format: str
    format_version: int


def parse_json(text: bytes | str, model: type[_Model], expected: Format | None = None) -> _Model:
    """Read JSON into an instance of a model.

    Parameters
    ----------
    text : bytes or str
    model : type
        A pydantic model or dataclass.
    expected : Format, optional
        The format and version that the text must have.

    Raises
    ------
    EdgeL3Error
        If the text is not JSON or has another format or version, or if a field is missing or does
        not fit the model.
    """
    if expected is None:
        return _validate(text, model)
    try:
        found = _validate(text, _Header)
        if (found.format, found.format_version) == (expected.name, expected.version):
            return _validate(text, model)
    except EdgeL3Error as error:
        raise EdgeL3Error(f"{error}; {expected.remedy}") from error
    advice = ""
    if found.format == expected.name:
        is_newer = found.format_version > expected.version
        advice = (
            "; a newer edgel3-tflm wrote it, install that" if is_newer else f"; {expected.remedy}"
        )
    raise EdgeL3Error(
        f"expected format {expected.name!r} version {expected.version}, found {found.format!r}"
        f" version {found.format_version}{advice}"
    )


def parse_toml(text: bytes | str, model: type[_Model]) -> _Model:
    """Read TOML into an instance of a model; parameters and errors as :func:`parse_json`."""
    try:
        document = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
        # Encode as JSON, because pydantic's strict mode accepts a list as a tuple only there.
        encoded = json.dumps(document)
    except (ValueError, TypeError, RecursionError) as error:  # a TOML date is not JSON
        raise EdgeL3Error(f"expected TOML: {error}") from error
    return _validate(encoded, model)


def read_file(
    path: Path, parse: Callable[[bytes], _Model], error_type: type[EdgeL3Error] = EdgeL3Error
) -> _Model:
    """Read a file and parse its bytes. Errors begin with the path.

    Raises
    ------
    EdgeL3Error
        As ``error_type``, if the file cannot be read or ``parse`` raises an EdgeL3Error.
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
    """Describe the first error: the field, what was expected and what was found."""
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
    if first["type"] == "value_error":  # raised by a model, whose message says what was found
        return f"{where}{context['error']}"
    return f"{where}{first['msg'].replace('Input should be', 'expected')}, found {found}"
