"""`make soak`: many windows, on which the engine must return the reference kernels' bytes.

On this machine the engine runs with each set of kernels that the processor supports; some of the
windows also run on the emulated Cortex-M7. A window is noise, extremes, noise between rows of
zeros, one value everywhere, or part of a clip. Its number and the clips determine it.

LiteRT's own kernels compute the expected bytes, because its reference kernels take many times as
long. Where a result differs, the reference kernels decide.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import typer
from bench import ROOT, convert_network, load_int8, networks
from emulator import Firmware, Jobs, build, run
from rich.console import Console

from edgel3_tflm.audio.clips import bundled_clips_directory, find_clips, read_clip
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.cli.screen import Screen, open_screen
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.files import make_directory
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.runtime.c_library.engine import EngineInterpreter, Kernels, supported_kernels
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.tensors import Interpreter
from edgel3_tflm.types import Int8Array, Progress

KINDS = ("noise", "extremes", "rows of zeros", "one value", "clip")
COUNTS = {
    find_variant(sparsity="95.45").name: (500, 5),
    find_variant("sea", embedding_size=64).name: (10_000, 195),
}
"""The networks, and their windows on this machine and on the emulated board."""
_OTHER_COUNTS = (500, 5)
_BATCH = 50


@dataclass
class Result:
    """Windows of each runtime, and the numbers of those on which its bytes differ.

    ``inexact`` is the number of windows on which LiteRT's own kernels were found to differ.
    """

    windows: Counter[str] = field(default_factory=Counter)
    differing: dict[str, list[int]] = field(default_factory=dict)
    inexact: int = 0


def make_window(number: int, deployment: Deployment, source: Interpreter, clip: Path) -> Int8Array:
    """Return a window of the kind ``KINDS[number % 5]``, shape (rows, columns), int8."""
    rng = np.random.default_rng([20, number])
    kind = KINDS[number % len(KINDS)]
    shape = source.input.shape[1:3]
    zero = source.input.zero_point
    noise = rng.integers(-128, 127, shape, np.int8, endpoint=True)
    if kind == "noise":
        return noise
    if kind == "extremes":
        return rng.choice(np.array([-128, 127], np.int8), shape)
    if kind == "rows of zeros":
        is_noise = rng.random(shape[0]) < rng.uniform(0, 0.5)
        return np.where(is_noise[:, np.newaxis], noise, np.int8(zero))
    if kind == "one value":
        return np.full(shape, (zero, -128, 127, noise[0, 0])[number // len(KINDS) % 4], np.int8)
    spec = deployment.variant.frontend
    samples = read_clip(clip, spec.sample_rate_hz).samples
    samples = np.pad(samples, (0, max(0, spec.window_samples - len(samples))))
    start = rng.integers(0, len(samples) - spec.window_samples, endpoint=True)
    chosen = samples[np.newaxis, start : start + spec.window_samples]
    window: Int8Array = deployment.input_map.apply(log_mel(chosen, spec), source.input)[0, ..., 0]
    return window


def make_batches(
    count: int, deployment: Deployment, source: Interpreter, clips: Sequence[Path]
) -> Iterator[tuple[range, Int8Array]]:
    """Yield the numbers of some windows and the windows, shape (n, rows, columns), int8."""
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        yield (
            numbers,
            np.stack(
                [
                    make_window(each, deployment, source, clips[each // len(KINDS) % len(clips)])
                    for each in numbers
                ]
            ),
        )


def soak(
    deployment: Deployment,
    clips: Sequence[Path],
    directory: Path,
    *,
    windows: int,
    emulated: int,
    firmware: Firmware | None,
    kernels: Sequence[Kernels],
    progress: Progress,
) -> Result:
    """Run windows in the engine and compare its bytes with those of the reference kernels.

    Parameters
    ----------
    deployment : Deployment
    clips : sequence of pathlib.Path
        The windows of the kind "clip" are parts of them.
    directory : pathlib.Path
        Windows with differing bytes are written there.
    windows, emulated : int
        How many windows run on this machine, and how many of them on the emulated board, too.
    firmware : Firmware or None
        None if no window runs on the emulated board.
    kernels : sequence of str
        Sets of kernels that run on this machine.
    progress : callable
    """
    flatbuffer = deployment.read_model("int8")
    packed = pack(flatbuffer)
    fast, reference = (
        open_interpreter(flatbuffer, name) for name in ("litert-builtin", "reference")
    )
    engines = {name: EngineInterpreter(packed, name) for name in kernels}
    result = Result()
    for numbers, batch in make_batches(windows, deployment, fast, clips):
        inputs = batch[..., np.newaxis]
        found: dict[str, Int8Array] = {name: engine.run(inputs) for name, engine in engines.items()}
        on_board = min(len(batch), max(0, emulated - numbers.start))
        if firmware is not None and on_board > 0:
            jobs = Jobs()
            jobs.add_engine(packed, batch[:on_board])
            found["emulated Cortex-M7"] = run(firmware, jobs, directory, 3600)[0].outputs()
        expected = fast.run(inputs)
        for i in range(len(batch)):
            if any((each[i] != expected[i]).any() for each in found.values() if i < len(each)):
                exact = reference.run(inputs[i : i + 1])[0]
                result.inexact += bool((exact != expected[i]).any())
                expected[i] = exact
        for name, outputs in found.items():
            result.windows[name] += len(outputs)
            differs = (outputs != expected[: len(outputs)]).any(1)
            for i in np.flatnonzero(differs):
                result.differing.setdefault(name, []).append(numbers[i])
                path = directory / f"{deployment.variant.name}-window-{numbers[i]}.npy"
                np.save(path, batch[i])
        progress(deployment.variant.name, numbers.stop, windows)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the windows; returns 0 if all bytes are those of the reference kernels."""
    parser = argparse.ArgumentParser(description="the engine beside the reference kernels")
    parser.add_argument(
        "deployments",
        nargs="*",
        type=Path,
        help="int8 deployments; default: 95.45 %% and SEA-UST 64",
    )
    parser.add_argument("--windows", type=int, help="on this machine; default: 500, SEA-UST 10,000")
    parser.add_argument("--emulated", type=int, help="in QEMU; default: 5, SEA-UST 195")
    parser.add_argument(
        "--clips", type=Path, action="append", help="a file or a directory; default: the package's"
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument(
        "--kernels",
        choices=supported_kernels(),
        action="append",
        help="of the engine on this machine; default: each set that the processor supports",
    )
    options = parser.parse_args(arguments)
    try:
        with open_screen(interrupted="the windows were not all compared") as screen:
            return _run(options, screen)
    except typer.Exit as end:
        return end.exit_code


def _run(options: argparse.Namespace, screen: Screen) -> int:
    console = Console(soft_wrap=True, highlight=False)
    directory = options.output
    make_directory(directory)
    clips = find_clips(options.clips or [bundled_clips_directory()])
    deployments = [load_int8(path) for path in options.deployments] or [
        convert_network(each, directory)
        for each in networks()
        if each.options.variant.name in COUNTS
    ]
    firmware = None if options.emulated == 0 else build(directory / "firmware")
    is_equal = True
    for deployment in deployments:
        name = deployment.variant.name
        windows, emulated = COUNTS.get(name, _OTHER_COUNTS)
        with screen.progress() as progress:
            result = soak(
                deployment,
                clips,
                directory,
                windows=windows if options.windows is None else options.windows,
                emulated=emulated if options.emulated is None else options.emulated,
                firmware=firmware,
                kernels=options.kernels or supported_kernels(),
                progress=progress,
            )
        for runtime, count in result.windows.items():
            numbers = result.differing.get(runtime, [])
            console.print(
                f"{name}, {runtime}: FAIL: {len(numbers):,} of {count:,} windows differ, in"
                f" {directory}: {numbers[:10]}"
                if numbers
                else f"{name}, {runtime}: pass: the reference kernels' bytes on {count:,} windows"
            )
        console.print(
            f"{name}: LiteRT's own kernels differ from its reference kernels on"
            f" {result.inexact:,} windows"
        )
        is_equal &= not result.differing
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
