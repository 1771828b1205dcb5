"""Reads the bench.json that ``make bench`` writes."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.schema import WRITTEN, parse_json, read_file


@dataclass(frozen=True, config=WRITTEN)
class _Figures:
    cycles: Annotated[list[PositiveInt], Field(min_length=1)]


@dataclass(frozen=True, config=WRITTEN)
class _BenchNetwork:
    flatbuffer_sha256: str
    edgel3: _Figures


@dataclass(frozen=True, config=WRITTEN)
class BenchFile:
    """The part of bench.json that an estimate uses."""

    networks: list[_BenchNetwork]


def _parse(text: bytes) -> BenchFile:
    try:
        return parse_json(text, BenchFile)
    except EdgeL3Error as error:
        raise EdgeL3Error(f"expected the bench.json of `make bench`; {error}") from error


def read_bench_file(path: Path) -> BenchFile:
    """Read the modelled cycles of each network.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read, or a field is missing or out of its range.
    """
    return read_file(path, _parse)
