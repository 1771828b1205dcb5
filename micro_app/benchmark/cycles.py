"""Modelled cycles of a Cortex-M7: how often each basic block ran in QEMU, costed by llvm-mca.

A basic block is a sequence of instructions that is executed as a whole. The plugin ``blocks.c``
counts the executions. llvm-mca computes the cycles of a block from LLVM's scheduling model of the
core, as if the block ran in a loop. ``CORRECTIONS`` lists what this module adds to that model.

Not in the model: caches, waits for flash and RAM, mispredicted branches.
"""

import functools
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgel3_tflm.device.firmware import find_tool, run_tool
from edgel3_tflm.errors import EdgeL3Error

MODEL = (
    "llvm-mca 14 -mcpu=cortex-m7 of the blocks that QEMU executed; no caches, no waits for memory"
)
MEASUREMENTS = "github.com/jnk0le/random, pipeline cycle test/doc/cortex_m7.md (STM32H743)"
CORRECTIONS = (
    ("LDM, STM, PUSH and POP take a cycle for two registers, as LDRD and STRD do", MEASUREMENTS),
    ("an unaligned load takes 3 cycles more; QEMU counts those that occur", MEASUREMENTS),
    ("a predicted branch takes one slot; IT takes none", MEASUREMENTS),
    ("a block that QEMU ended at a page goes on in the next page", "QEMU's target/arm/cpu-param.h"),
)
"""Each correction of llvm-mca's model, and its source."""

_UNALIGNED_CYCLES = 3
_TARGET = ("-triple=thumbv7em-none-eabihf", "-mcpu=cortex-m7")
_MCA_TARGET = ("-mtriple=thumbv7em-none-eabihf", "-mcpu=cortex-m7")
_ASSEMBLER, _ANALYSER = "llvm-mc-14", "llvm-mca-14"
_ITERATIONS = 50
_PAGE_BYTES = 1024  # of memory, for QEMU, on a core without an MMU
# The other blocks, which are many and rarely run, are assumed to take as many cycles for an
# instruction as these.
_COSTED_SHARE = 0.995
_SEPARATOR = bytes.fromhex("fede")  # the instruction "trap", which no program contains
_WIDE_NOP = bytes.fromhex("aff30080")
_BRANCH = re.compile(
    r"(b|bl|blx|bx|cbz|cbnz|tbb|tbh|b(eq|ne|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le))(\.[nw])? "
)
_MULTIPLE = re.compile(r"(ldm|stm|push|pop)(?:ia|db)?(?:\.w)? (?:(\w+)(!)?, )?\{(.*)\}")
_OPPOSITES = (("eq", "ne"), ("hs", "lo"), ("mi", "pl"), ("vs", "vc"), ("hi", "ls"), ("ge", "lt"))
_INVERSE = {"gt": "le", "le": "gt"} | dict(_OPPOSITES) | {b: a for a, b in _OPPOSITES}


class CycleModelError(EdgeL3Error):
    """The tools gave output that the model cannot read."""


@dataclass(frozen=True)
class Executed:
    """A basic block of a section of the run: its code, its executions, its unaligned loads."""

    code: bytes
    executions: int
    unaligned: int


@dataclass(frozen=True)
class Cost:
    """Instructions and modelled cycles of a section of the run."""

    instructions: int
    cycles: int
    unaligned_loads: int


