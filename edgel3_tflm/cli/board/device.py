"""The commands that talk to a device: ``edgel3-tflm device COMMAND``."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.cli.board.connection import (
    UNCHANGED,
    EmulateOption,
    HeadOption,
    PortOption,
    open_device,
)
from edgel3_tflm.cli.board.monitor import monitor_command
from edgel3_tflm.cli.command import HELP_NAMES, Command, Group, make_epilog
from edgel3_tflm.cli.options import HopOption
from edgel3_tflm.cli.screen import JsonOption, QuietOption, new_table, open_screen
from edgel3_tflm.device.estimate import WINDOW_S
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.deployment import Deployment

# cobs and pyserial are loaded only when a command runs.
if TYPE_CHECKING:
    from edgel3_tflm.device.wire import Info, Statistics

device_app = typer.Typer(
    cls=Group, help="Talk to a board that runs the node, or to the emulated board."
)
device_app.command(
    "monitor", cls=Command, context_settings=HELP_NAMES, epilog=make_epilog("device monitor")
)(monitor_command)

ClipsArgument = Annotated[
    list[Path], typer.Argument(metavar="CLIPS", help="Audio files, or directories of them.")
]

_MAX_ROWS = 20


@device_app.command(
    "info", cls=Command, context_settings=HELP_NAMES, epilog=make_epilog("device info")
)
def info_command(
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the device's properties and counters, and whether its self-test passes."""
    with (
        open_screen(as_json=as_json, interrupted=UNCHANGED) as screen,
        screen.progress() as progress,
        open_device(port, emulate, head, progress) as (device, _),
    ):
        info, statistics = device.info, device.statistics()
        progress("self-test of the device", 0, 0)
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
            f" dropped, {statistics.windows:,} windows",
            "microphone": _describe_hearing(statistics),
            "latest window": _describe_window(info, statistics),
            "self-test": ", ".join(names) or "passed",
        }
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in figures.items():
            table.add_row(name, Text(value))
        result = {
            "info": {**vars(info), "source_sha256": info.source_sha256.hex()},
            "statistics": {**vars(statistics), "coverage": statistics.coverage},
            "self_test_failures": names,
        }
        screen.show(result, table)
        if names:
            raise EdgeL3Error(
                f"the device fails its self-test ({', '.join(names)}); build its firmware again"
                " with"
                " this version of edgel3-tflm"
            )


@device_app.command(
    "embed", cls=Command, context_settings=HELP_NAMES, epilog=make_epilog("device embed")
)
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
    """Embed the windows of a clip on the device."""
    with (
        open_screen(quiet=quiet, as_json=as_json, interrupted=UNCHANGED) as screen,
        screen.progress() as progress,
        open_device(port, emulate, head, progress) as (device, _),
    ):
        from edgel3_tflm.device.check import read_pcm_windows
        from edgel3_tflm.device.recording import Recording
        from edgel3_tflm.device.wire import LiveEvent

        recording = Recording(record, device.info) if record is not None else None
        ((_, windows),) = read_pcm_windows(device.info, [clip], hop)
        events = []
        rate_hz = device.info.sample_rate_hz
        for number, window in enumerate(windows):
            embedding = device.embed_pcm(window)
            scores = device.scores() if device.info.classes else np.empty(0, np.float32)
            used = device.statistics()
            milliseconds, first = (round(per_s * hop * number) for per_s in (1000, rate_hz))
            ticks = used.frontend_ticks, used.engine_ticks
            events.append(LiveEvent(number, milliseconds, first, 0, *ticks, embedding, scores))
            progress("windows through the device", number + 1, len(windows))
        progress.finish()
        if recording is not None:
            with recording:
                for event in events:
                    recording.add(event.milliseconds / 1000, event)
        table = new_table("window", "from s", "length", *device.info.classes)
        for event in events[:_MAX_ROWS]:
            length = float(np.linalg.norm(device.info.embedding.dequantize(event.embedding)))
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


