"""Flash and RAM of a node by part, and how a board divides its RAM."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgel3_tflm.audio.log_mel import FrontendTables
from edgel3_tflm.device.boards import Board
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.c_library.cycles import modelled_cycles
from edgel3_tflm.runtime.deployment import Deployment

ASSUMED_CODE_BYTES = 40 * 1024
ASSUMED_NODE_BYTES = 8 * 1024
"""Sizes of the code (without the Arduino core) and of the node's buffers, if there is no build."""
MICROPHONE_RING_BYTES = 8192
"""Twice kMicrophoneRingSamples in the sketch's edgel3_microphone.h: samples have two bytes."""

_TABLE_NAMES = {"window", "cosines", "mel_first", "mel_count", "mel_weights"}
_HEAD_NAMES = {"edgel3_model_head", "weights", "scale", "bias", "labels"}


@dataclass(frozen=True)
class Footprint:
    """Flash and static RAM in bytes by part, and the source of the figures.

    The part "arena" is that of the engine's fastest kernels. It may be smaller by
    ``spare_arena_bytes``; the kernels are then slower.

    ``ears_bytes`` is the RAM with which a board hears while its network runs. It is no part of
    ``ram``, because a board without a microphone does not need it. It is None if the board cannot
    hear meanwhile.

    ``cycles`` are the modelled cycles of the network for a window by arena, "fast" and "least".
    """

    flash: Mapping[str, int]
    ram: Mapping[str, int]
    source: str
    spare_arena_bytes: int = 0
    ears_bytes: int | None = None
    cycles: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryPlan:
    """How a board divides its RAM.

    Parameters
    ----------
    ram_bytes : int
        Static memory in the board's first memory.
    arena : str
        "fast", or "least" for an arena without that of the fastest kernels.
    ears : str or None
        "open" if the board hears while the network runs, otherwise "closed"; None without a
        microphone.
    coverage : float or None
        Share of the sound from the microphone that is in windows, by the modelled cycles; None
        without a microphone.
    gives_up : str or None
        "ears" or "fast kernels", if one of them had to yield to the other.
    """

    ram_bytes: int
    arena: str
    ears: str | None
    coverage: float | None
    gives_up: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return arena and ears for JSON."""
        return {
            "arena": self.arena,
            "ears": self.ears,
            "coverage": self.coverage,
            "gives_up": self.gives_up,
        }


def choose_memory(board: Board, footprint: Footprint) -> MemoryPlan:
    """Return how a board divides its RAM.

    Of the divisions that fit, it is the one that hears the largest share of the sound. If the arena
    of the fastest kernels and open ears do not both fit, the board thus gives up one of them: a
    network that is much slower than its sound hears more with fast kernels and closed ears.
    """
    ring_bytes = 0 if board.microphone is None else MICROPHONE_RING_BYTES
    all_bytes = sum(footprint.ram.values()) + ring_bytes
    sizes = {"fast": all_bytes}
    if footprint.spare_arena_bytes:
        sizes["least"] = all_bytes - footprint.spare_arena_bytes
    plans = []
    for arena, size in sizes.items():
        if board.microphone is None:
            plans.append(MemoryPlan(size, arena, None, None))
            continue
        seconds = footprint.cycles.get(arena, 0) / board.clock_hz
        ears_bytes = _fit_ears(board, footprint)
        if ears_bytes is not None:
            open_coverage = 1.0 if seconds <= 1.0 else 1.0 / seconds
            plans.append(MemoryPlan(size + ears_bytes, arena, "open", open_coverage))
        plans.append(MemoryPlan(size, arena, "closed", 1.0 / (1.0 + seconds)))
    fitting = [plan for plan in plans if plan.ram_bytes <= board.ram_budget_bytes]
    if not fitting:
        return min(plans, key=lambda plan: plan.ram_bytes)
    chosen = max(fitting, key=lambda plan: plan.coverage or 0.0)
    others = {(plan.arena, plan.ears) for plan in fitting}
    if (chosen.arena, chosen.ears) == ("fast", "closed") and ("least", "open") in others:
        return replace(chosen, gives_up="ears")
    if (chosen.arena, chosen.ears) == ("least", "open") and ("fast", "closed") in others:
        return replace(chosen, gives_up="fast kernels")
    return chosen


def _fit_ears(board: Board, footprint: Footprint) -> int | None:
    """Return what open ears take of a board's first memory; None if they cannot be open."""
    if footprint.ears_bytes is None or board.ears_memory is None:
        return footprint.ears_bytes
    return 0 if footprint.ears_bytes <= board.ears_memory.budget_bytes else None


