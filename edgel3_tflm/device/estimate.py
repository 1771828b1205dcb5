"""Estimates flash, RAM and time that a deployment needs on a board, and its rate on a battery.

Nothing here was measured on a board. Each figure states its source and its assumptions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self

from edgel3_tflm.audio.clips import bundled_clips_directory, read_clip
from edgel3_tflm.audio.framing import cut_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.audio.pcm import FULL_SCALE, to_int16
from edgel3_tflm.device.boards import BOARDS, Board
from edgel3_tflm.device.footprint import (
    Footprint,
    MemoryPlan,
    choose_memory,
    plan_footprint,
    require_packed_model,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.c_library.cycles import modelled_cycles, modelled_frontend_cycles
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import FloatArray

WINDOW_S = 1.0
TIMED_CLIPS = ("street", "rain_heavy", "siren_wail", "dog_bark", "voice_low")
"""Clips of the package whose middle windows are timed, here and by ``make bench``."""
"""Time limit for a window: the dense L3 takes minutes in QEMU on a busy machine."""
ACTIVE_MW, SLEEP_MW = 600.0, 10.0
"""Assumed power of a whole board in mW: while it records or computes at full clock, and asleep with
its RAM powered. Replace them by your own measurement."""


@dataclass(frozen=True)
class Range:
    """A range of values."""

    low: float
    high: float

    def __mul__(self, factor: float) -> "Range":
        """Multiply both ends by a factor."""
        return Range(self.low * factor, self.high * factor)

    def __add__(self, other: Self) -> "Range":
        """Add the low ends and the high ends."""
        return Range(self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Work:
    """Modelled cycles of a window, and the source of the figures.

    Parameters
    ----------
    frontend : int
    engine, engine_least : Range
        With the arena of the fastest kernels, and with the least one.
    source : str
    """

    frontend: int
    engine: Range
    engine_least: Range
    source: str


@dataclass(frozen=True)
class Battery:
    """A battery, and the power of the board that it supplies.

    Parameters
    ----------
    energy_mwh : float
        Energy of the battery in mWh.
    days : float
        Time that the battery must last.
    active_mw, sleep_mw : float
        Power in mW of the board awake, and asleep.
    """

    energy_mwh: float
    days: float
    active_mw: float = ACTIVE_MW
    sleep_mw: float = SLEEP_MW

    def windows_per_minute(self, active_s: float) -> float:
        """Return the number of windows per minute that the battery allows.

        Parameters
        ----------
        active_s : float
            Seconds that the board is awake for each window.

        Raises
        ------
        EdgeL3Error
            If a value is out of range, or sleep alone takes more energy than there is.
        """
        for name, value in (("energy", self.energy_mwh), ("days", self.days)):
            if not 0 < value < float("inf"):
                raise EdgeL3Error(f"expected a battery with positive {name}, got {value:g}")
        if not 0 <= self.sleep_mw < self.active_mw < float("inf"):
            raise EdgeL3Error(
                f"expected less power asleep than awake, got {self.sleep_mw:g} and"
                f" {self.active_mw:g} mW"
            )
        mean_mw = self.energy_mwh / (24 * self.days)
        if mean_mw < self.sleep_mw:
            raise EdgeL3Error(
                f"expected a battery for at least the {self.sleep_mw:g} mW of sleep alone,"
                f" {self.energy_mwh:g} mWh over {self.days:g} days are {mean_mw:.2f} mW; use a"
                " larger battery, fewer days or less power asleep"
            )
        awake = min(1.0, (mean_mw - self.sleep_mw) / (self.active_mw - self.sleep_mw))
        return 60 * awake / active_s


@dataclass(frozen=True)
class BoardEstimate:
    """What a deployment needs on one board.

    Parameters
    ----------
    board : Board
    flash_bytes : int
    memory : MemoryPlan
    frontend_seconds : float
        Time for the log-mel spectrogram of a window. The frontend computes it while samples arrive.
    seconds : Range
        Time for the network with this arena, which runs after the last sample of a window.
    windows_per_minute : Range or None
        Rate that the battery allows; None without a battery, and on a board that does not sleep.
    """

    board: Board
    flash_bytes: int
    memory: MemoryPlan
    frontend_seconds: float
    seconds: Range
    windows_per_minute: Range | None

    @property
    def fits(self) -> bool:
        """Whether flash and RAM are within the board's budgets."""
        return (
            self.flash_bytes <= self.board.flash_budget_bytes
            and self.memory.ram_bytes <= self.board.ram_budget_bytes
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        rate = self.windows_per_minute
        return {
            "board": self.board.name,
            "flash_bytes": self.flash_bytes,
            "flash_budget_bytes": self.board.flash_budget_bytes,
            "ram_bytes": self.memory.ram_bytes,
            "ram_budget_bytes": self.board.ram_budget_bytes,
            **self.memory.to_json(),
            "fits": self.fits,
            "frontend_seconds": self.frontend_seconds,
            "engine_seconds": [self.seconds.low, self.seconds.high],
            "windows_per_minute": None if rate is None else [rate.low, rate.high],
        }


def estimate_board(
    board: Board,
    footprint: Footprint,
    work: Work,
    *,
    battery: Battery | None = None,
    awake_s: float | None = None,
) -> BoardEstimate:
    """Return what a footprint and an amount of work mean on one board.

    Parameters
    ----------
    board : Board
    footprint : Footprint
    work : Work
    battery : Battery, optional
    awake_s : float, optional
        Measured seconds that a board is awake for a window. It sleeps for the rest of the second in
        which it listens. By default it is awake while it listens and while the network runs.

    Raises
    ------
    EdgeL3Error
        If ``awake_s`` is not above 0, or the battery is too small.
    """
    if awake_s is not None and not 0 < awake_s < float("inf"):
        raise EdgeL3Error(f"expected an awake time above 0 s for each window, got {awake_s:g}")

    memory = choose_memory(board, footprint)
    cycles = work.engine if memory.arena == "fast" else work.engine_least
    engine_seconds = cycles * (1 / board.clock_hz)
    rate = None
    if battery is not None and board.can_sleep:
        busy = engine_seconds + Range(WINDOW_S, WINDOW_S)
        awake = busy if awake_s is None else Range(awake_s, awake_s)
        # A board that sleeps while it listens cannot listen to several windows at a time.
        rate = Range(
            min(battery.windows_per_minute(awake.high), 60 / busy.high),
            min(battery.windows_per_minute(awake.low), 60 / busy.low),
        )
    return BoardEstimate(
        board,
        sum(footprint.flash.values()),
        memory,
        work.frontend / board.clock_hz,
        engine_seconds,
        rate,
    )


def estimate_boards(deployment: Deployment) -> tuple[BoardEstimate, ...]:
    """Return an estimate for every board, from the converter's sizes and modelled cycles.

    Raises
    ------
    EdgeL3Error
        As :func:`estimate_work`.
    """
    footprint, work = plan_footprint(deployment), estimate_work(deployment)
    return tuple(estimate_board(board, footprint, work) for board in BOARDS)


def estimate_work(deployment: Deployment) -> Work:
    """Return the modelled cycles for the windows of :data:`TIMED_CLIPS`.

    The cycles depend on the sound, because the engine skips rows of zeros.

    Raises
    ------
    ModelFileError
        If the deployment has no packed model.
    EdgeL3Error
        If the C library cannot be loaded.
    """
    # Imported here because it loads the C extension.
    from edgel3_tflm.runtime.c_library.engine import Engine, EngineInterpreter

    blob = require_packed_model(deployment)
    spec = deployment.variant.frontend
    engine, source = Engine(blob), EngineInterpreter(blob, threads=1).input
    windows = deployment.input_map.apply(log_mel(read_timed_windows(spec), spec), source)
    fast: list[int] = []
    least: list[int] = []
    for window in windows[..., 0]:
        maps = engine.trace(window)
        for found, widen in ((fast, True), (least, False)):
            found.append(sum(modelled_cycles(blob, maps, widen=widen).values()))
    return Work(
        modelled_frontend_cycles(spec),
        Range(min(fast), max(fast)),
        Range(min(least), max(least)),
        f"modelled from the loops of the kernels, for the clips {', '.join(TIMED_CLIPS)}",
    )


def read_timed_windows(spec: FrontendSpec, clips: Sequence[str] = TIMED_CLIPS) -> FloatArray:
    """Return the middle window of each clip, shape (n, window_samples), float32."""
    windows = []
    for clip in clips:
        cut = cut_windows(
            read_clip(bundled_clips_directory() / f"{clip}.flac", spec.sample_rate_hz),
            window_samples=spec.window_samples,
            hop_samples=spec.window_samples,
        )
        windows.append(cut[len(cut) // 2])
    return np.stack(windows)


def read_bench(path: Path, deployment: Deployment) -> Work:
    """Return the cycles that ``micro_app/benchmark/bench.py`` modelled for this deployment.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read, or has no count of this model.
    """
    from edgel3_tflm.device.bench_file import read_bench_file

    digest = deployment.manifest["artefacts"][quantized_model_name("int8")]["sha256"]
    networks = read_bench_file(path).networks
    cycles = [each.edgel3.cycles for each in networks if each.flatbuffer_sha256 == digest]
    if not cycles:
        raise EdgeL3Error(
            f"{path}: expected a count of the model with SHA-256 {digest[:12]}..., found none; run"
            " the benchmark with this deployment"
        )
    found = Range(min(cycles[0]), max(cycles[0]))
    estimated = estimate_work(deployment)
    return replace(
        estimated,
        engine=found,
        source=f"{len(cycles[0])} windows that ran on the emulated Cortex-M7 ({path.name}); log-mel"
        f" and the least arena: {estimated.source}",
    )


def count_instructions(firmware: Path, spec: FrontendSpec) -> int:
    """Return the instructions that the emulated board's engine takes for a window of noise.

    Raises
    ------
    DeviceError
        If the emulator fails.
    RuntimeUnavailableError
        If the extra ``device`` is not installed.
    """
    # Imported here because only this function needs the extra `device`.
    from edgel3_tflm.device.emulation import INSTRUCTIONS_PER_TICK, Emulator

    # The engine skips rows of zeros, so the count depends on the sound. A fixed seed fixes it.
    noise = np.random.default_rng(0).normal(0, 3000 / FULL_SCALE, spec.window_samples)
    with Emulator(firmware) as emulator, emulator.open_device() as device:
        device.embed_pcm(to_int16(noise))
        return int(device.statistics().engine_ticks * INSTRUCTIONS_PER_TICK)
