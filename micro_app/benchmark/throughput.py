"""`make throughput`: times int8 on this machine against the float Keras network that edgel3 ran.

edgel3's network starts at the samples. Its log-mel is a layer: the DFT is a convolution whose
kernels have 2048 samples (SEA-UST: 1024) and whose stride is the hop. This script builds the same
layers in the same Keras with the same weights, and predicts in batches of 32 windows, Keras's
default, as edgel3 does. Both sides may use all cores. They run in turns and are compared within a
turn, because the speed of the machine may change from turn to turn.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import (
    DYNAMIC_RANGE_DB,
    dft_window,
    log_mel,
    mel_filterbank,
)
from edgel3_tflm.cli.screen import new_table, open_screen
from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pipeline import ConvertOptions, convert
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.cores import available_cores
from edgel3_tflm.files import make_directory, write_whole
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_bundled_weights, load_weights
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.input_map import InputMap

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED_SEA = ROOT.parent / "shared" / "weights" / "edgel3_sea_ust_audio_emb_64.h5.gz"
RUNTIMES = ("engine", "litert-builtin", "litert")
"""The engine skips zeros; the other runtimes use faster instructions for dense int8 products."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Turn:
    """Seconds of wall time, and of all cores' processor time (``_core_s``), for some windows."""

    keras_s: float
    int8_s: float
    frontend_s: float
    keras_core_s: float
    int8_core_s: float
    frontend_core_s: float


@dataclass(frozen=True)
class Throughput:
    """The figures of a network.

    ``cosine`` is the mean cosine similarity between int8 and Keras embeddings. It shows that both
    sides run the same network.
    """

    network: str
    runtime: str
    windows: int
    turns: tuple[Turn, ...]
    cosine: float

    def median(self, of: Callable[[Turn], float]) -> float:
        """Return the median of a figure over the turns."""
        return statistics.median(map(of, self.turns))

    @property
    def times_faster(self) -> float:
        """Median ratio of wall times, Keras to int8."""
        return self.median(lambda turn: turn.keras_s / turn.int8_s)

    @property
    def frontend_share(self) -> float:
        """Share of the frontend in the processor time of int8.

        A share of the wall time would depend on the other load of the machine.
        """
        return self.median(lambda turn: turn.frontend_core_s / turn.int8_core_s)


