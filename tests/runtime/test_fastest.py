"""The choice of the fastest runtime."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgel3_tflm.runtime import fastest
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.fastest import choose_runtime, measure
from edgel3_tflm.runtime.tensors import Interpreter, TensorSpec


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def models(tiny_int8: Deployment) -> dict[str, bytes]:
    return {name: tiny_int8.read_model("int8", name) for name in ("engine", "litert-builtin")}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[float]]]:
    """Measurements to return, one after the other; the last one in the list comes first."""
    left: list[list[float]] = []

    def pop(interpreters: Sequence[Interpreter]) -> list[float]:
        assert len(interpreters) == 2
        return left.pop()

    monkeypatch.setattr(fastest, "measure", pop)
    yield left
    assert left == []


def test_the_fastest_runtime_is_measured_once(
    cache: Path, models: dict[str, bytes], measured: list[list[float]]
) -> None:
    measured.append([2e-3, 1e-3])
    assert [choose_runtime(models) for _ in range(3)] == ["litert-builtin"] * 3
    (kept,) = (cache / "runtimes").iterdir()
    assert json.loads(kept.read_bytes())["seconds_a_window"] == {
        "engine": 2e-3,
        "litert-builtin": 1e-3,
    }


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [([1.0, 0.95], "engine"), ([1.0, 0.85], "litert-builtin"), ([1.0, np.inf], "engine")],
)
def test_the_preferred_runtime_must_be_clearly_slower(
    cache: Path,
    models: dict[str, bytes],
    measured: list[list[float]],
    seconds: list[float],
    chosen: str,
) -> None:
    measured.append(seconds)
    assert choose_runtime(models) == chosen
    assert cache.exists()


@pytest.mark.parametrize("change", ["processor", "version", "model", "damage"])
def test_a_choice_holds_for_one_processor_version_and_model(
    cache: Path,
    models: dict[str, bytes],
    measured: list[list[float]],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    measured += [[1.0, 2.0], [2.0, 1.0]]
    assert choose_runtime(models) == "litert-builtin"
    if change == "processor":
        monkeypatch.setattr(fastest, "processor_name", lambda: "another")
    elif change == "version":
        monkeypatch.setattr(fastest, "_version", lambda _: "99")
    elif change == "model":
        models["litert-builtin"] += bytes(16)
    else:
        for each in (cache / "runtimes").iterdir():
            each.write_bytes(b'{"runtime": ["engine"]}')
    assert choose_runtime(models) == "engine"


def test_runtimes_that_are_missing_are_no_candidates(
    cache: Path, models: dict[str, bytes], measured: list[list[float]]
) -> None:
    assert choose_runtime(models | {"engine": b"damaged"}) == "litert-builtin"
    assert choose_runtime({"engine": b"damaged"}) == "engine"  # is refused where it is opened
    assert measured == []
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_no_error(
    cache: Path, models: dict[str, bytes], measured: list[list[float]]
) -> None:
    cache.write_bytes(b"")  # a file in the directory's place
    measured += [[1.0, 2.0], [2.0, 1.0]]
    assert [choose_runtime(models) for _ in range(2)] == ["litert-builtin", "engine"]


@dataclass
class Timed:
    """An interpreter that moves a clock."""

    clock: list[float]
    seconds: Iterator[float]
    result: int
    input: TensorSpec = field(default_factory=lambda: TensorSpec((1, 2), np.dtype("i1"), 1.0, 0))

    def run(self, _: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.clock[0] += next(self.seconds)
        return np.full(3, self.result)


def test_the_least_time_of_a_window_counts_and_results_have_to_agree() -> None:
    clock = [0.0]
    interpreters: list[Any] = [
        Timed(clock, iter([9, 3, 1, 2]), 5),  # the first window is not timed
        Timed(clock, iter([4, 2, 8]), 5),
        Timed(clock, iter([0, 0, 0]), 6),  # fast, and wrong
    ]
    assert measure(interpreters, lambda: clock[0]) == [1, 2, np.inf]


def test_each_quantization_has_candidates(
    tiny_int8: Deployment, tiny_int16x8: Deployment, cache: Path
) -> None:
    """The session's measurement prefers the first candidate."""
    assert tiny_int8.fastest_runtime("float") == "litert"
    assert tiny_int8.fastest_runtime("int8") == "engine"
    assert tiny_int16x8.fastest_runtime("int16x8") == "litert-builtin"
    assert not list(cache.glob("*.json"))