@device_app.command(
    "compare", cls=Command, context_settings=HELP_NAMES, epilog=make_epilog("device compare")
)
def compare_command(
    clips: ClipsArgument,
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="DEPLOYMENT",
            help="The deployment that the board runs. Default: that of --emulate.",
        ),
    ] = None,
    hop: HopOption = 1.0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run clips on the device and on this machine, and show the differences."""
    with (
        open_screen(quiet=quiet, as_json=as_json, interrupted=UNCHANGED) as screen,
        screen.progress() as progress,
    ):
        directory = model or emulate
        if directory is None:
            raise EdgeL3Error(
                "expected --model DEPLOYMENT, what the board runs, or --emulate DEPLOYMENT"
            )
        deployment = Deployment.load(directory)
        with open_device(port, emulate, head, progress) as (device, _):
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
                f"{failing} of {len(results)} clips fail: expected the embedding bytes of this"
                " machine's"
                f" engine, a cosine similarity of {MIN_COSINE} or more, and log-mel values that"
                f" differ by one quantized step in at most {100 * MAX_LOG_MEL_SHARE:g} %"
            )


@device_app.command(
    "bench", cls=Command, context_settings=HELP_NAMES, epilog=make_epilog("device bench")
)
def bench_command(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CLIPS", help="Audio files. Default: clips of the package."),
    ] = None,
    port: PortOption = None,
    emulate: EmulateOption = None,
    head: HeadOption = None,
    windows: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of windows to time.")
    ] = 4,
    as_json: JsonOption = False,
) -> None:
    """Measure the time of a window on the device, stage by stage."""
    with (
        open_screen(as_json=as_json, interrupted=UNCHANGED) as screen,
        screen.progress() as progress,
        open_device(port, emulate, head, progress) as (device, _),
    ):
        from edgel3_tflm.device.check import read_pcm_windows, time_windows

        info = device.info
        per_clip = read_pcm_windows(info, clips or _choose_bundled_clips(windows), 1.0)
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
        frontend_s, engine_s, awake_s = (
            sum(ticks) / len(ticks) / info.ticks_per_second for ticks in stages.values()
        )
        # While the board listens, it is awake for the log-mel values only; then the network runs.
        sleep_share = max(0.0, (WINDOW_S - frontend_s) / (WINDOW_S + engine_s))
        result = {
            "board": info.board,
            "tick": _describe_tick(info),
            "ticks_per_second": info.ticks_per_second,
            "ticks": stages,
            "awake_seconds_per_window": awake_s,
            "sleep_share": sleep_share,
        }
        screen.show(
            result,
            table,
            Text(f"{len(timings)} windows of 1 s; a tick: {_describe_tick(info)}"),
            Text(
                f"awake for {awake_s:.3f} s a window (`estimate --awake-s {awake_s:.3f}`). With"
                f" live sound a board that sleeps is asleep for {100 * sleep_share:.0f} % of the"
                " time; interrupts, resampling and serial port are not counted"
            ),
        )


def _describe_hearing(statistics: "Statistics") -> str:
    lost = f"{statistics.missed_samples:,} samples lost since the start"
    if statistics.coverage is None:
        return f"no window heard yet, {lost}"
    return (
        f"coverage {100 * statistics.coverage:.1f} %: {statistics.covered_samples:,} samples in"
        f" windows, {statistics.skipped_samples:,} skipped, {lost}"
    )


def _describe_window(info: "Info", statistics: "Statistics") -> str:
    if statistics.engine_ticks == 0:
        return "none yet"
    log_mel, network = (
        f"{1000 * ticks / info.ticks_per_second:,.1f} ms"
        for ticks in (statistics.frontend_ticks, statistics.engine_ticks)
    )
    return f"log-mel {log_mel}, network {network}"


def _describe_tick(info: "Info") -> str:
    from edgel3_tflm.device.emulation import INSTRUCTIONS_PER_TICK, MACHINE

    if info.board == MACHINE:
        return (
            f"{INSTRUCTIONS_PER_TICK} instructions, as QEMU counts them; the times assume one"
            " instruction per nanosecond and are not those of a board"
        )
    return f"1/{info.ticks_per_second:,} s"


def _choose_bundled_clips(count: int) -> list[Path]:
    """Return ``count`` of the package's clips, evenly spread over their names."""
    directory = bundled_clips_directory()
    clips = sorted(directory.iterdir())
    return clips[:: max(1, len(clips) // count)][:count]
