"""The commands that talk to a device: ``edgel3-tflm device COMMAND``."""

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.cli.board import HEAD_HELP
from edgel3_tflm.cli.screen import (
    JsonOption,
    QuietOption,
    Screen,
    Steps,
    new_table,
    open_screen,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.runtime.deployment import Deployment

# Nothing here needs cobs and pyserial before a command runs.
if TYPE_CHECKING:
    from edgel3_tflm.device.client import Device
    from edgel3_tflm.device.emulation import Emulator
    from edgel3_tflm.device.wire import Info, LiveEvent

device_app = typer.Typer(help="Talk to a board that runs the node, or to the emulated one.")

PortOption = Annotated[
    str | None,
    typer.Option("--port", metavar="PORT", help="/dev/ttyACM0, COM3, or tcp:HOST:PORT."),
]
EmulateOption = Annotated[
    Path | None,
    typer.Option(
        "--emulate",
        metavar="DIR",
        help="Instead of a board: build the node of this deployment, and run it on QEMU's"
        " Cortex-M7.",
    ),
]
HeadOption = Annotated[
    Path | None,
    typer.Option("--head", metavar="FILE|DIR", help=f"With --emulate: {HEAD_HELP}"),
]
ClipsArgument = Annotated[
    list[Path], typer.Argument(metavar="CLIPS...", help="Audio files, or directories of them.")
]
HopOption = Annotated[float, typer.Option(help="Seconds from one window of 1 s to the next.")]

_NOTHING = "the device is as it was"
_MAX_ROWS = 20
_BLOCKS = " ▁▂▃▄▅▆▇█"
_STRIP_BLOCKS = 64


@contextmanager
def _open_device(
    port: str | None, emulate: Path | None, head: Path | None, progress: Steps
) -> Iterator[tuple["Device", "Emulator | None"]]:
    """Open the device that the options name."""
    if (port is None) == (emulate is None):
        raise EdgeL3Error("expected one of --port PORT and --emulate DIR")
    if head is not None and emulate is None:
        raise EdgeL3Error(
            "a board has the classifier that it was built with: --head needs --emulate"
        )
    from edgel3_tflm.device.client import Device
    from edgel3_tflm.device.transports import DeviceError, open_transport

    if port is not None:
        with Device(open_transport(port)) as device:
            yield device, None
        return
    from edgel3_tflm.converters.export.head import find_head
    from edgel3_tflm.device.emulation import Emulator
    from edgel3_tflm.device.firmware import build_node

    assert emulate is not None  # noqa: S101 - narrows for the type checker
    deployment = Deployment.load(emulate)
    deployment.read_model("int8", "engine")  # says so if there is no packed model
    trained = find_head(head, deployment)
    with tempfile.TemporaryDirectory(prefix="edgel3-build-") as build:
        head_sources = None
        if trained is not None:
            head_sources = Path(build) / "head"
            trained.write(head_sources)
        progress("build the emulated board's firmware", 0, 0)
        firmware = build_node(emulate, Path(build) / "node", head=head_sources)
        with Emulator(firmware) as emulator:
            try:
                with Device(emulator.connect()) as device:
                    progress.finish()
                    yield device, emulator
            except DeviceError as error:
                if failure := emulator.failure():
                    raise DeviceError(f"the emulated board ended with {failure}") from error
                raise


@device_app.command("info")
def info_command(
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the device is, what it has counted, and whether it passes its own test."""
    with (
        open_screen(as_json=as_json, interrupted=_NOTHING) as screen,
        screen.progress() as progress,
        _open_device(port, emulate, head, progress) as (device, _),
    ):
        info, statistics = device.info, device.statistics()
        progress("the device's own test", 0, 0)
        names = device.self_test().names
        progress.finish()
        figures = {
            "board": info.board,
            "library version": info.version,
            "model": f"{info.source_sha256.hex()[:16]}..., {info.packed_bytes:,} bytes",
            "input": f"{info.window_samples:,} samples at {info.sample_rate_hz:,} Hz,"
            f" {info.mels} x {info.frames} log-mel",
            "embedding": f"{info.embedding_size} int8",
            "classes": ", ".join(info.classes) or "no classifier",
            "RAM": f"arena {info.arena_bytes:,} bytes, window {info.window_bytes:,} bytes",
            "a tick": _describe_tick(info),
            "counted": f"{statistics.requests:,} requests, {statistics.dropped_frames:,} frames"
            f" dropped, {statistics.windows:,} windows, {statistics.missed_samples:,} samples"
            " missed",
            "self-test": ", ".join(names) or "passed",
        }
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in figures.items():
            table.add_row(name, Text(value))
        result = {
            "info": {**vars(info), "source_sha256": info.source_sha256.hex()},
            "statistics": vars(statistics),
            "self_test_failures": names,
        }
        screen.show(result, table)
        if names:
            raise EdgeL3Error(
                f"the device fails its own test ({', '.join(names)}); build its firmware again from"
                " what convert wrote, with this version"
            )


@device_app.command("embed")
def embed_command(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="An audio file.")],
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    hop: HopOption = 1.0,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE", help="Write a .csv or .npz file.")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have the device embed the windows of a clip."""
    with (
        open_screen(quiet=quiet, as_json=as_json, interrupted=_NOTHING) as screen,
        screen.progress() as progress,
        _open_device(port, emulate, head, progress) as (device, _),
    ):
        from edgel3_tflm.device.check import dequantize, read_pcm_windows
        from edgel3_tflm.device.recording import Recording
        from edgel3_tflm.device.wire import LiveEvent

        recording = Recording(record, device.info) if record is not None else None
        ((_, windows),) = read_pcm_windows(device.info, [clip], hop)
        events = []
        for number, window in enumerate(windows):
            embedding = device.embed_pcm(window)
            scores = device.scores() if device.info.classes else np.empty(0, np.float32)
            events.append(LiveEvent(number, round(1000 * hop * number), embedding, scores))
            progress("windows through the device", number + 1, len(windows))
        progress.finish()
        if recording is not None:
            with recording:
                for event in events:
                    recording.add(event.milliseconds / 1000, event)
        table = new_table("window", "from s", "length", *device.info.classes)
        for event in events[:_MAX_ROWS]:
            length = float(np.linalg.norm(dequantize(event.embedding, device.info)))
            table.add_row(
                str(event.number),
                f"{event.milliseconds / 1000:.2f}",
                f"{length:.2f}",
                *(f"{score:.3f}" for score in event.scores),
            )
        if len(events) > _MAX_ROWS:
            table.add_row(f"and {len(events) - _MAX_ROWS:,} more")
        result = {
            "clip": str(clip),
            "hop_s": hop,
            "scale": device.info.embedding_scale,
            "zero_point": device.info.embedding_zero_point,
            "embeddings": [event.embedding.tolist() for event in events],
            "classes": device.info.classes,
            "scores": [event.scores.tolist() for event in events],
        }
        screen.show(result, table, *([Text(f"written: {record}")] if record else []))


@device_app.command("compare")
def compare_command(
    clips: ClipsArgument,
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="DIR", help="What convert wrote for the board; as --emulate if none."
        ),
    ] = None,
    hop: HopOption = 1.0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run clips on the device and on this machine, and say where they differ."""
    with (
        open_screen(quiet=quiet, as_json=as_json, interrupted=_NOTHING) as screen,
        screen.progress() as progress,
    ):
        directory = model or emulate
        if directory is None:
            raise EdgeL3Error("expected --model DIR, what convert wrote for the board")
        deployment = Deployment.load(directory)
        with _open_device(port, emulate, head, progress) as (device, _):
            from edgel3_tflm.device.check import MAX_LOG_MEL_SHARE, MIN_COSINE, compare_device

            results = compare_device(device, deployment, clips, hop_s=hop, progress=progress)
        progress.finish()
        table = new_table(
            "clip",
            "windows",
            "same bytes\nfrom log-mel",
            "cosine, worst\nfrom samples",
            "log-mel values\nthat differ, %",
            "by steps,\nat most",
            "",
        )
        for result in results:
            table.add_row(
                Path(result.clip).name,
                f"{result.windows:,}",
                f"{result.equal_embeddings:,}",
                f"{result.cosine_worst:.6f}",
                f"{100 * result.log_mel_share:.3f}",
                str(result.log_mel_steps),
                Text("pass", "green") if result.passes else Text("FAIL", "red"),
            )
        failing = sum(not result.passes for result in results)
        screen.show({"clips": [result.to_json() for result in results]}, table)
        if failing:
            raise EdgeL3Error(
                f"{failing} of {len(results)} clips: expected the bytes of this machine's engine, a"
                f" cosine of {MIN_COSINE} or more, one step in {100 * MAX_LOG_MEL_SHARE:g} % of"
                " the log-mel values at most"
            )


@device_app.command("bench")
def bench_command(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CLIPS]...", help="Audio files; clips of the package if there are none."
        ),
    ] = None,
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    windows: Annotated[int, typer.Option(min=1, help="How many windows to time.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Measure how long the device takes for a window, stage by stage."""
    with (
        open_screen(as_json=as_json, interrupted=_NOTHING) as screen,
        screen.progress() as progress,
        _open_device(port, emulate, head, progress) as (device, _),
    ):
        from edgel3_tflm.device.check import read_pcm_windows, time_windows

        info = device.info
        per_clip = read_pcm_windows(info, clips or _bundled_clips(windows), 1.0)
        chosen = list(itertools.islice((w for _, group in per_clip for w in group), windows))
        timings = time_windows(device, chosen, progress)
        progress.finish()
        stages = {
            "log-mel": [timing.frontend_ticks for timing in timings],
            "network": [timing.engine_ticks for timing in timings],
        }
        stages["both"] = [sum(pair) for pair in zip(*stages.values(), strict=True)]
        table = new_table("stage", "ticks, mean", "least", "most", "ms, mean")
        for stage, ticks in stages.items():
            mean = sum(ticks) / len(ticks)
            table.add_row(
                stage,
                f"{mean:,.0f}",
                f"{min(ticks):,}",
                f"{max(ticks):,}",
                f"{1000 * mean / info.ticks_per_second:,.2f}",
            )
        result = {
            "board": info.board,
            "tick": _describe_tick(info),
            "ticks_per_second": info.ticks_per_second,
            "ticks": stages,
        }
        screen.show(
            result, table, Text(f"{len(timings)} windows of 1 s; a tick: {_describe_tick(info)}")
        )


@device_app.command("monitor")
def monitor_command(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[CLIPS]...", help="With --emulate: what its microphone hears."),
    ] = None,
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    windows: Annotated[
        int, typer.Option(min=0, help="Stop after so many windows; 0: at Ctrl-C.")
    ] = 0,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Write all windows to a .csv or .npz file."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Show what the device hears, window by window: class scores, or the embedding."""
    if clips and emulate is None:
        raise typer.BadParameter("a board hears its own microphone: CLIPS need --emulate")
    if emulate is not None and not clips:
        raise typer.BadParameter("the emulated board has no microphone: expected CLIPS to play")
    with (
        open_screen(quiet=quiet, interrupted=_NOTHING) as screen,
        screen.progress() as progress,
        _open_device(port, emulate, head, progress) as (device, emulator),
    ):
        from edgel3_tflm.device.check import read_pcm_windows

        if emulator is not None and clips:
            sound = np.concatenate(
                [group.ravel() for _, group in read_pcm_windows(device.info, clips, 1.0)]
            )
            heard = len(sound) // device.info.window_samples
            windows = min(windows or heard, heard)
            microphone = emulator.connect_microphone()
            with closing(microphone):
                data = sound.astype("<i2").tobytes()
                threading.Thread(target=_play, args=(microphone.sendall, data), daemon=True).start()
                _monitor(device, windows, record, screen)
        else:
            _monitor(device, windows, record, screen)


def _play(send: Callable[[bytes], object], data: bytes) -> None:
    with suppress(OSError):  # the emulation has ended, and with it the need for more
        send(data)


def _monitor(device: "Device", windows: int, record: Path | None, screen: Screen) -> None:
    """Show and record windows until there are enough, or the user has seen enough."""
    from edgel3_tflm.device.recording import Recording
    from edgel3_tflm.device.transports import DeviceError

    console = Console(highlight=False, quiet=screen.quiet)
    recording = Recording(record, device.info) if record is not None else None
    count, previous = 0, None
    try:
        with (
            closing(device.stream()) as stream,
            Live(console=console, auto_refresh=False, transient=True) as live,
        ):
            for event in stream:
                count += 1
                if recording is not None:
                    recording.add(time.time(), event)
                if console.is_terminal:
                    live.update(_draw(device.info, event, previous), refresh=True)
                else:
                    line = _describe_event(device.info, event, previous)
                    console.print(line, soft_wrap=True)
                previous = event
                if count == windows:
                    break
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        if recording is not None:
            recording.close()
    try:
        missed = f"{device.statistics().missed_samples:,} samples missed since the start"
    except DeviceError:
        missed = "the node computes and does not say how many samples it missed"
    written = f"; written: {record}" if record is not None and count else ""
    console.print(Text(f"{count:,} windows, {missed}{written}"), soft_wrap=True)


def _similarity(info: "Info", event: "LiveEvent", previous: "LiveEvent | None") -> str:
    """Cosine of a window's embedding to the one before."""
    from edgel3_tflm.device.check import dequantize

    if previous is None:
        return "-"
    pair = [dequantize(each.embedding[np.newaxis], info) for each in (previous, event)]
    return f"{cosine_similarity(*pair)[0]:.3f}"


def _describe_event(info: "Info", event: "LiveEvent", previous: "LiveEvent | None") -> Text:
    """Describe a window on one line."""
    scores = sorted(zip(event.scores.tolist(), info.classes, strict=True), reverse=True)
    best = "".join(f"  {label} {score:.2f}" for score, label in scores[:3])
    similarity = _similarity(info, event, previous)
    return Text(
        f"{event.milliseconds / 1000:9.2f} s  window {event.number}"
        f"  cosine to the one before {similarity}{best}"
    )


def _draw(info: "Info", event: "LiveEvent", previous: "LiveEvent | None") -> Group:
    """Draw a window: a bar for each class, or the embedding as a strip."""
    heading = _describe_event(info, event, None if info.classes else previous)
    if not info.classes:
        return Group(heading, Text(_draw_strip(event.embedding)))
    table = Table(box=None, show_header=False, pad_edge=False)
    scores = sorted(zip(event.scores.tolist(), info.classes, strict=True), reverse=True)
    for score, label in scores[:_MAX_ROWS]:
        table.add_row(label, ProgressBar(total=1, completed=score, width=40), f"{score:.3f}")
    return Group(heading, table)


def _draw_strip(embedding: npt.NDArray[np.int8]) -> str:
    """Draw an embedding: a block for each value, or for the greatest of a few neighbours."""
    groups = np.array_split(embedding.astype(int), min(len(embedding), _STRIP_BLOCKS))
    heights = [(int(group.max()) + 128) * (len(_BLOCKS) - 1) // 255 for group in groups]
    return "".join(_BLOCKS[height] for height in heights)


def _describe_tick(info: "Info") -> str:
    from edgel3_tflm.device.emulation import INSTRUCTIONS_PER_TICK, MACHINE

    if info.board == MACHINE:
        return (
            f"{INSTRUCTIONS_PER_TICK} instructions, as QEMU counts them; its times are those of one"
            " instruction a nanosecond, not those of a board"
        )
    return f"1/{info.ticks_per_second:,} s"


def _bundled_clips(count: int) -> list[Path]:
    """Choose some of the clips that ship with the package."""
    directory = bundled_clips_directory()
    clips = sorted(directory.iterdir())
    return clips[:: max(1, len(clips) // count)][:count]
