"""Reads section sizes and objects from the ELF file of a firmware."""

from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

from edgel3_tflm.errors import ModelFileError

STACK_SECTION = ".stack"
"""Section of the emulated board's stack. On other boards the stack belongs to the Arduino core."""


@dataclass(frozen=True)
class FirmwareSizes:
    """Sizes in bytes of a firmware's loaded sections, and of its objects by name.

    Parameters
    ----------
    constant, initialized, zeroed : int
        Total size of read-only sections (flash), of writable sections with initial values (flash
        and RAM), and of writable sections that start as zeros (RAM), without the stack.
    constants, variables : dict of str to int
        Size of each object in a read-only section, and in a writable one.
    """

    constant: int
    initialized: int
    zeroed: int
    constants: dict[str, int]
    variables: dict[str, int]


def read_firmware_sizes(path: Path) -> FirmwareSizes:
    """Return the sizes in the ELF file of a firmware.

    Raises
    ------
    ModelFileError
        If the file cannot be read, or is not a whole ELF file for a 32-bit little-endian processor.
    """
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            if elf.elfclass != 32 or not elf.little_endian:
                raise ModelFileError(
                    f"{path}: expected a 32-bit little-endian ELF file, got a file for another"
                    " processor"
                )
            return _measure(list(elf.iter_sections()))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read: {error.strerror}") from error
    # Errors of pyelftools, and those that its code runs into when offsets or sizes are wrong.
    except (ELFError, ConstructError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path}: expected a whole 32-bit ELF file, it is cut, damaged or no ELF file ({error})"
        ) from error


def _kind(section: Section) -> str:
    if not section["sh_flags"] & SH_FLAGS.SHF_WRITE:
        return "constant"
    return "zeroed" if section["sh_type"] == "SHT_NOBITS" else "initialized"


def _measure(sections: list[Section]) -> FirmwareSizes:
    sizes = {"constant": 0, "initialized": 0, "zeroed": 0}
    for section in sections:
        if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section.name != STACK_SECTION:
            sizes[_kind(section)] += section["sh_size"]
    constants: dict[str, int] = {}
    variables: dict[str, int] = {}
    for table in sections:
        if not isinstance(table, SymbolTableSection):
            continue
        for symbol in table.iter_symbols():
            index = symbol["st_shndx"]
            # Names in place of an index stand for no section, such as SHN_UNDEF.
            if symbol["st_info"]["type"] == "STT_OBJECT" and isinstance(index, int):
                is_constant = _kind(sections[index]) == "constant"
                objects = constants if is_constant else variables
                objects[symbol.name] = symbol["st_size"]
    return FirmwareSizes(**sizes, constants=constants, variables=variables)
