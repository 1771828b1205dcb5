"""`make hear`: a node with open ears on the emulated Cortex-M7, fed with sound while it embeds.

The script plays clips to the node's microphone and prints, for each network, how much of the sound
is in windows. Each embedding must be the one that this machine computes for the same samples, and
no sample may be lost. By the emulator's clock, an instruction takes a nanosecond.

The node divides its RAM as the chosen board does. Where open ears and the fastest kernels do not
both fit, it has the least arena; `export-app` may choose otherwise.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import typer
from bench import ROOT, convert_network, load_int8, networks
from rich.console import Console

from edgel3_tflm.audio.clips import bundled_clips_directory, find_clips
from edgel3_tflm.cli.screen import open_screen
from edgel3_tflm.converters.export.app import LIBRARY_FOLDER, OPTIONS_NAME, export_app
from edgel3_tflm.converters.export.board_files import SKETCH_NAME
from edgel3_tflm.device.boards import BOARDS, Board, find_board
from edgel3_tflm.device.check import read_pcm_windows
from edgel3_tflm.device.elf import FirmwareSizes, read_firmware_sizes
from edgel3_tflm.device.emulation import INSTRUCTIONS_PER_TICK, Emulator
from edgel3_tflm.device.firmware import build_node
from edgel3_tflm.device.wire import Info, LiveEvent
from edgel3_tflm.drift.runtimes import open_frontend
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import make_directory
from edgel3_tflm.runtime.c_library.engine import Engine
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import Progress

BOARD_NAMES = [board.name for board in BOARDS if board.microphone is not None]


@dataclass(frozen=True)
class Result:
    """What a node heard of a sound.

    Parameters
    ----------
    info : Info
    sizes : FirmwareSizes
    events : list of LiveEvent
        The windows that end before the sound does.
    differing : list of int
        Numbers of the windows whose embedding differs from that of this machine.
    """

    info: Info
    sizes: FirmwareSizes
    events: list[LiveEvent]
    differing: list[int]

    @property
    def is_right(self) -> bool:
        """Whether there are windows, all are right and no sample was lost."""
        return bool(self.events) and not self.differing and self.events[-1].missed_samples == 0

    def describe(self) -> str:
        """Return the result as text."""
        ram, flash = self.sizes.initialized + self.sizes.zeroed, self.sizes.constant
        node = (
            f"flash {flash + self.sizes.initialized:,}, RAM {ram:,} bytes without stack"
            f" (arena {self.info.arena_bytes:,})"
        )
        if not self.events:
            return f"FAIL: {node}; no window"
        last, size = self.events[-1], self.info.window_samples
        heard = last.first_sample + size
        covered = size * len(self.events)
        instructions = statistics.median(
            INSTRUCTIONS_PER_TICK * event.engine_ticks for event in self.events
        )
        return (
            f"{'pass' if self.is_right else 'FAIL'}: {node}; {len(self.events)} windows in"
            f" {heard / self.info.sample_rate_hz:.1f} s of sound, coverage"
            f" {100 * covered / heard:.1f} %, {last.missed_samples:,} samples lost,"
            f" {heard - covered - last.missed_samples:,} skipped; network"
            f" {instructions / 1e6:,.0f} M instructions (median);"
            f" {len(self.differing)} embeddings differ {self.differing[:10] or ''}".rstrip()
        )


def hear(
    deployment: Deployment, board: Board, clips: Sequence[Path], seconds: int, progress: Progress
) -> Result:
    """Play sound to a node with open ears, and compare its embeddings with this machine's.

    Parameters
    ----------
    deployment : Deployment
    board : Board
        Its memories are those of the emulated node.
    clips : sequence of pathlib.Path
        Their windows of one second follow one another, if need be again.
    seconds : int
        Length of the sound.
    progress : callable
    """
    packed = deployment.read_packed_model()
    if packed is None:
        raise EdgeL3Error(f"{deployment.directory}: expected a packed model, found none")
    with tempfile.TemporaryDirectory(prefix="edgel3-") as scratch:
        sketch = export_app(deployment, board, Path(scratch) / "app").directory / SKETCH_NAME
        options = "#define EDGEL3_NODE_PREFERS_EARS 1\n"
        if board.ears_memory is not None:
            budget = board.ears_memory.budget_bytes
            options += f"#define EDGEL3_NODE_EARS_BUDGET_BYTES {budget}u\n"
        (sketch / LIBRARY_FOLDER / OPTIONS_NAME).write_text(options)
        firmware = build_node(sketch / LIBRARY_FOLDER, Path(scratch) / "node")
        sizes = read_firmware_sizes(firmware)
        events = []
        with Emulator(firmware) as emulator, emulator.open_device() as device:
            info = device.info
            sound = _read_sound(info, clips, seconds)
            emulator.play(sound)
            last = len(sound) - info.window_samples
            for event in takewhile(lambda event: event.first_sample <= last, device.stream()):
                events.append(event)
                done = event.first_sample + info.window_samples
                progress("seconds of sound heard", done // info.sample_rate_hz, seconds)
    engine, frontend = Engine(packed), open_frontend(deployment)
    differing = []
    for event in events:
        frontend.log_mel(sound[event.first_sample :][: info.window_samples])
        if not np.array_equal(event.embedding, engine.run(frontend.quantize())):
            differing.append(event.number)
    return Result(info, sizes, events, differing)


def _read_sound(info: Info, clips: Sequence[Path], seconds: int) -> npt.NDArray[np.int16]:
    """Return the clips' windows, one after the other and from the start again if they end."""
    read = read_pcm_windows(info, list(clips), 1.0)
    windows = np.concatenate([found for _, found in read])
    return np.resize(windows, (seconds, info.window_samples)).ravel()


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the sound; returns 0 if all embeddings are right and no sample was lost."""
    parser = argparse.ArgumentParser(description="a node with open ears, fed while it embeds")
    parser.add_argument(
        "deployments",
        nargs="*",
        type=Path,
        help="int8 deployments; default: 95.45 %%, 99 %% and SEA-UST 64",
    )
    parser.add_argument(
        "--board", choices=BOARD_NAMES, default=BOARD_NAMES[0], help=f"default: {BOARD_NAMES[0]}"
    )
    parser.add_argument("--seconds", type=int, default=60, help="of sound; default: 60")
    parser.add_argument(
        "--clips", type=Path, action="append", help="a file or a directory; default: the package's"
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args(arguments)
    try:
        with open_screen(interrupted="not all of the sound was heard") as screen:
            make_directory(options.output)
            clips = find_clips(options.clips or [bundled_clips_directory()])
            console = Console(soft_wrap=True, highlight=False)
            are_right = True
            for deployment in _open(options.deployments, options.output):
                with screen.progress() as progress:
                    result = hear(
                        deployment, find_board(options.board), clips, options.seconds, progress
                    )
                console.print(f"{deployment.variant.name}: {result.describe()}")
                are_right &= result.is_right
            return 0 if are_right else 1
    except typer.Exit as end:
        return end.exit_code


def _open(paths: Sequence[Path], directory: Path) -> list[Deployment]:
    if paths:
        return [load_int8(path) for path in paths]
    return [convert_network(each, directory) for each in networks()]


if __name__ == "__main__":
    sys.exit(main())
