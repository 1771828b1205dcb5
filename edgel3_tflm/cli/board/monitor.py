"""The command ``device monitor``: windows as the device hears them."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgel3_tflm.cli.board.connection import (
    UNCHANGED,
    EmulateOption,
    HeadOption,
    PortOption,
    open_device,
)
from edgel3_tflm.cli.screen import QuietOption, Screen, open_screen
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.types import Int8Array

if TYPE_CHECKING:
    from edgel3_tflm.device.client import Device
    from edgel3_tflm.device.wire import Info, LiveEvent

_MAX_CLASSES = 20
MAX_NAMED = 3
"""Classes that a line names."""
_BLOCKS = " ▁▂▃▄▅▆▇█"
_STRIP_BLOCKS = 64


def monitor_command(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CLIPS", help="With --emulate: audio files that its microphone hears."
        ),
    ] = None,
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    windows: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Stop after this number of windows; 0: at Ctrl-C."),
    ] = 0,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Write all windows to a .csv or .npz file."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Show class scores, or the embedding, of each window that the device hears."""
    if clips and emulate is None:
        raise typer.BadParameter("expected --emulate with CLIPS: a board hears its own microphone")
    if emulate is not None and not clips:
        raise typer.BadParameter(
            "expected CLIPS with --emulate: the emulated board has no microphone"
        )
    with (
        open_screen(quiet=quiet, interrupted=UNCHANGED) as screen,
        screen.progress() as progress,
        open_device(port, emulate, head, progress) as (device, emulator),
    ):
        from edgel3_tflm.device.check import read_pcm_windows

        if emulator is not None and clips:
            sound = np.concatenate(
                [group.ravel() for _, group in read_pcm_windows(device.info, clips, 1.0)]
            )
            heard = len(sound) // device.info.window_samples
            windows = min(windows or heard, heard)
            emulator.play(sound)
        _monitor(device, windows, record, screen)


def _monitor(device: "Device", windows: int, record: Path | None, screen: Screen) -> None:
    """Show and record windows until ``windows`` are reached (0: no limit) or Ctrl-C."""
    from edgel3_tflm.device.recording import Recording
    from edgel3_tflm.device.transports import DeviceError

    console = Console(highlight=False, quiet=screen.quiet)
    recording = Recording(record, device.info) if record is not None else None
    count, coverage = 0, 0.0
    first: LiveEvent | None = None
    previous: LiveEvent | None = None
    try:
        with (
            closing(device.stream()) as stream,
            Live(console=console, auto_refresh=False, transient=True) as live,
        ):
            for event in stream:
                count += 1
                first = first or event
                coverage = _measure_coverage(device.info, first, event)
                if recording is not None:
                    recording.add(time.time(), event)
                if console.is_terminal:
                    live.update(_draw(device.info, event, previous, coverage), refresh=True)
                else:
                    line = _describe_event(device.info, event, previous, coverage)
                    console.print(line, soft_wrap=True)
                previous = event
                if count == windows:
                    break
    except KeyboardInterrupt:
        pass  # the user ends the monitor this way
    finally:
        if recording is not None:
            recording.close()
    try:
        lost = f"{device.statistics().missed_samples:,} samples lost since the node's start"
    except DeviceError:
        lost = "the node is busy and did not report the lost samples"
    heard = f"coverage {100 * coverage:.1f} %, " if count else ""
    written = f"; written: {record}" if record is not None and count else ""
    console.print(Text(f"{count:,} windows, {heard}{lost}{written}"), soft_wrap=True)


def _measure_coverage(info: "Info", first: "LiveEvent", event: "LiveEvent") -> float:
    """Return the share of the sound from the stream's start to a window's end that is in windows.

    ``first`` is the stream's first window. Windows whose result was not received count, too.
    """
    windows = event.number - first.number + 1
    return windows * info.window_samples / (event.first_sample + info.window_samples)


def _format_similarity(info: "Info", event: "LiveEvent", previous: "LiveEvent | None") -> str:
    """Return the cosine similarity to the previous window's embedding."""
    if previous is None:
        return "-"
    pair = [info.embedding.dequantize(each.embedding[np.newaxis]) for each in (previous, event)]
    return f"{cosine_similarity(*pair)[0]:.3f}"


def _describe_event(
    info: "Info", event: "LiveEvent", previous: "LiveEvent | None", coverage: float
) -> Text:
    """Describe a window on one line."""
    scores = sorted(zip(event.scores.tolist(), info.classes, strict=True), reverse=True)
    best = "".join(f"  {label} {score:.2f}" for score, label in scores[:MAX_NAMED])
    similarity = _format_similarity(info, event, previous)
    seconds = (event.frontend_ticks + event.engine_ticks) / info.ticks_per_second
    return Text(
        f"{event.milliseconds / 1000:9.2f} s  window {event.number}  computed in {seconds:.3f} s"
        f"  coverage {100 * coverage:.1f} %  lost {event.missed_samples:,}"
        f"  cosine to the window before {similarity}{best}"
    )


def _draw(info: "Info", event: "LiveEvent", previous: "LiveEvent | None", coverage: float) -> Group:
    """Draw a window: a bar for each class, or the embedding as a strip."""
    heading = _describe_event(info, event, None if info.classes else previous, coverage)
    return draw_window(heading, info.classes, event.scores.tolist(), event.embedding)


def draw_window(
    heading: Text, labels: Sequence[str], scores: Sequence[float], embedding: Int8Array
) -> Group:
    """Draw a bar for each class; without classes, the embedding as a strip."""
    if not labels:
        return Group(heading, Text(_draw_strip(embedding)))
    table = Table(box=None, show_header=False, pad_edge=False)
    for score, label in sorted(zip(scores, labels, strict=True), reverse=True)[:_MAX_CLASSES]:
        table.add_row(label, ProgressBar(total=1, completed=score, width=40), f"{score:.3f}")
    return Group(heading, table)


def _draw_strip(embedding: Int8Array) -> str:
    """Draw an embedding: a block for each value, or for the maximum of adjacent values."""
    groups = np.array_split(embedding.astype(int), min(len(embedding), _STRIP_BLOCKS))
    heights = [(int(group.max()) + 128) * (len(_BLOCKS) - 1) // 255 for group in groups]
    return "".join(_BLOCKS[height] for height in heights)
