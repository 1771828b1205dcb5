"""What a deployment will need on a board: flash, RAM, time and, from a battery, how often.

Nothing here was measured on a board. Each figure says where it comes from, and what was assumed.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as pydantic_dataclass

from edgel3_tflm.audio.log_mel import FrontendTables
from edgel3_tflm.audio.pcm import FULL_SCALE, to_int16
from edgel3_tflm.device.boards import Board
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.packed import plan_memory, read_packed
from edgel3_tflm.schema import WRITTEN, parse_json, read_file

INSTRUCTIONS_PER_CYCLE = (0.6, 1.2)
"""A Cortex-M7 begins up to two a cycle and waits for flash and RAM. Around 0.9 is what TinyEngine's
published 2 cycles a MAC on an STM32H743 come to, at the 1.7 to 1.9 instructions of CMSIS-NN."""
INSTRUCTIONS_PER_MAC = (1.3, 2.9)
"""Of the engine, for each packed multiply-accumulate: the range over the study's 17 networks on
the emulated board, each with one window, 1.31 for the narrowest L3 to 2.88 for L3 down to conv7."""
INSTRUCTIONS_PER_FFT_STEP = 7.7
"""Of the frontend, for each of frames * n * log2(n): 7.6 and 7.7 at 2048 and 1024 samples there."""
ASSUMED_CODE_BYTES = 32 * 1024
ASSUMED_NODE_BYTES = 8 * 1024
"""Where no compiler is at hand to tell: code beside the core's own, and the node's buffers."""
MICROPHONE_RING_BYTES = 8192
"""As kMicrophoneRingBytes in the sketch's microphone.h."""
WINDOW_S = 1.0
_EMULATION_TIMEOUT_S = 900.0
"""For a window: the dense L3 takes minutes in QEMU on a busy machine."""
ACTIVE_MW, SLEEP_MW = 600.0, 10.0
"""Of a whole board, listening or computing at full clock, and asleep with its RAM kept: assumptions
to be replaced by a measurement of yours."""

_TABLE_NAMES = {"window", "cosines", "mel_first", "mel_count", "mel_weights"}
_HEAD_NAMES = {"edgel3_model_head", "weights", "scale", "bias", "labels"}


