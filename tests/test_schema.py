"""Files read through models: what does not fit is one line that names the field."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.schema import OWN, WRITTEN, parse_json, parse_toml, read_file
from edgel3_tflm.types import Format

FORMAT = Format("test", 2, remedy="write it again")


@dataclass(frozen=True, config=WRITTEN)
class Inner:
    number: int
    share: Annotated[float, Field(ge=0)]
    pair: tuple[float, float] = (0, 1)
    kind: Literal["x", "y"] = "x"


@dataclass(frozen=True, config=WRITTEN)
class Document:
    inner: Inner
    names: dict[str, Inner] = Field(default_factory=dict)


@dataclass(frozen=True, config=OWN)
class Choice:
    steps: int


def refusal_of(text: bytes | str, expected: Format | None = None) -> str:
    with pytest.raises(EdgeL3Error) as refusal:
        parse_json(text, Document, expected)
    message = str(refusal.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected the field inner, it is missing"),
        ("3", "expected named fields, found 3"),
        ('{"inner": []}', "inner: expected named fields, found []"),
        ('{"inner": {"share": 1}}', "expected the field inner.number, it is missing"),
        (
            '{"inner": {"number": 1.5, "share": 1}}',
            "inner.number: expected a valid integer, found 1.5",
        ),
        (
            '{"inner": {"number": true, "share": 1}}',
            "inner.number: expected a valid integer, found True",
        ),
        (
            '{"inner": {"number": 1, "share": -1}}',
            "inner.share: expected greater than or equal to 0, found -1",
        ),
        (
            '{"inner": {"number": 1, "share": NaN}}',
            "inner.share: expected a finite number, found nan",
        ),
        (
            '{"inner": {"number": 1, "share": 1, "kind": "z"}}',
            "inner.kind: expected 'x' or 'y', found 'z'",
        ),
        (
            '{"inner": {"number": 1, "share": 1}, "names": {"a\\nb": 1}}',
            "names.a\\nb: expected named fields, found 1",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_named(text: str, message: str) -> None:
    assert refusal_of(text) == message


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", '{"inner": ' + "[" * 100_000, '{"inner": ' + "9" * 10_000]
)
def test_what_is_no_json_is_said_to_be_damaged(text: bytes | str) -> None:
    assert "expected JSON, it is cut or damaged" in refusal_of(text)


def test_a_long_value_is_cut() -> None:
    message = refusal_of(f'{{"inner": {{"number": "{"x" * 10_000}", "share": 1}}}}')
    assert len(message) < 200


def test_fields_of_a_later_version_are_ignored() -> None:
    text = '{"inner": {"number": 1, "share": 1, "more": 2}, "new": []}'
    assert parse_json(text, Document) == Document(Inner(1, 1.0))


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ('"format": "test", "format_version": 3', ["version 2, found 'test' version 3", "newer"]),
        (
            '"format": "test", "format_version": 1',
            ["'test' version 1; write it again"],
        ),
        ('"format": "other", "format_version": 9', ["format 'test' version 2, found 'other'"]),
        ('"format": "test"', ["the field format_version, it is missing", "write it again"]),
        ('"format": "test", "format_version": 2', ["the field inner, it is missing", "again"]),
    ],
)
def test_format_and_version_are_looked_at_before_any_field(header: str, parts: list[str]) -> None:
    message = refusal_of(f"{{{header}}}", FORMAT)
    assert all(part in message for part in parts)
    assert ("newer" in message) == ("newer" in parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps =", "expected TOML"),
        (b"\xff", "expected TOML"),
        ("steps = 1979-05-27", "expected TOML"),
        ("", "expected the field steps, it is missing"),
        ("steps = '1'", "steps: expected a valid integer, found '1'"),
        ("steps = 1\nspeed = 2", "speed: expected no such field"),
    ],
)
def test_toml_is_read_as_strictly(text: bytes | str, message: str) -> None:
    with pytest.raises(EdgeL3Error, match=message):
        parse_toml(text, Choice)
    assert parse_toml("steps = 3", Choice) == Choice(3)


def test_errors_name_the_file_and_have_the_reader_s_type(tmp_path: Path) -> None:
    def parse(text: bytes) -> Choice:
        return parse_toml(text, Choice)

    path = tmp_path / "a.toml"
    with pytest.raises(ModelFileError, match=r"a\.toml: cannot read: No such file"):
        read_file(path, parse, ModelFileError)
    path.write_text("")
    with pytest.raises(ModelFileError, match=r"a\.toml: expected the field steps"):
        read_file(path, parse, ModelFileError)
    path.write_text("steps = 3")
    assert read_file(path, parse) == Choice(3)