def plan_footprint(deployment: Deployment) -> Footprint:
    """Return a footprint from the converter's figures, with assumed sizes of code and buffers.

    Raises
    ------
    ModelFileError
        If the deployment has no packed model.
    """
    blob = require_packed_model(deployment)
    spec = deployment.variant.frontend
    tables = FrontendTables.of(spec)
    table_bytes = sum(getattr(tables, name).nbytes for name in vars(tables))
    fast, least = _plan_arenas(blob, spec)
    return Footprint(
        {"model": len(blob), "frontend tables": table_bytes, "code": ASSUMED_CODE_BYTES},
        {
            "arena": fast,
            "window": max(spec.mels * spec.frames, _work_bytes(spec)),
            "node": ASSUMED_NODE_BYTES,
        },
        "the converter's figures; sizes of code and node are assumed, nothing was built",
        fast - least,
        _work_bytes(spec) + count_levels_bytes(spec),
        _model_cycles(blob),
    )


def count_levels_bytes(spec: FrontendSpec) -> int:
    """Return the size of the frontend's levels: one int16 for each log-mel value."""
    return 2 * spec.mels * spec.frames


def _work_bytes(spec: FrontendSpec) -> int:
    """Return the size of the frontend's spectrum and ring."""
    return 6 * spec.dft_samples + 8


def _plan_arenas(blob: bytes, spec: FrontendSpec) -> tuple[int, int]:
    """Return the arena of the fastest kernels and the least one, both in bytes.

    As in edgel3_node_model.h: with closed ears, the arena has the frontend's levels before the
    engine runs.
    """
    fast, least = (
        max(plan_memory(blob, widen=widen).arena_bytes, count_levels_bytes(spec))
        for widen in (True, False)
    )
    return fast, least


def measure_footprint(firmware: Path, deployment: Deployment) -> Footprint:
    """Return the footprint of the emulated board's firmware from its ELF file.

    The firmware's arena is replaced by that of the fastest kernels, if it is the least one.

    Raises
    ------
    ModelFileError
        If the file is not a 32-bit ELF file of this project's node.
    """
    from edgel3_tflm.device.elf import read_firmware_sizes

    sizes = read_firmware_sizes(firmware)
    constants = sizes.constants
    try:
        flash = {
            "model": constants["edgel3_packed_model"],
            "frontend tables": sum(constants[name] for name in _TABLE_NAMES),
            "head": sum(constants.get(name, 0) for name in _HEAD_NAMES),
        }
        ram = {name: sizes.variables[name] for name in ("arena", "window", "node")}
        ears_bytes = sizes.variables["ears"]
    except KeyError as error:
        raise ModelFileError(
            f"{firmware}: expected firmware of this project's node, it has no object {error}"
        ) from error
    flash["code"] = sizes.constant + sizes.initialized - sum(flash.values())
    ram["rest"] = sizes.initialized + sizes.zeroed - sum(ram.values()) - ears_bytes
    spec = deployment.variant.frontend
    blob = require_packed_model(deployment)
    fast, least = _plan_arenas(blob, spec)
    ram["arena"] = fast
    return Footprint(
        {name: size for name, size in flash.items() if size},
        ram,
        "the ELF file of a build for the emulated Cortex-M7 (GCC -O3), without Arduino core and"
        " stack",
        fast - least,
        _work_bytes(spec) + count_levels_bytes(spec),
        _model_cycles(blob),
    )


def _model_cycles(blob: bytes) -> dict[str, int]:
    """Return the modelled cycles of a window by arena, if no row is zero."""
    return {
        arena: sum(modelled_cycles(blob, widen=widen).values())
        for arena, widen in (("fast", True), ("least", False))
    }


def require_packed_model(deployment: Deployment) -> bytes:
    """Return a deployment's packed model.

    Raises
    ------
    ModelFileError
        If it has none.
    """
    blob = deployment.read_packed_model()
    if blob is None:
        raise ModelFileError(
            f"{deployment.directory}: expected a packed model, it has none; an estimate needs an"
            " int8 network that the engine can run"
        )
    return blob
