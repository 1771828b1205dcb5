"""`make throughput`: times the network on this machine, in every runtime that is installed.

The engine runs once with each set of kernels that this processor supports. The other runtimes run
the int8 and the float flatbuffer. All of them get log-mel spectrograms, and run one window after
another in one thread. The frontend is timed alone.

For comparison the script also times the float Keras network that edgel3 ran. It starts at the
samples. Its log-mel is a layer: the DFT is a convolution whose kernels have 2048 samples (SEA-UST:
1024) and whose stride is the hop. This script builds the same layers in the same Keras with the
same weights.

All sides run in turns, because the speed of the machine may change. The figures are processor
times, because the wall time depends on the other load of the machine.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from edgel3_tflm.cores import processor_name
from edgel3_tflm.errors import RuntimeUnavailableError
from edgel3_tflm.files import make_directory, write_whole
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_bundled_weights, load_weights
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.tensors import Interpreter

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED_SEA = ROOT.parent / "shared" / "weights" / "edgel3_sea_ust_audio_emb_64.h5.gz"
RUNTIMES = ("litert", "tflite-runtime")
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "asimd", "asimddp", "i8mm")
"""What Linux calls the instructions that make int8 faster, if the processor has them."""
KERAS, FRONTEND = "Keras, from samples", "frontend"

FloatArray = npt.NDArray[np.float32]
Side = Callable[[], FloatArray | None]
"""Runs all windows. Returns their embeddings, or nothing if it computes none."""


@dataclass(frozen=True)
class Throughput:
    """The figures of a network.

    Parameters
    ----------
    network : str
    windows : int
    core_ms : dict of str to tuple of float
        By side: processor time of a window in each turn, in milliseconds.
    cosine : dict of str to float
        By side: mean cosine similarity to Keras's embeddings. It shows that the side runs the same
        network.
    """

    network: str
    windows: int
    core_ms: dict[str, tuple[float, ...]]
    cosine: dict[str, float]


def build_keras_network(weights: NetworkWeights) -> Any:
    """Return the float network of edgel3's files, from samples to embedding.

    Returns
    -------
    tf_keras.Model
        (batch, window_samples) to (batch, embedding_size), both float32.
    """
    network = build_network(weights, batch_size=None)
    tf, keras = load_backend()
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


def open_interpreters(deployment: Deployment) -> dict[str, Interpreter]:
    """Open the int8 and the float model in each runtime that is installed, with one thread."""
    opened: dict[str, Interpreter] = {}
    try:
        from edgel3_tflm.runtime.c_library.engine import EngineInterpreter, supported_kernels

        packed = deployment.read_model("int8", "engine")
        for kernels in supported_kernels():
            opened[f"engine int8, {kernels}"] = EngineInterpreter(packed, kernels, threads=1)
    except RuntimeUnavailableError:
        pass
    for runtime in RUNTIMES:
        for precision in ("int8", "float"):
            model = deployment.read_model(precision, runtime)
            try:
                opened[f"{runtime} {precision}"] = open_interpreter(model, runtime, threads=1)
            except RuntimeUnavailableError:
                break
    return opened


def sides(
    deployment: Deployment, weights: NetworkWeights, windows: FloatArray
) -> Iterator[tuple[str, Side]]:
    """Yield the name and the work of each side."""
    spec = deployment.variant.frontend
    decibels = log_mel(windows, spec)

    def run(interpreter: Interpreter, inputs: npt.NDArray[Any]) -> FloatArray:
        return interpreter.output.dequantize(interpreter.run(inputs))

    for name, interpreter in open_interpreters(deployment).items():
        inputs = deployment.input_map.apply(decibels, interpreter.input)
        yield name, partial(run, interpreter, inputs)
    network = build_keras_network(weights)
    yield KERAS, lambda: network.predict(windows, verbose=0)

    def run_frontend() -> None:
        log_mel(windows, spec)

    yield FRONTEND, run_frontend


def measure(
    deployment: Deployment, weights: NetworkWeights, windows: FloatArray, *, turns: int
) -> Throughput:
    """Measure all sides in turns on the same windows.

    Parameters
    ----------
    deployment : Deployment
    weights : NetworkWeights
        The weights that the deployment was converted from.
    windows : numpy.ndarray, shape (n, window_samples), float32
    turns : int
        Number of turns.
    """
    works = dict(sides(deployment, weights, windows))
    # The first call is not timed: Keras traces and compiles.
    found = {name: work() for name, work in works.items()}
    embeddings = {name: each for name, each in found.items() if each is not None}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    expected = embeddings[KERAS]
    sounding = expected.any(axis=1)
    return Throughput(
        network=deployment.variant.name,
        windows=len(windows),
        core_ms={
            name: tuple(1e3 * each / len(windows) for each in spent)
            for name, spent in seconds.items()
        },
        cosine={
            name: float(cosine_similarity(expected[sounding], each[sounding]).mean())
            for name, each in embeddings.items()
        },
    )


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
    """Return processor, instruction sets, load and the version of TensorFlow on one line."""
    tf = load_backend().tf
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    instructions = " ".join(name for name in INSTRUCTIONS if name in words) or "unknown"
    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{processor_name()}; instructions: {instructions}{load}; TensorFlow {tf.__version__}"


def write_table(console: Console, figures: Throughput) -> None:
    """Print the figures of a network."""
    turns = len(next(iter(figures.core_ms.values())))
    table = new_table(
        f"{figures.network}, {turns} turns",
        "core ms a window",
        "least",
        "most",
        "cosine to Keras",
    )
    for name, spent in figures.core_ms.items():
        table.add_row(
            name,
            *(f"{each:.2f}" for each in (statistics.median(spent), min(spent), max(spent))),
            f"{figures.cosine[name]:.4f}" if name in figures.cosine else "",
        )
    console.print(table)


def networks() -> Iterator[tuple[ConvertOptions, NetworkWeights]]:
    """Yield the networks to measure: the stand-in, and the published SEA-UST 64 if available."""
    standin = find_variant(sparsity="95.45")
    yield ConvertOptions(standin, "bundled"), load_bundled_weights(standin)
    if PUBLISHED_SEA.exists():
        sea = find_variant("sea", embedding_size=64)
        yield ConvertOptions(sea, PUBLISHED_SEA), load_weights(sea, PUBLISHED_SEA)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print figures and write them as JSON; returns 1 if a network cannot be used."""
    parser = argparse.ArgumentParser(description="the network on this machine, in every runtime")
    parser.add_argument("--windows", type=_count, default=16, help="windows in a turn")
    parser.add_argument("--turns", type=_count, default=7)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args(arguments)
    # TensorFlow reads these when it starts.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
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
        measured.append(measure(deployment, weights, windows, turns=turns))
        write_table(console, measured[-1])
    report = {"machine": machine, "networks": [asdict(each) for each in measured]}
    path = directory / "throughput.json"
    write_whole(path, (json.dumps(report, indent=2) + "\n").encode())
    console.print(str(path))


if __name__ == "__main__":
    sys.exit(main())
