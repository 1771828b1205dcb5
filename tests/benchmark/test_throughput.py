"""The network on this machine, in every runtime: what is timed, printed and written."""

import json
import re
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import throughput
from rich.console import Console
from throughput import (
    FRONTEND,
    KERAS,
    RUNTIMES,
    Throughput,
    build_keras_network,
    measure,
    real_windows,
)

from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.errors import RuntimeUnavailableError
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.c_library.engine import supported_kernels
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter

SEA = find_variant("sea", embedding_size=64)
WINDOWS = 8
SIDES = [
    *(f"engine int8, {kernels}" for kernels in supported_kernels()),
    *(f"{runtime} {precision}" for runtime in RUNTIMES for precision in ("int8", "float")),
    KERAS,
    FRONTEND,
]


@pytest.fixture(scope="module")
def weights(tiny_weights: Path) -> NetworkWeights:
    return load_weights(SEA, tiny_weights)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return real_windows(SEA.frontend, WINDOWS)


def test_each_side_is_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock passes only when a side works, and not by the same time in each turn."""
    clock = SimpleNamespace(now=100.0)
    # Of each side's first call, which is not timed, and of the turns.
    seconds = {KERAS: [1e6, 8.0, 32.0], "engine int8": [1e6, 4.0, 2.0], FRONTEND: [1e6, 0.5, 0.25]}
    rng = np.random.default_rng(0)
    expected, found = rng.normal(0, 1, (2, WINDOWS, 4)).astype(np.float32)
    expected[0] = 0  # silence has no direction
    results = {KERAS: expected, "engine int8": found, FRONTEND: None}
    order = []

    def work(name: str) -> np.ndarray | None:
        order.append(name)
        clock.now += seconds[name][order.count(name) - 1]
        return results[name]

    monkeypatch.setattr(throughput, "time", SimpleNamespace(process_time=lambda: clock.now))
    monkeypatch.setattr(
        throughput, "sides", lambda *_: [(name, partial(work, name)) for name in seconds]
    )
    deployment: Any = SimpleNamespace(variant=SEA)
    given: Any = None
    figures = measure(deployment, given, np.zeros((WINDOWS, 8000), np.float32), turns=2)

    assert order == [*seconds] * 3
    assert (figures.network, figures.windows) == (SEA.name, WINDOWS)
    assert figures.core_ms == {
        KERAS: (1000, 4000),
        "engine int8": (500, 250),
        FRONTEND: (62.5, 31.25),
    }
    assert figures.cosine == {
        KERAS: pytest.approx(1),
        "engine int8": pytest.approx(cosine_similarity(expected[1:], found[1:]).mean()),
    }


def test_the_table_shows_each_time_in_its_row_and_column() -> None:
    output = StringIO()
    spent = {"first": (2.0, 1.0, 4.5), "second": (0.25,) * 3}
    throughput.write_table(
        Console(file=output, width=200), Throughput("a", 8, spent, {"first": 0.98765})
    )
    lines = output.getvalue().splitlines()
    rows = [line for line in lines if "first" in line or "second" in line]
    numbers = [re.findall(r"\d+\.\d+", row) for row in rows]
    assert numbers == [["2.00", "1.00", "4.50", "0.9877"], ["0.25", "0.25", "0.25"]]
    assert "3 turns" in output.getvalue()


def test_the_machine_is_named() -> None:
    text = throughput.describe_machine()
    if Path("/proc/cpuinfo").exists():
        words = Path("/proc/cpuinfo").read_text().split()
        for name in throughput.INSTRUCTIONS:
            assert (f" {name}" in text.replace(";", " ;")) == (name in words)
    assert "TensorFlow 2." in text


def test_all_kernels_and_both_precisions_run_the_same_network(
    tiny_int8: Deployment, weights: NetworkWeights, windows: np.ndarray
) -> None:
    found = measure(tiny_int8, weights, windows, turns=1)
    assert list(found.core_ms) == SIDES
    assert all(spent > 0 for (spent,) in found.core_ms.values())
    assert set(found.cosine) == set(SIDES) - {FRONTEND}
    expected = tiny_int8.embedder("float").embed(windows)
    keras = build_keras_network(weights).predict(windows, verbose=0)
    # The angle to Keras's embedding differs from that to the float model's by no more than the
    # angle between those two, and a cosine by no more than its angle.
    rounding = np.arccos(np.minimum(1, cosine_similarity(expected, keras))).max()
    for runtime in ("engine", *RUNTIMES):
        int8 = tiny_int8.embedder("int8", runtime).embed(windows)
        cosine = cosine_similarity(expected, int8).mean()
        assert rounding < (1 - cosine) / 2
        for name in SIDES:
            if name.startswith(f"{runtime} int8"):
                assert found.cosine[name] == pytest.approx(cosine, abs=rounding)
    for name in (f"{runtime} float" for runtime in RUNTIMES):
        assert found.cosine[name] == pytest.approx(1, abs=rounding)


def test_a_runtime_that_is_not_installed_is_left_out(
    tiny_int8: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_installed(model: bytes, runtime: str, **options: Any) -> Any:
        if runtime == "litert":
            raise RuntimeUnavailableError("not installed")
        return open_interpreter(model, runtime, **options)

    monkeypatch.setattr(throughput, "open_interpreter", open_installed)
    names = list(throughput.open_interpreters(tiny_int8))
    assert names == [name for name in SIDES[:-2] if not name.startswith("litert")]


def test_the_keras_network_from_samples_is_the_float_model(
    tiny_int8: Deployment, weights: NetworkWeights, windows: np.ndarray
) -> None:
    expected = tiny_int8.embedder("float").embed(windows)
    found = build_keras_network(weights).predict(windows, verbose=0)
    # What float32 kernels of the DFT round off moves less than int8 does, and other windows more.
    int8 = tiny_int8.embedder("int8").embed(windows)
    rounding, quantization, others = (
        cosine_similarity(expected, each).min() for each in (found, int8, found[::-1])
    )
    assert others < quantization < rounding


def test_the_command_writes_what_it_prints(
    tiny_int8: Deployment,
    tiny_weights: Path,
    weights: NetworkWeights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    choice = ConvertOptions(SEA, tiny_weights)
    monkeypatch.setattr(throughput, "networks", lambda: [(choice, weights)])
    (tmp_path / SEA.name).symlink_to(tiny_int8.directory)
    assert throughput.main(["--windows", "3", "--turns", "2", "-o", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    report = json.loads((tmp_path / "throughput.json").read_bytes())
    assert report["machine"] == text.splitlines()[0]
    (figures,) = report["networks"]
    assert (figures["network"], figures["windows"]) == (tiny_int8.variant.name, 3)
    assert list(figures["core_ms"]) == SIDES
    for name, spent in figures["core_ms"].items():
        (line,) = [line for line in text.splitlines() if f"{name} " in line]
        assert len(spent) == 2
        for each in (sum(spent) / 2, min(spent), max(spent)):
            assert f"{each:.2f}" in line
