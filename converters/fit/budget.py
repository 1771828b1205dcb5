"""The limits of a network: a board's memories, the time for a window, a battery."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from edgel3_tflm.device.boards import Board, find_board
from edgel3_tflm.device.estimate import Battery, BoardEstimate, Work, estimate_board
from edgel3_tflm.device.footprint import Footprint
from edgel3_tflm.errors import EdgeL3Error

DEFAULT_BOARD = "nucleo_h743zi"
"""The board whose processor computes the time if only limits are given."""


@dataclass(frozen=True)
class Limits:
    """What the user asks for; None or 0 for no limit.

    Parameters
    ----------
    board : str, optional
        Name of a board.
    flash_bytes, ram_bytes : int, optional
        Instead of the board's budgets.
    milliseconds : float, optional
        Most milliseconds of the network for a window.
    battery : Battery, optional
    windows_per_minute : float
        Rate that the battery must allow.
    """

    board: str | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    milliseconds: float | None = None
    battery: Battery | None = None
    windows_per_minute: float = 1.0


@dataclass(frozen=True)
class Budget:
    """The limits, and the board that they are for.

    Parameters
    ----------
    board : Board
        With the flash and RAM that the firmware may use as its budgets.
    limits : Limits
    """

    board: Board
    limits: Limits

    @classmethod
    def of(cls, limits: Limits) -> "Budget":
        """Return the budget of a board or of limits.

        Raises
        ------
        EdgeL3Error
            If there is no limit, a limit is not above 0, the board is unknown, or nothing can be
            said of a battery on it.
        """
        names = ("flash_bytes", "ram_bytes", "milliseconds", "windows_per_minute")
        for name in names:
            value = getattr(limits, name)
            if value is not None and not 0 < value < float("inf"):
                raise EdgeL3Error(
                    f"expected {name.replace('_', ' ')} above 0 as a limit, got {value:g}"
                )
        if limits.board is None and all(getattr(limits, name) is None for name in names[:3]):
            raise EdgeL3Error(
                "expected a board (--board) or at least one of the limits --flash, --ram and --ms"
            )
        board = find_board(limits.board or DEFAULT_BOARD)
        if limits.board is None:
            # Without the board's own memories: nothing but the given limits counts.
            board = replace(board, flash_bytes=2**31, ram_bytes=2**31, can_sleep=True)
        if limits.flash_bytes is not None:
            board = replace(board, flash_bytes=limits.flash_bytes, core_flash_bytes=0)
        if limits.ram_bytes is not None:
            board = replace(board, ram_bytes=limits.ram_bytes, core_ram_bytes=0)
        if limits.battery is not None:
            if not board.can_sleep:
                raise EdgeL3Error(
                    f"{board.title} does not sleep between windows, so no rate can be estimated for"
                    " a battery; leave the battery out, or choose another board"
                )
            limits.battery.windows_per_minute(1.0)  # raises if the battery cannot be used
        return cls(board, limits)

    def estimate(self, footprint: Footprint, work: Work) -> BoardEstimate:
        """Return what a network needs on the board."""
        return estimate_board(self.board, footprint, work, battery=self.limits.battery)

    @property
    def flash_bytes(self) -> int | None:
        """Most bytes of flash; None for no limit."""
        return None if self._is_free(self.limits.flash_bytes) else self.board.flash_budget_bytes

    @property
    def ram_bytes(self) -> int | None:
        """Most bytes of static RAM; None for no limit."""
        return None if self._is_free(self.limits.ram_bytes) else self.board.ram_budget_bytes

    def _is_free(self, limit: int | None) -> bool:
        return self.limits.board is None and limit is None

    def find_excesses(self, needs: BoardEstimate) -> tuple[str, ...]:
        """Return a phrase for each limit that a network exceeds."""
        limits = self.limits
        found = []
        for name, value, most in (
            ("flash", needs.flash_bytes, self.flash_bytes),
            ("RAM", needs.memory.ram_bytes, self.ram_bytes),
        ):
            if most is not None and value > most:
                found.append(f"{name} {value:,} of {most:,} bytes")
        milliseconds = 1000 * needs.seconds.high
        if limits.milliseconds is not None and milliseconds > limits.milliseconds:
            found.append(f"time {milliseconds:.4g} of {limits.milliseconds:.4g} ms")
        rate = needs.windows_per_minute
        if rate is not None and rate.low < limits.windows_per_minute:
            found.append(
                f"battery for {rate.low:.3g} of {limits.windows_per_minute:g} windows a minute"
            )
        return tuple(found)

    def describe(self) -> str:
        """Return the limits in a sentence."""
        limits = self.limits
        parts = [
            f"{name} {most:,} bytes"
            for name, most in (("flash", self.flash_bytes), ("RAM", self.ram_bytes))
            if most is not None
        ]
        if limits.milliseconds is not None:
            parts.append(f"{limits.milliseconds:g} ms of the network for a window")
        whole = f"at most {', '.join(parts)}"
        if limits.battery is not None:
            whole += (
                f"; at least {limits.windows_per_minute:g} windows a minute for"
                f" {limits.battery.days:g} days from {limits.battery.energy_mwh:g} mWh"
            )
        return f"{self.name}: {whole}"

    @property
    def name(self) -> str:
        """Name and clock of the board."""
        name = "given limits" if self.limits.board is None else self.board.title
        return f"{name}, {self.board.clock_hz / 1e6:.0f} MHz"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON; None for no limit."""
        limits = self.limits
        return {
            "description": self.describe(),
            "board": limits.board,
            "clock_hz": self.board.clock_hz,
            "flash_bytes": self.flash_bytes,
            "ram_bytes": self.ram_bytes,
            "milliseconds": limits.milliseconds,
            "battery": None if limits.battery is None else asdict(limits.battery),
            "windows_per_minute": None if limits.battery is None else limits.windows_per_minute,
        }
