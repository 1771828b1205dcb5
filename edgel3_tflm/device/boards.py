"""The boards: their memories, clocks and microphones. The only place that holds these facts.

What the sketch needs of them in C is written from here (:mod:`edgel3_tflm.converters.export.app`).
"""

from dataclasses import dataclass

from edgel3_tflm.errors import EdgeL3Error

_KIB = 1024


@dataclass(frozen=True)
class Memory:
    """A RAM of a board.

    Parameters
    ----------
    name : str
    size_bytes : int
    use : str
        What the board's Arduino core, and the sketch, put there.
    """

    name: str
    size_bytes: int
    use: str


@dataclass(frozen=True)
class Microphone:
    """A PDM microphone that the board's Arduino core has a driver for.

    Parameters
    ----------
    where : str
        On the board, or the shield that brings it.
    gain : dict of int to int
        What ``PDM.setGain`` takes at a sample rate (Hz); the driver's own value at others.
    """

    where: str
    gain: dict[int, int]


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
    clock_hz : int
        Of the M7, as the Arduino core sets it.
    platform : str
        PlatformIO's, for platformio.ini.
    fqbn : str
        The board's name in the Arduino IDE's tools.
    macros : tuple of str
        Any of them tells the compiler that this is the board.
    memories : tuple of Memory
        The first is the one that the arena lies in.
    core_flash_bytes, core_ram_bytes : int
        Kept free for the Arduino core with its USB, heap and stack: an allowance, not a
        measurement.
    arena_placement : str
        What puts a static array into the first memory, in C; '' where it lies there anyway.
    constant_placement : str
        What keeps a constant in flash, in C; '' where it stays there anyway.
    microphone : Microphone or None
        None if audio comes from the host.
    """

    name: str
    title: str
    flash_bytes: int
    ram_bytes: int
    note: str
    clock_hz: int
    platform: str
    fqbn: str
    macros: tuple[str, ...]
    memories: tuple[Memory, ...]
    core_flash_bytes: int = 256 * _KIB
    core_ram_bytes: int = 192 * _KIB
    arena_placement: str = ""
    constant_placement: str = ""
    microphone: Microphone | None = None

    @property
    def ram_budget_bytes(self) -> int:
        """Static memory that the application may take of the first memory."""
        return self.ram_bytes - self.core_ram_bytes

    @property
    def flash_budget_bytes(self) -> int:
        """Flash that the application may take: model, tables, head and code."""
        return self.flash_bytes - self.core_flash_bytes


# The M7 core's half of the default split; AXI SRAM also holds data, heap and stack.
_STM32H747_NOTE = "default split; AXI SRAM"
_AXI = Memory("AXI SRAM", 512 * _KIB, "data, bss, heap, stack: everything of the sketch")
_DTCM = Memory("DTCM", 127 * _KIB, "section .dtcm; left free")
_SDRAM = Memory("SDRAM", 8192 * _KIB, "through the core's SDRAM library; left free")
# The driver behind Giga and Nicla decimates a clock of 2 MHz by whole numbers, and its amplitude
# goes with the square of that number: at 48 kHz (41, so really 48.78 kHz) it is 19 dB below that at
# 16 kHz, at 8 kHz (250) 12 dB above it. A step of 3 shifts by one bit, 6 dB; its own value is 9.
_DFSDM_GAIN = {48_000: 18, 8_000: 3}

BOARDS = (
    Board(
        "portenta_h7_m7",
        "Arduino Portenta H7",
        768 * _KIB,
        512 * _KIB,
        _STM32H747_NOTE,
        clock_hz=480_000_000,
        platform="ststm32",
        fqbn="arduino:mbed_portenta:envie_m7",
        macros=("ARDUINO_PORTENTA_H7_M7",),
        memories=(_AXI, _DTCM, _SDRAM),
        microphone=Microphone("on the Portenta Vision Shield", {}),
    ),
    Board(
        "giga_r1_m7",
        "Arduino Giga R1",
        768 * _KIB,
        512 * _KIB,
        _STM32H747_NOTE,
        clock_hz=480_000_000,
        platform="ststm32",
        fqbn="arduino:mbed_giga:giga",
        macros=("ARDUINO_GIGA",),
        memories=(_AXI, _DTCM, _SDRAM),
        microphone=Microphone("on the Giga Display Shield", _DFSDM_GAIN),
    ),
    Board(
        "nicla_vision",
        "Arduino Nicla Vision",
        768 * _KIB,
        512 * _KIB,
        _STM32H747_NOTE,
        clock_hz=480_000_000,
        platform="ststm32",
        fqbn="arduino:mbed_nicla:nicla_vision",
        macros=("ARDUINO_NICLA_VISION",),
        memories=(_AXI,),
        microphone=Microphone("on the board", _DFSDM_GAIN),
    ),
    Board(
        "teensy41",
        "Teensy 4.1",
        7936 * _KIB,
        512 * _KIB,
        "program flash; OCRAM",
        clock_hz=600_000_000,
        platform="teensy",
        fqbn="teensy:avr:teensy41",
        macros=("ARDUINO_TEENSY41",),
        memories=(
            Memory("OCRAM", 512 * _KIB, "DMAMEM: arena and window; the heap begins behind them"),
            Memory("ITCM and DTCM", 512 * _KIB, "code, data, constants without PROGMEM, stack"),
        ),
        arena_placement="DMAMEM",
        # What Teensy's core calls PROGMEM, without its headers.
        constant_placement='__attribute__((section(".progmem")))',
    ),
    Board(
        "nucleo_h743zi",
        "ST Nucleo-H743ZI2",
        2048 * _KIB,
        512 * _KIB,
        "both banks; AXI SRAM",
        clock_hz=480_000_000,
        platform="ststm32",
        fqbn="STMicroelectronics:stm32:Nucleo_144:pnum=NUCLEO_H743ZI2",
        macros=("ARDUINO_NUCLEO_H743ZI2", "ARDUINO_NUCLEO_H743ZI"),
        memories=(_AXI,),
    ),
)


def fits(board: Board, *, flash_bytes: int, ram_bytes: int) -> bool:
    """Whether a model of ``flash_bytes`` with an arena of ``ram_bytes`` fits a board.

    The firmware's own code and data are not counted.
    """
    return flash_bytes <= board.flash_bytes and ram_bytes <= board.ram_bytes


def find_board(name: str) -> Board:
    """Return the board with this name.

    Parameters
    ----------
    name : str
        PlatformIO's name of the board.

    Raises
    ------
    EdgeL3Error
        If no board has this name.
    """
    for board in BOARDS:
        if board.name == name:
            return board
    known = ", ".join(board.name for board in BOARDS)
    raise EdgeL3Error(f"unknown board {name!r}: expected one of {known}")
