"""int8 on this machine beside the float Keras network: what is timed, printed and written."""

import json
import re
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import throughput
from rich.console import Console
from throughput import RUNTIMES, Throughput, Turn, build_keras_network, measure, real_windows

from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment

SEA = find_variant("sea", embedding_size=64)
WINDOWS = 8


@pytest.fixture(scope="module")
def weights(tiny_weights: Path) -> NetworkWeights:
    return load_weights(SEA, tiny_weights)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return real_windows(SEA.frontend, WINDOWS)


@dataclass
class Clocks:
    """Wall and processor time that pass only when work is done."""

    wall_s: float = 100.0
    core_s: float = 10.0
    calls: dict[str, int] = field(default_factory=dict)

    def perf_counter(self) -> float:
        return self.wall_s

    def process_time(self) -> float:
        return self.core_s

    def work(self, what: str, wall_s: list[float], core_s: list[float], untimed: int) -> None:
        """Let the time of this call pass; of the first ``untimed`` calls far more."""
        turn = self.calls.get(what, 0) - untimed
        self.calls[what] = self.calls.get(what, 0) + 1
        self.wall_s += wall_s[turn] if turn >= 0 else 1e6
        self.core_s += core_s[turn] if turn >= 0 else 1e6


def test_each_side_is_timed_alone_by_both_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks()
    # Powers of two and sums of them, so that differences are exact. The middle ratio is not the
    # ratio of the middle times.
    seconds = {
        "keras": ([8.0, 32.0, 24.0], [12.0, 48.0, 20.0], 1),
        "int8": ([2.0, 4.0, 1.0], [4.0, 8.0, 2.0], 1),
        "frontend": ([0.5, 1.5, 0.25], [1.0, 1.0, 1.5], 0),
    }
    rng = np.random.default_rng(0)
    in_float, in_int8 = rng.normal(0, 1, (2, WINDOWS, 4)).astype(np.float32)
    samples = np.zeros((WINDOWS, 8000), np.float32)
    opened = []

    def does(what: str, result: object) -> Any:
        def work(given: np.ndarray, *_: object, **__: object) -> object:
            assert given is samples
            clocks.work(what, *seconds[what])
            return result

        return work

    def open_embedder(*arguments: object) -> SimpleNamespace:
        opened.append(arguments)
        return SimpleNamespace(embed=does("int8", in_int8))

    network = SimpleNamespace(predict=does("keras", in_float))
    monkeypatch.setattr(throughput, "time", clocks)
    monkeypatch.setattr(throughput, "build_keras_network", lambda _: network)
    monkeypatch.setattr(throughput, "log_mel", does("frontend", None))
    deployment: Any = SimpleNamespace(variant=SEA, embedder=open_embedder)
    given: Any = None
    found = measure(deployment, given, samples, turns=3, runtime="litert")

    assert opened == [("int8", "litert")]
    assert (found.network, found.runtime, found.windows) == (SEA.name, "litert", WINDOWS)
    assert found.turns == (
        Turn(8.0, 2.0, 0.5, 12.0, 4.0, 1.0),
        Turn(32.0, 4.0, 1.5, 48.0, 8.0, 1.0),
        Turn(24.0, 1.0, 0.25, 20.0, 2.0, 1.5),
    )
    assert found.times_faster == 8.0  # of 4, 8 and 24
    assert found.frontend_share == 0.25  # of 0.25, 0.125 and 0.75
    assert found.cosine == pytest.approx(cosine_similarity(in_float, in_int8).mean(), abs=1e-12)


def printed(figures: Throughput) -> tuple[list[list[float]], list[float]]:
    """Milliseconds of the table's rows, and the numbers of the line below it."""
    output = StringIO()
    throughput.write_table(Console(file=output, width=200), figures)
    lines = output.getvalue().splitlines()
    titles = ("float Keras, from samples", f"int8 in {figures.runtime}, from", "its frontend alone")
    rows = []
    for title in titles:
        (row,) = [line for line in lines if title in line]
        rows.append([float(number) for number in re.findall(r"\d+\.\d+", row)])
    (ratios,) = [line for line in lines if line.startswith("int8 is")]
    return rows, [float(number) for number in re.findall(r"(?<!int)\d+\.\d+", ratios)]


def test_the_table_shows_each_time_in_its_row_and_column() -> None:
    turn = Turn(0.8, 0.1, 0.02, 1.2, 0.16, 0.04)
    slower = Turn(4.8, 0.3, 0.08, 4.8, 0.32, 0.16)
    rows, numbers = printed(Throughput("a", "engine", 8, (turn, slower, turn), 0.98765))
    assert rows == [[100, 150], [12.5, 20], [2.5, 5]]
    # Times as fast, least and most of the turns, in cores' time, the frontend's %, the cosine.
    assert numbers == [8.0, 8.0, 16.0, 7.5, 25.0, 0.9877]


def test_both_sides_are_the_same_network(
    tiny_int8: Deployment, weights: NetworkWeights, windows: np.ndarray
) -> None:
    found = measure(tiny_int8, weights, windows, turns=1, runtime="litert-builtin")
    in_float, in_int8 = (tiny_int8.embedder(each).embed(windows) for each in ("float", "int8"))
    in_keras = build_keras_network(weights).predict(windows, verbose=0)
    # The angle to Keras's embedding differs from that to the float model's by no more than the
    # angle between those two, and a cosine by no more than its angle.
    rounding = np.arccos(np.minimum(1, cosine_similarity(in_float, in_keras))).max()
    expected = cosine_similarity(in_float, in_int8).mean()
    assert found.cosine == pytest.approx(expected, abs=rounding)
    assert rounding < (1 - expected) / 2
    assert len(found.turns) == 1
    for each in (found.turns[0].keras_s, found.turns[0].int8_s, found.turns[0].frontend_s):
        assert each > 0


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


def test_the_command_runs_each_runtime_and_writes_what_it_prints(
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
    opened = []
    embedder = Deployment.embedder

    def open_embedder(deployment: Deployment, precision: str, runtime: str) -> Any:
        opened.append((deployment.directory.name, precision, runtime))
        return embedder(deployment, precision, runtime)

    monkeypatch.setattr(Deployment, "embedder", open_embedder)
    assert throughput.main(["--windows", "3", "--turns", "2", "-o", str(tmp_path)]) == 0
    assert opened == [(SEA.name, "int8", runtime) for runtime in RUNTIMES]
    text = capsys.readouterr().out
    report = json.loads((tmp_path / "throughput.json").read_bytes())
    assert [each["runtime"] for each in report["networks"]] == list(RUNTIMES)
    for each in report["networks"]:
        figures = Throughput(**{**each, "turns": tuple(Turn(**turn) for turn in each["turns"])})
        assert (figures.network, figures.windows, len(figures.turns)) == (
            tiny_int8.variant.name,
            3,
            2,
        )
        assert f"int8 in {figures.runtime}, from samples" in text
        assert f"int8 is {figures.times_faster:.1f} times as fast" in text
        # The same figures, printed again.
        rows, (times_faster, *_) = printed(figures)
        (keras_ms, _), (int8_ms, _), _ = rows
        for number in (keras_ms, int8_ms):
            assert f"{number:.2f}" in text
        least, most = sorted(turn.keras_s / turn.int8_s for turn in figures.turns)
        assert least <= figures.times_faster <= most
        assert times_faster == pytest.approx(figures.times_faster, abs=0.05)