def build_plugin(directory: Path) -> Path:
    """Compile the plugin for QEMU in a directory and return its path.

    Raises
    ------
    ToolError
        If the compiler is missing or fails.
    """
    plugin = directory / "blocks.so"
    source = Path(__file__).with_name("blocks.c")
    flags = ("-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    run_tool([find_tool("gcc"), *flags, source, "-o", plugin])
    return plugin


def read_sections(path: Path) -> list[list[Executed]]:
    """Return the blocks of each section that the plugin wrote."""
    sections: list[list[tuple[int, Executed]]] = [[]]
    for line in path.read_text().splitlines():
        if line == "end":
            sections.append([])
            continue
        address, executions, unaligned, code = line.split()
        block = Executed(bytes.fromhex(code), int(executions), int(unaligned))
        sections[-1].append((int(address), block))
    return [_join_at_pages(section) for section in sections[:-1]]


def _join_at_pages(blocks: Iterable[tuple[int, Executed]]) -> list[Executed]:
    """Join the blocks that QEMU ended at a page although the core goes on in the next one.

    ``blocks`` are pairs of address and block. QEMU also makes a block of an instruction that
    extends into the next page.
    """
    joined: list[Executed] = []
    places: dict[tuple[int, int], int] = {}  # in `joined`, by address and executions
    for address, block in sorted(blocks, key=lambda pair: -pair[0]):
        end = address + len(block.code)
        place = places.pop((end, block.executions), None)
        if place is None or (end + 2) % _PAGE_BYTES > 4:
            place = len(joined)
            joined.append(block)
        else:
            rest = joined[place]
            unaligned = block.unaligned + rest.unaligned
            joined[place] = Executed(block.code + rest.code, block.executions, unaligned)
        places[address, block.executions] = place
    return joined


def cost(blocks: Sequence[Executed]) -> Cost:
    """Return the modelled cycles of a section.

    Raises
    ------
    ToolError
        If LLVM's tools are missing or fail.
    """
    executions: Counter[bytes] = Counter()
    for block in blocks:
        executions[block.code] += block.executions
    listings = _disassemble(executions)
    weights = {code: len(listings[code]) * count for code, count in executions.items()}
    total = sum(weights.values())
    costed, cycles = 0, 0.0
    for code in sorted(weights, key=lambda code: (-weights[code], code)):
        if costed >= _COSTED_SHARE * total:
            break
        costed += weights[code]
        cycles += executions[code] * _analyse(tuple(_for_analysis(listings[code])))
    unaligned = sum(block.unaligned for block in blocks)
    cycles = cycles * total / max(costed, 1) + _UNALIGNED_CYCLES * unaligned
    return Cost(total, round(cycles), unaligned)


def _disassemble(codes: Iterable[bytes]) -> dict[bytes, list[str]]:
    """Return the instructions of each block."""
    codes = list(codes)
    text = " ".join(f"0x{byte:02x}" for code in codes for byte in _whole(code) + _SEPARATOR)
    output = _run_llvm(_ASSEMBLER, ["--disassemble", *_TARGET], text)
    listings: list[list[str]] = [[]]
    for line in output.splitlines():
        instruction = " ".join(line.partition("@")[0].split())
        if instruction.startswith("trap"):
            listings.append([])
        elif instruction and not instruction.startswith("."):
            listings[-1].append(instruction)
    if len(listings) != len(codes) + 1:
        raise CycleModelError(
            f"expected {len(codes)} blocks from {_ASSEMBLER}, got {len(listings) - 1}"
        )
    return dict(zip(codes, listings, strict=False))


def _whole(code: bytes) -> bytes:
    """Return the code of a block, with NOP in place of its last instruction if that is cut.

    QEMU reports only the first half of an instruction that crosses the end of a page.
    """
    position = 0
    while position < len(code):
        start = position
        position += 4 if code[position + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
    return code if position == len(code) else code[:start] + _WIDE_NOP


def _for_analysis(listing: Sequence[str]) -> Iterable[str]:
    """Yield a block's instructions with the corrections."""
    conditions: list[str] = []
    for instruction in listing:
        if found := re.fullmatch(r"i(t[te]*) (\w+)", instruction):
            then = found[2]
            conditions = [then if each == "t" else _INVERSE[then] for each in found[1]]
            continue
        if conditions:
            name, _, operands = instruction.partition(" ")
            instruction = f"{name.replace(conditions.pop(0), '', 1)} {operands}"
        if _BRANCH.match(instruction):
            yield "b #0"
        elif found := _MULTIPLE.match(instruction):
            yield from _split(found[1], found[2] or "sp", found[4], bool(found[3] or not found[2]))
        else:
            yield instruction


def _split(name: str, base: str, registers: str, writes_back: bool) -> Iterable[str]:
    """Yield a load or a store for each two registers, and the change of the address."""
    single = "ldr" if name in ("ldm", "pop") else "str"
    left = [each for each in registers.split(", ") if each != "pc"]
    for offset in range(0, len(left), 2):
        pair = left[offset : offset + 2]
        double = "d" if len(pair) == 2 else ""
        yield f"{single}{double} {', '.join(pair)}, [{base}, #{4 * offset}]"
    if "pc" in registers:
        yield "b #0"
    if writes_back:
        yield f"add {base}, {base}, #4"


@functools.cache
def _analyse(instructions: tuple[str, ...]) -> float:
    """Return the cycles of a block."""
    text = "\n".join([".syntax unified", ".thumb", *instructions, ""])
    options = (f"-iterations={_ITERATIONS}", "-instruction-info=0", "-resource-pressure=0")
    output = _run_llvm(_ANALYSER, [*_MCA_TARGET, *options], text)
    found = re.search(r"^Total Cycles:\s+(\d+)$", output, re.MULTILINE)
    if found is None:
        raise CycleModelError(f"expected total cycles from {_ANALYSER}, got {output!r}")
    return int(found[1]) / _ITERATIONS


def _run_llvm(program: str, options: Sequence[str], text: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".s") as file:
        file.write(text)
        file.flush()
        return run_tool([find_tool(program), *options, file.name])
