"""The boards: their memories, clocks and microphones. No other module holds these facts.

:mod:`edgel3_tflm.converters.export.board_files` writes the sketch's ``edgel3_board.h`` and
PlatformIO's ``platformio.ini`` from this list.
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
        What the board's Arduino core and the sketch store in it.
    placement : str
        C attribute that places a static array in it; '' if that is the default, or if the sketch
        does not use the memory.
    core_bytes : int
        Part of it that the Arduino core takes.
    """

    name: str
    size_bytes: int
    use: str
    placement: str = ""
    core_bytes: int = 0

    @property
    def budget_bytes(self) -> int:
        """Bytes of static memory that the application may use in it."""
        return self.size_bytes - self.core_bytes


@dataclass(frozen=True)
class Microphone:
    """A PDM microphone with a driver in the board's Arduino core.

    Parameters
    ----------
    where : str
        Where it is: on the board, or on which shield.
    gain : dict of int to int
        Argument of ``PDM.setGain`` by sample rate in Hz. At other rates the sketch keeps the
        driver's default.
    """

    where: str
    gain: dict[int, int]


@dataclass(frozen=True)
class Board:
    """A Cortex-M7 board.

    Parameters
    ----------
    name : str
        The board's id in PlatformIO.
    title : str
        The name that its maker uses.
    flash_bytes : int
        Flash that one firmware image can use under the board's default settings.
    ram_bytes : int
        Size of the first memory.
    note : str
        The settings and the memory that the two sizes are for.
    clock_hz : int
        Clock of the M7 core, as the Arduino core sets it.
    platform : str
        PlatformIO's platform, for platformio.ini.
    fqbn : str
        The fully qualified board name of the Arduino IDE and arduino-cli.
    macros : tuple of str
        Preprocessor macros. If any is defined, the code is compiled for this board.
    memories : tuple of Memory
        The arena is in the first one, and so is what ``ears_memory`` does not hold.
    core_ram_bytes : int
        Part of the first memory that the Arduino core takes with its USB and, where they are in
        that memory, heap and stack.
    ears_memory : Memory or None
        The memory with which the node hears while its network runs; None for the first one.
    model_memory : Memory or None
        Where the sketch copies the model at start, if it fits; None if the model stays in flash.
    constant_placement : str
        C attribute that keeps a constant in flash; '' if that is the default.
    microphone : Microphone or None
        None if audio comes from the host.
    can_sleep : bool
        Whether WFI ends at every interrupt of the core.
    platformio_options : tuple of str
        Further lines of the board's section in platformio.ini.
    core_flash_bytes : int
        Reserved for the core's code: an allowance, not a measurement.
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
    core_ram_bytes: int
    ears_memory: Memory | None = None
    model_memory: Memory | None = None
    constant_placement: str = ""
    microphone: Microphone | None = None
    can_sleep: bool = True
    platformio_options: tuple[str, ...] = ()
    core_flash_bytes: int = 256 * _KIB

    @property
    def ram_budget_bytes(self) -> int:
        """Bytes of static memory that the application may use in the first memory."""
        return self.ram_bytes - self.core_ram_bytes

    @property
    def flash_budget_bytes(self) -> int:
        """Bytes of flash that the application may use for model, tables, head and code."""
        return self.flash_bytes - self.core_flash_bytes


# The Mbed cores let the user divide the flash between the processor's two cores. The first entry
# of the menu is the default: half for the M7 on Portenta, all on Giga and Nicla. The bootloader
# takes some of it.
_HALF_FLASH_NOTE = "half of the flash, the core's default; AXI SRAM"
_ALL_FLASH_NOTE = "all of the flash, the core's default; AXI SRAM"
_ALL_FLASH_BYTES = 1_966_080
# PlatformIO's default is half of the flash on all three.
_ALL_FLASH_OPTIONS = (
    "board_build.arduino.flash_layout = 100_0",
    f"board_upload.maximum_size = {_ALL_FLASH_BYTES}",
)
# Static memory of whole sketches with the Mbed cores, their threads' stacks included: 65 kB for the
# Opta, 92 to 95 kB for others, as the Arduino IDE reports it.
_MBED_RAM_BYTES = 96 * _KIB
_AXI = Memory("AXI SRAM", 512 * _KIB, "data, bss, heap, stack: everything of the sketch")
# The core's linker script gives the section .dtcm all of the DTCM after the interrupt vectors. The
# core does not fill it at start. With its type in its name, the section takes no flash: GCC writes
# the name into the assembly as it is, and the rest of that line becomes a comment.
_DTCM = Memory(
    "DTCM",
    127 * _KIB,
    "section .dtcm: what open ears need",
    placement=r'__attribute__((section(".dtcm,\"aw\",%nobits @")))',
)
_SDRAM = Memory("SDRAM", 8192 * _KIB, "through the core's SDRAM library; left free")
# The driver of Giga and Nicla decimates a clock of 2 MHz by an integer, and its amplitude is
# proportional to the square of that integer. At 48 kHz (integer 41, which gives 48.78 kHz) the
# amplitude is 19 dB lower than at 16 kHz; at 8 kHz (integer 250) it is 12 dB higher. Raising the
# gain by 3 shifts the samples by one bit (6 dB). The driver's default gain is 9.
_DFSDM_GAIN = {48_000: 18, 8_000: 3}
# Measured in a linked sketch: 12,416 bytes of OCRAM for USB. The heap, which begins after them, is
# not used; the stack is in DTCM.
_OCRAM = Memory(
    "OCRAM",
    512 * _KIB,
    "DMAMEM: a copy of the model; the heap begins after it",
    placement="DMAMEM",
    core_bytes=16 * _KIB,
)

BOARDS = (
    Board(
        "portenta_h7_m7",
        "Arduino Portenta H7",
        768 * _KIB,
        512 * _KIB,
        _HALF_FLASH_NOTE,
        clock_hz=480_000_000,
        platform="ststm32",
        fqbn="arduino:mbed_portenta:envie_m7",
        macros=("ARDUINO_PORTENTA_H7_M7",),
        memories=(_AXI, _DTCM, _SDRAM),
        ears_memory=_DTCM,
        core_ram_bytes=_MBED_RAM_BYTES,
        microphone=Microphone("on the Portenta Vision Shield", {}),
    ),
    Board(
        "giga_r1_m7",
        "Arduino Giga R1",
        _ALL_FLASH_BYTES,
        512 * _KIB,
        _ALL_FLASH_NOTE,
        clock_hz=480_000_000,
        platform="ststm32",
        fqbn="arduino:mbed_giga:giga",
        macros=("ARDUINO_GIGA",),
        memories=(_AXI, _DTCM, _SDRAM),
        ears_memory=_DTCM,
        core_ram_bytes=_MBED_RAM_BYTES,
        microphone=Microphone("on the Giga Display Shield", _DFSDM_GAIN),
        platformio_options=_ALL_FLASH_OPTIONS,
    ),
    Board(
        "nicla_vision",
        "Arduino Nicla Vision",
        _ALL_FLASH_BYTES,
        512 * _KIB,
        _ALL_FLASH_NOTE,
        clock_hz=480_000_000,
        platform="ststm32",
        fqbn="arduino:mbed_nicla:nicla_vision",
        macros=("ARDUINO_NICLA_VISION",),
        memories=(_AXI,),
        core_ram_bytes=_MBED_RAM_BYTES,
        microphone=Microphone("on the board", _DFSDM_GAIN),
        platformio_options=_ALL_FLASH_OPTIONS,
    ),
    Board(
        "teensy41",
        "Teensy 4.1",
        7936 * _KIB,
        512 * _KIB,
        "program flash; DTCM",
        clock_hz=600_000_000,
        platform="teensy",
        fqbn="teensy:avr:teensy41",
        macros=("ARDUINO_TEENSY41",),
        memories=(
            Memory("ITCM and DTCM", 512 * _KIB, "code, data, arena, window, stack"),
            _OCRAM,
        ),
        # Measured in linked sketches: 38,000 bytes of code, with TFLM 78,560, so that ITCM takes 64
        # or 96 KiB (its step is 32 KiB), and 23,820 or 36,144 bytes of data beside the node's. The
        # rest is for the stack.
        core_ram_bytes=144 * _KIB,
        # The processor otherwise reads the model from flash for every window.
        model_memory=_OCRAM,
        # The expansion of PROGMEM in Teensy's core, so that its headers are not needed.
        constant_placement='__attribute__((section(".progmem")))',
        # In the low-power mode that the processor starts in, WFI stops SysTick, and with it the
        # time: the core does not change that mode.
        can_sleep=False,
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
        # Measured in a linked sketch: less than 1 kB of static memory. The core's linker script
        # asks for 1.5 kB of heap and stack at least; the emulated sketch has a stack of 16 KiB.
        core_ram_bytes=20 * _KIB,
    ),
)


def fits(board: Board, *, flash_bytes: int, ram_bytes: int) -> bool:
    """Whether a model of ``flash_bytes`` with an arena of ``ram_bytes`` fits a board.

    Code and data of the firmware itself are not counted.
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