@dataclass(frozen=True)
class Range:
    """From the least to the most."""

    low: float
    high: float

    def __mul__(self, factor: float) -> "Range":
        """Scale both ends."""
        return Range(self.low * factor, self.high * factor)

    def __add__(self, other: Self) -> "Range":
        """Add end by end."""
        return Range(self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Footprint:
    """Flash and static RAM in bytes, part by part, and where the figures come from."""

    flash: Mapping[str, int]
    ram: Mapping[str, int]
    source: str


@dataclass(frozen=True)
class Work:
    """Instructions of a window, and where they come from."""

    frontend: Range
    engine: Range
    source: str


@dataclass(frozen=True)
class Battery:
    """What there is to spend.

    Parameters
    ----------
    energy_mwh : float
    days : float
    active_mw, sleep_mw : float
    """

    energy_mwh: float
    days: float
    active_mw: float = ACTIVE_MW
    sleep_mw: float = SLEEP_MW

    def windows_per_minute(self, active_s: float) -> float:
        """Count the windows a minute allows, of which each keeps the board awake for a time.

        Raises
        ------
        EdgeL3Error
            If the board uses up more than there is when it only sleeps.
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
                f"{self.energy_mwh:g} mWh over {self.days:g} days are {mean_mw:.2f} mW, less than"
                f" the {self.sleep_mw:g} mW of sleep alone; expected a larger battery, fewer days"
                " or less power asleep"
            )
        awake = min(1.0, (mean_mw - self.sleep_mw) / (self.active_mw - self.sleep_mw))
        return 60 * awake / active_s


@dataclass(frozen=True)
class BoardEstimate:
    """What the deployment needs on one board.

    ``seconds`` are those of a window after its last sample: the frontend works while samples come.
    """

    board: Board
    flash_bytes: int
    ram_bytes: int
    frontend_seconds: Range
    seconds: Range
    windows_per_minute: Range | None

    @property
    def fits(self) -> bool:
        """Whether both are within what the Arduino core leaves."""
        return (
            self.flash_bytes <= self.board.flash_budget_bytes
            and self.ram_bytes <= self.board.ram_budget_bytes
        )

    def to_json(self) -> dict[str, Any]:
        """Give the figures as they stand in JSON."""
        rate = self.windows_per_minute
        return {
            "board": self.board.name,
            "flash_bytes": self.flash_bytes,
            "flash_budget_bytes": self.board.flash_budget_bytes,
            "ram_bytes": self.ram_bytes,
            "ram_budget_bytes": self.board.ram_budget_bytes,
            "fits": self.fits,
            "frontend_seconds": [self.frontend_seconds.low, self.frontend_seconds.high],
            "engine_seconds": [self.seconds.low, self.seconds.high],
            "windows_per_minute": None if rate is None else [rate.low, rate.high],
        }


def estimate_board(
    board: Board,
    footprint: Footprint,
    work: Work,
    *,
    per_cycle: tuple[float, float] = INSTRUCTIONS_PER_CYCLE,
    battery: Battery | None = None,
) -> BoardEstimate:
    """Put footprint and work on a board.

    Raises
    ------
    EdgeL3Error
        If the range of instructions per cycle is none, or the battery too small.
    """
    slow, fast = per_cycle
    if not 0 < slow <= fast <= 2:
        raise EdgeL3Error(
            "expected a range of instructions per cycle above 0 and up to 2, the least first; got"
            f" {slow:g} and {fast:g}"
        )

    def seconds(instructions: Range) -> Range:
        cycles = Range(instructions.low / fast, instructions.high / slow)
        return cycles * (1 / board.clock_hz)

    ring = MICROPHONE_RING_BYTES if board.microphone else 0
    engine_seconds = seconds(work.engine)
    rate = None
    if battery is not None:
        active = engine_seconds + Range(WINDOW_S, WINDOW_S)
        rate = Range(
            battery.windows_per_minute(active.high), battery.windows_per_minute(active.low)
        )
    return BoardEstimate(
        board,
        sum(footprint.flash.values()),
        sum(footprint.ram.values()) + ring,
        seconds(work.frontend),
        engine_seconds,
        rate,
    )


def plan_footprint(deployment: Deployment) -> Footprint:
    """Footprint from the converter's figures; code and buffers are assumed.

    Raises
    ------
    ModelFileError
        If the deployment has no packed model.
    """
    blob = _read_packed(deployment)
    spec = deployment.variant.frontend
    tables = FrontendTables.of(spec)
    table_bytes = sum(getattr(tables, name).nbytes for name in vars(tables))
    return Footprint(
        {"model": len(blob), "frontend tables": table_bytes, "code": ASSUMED_CODE_BYTES},
        {
            # As edgel3_node_model.h: the log-mel values wait where the engine works afterwards.
            "arena": max(plan_memory(blob).arena_bytes, 4 * spec.mels * spec.frames),
            "window": max(spec.mels * spec.frames, 6 * spec.dft_samples + 8),
            "node": ASSUMED_NODE_BYTES,
        },
        "the converter's figures; code and node are assumed, no build was looked at",
    )


def measure_footprint(firmware: Path) -> Footprint:
    """Footprint of the emulated board's firmware, out of its ELF file.

    Raises
    ------
    ModelFileError
        If it is not a 32-bit ELF file of this project's node.
    """
    sections, symbols = _read_elf(firmware)
    constant = {name: size for name, size, kind in symbols if kind == "constant"}
    variable = {name: size for name, size, kind in symbols if kind == "variable"}
    try:
        flash = {
            "model": constant["edgel3_packed_model"],
            "frontend tables": sum(constant[name] for name in _TABLE_NAMES),
            "head": sum(constant.get(name, 0) for name in _HEAD_NAMES),
        }
        ram = {name: variable[name] for name in ("arena", "window", "node")}
    except KeyError as error:
        raise ModelFileError(f"{firmware}: expected the node's firmware, no {error}") from error
    flash["code"] = sections["constant"] + sections["initialized"] - sum(flash.values())
    ram["stack and rest"] = sections["initialized"] + sections["zeroed"] - sum(ram.values())
    return Footprint(
        {name: size for name, size in flash.items() if size},
        ram,
        "the ELF file of a build for the emulated Cortex-M7 (GCC -O3), its stack included; the"
        " Arduino core comes on top",
    )


def _read_elf(path: Path) -> tuple[dict[str, int], list[tuple[str, int, str]]]:
    """Sizes of a 32-bit little-endian ELF's loaded sections by kind, and its objects."""
    try:
        data = path.read_bytes()
        if data[:6] != b"\x7fELF\x01\x01":
            raise ModelFileError(f"{path}: expected a 32-bit little-endian ELF file")
        (table,) = struct.unpack_from("<I", data, 32)
        entry_bytes, count = struct.unpack_from("<HH", data, 46)
        headers = [struct.unpack_from("<10I", data, table + entry_bytes * i) for i in range(count)]
        kinds = []
        sizes = {"constant": 0, "initialized": 0, "zeroed": 0}
        for _, kind, flags, _, _, size, *_ in headers:
            is_loaded, is_writable = flags & 2, flags & 1
            place = "zeroed" if kind == 8 else "initialized" if is_writable else "constant"
            kinds.append(place)
            if is_loaded:
                sizes[place] += size
        symbols = []
        for _, kind, _, _, offset, size, link, *_ in headers:
            if kind != 2:  # the symbol table
                continue
            names = headers[link][4]
            for at in range(offset, offset + size, 16):
                name, _, length, info, _, index = struct.unpack_from("<IIIBBH", data, at)
                if info & 15 == 1 and 0 < index < count:  # an object
                    end = data.index(b"\0", names + name)
                    place = "constant" if kinds[index] == "constant" else "variable"
                    symbols.append((data[names + name : end].decode(), length, place))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read: {error.strerror}") from error
    except (struct.error, ValueError, IndexError) as error:
        raise ModelFileError(f"{path}: expected a whole ELF file: {error}") from error
    return sizes, symbols


def estimate_work(deployment: Deployment) -> Work:
    """Instructions from the number of multiply-accumulates and of frames."""
    macs = sum(conv.packed_macs for conv in read_packed(_read_packed(deployment)).convolutions)
    low, high = INSTRUCTIONS_PER_MAC
    return Work(
        _estimate_frontend(deployment),
        Range(macs * low, macs * high),
        f"{macs / 1e6:,.1f} M packed multiply-accumulates at {low:g} to {high:g} instructions each,"
        " the range over 17 networks on the emulated Cortex-M7",
    )


@pydantic_dataclass(frozen=True, config=WRITTEN)
class _Counts:
    instructions: Annotated[list[PositiveInt], Field(min_length=1)]


@pydantic_dataclass(frozen=True, config=WRITTEN)
class _BenchNetwork:
    flatbuffer_sha256: str
    edgel3: _Counts


@pydantic_dataclass(frozen=True, config=WRITTEN)
class _Bench:
    networks: list[_BenchNetwork]


def _parse_bench(text: bytes) -> _Bench:
    try:
        return parse_json(text, _Bench)
    except EdgeL3Error as error:
        raise EdgeL3Error(f"expected what the benchmark wrote; {error}") from error


def read_bench(path: Path, deployment: Deployment) -> Work:
    """Take the instructions that ``micro_app/benchmark/bench.py`` counted for this deployment.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read or holds no count of this model.
    """
    digest = deployment.manifest["artefacts"][quantized_model_name("int8")]["sha256"]
    networks = read_file(path, _parse_bench).networks
    counts = [each.edgel3.instructions for each in networks if each.flatbuffer_sha256 == digest]
    if not counts:
        raise EdgeL3Error(
            f"{path}: expected a count of the model with SHA-256 {digest[:12]}..., found none; run"
            " the benchmark with this deployment"
        )
    return Work(
        _estimate_frontend(deployment),
        Range(min(counts[0]), max(counts[0])),
        f"{len(counts[0])} windows counted on the emulated Cortex-M7 ({path.name}); the frontend's"
        " from its number of frames",
    )


def measure_work(firmware: Path, deployment: Deployment) -> Work:
    """Count the instructions of a window of noise on the emulated board.

    Raises
    ------
    DeviceError
        If the emulator fails.
    """
    # Talking to a node needs the extra `device`; nothing else here does.
    from edgel3_tflm.device.client import Device
    from edgel3_tflm.device.emulation import INSTRUCTIONS_PER_TICK, Emulator

    spec = deployment.variant.frontend
    # Rows of zeros are left out, so the count goes with the sound: this one is the same everywhere.
    noise = np.random.default_rng(0).normal(0, 3000 / FULL_SCALE, spec.window_samples)
    with (
        Emulator(firmware) as emulator,
        Device(emulator.connect(), compute_timeout_s=_EMULATION_TIMEOUT_S) as device,
    ):
        device.embed_pcm(to_int16(noise))
        statistics = device.statistics()
    frontend = float(statistics.frontend_ticks * INSTRUCTIONS_PER_TICK)
    engine = float(statistics.engine_ticks * INSTRUCTIONS_PER_TICK)
    return Work(
        Range(frontend, frontend),
        Range(engine, engine),
        "one window of noise, counted on the emulated Cortex-M7",
    )


def _read_packed(deployment: Deployment) -> bytes:
    blob = deployment.read_packed_model()
    if blob is None:
        raise ModelFileError(
            f"{deployment.directory}: expected a packed model, it has none; only what the engine"
            " runs can be estimated"
        )
    return blob


def _estimate_frontend(deployment: Deployment) -> Range:
    spec = deployment.variant.frontend
    steps = spec.frames * spec.dft_samples * log2(spec.dft_samples)
    return Range(INSTRUCTIONS_PER_FFT_STEP * steps, INSTRUCTIONS_PER_FFT_STEP * steps)