def build_keras_network(weights: NetworkWeights) -> Any:
    """Return the float network of edgel3's files, from samples to embedding.

    Returns
    -------
    tf_keras.Model
        (batch, window_samples) to (batch, embedding_size), both float32.
    """
    network = build_network(weights, batch_size=None)
    tf, keras, _ = load_backend()
    spec = weights.variant.frontend
    input_map = InputMap.of(weights)
    decibels_per_neper = np.float32(10 / np.log(10))

    def dft_layer(wave: npt.NDArray[np.float64]) -> Any:
        layer = keras.layers.Conv2D(
            spec.dft_samples // 2 + 1,
            (spec.dft_samples, 1),
            strides=(spec.hop_samples, 1),
            padding="same",
            use_bias=False,
            trainable=False,
        )
        layer.build((None, spec.window_samples, 1, 1))
        layer.set_weights([wave[:, np.newaxis, np.newaxis].astype(np.float32)])
        return layer

    def to_decibels(power: Any) -> Any:
        amplitude = tf.maximum(tf.sqrt(tf.matmul(power, filters)), 1e-10)
        level = decibels_per_neper * tf.math.log(amplitude)
        level -= tf.reduce_max(level, axis=(1, 2), keepdims=True)
        mel_by_time = tf.transpose(tf.maximum(level, -DYNAMIC_RANGE_DB), (0, 2, 1))
        return input_map.slope * mel_by_time[..., tf.newaxis] + input_map.offset

    filters = mel_filterbank(spec).astype(np.float32)
    angle = 2 * np.pi * np.outer(np.arange(spec.dft_samples), np.arange(spec.dft_samples // 2 + 1))
    waves = np.exp(-1j * angle / spec.dft_samples) * dft_window(spec)[:, np.newaxis]
    samples = keras.Input((spec.window_samples,))
    column = keras.layers.Reshape((spec.window_samples, 1, 1))(samples)
    real, imaginary = dft_layer(waves.real)(column), dft_layer(waves.imag)(column)
    power = keras.layers.Lambda(lambda parts: parts[0] ** 2 + parts[1] ** 2)([real, imaginary])
    power = keras.layers.Reshape((spec.frames, spec.dft_samples // 2 + 1))(power)
    return keras.Model(samples, network(keras.layers.Lambda(to_decibels)(power)))


def measure(
    deployment: Deployment,
    weights: NetworkWeights,
    windows: FloatArray,
    *,
    turns: int,
    runtime: str = "engine",
) -> Throughput:
    """Measure Keras and int8 in turns on the same windows.

    Parameters
    ----------
    deployment : Deployment
    weights : NetworkWeights
        The weights that the deployment was converted from.
    windows : numpy.ndarray, shape (n, window_samples), float32
    turns : int
        Number of turns.
    runtime : str
        Runtime of the int8 model.
    """
    spec = deployment.variant.frontend
    network = build_keras_network(weights)
    embedder = deployment.embedder("int8", runtime)
    expected = network.predict(windows, verbose=0)  # the first call traces and compiles
    found = embedder.embed(windows)
    measured = []
    for _ in range(turns):
        keras_s, keras_core_s = _time(lambda: network.predict(windows, verbose=0))
        int8_s, int8_core_s = _time(lambda: embedder.embed(windows))
        frontend_s, frontend_core_s = _time(lambda: log_mel(windows, spec))
        measured.append(
            Turn(keras_s, int8_s, frontend_s, keras_core_s, int8_core_s, frontend_core_s)
        )
    sounding = expected.any(axis=1)
    return Throughput(
        network=deployment.variant.name,
        runtime=runtime,
        windows=len(windows),
        turns=tuple(measured),
        cosine=float(cosine_similarity(expected[sounding], found[sounding]).mean()),
    )


def _time(work: Callable[[], object]) -> tuple[float, float]:
    clock, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cores


def real_windows(spec: FrontendSpec, count: int) -> FloatArray:
    """Return windows of the calibration clips, because the engine's time depends on the sound.

    The shape is (count, window_samples), float32.
    """
    clips = find_clips([ROOT / "calibration_data" / "clips"])
    cut = read_windows(
        clips, sample_rate_hz=spec.sample_rate_hz, window_samples=spec.window_samples, hop_s=1.0
    )
    windows = np.concatenate([each for _, each in cut])
    chosen: FloatArray = windows[np.linspace(0, len(windows) - 1, count).astype(int)]
    return chosen


def describe_machine() -> str:
    """Return processor, number of cores, load and TensorFlow's version on one line."""
    tf = load_backend().tf
    processor = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{processor}, {available_cores()} cores{load}; TensorFlow {tf.__version__}"


def write_table(console: Console, figures: Throughput) -> None:
    """Print the figures of a network."""
    table = new_table(
        f"{figures.network}, median of {len(figures.turns)} turns", "ms a window", "core ms"
    )
    ms = 1e3 / figures.windows
    for name, clock, cores in (
        ("float Keras, from samples", "keras_s", "keras_core_s"),
        (f"int8 in {figures.runtime}, from samples", "int8_s", "int8_core_s"),
        ("  its frontend alone", "frontend_s", "frontend_core_s"),
    ):
        table.add_row(
            name,
            *(f"{ms * figures.median(attrgetter(of)):.2f}" for of in (clock, cores)),
        )
    console.print(table)
    ratios = sorted(turn.keras_s / turn.int8_s for turn in figures.turns)
    core_ratio = figures.median(lambda turn: turn.keras_core_s / turn.int8_core_s)
    console.print(
        f"int8 is {figures.times_faster:.1f} times as fast ({ratios[0]:.1f} to {ratios[-1]:.1f}),"
        f" in cores' time {core_ratio:.1f} times; its frontend takes"
        f" {100 * figures.frontend_share:.1f} % of the cores' time;"
        f" mean cosine {figures.cosine:.4f}"
    )


def networks() -> Iterator[tuple[ConvertOptions, NetworkWeights]]:
    """Yield the networks to measure: the stand-in, and the published SEA-UST 64 if available."""
    standin = find_variant(sparsity="95.45")
    yield ConvertOptions(standin, "bundled"), load_bundled_weights(standin)
    if PUBLISHED_SEA.exists():
        sea = find_variant("sea", embedding_size=64)
        yield ConvertOptions(sea, PUBLISHED_SEA), load_weights(sea, PUBLISHED_SEA)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print figures and write them as JSON; returns 1 if a network cannot be used."""
    parser = argparse.ArgumentParser(description="int8 on this machine beside float Keras")
    parser.add_argument("--windows", type=_count, default=64, help="windows in a turn")
    parser.add_argument("--turns", type=_count, default=7)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args(arguments)
    try:
        with open_screen(interrupted="no figures were written"):
            _run(options.windows, options.turns, options.output)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return count


def _run(windows_a_turn: int, turns: int, directory: Path) -> None:
    make_directory(directory)
    console = Console(soft_wrap=True, highlight=False)
    machine = describe_machine()
    console.print(machine)
    measured = []
    for choice, weights in networks():
        path = directory / choice.variant.name
        if path.exists():
            deployment = Deployment.load(path)
        else:
            console.print(f"converting {choice.variant.name}")
            # The search for the best quantization takes long and does not change the speed.
            deployment = convert(replace(choice, quantizer=PLAIN), path, lambda *_: None)
        windows = real_windows(choice.variant.frontend, windows_a_turn)
        for runtime in RUNTIMES:
            figures = measure(deployment, weights, windows, turns=turns, runtime=runtime)
            write_table(console, figures)
            measured.append(figures)
    report = {"machine": machine, "networks": [asdict(each) for each in measured]}
    path = directory / "throughput.json"
    write_whole(path, (json.dumps(report, indent=2) + "\n").encode())
    console.print(str(path))


if __name__ == "__main__":
    sys.exit(main())
