"""The boards: how much flash and contiguous RAM a model and its arena may take there."""

from dataclasses import dataclass

_KIB = 1024


@dataclass(frozen=True)
class Board:
    """A Cortex-M7 board.

    Parameters
    ----------
    name : str
        As PlatformIO spells it.
    title : str
        As its maker spells it.
    flash_bytes : int
        Flash that one firmware image can use under the board's default settings.
    ram_bytes : int
        Largest contiguous RAM a static arena can lie in.
    note : str
        Where the two figures come from.
    """

    name: str
    title: str
    flash_bytes: int
    ram_bytes: int
    note: str


# The M7 core's half of the default split; AXI SRAM also holds data, heap and stack.
_STM32H747_NOTE = "default split; AXI SRAM"

BOARDS = (
    Board("portenta_h7_m7", "Arduino Portenta H7", 768 * _KIB, 512 * _KIB, _STM32H747_NOTE),
    Board("giga_r1_m7", "Arduino Giga R1", 768 * _KIB, 512 * _KIB, _STM32H747_NOTE),
    Board("nicla_vision", "Arduino Nicla Vision", 768 * _KIB, 512 * _KIB, _STM32H747_NOTE),
    Board("teensy41", "Teensy 4.1", 7936 * _KIB, 512 * _KIB, "program flash; OCRAM"),
    Board("nucleo_h743zi", "ST Nucleo-H743ZI2", 2048 * _KIB, 512 * _KIB, "both banks; AXI SRAM"),
)


def fits(board: Board, *, flash_bytes: int, ram_bytes: int) -> bool:
    """Whether a model of ``flash_bytes`` with an arena of ``ram_bytes`` fits a board.

    The firmware's own code and data are not counted.
    """
    return flash_bytes <= board.flash_bytes and ram_bytes <= board.ram_bytes
