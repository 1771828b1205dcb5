"""The emulated Cortex-M7: builds the benchmark's firmware, runs jobs on it, reads the answers."""

import importlib.util
import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cycles import CORRECTIONS, MODEL, Cost, build_plugin, cost, read_sections

from edgel3_tflm.device.firmware import COMPILER, QEMU, find_tool, run_tool
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.packed import (
    PackedConvolution,
    Pooling,
    read_packed,
    round_up,
    unpack_kernel,
)

METHOD = "instructions counted by QEMU -icount shift=0, in steps of 40; not cycles"
MACHINE = "mps2-an500"

_HERE = Path(__file__).resolve().parent
_BOARD = _HERE.parent / "boards" / "mps2_an500"
_ENGINE = _HERE.parent / "lib" / "edgel3" / "src"

_PROCESSOR = ("-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-d16", "-mfloat-abi=hard")
FLAGS = (*_PROCESSOR, "-O3", "-ffunction-sections", "-fdata-sections")
_ENGINE_WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_DRIVER_WARNINGS = ("-std=gnu99", "-Wall", "-Wextra", "-Werror")

_ENGINE_SOURCES = (
    "edgel3_engine.c",
    "edgel3_kernels.c",
    "edgel3_kernels_m7.c",
    "edgel3_loops_m7.S",
    "edgel3_packed.c",
    "edgel3_pairs_m7.c",
    "edgel3_pair_loops_m7.S",
    "edgel3_words_m7.c",
    "edgel3_word_lists_m7.S",
    "edgel3_word_loops_m7.S",
)
# The sources of CMSIS-NN that a 3x3 convolution and a maximum pool need.
_CMSIS_NN_SOURCES = (
    "ConvolutionFunctions/arm_convolve_wrapper_s8.c",
    "ConvolutionFunctions/arm_convolve_1_x_n_s8.c",
    "ConvolutionFunctions/arm_convolve_1x1_s8.c",
    "ConvolutionFunctions/arm_convolve_1x1_s8_fast.c",
    "ConvolutionFunctions/arm_convolve_s8.c",
    "ConvolutionFunctions/arm_nn_mat_mult_kernel_s8_s16.c",
    "ConvolutionFunctions/arm_nn_mat_mult_s8.c",
    "NNSupportFunctions/arm_nn_mat_mul_core_1x_s8.c",
    "NNSupportFunctions/arm_nn_mat_mul_core_4x_s8.c",
    "NNSupportFunctions/arm_nn_mat_mult_nt_t_s8.c",
    "NNSupportFunctions/arm_q7_to_q15_with_offset.c",
    "PoolingFunctions/arm_max_pool_s8.c",
)

# Equal to the definitions in jobs.h.
_JOBS_ADDRESS = 0x60000000
_MEMORY_BYTES = 16 * 1024 * 1024
_TABLE_BYTES = 64 * 1024
_MAGIC = b"EL3J"
_JOB = struct.Struct("<8Ii")
_LAYER = struct.Struct("<4I4i10I")
_ENGINE_JOB, _DENSE_JOB, _OVERFLOW_JOB = 1, 2, 3
_LEAST_ARENA = 0x100
_NO_DAMAGE = -(2**31)
_ALIGNMENT = 16


class EmulatorError(EdgeL3Error):
    """The firmware cannot be built, crashes, hangs or refuses a job."""


@dataclass(frozen=True)
class Firmware:
    """The program for the emulated board, and what the host must know about it.

    Parameters
    ----------
    elf : pathlib.Path
    code_bytes : dict of str to int
        Size of code and constants of each part.
    mark : int
        Address of the function that main.c calls before and after every window.
    plugin : pathlib.Path
        QEMU's plugin for the cycle model.
    """

    elf: Path
    code_bytes: dict[str, int]
    mark: int
    plugin: Path


@dataclass(frozen=True)
class Answer:
    """The answer to a job: figures of each window, of the whole job, and modelled cycles."""

    windows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)

    def outputs(self) -> npt.NDArray[np.int8]:
        """Return the embeddings, shape (windows, values), int8."""
        rows = [bytes.fromhex(window["output"]) for window in self.windows]
        return np.stack([np.frombuffer(row, np.int8) for row in rows])

    def instructions(self) -> list[int]:
        """Return the number of instructions of each window."""
        return [window["instructions"] for window in self.windows]


@dataclass(frozen=True)
class DensePlan:
    """The memory that a dense network needs on CMSIS-NN: two maps, scratch and constants."""

    map_bytes: int
    scratch_bytes: int
    model_bytes: int

    @property
    def arena_bytes(self) -> int:
        """Total of maps and scratch."""
        return self.map_bytes + self.scratch_bytes


def plan_dense(packed: bytes) -> DensePlan:
    """Return the memory that the dense network of a packed model needs on CMSIS-NN."""
    maps, scratch, model = [0], 0, 0
    for conv in read_packed(packed).convolutions:
        output = conv.rows * conv.columns * conv.output_channels
        maps.append(conv.rows * conv.columns * conv.input_channels + output)
        maps.append(output + _pooled_bytes(conv))
        # arm_convolve_s8_get_buffer_size: two columns of int16
        scratch = max(scratch, 4 * conv.taps_per_channel)
        # bias, multiplier and shift are int32
        model += conv.output_channels * (conv.taps_per_channel + 12)
    return DensePlan(round_up(max(maps), _ALIGNMENT), round_up(scratch, _ALIGNMENT), model)


def _pooled_bytes(conv: PackedConvolution) -> int:
    """Return the bytes of a pool's output; 0 without a pool."""
    if conv.pooling == Pooling.NONE:
        return 0
    pixels = 1 if conv.pooling == Pooling.GLOBAL else (conv.rows // 2) * (conv.columns // 2)
    return pixels * conv.output_channels


class Jobs:
    """A list of jobs for the emulated board.

    Each ``add`` method adds one job. Windows have shape (n, rows, columns), int8.
    """

    def __init__(self) -> None:
        self.window_counts: list[int] = []
        self._records: list[bytes] = []
        self._data = bytearray()
        self._arena_bytes = 0

    def add_engine(
        self,
        packed: bytes,
        windows: npt.NDArray[np.int8],
        *,
        portable: bool = False,
        least_arena: bool = False,
        damage: int = _NO_DAMAGE,
        model_address: int | None = None,
    ) -> None:
        """Add a job: the engine runs a packed model on windows.

        Parameters
        ----------
        packed : bytes
        windows : numpy.ndarray, shape (n, rows, columns), int8
        portable : bool
            Use the C99 kernels instead of the fastest ones.
        least_arena : bool
            Give the engine the arena of the C99 kernels.
        damage : int
            After the run, change the byte at this distance from the arena's end, to test the check.
        model_address : int, optional
            Read the model from this address, to provoke a fault.
        """
        # The engine must work with a model that is aligned to 4 bytes only.
        address = self._add_data(bytes(4) + packed) + 4
        self._add_job(
            _ENGINE_JOB,
            model_address or address,
            len(packed),
            windows,
            read_packed(packed).embedding_size,
            int(portable) | (_LEAST_ARENA if least_arena else 0),
            damage,
        )

    def add_dense(self, packed: bytes, windows: npt.NDArray[np.int8]) -> None:
        """Add a job: CMSIS-NN runs the dense network of a packed model on windows."""
        model, plan = read_packed(packed), plan_dense(packed)
        self._arena_bytes = max(self._arena_bytes, plan.arena_bytes)
        # Maps are placed alternately at the start and at the end of their memory. Scratch follows.
        end = _JOBS_ADDRESS + _MEMORY_BYTES - plan.scratch_bytes
        start = end - plan.map_bytes
        at_start, current = True, start

        def place(size: int) -> int:
            nonlocal at_start
            at_start = not at_start
            return start if at_start else end - size

        layers = b""
        for conv in model.convolutions:
            kernel = unpack_kernel(conv)
            # The packed bias is for inputs from which -128 was subtracted.
            sums = kernel.sum((1, 2, 3), dtype=np.int64)
            bias = conv.bias + sums * (conv.input_zero_point + 128)
            output = place(conv.rows * conv.columns * conv.output_channels)
            pooled = output if conv.pooling == Pooling.NONE else place(_pooled_bytes(conv))
            layers += _LAYER.pack(
                conv.rows,
                conv.columns,
                conv.input_channels,
                conv.output_channels,
                -conv.input_zero_point,
                conv.output_zero_point,
                conv.lower_clamp,
                conv.upper_clamp,
                conv.pooling,
                self._add_data(kernel.tobytes()),
                *(
                    self._add_data(column.astype("<i4").tobytes())
                    for column in (bias, conv.multiplier, conv.shift)
                ),
                *(current, output, pooled, end, plan.scratch_bytes),
            )
            current = pooled
        count = len(model.convolutions)
        self._add_job(_DENSE_JOB, self._add_data(layers), count, windows, model.embedding_size)

    def add_overflow(self) -> None:
        """Add a job that overflows the stack, to test the check."""
        self._add_job(_OVERFLOW_JOB, 0, 0, np.empty((0, 1, 1), np.int8), 0)

    def _add_job(
        self,
        kind: int,
        model: int,
        model_size: int,
        windows: npt.NDArray[np.int8],
        output_bytes: int,
        kernels: int = 0,
        damage: int = _NO_DAMAGE,
    ) -> None:
        self.window_counts.append(len(windows))
        self._records.append(
            _JOB.pack(
                kind,
                model,
                model_size,
                self._add_data(np.ascontiguousarray(windows).tobytes()),
                len(windows),
                windows.shape[1] * windows.shape[2],
                output_bytes,
                kernels,
                damage,
            )
        )

    def _add_data(self, data: bytes) -> int:
        """Append data and return its address on the board."""
        address = _JOBS_ADDRESS + _TABLE_BYTES + len(self._data)
        self._data += data + bytes(-len(data) % _ALIGNMENT)
        return address

    def image(self) -> bytes:
        """Return the jobs in the format of jobs.h."""
        table = struct.pack("<4sI", _MAGIC, len(self._records)) + b"".join(self._records)
        needed = _TABLE_BYTES + len(self._data) + self._arena_bytes
        if len(table) > _TABLE_BYTES or needed > _MEMORY_BYTES:
            raise EmulatorError(
                f"expected jobs of at most {_TABLE_BYTES} bytes and memory of at most"
                f" {_MEMORY_BYTES} bytes, got {len(table)} and {needed}; run fewer windows"
            )
        return table.ljust(_TABLE_BYTES, b"\0") + self._data


def build(directory: Path) -> Firmware:
    """Compile and link board, engine, CMSIS-NN and driver in a directory.

    Raises
    ------
    ToolError
        If the compiler is missing or fails.
    EmulatorError
        If the sources of CMSIS-NN are missing.
    """
    compiler = find_tool(COMPILER)
    cmsis = _find_cmsis_nn()
    board = ("-I", str(_BOARD))
    engine = ("-I", str(_ENGINE))
    includes = [cmsis / "cmsis_nn" / "Include", cmsis / "cmsis_core" / "Include"]
    vendor = tuple(word for path in includes for word in ("-isystem", str(path)))
    parts: dict[str, tuple[list[Path], tuple[str, ...]]] = {
        "board": ([_BOARD / "board.c"], (*_DRIVER_WARNINGS, *board)),
        "edgel3": (
            [_ENGINE / source for source in _ENGINE_SOURCES],
            (*_ENGINE_WARNINGS, *engine),
        ),
        "cmsis_nn": (
            [cmsis / "cmsis_nn" / "Source" / source for source in _CMSIS_NN_SOURCES],
            ("-std=gnu99", *vendor),
        ),
        "driver": (
            [_HERE / "main.c", _HERE / "dense.c"],
            (*_DRIVER_WARNINGS, *board, *engine, *vendor),
        ),
    }
    objects: list[Path] = []
    for part, (sources, options) in parts.items():
        (directory / part).mkdir(parents=True, exist_ok=True)
        for source in sources:
            objects.append(directory / part / f"{source.name}.o")
            run_tool([compiler, *FLAGS, *options, "-c", source, "-o", objects[-1]])
    elf, linker_map = directory / "benchmark.elf", directory / "benchmark.map"
    # main.c explains why this function is wrapped.
    linking = ("-Wl,--gc-sections", "-Wl,--wrap=edgel3_begin_row", f"-Wl,-Map={linker_map}")
    script = _BOARD / "mps2_an500.ld"
    start = ("-nostartfiles", "--specs=nosys.specs", "-T", str(script))
    run_tool([compiler, *_PROCESSOR, *start, *linking, *objects, "-o", elf])
    linked = linker_map.read_text().partition("Linker script and memory map")[2]
    code_bytes = dict.fromkeys(parts, 0)
    for size, path in re.findall(
        r"^ \.(?:text|rodata|data)\S*\s+0x[0-9a-f]+\s+(0x[0-9a-f]+) (\S+)$", linked, re.MULTILINE
    ):
        if Path(path) in objects:
            code_bytes[Path(path).parent.name] += int(size, 16)
    found = re.search(r"^ \.text\.mark_window\s+(0x[0-9a-f]+)", linked, re.MULTILINE)
    if found is None:
        raise EmulatorError("expected the function mark_window in the firmware, found none")
    return Firmware(elf, code_bytes, int(found[1], 16), build_plugin(directory))


def run(
    firmware: Firmware,
    jobs: Jobs,
    directory: Path,
    timeout_s: float = 600,
    *,
    model_cycles: bool = False,
) -> list[Answer]:
    """Run the jobs on the emulated board and return an answer for each.

    With ``model_cycles``, the answers contain the modelled cycles of each window. The emulator then
    takes several times as long.

    Raises
    ------
    EmulatorError
        If the program refuses a job or leaves one out.
    ToolError
        If it crashes or does not end in time.
    """
    image = directory / "jobs.bin"
    image.write_bytes(jobs.image())
    blocks = directory / "blocks.txt"
    plugin = ("-plugin", f"file={firmware.plugin},mark={firmware.mark:x},out={blocks}")
    output = run_tool(
        [
            *(find_tool(QEMU), "-M", MACHINE, "-icount", "shift=0", "-display", "none"),
            *("-monitor", "none", "-serial", "none", "-chardev", "stdio,id=console"),
            *("-semihosting-config", "enable=on,target=native,chardev=console"),
            *("-device", f"loader,file={image},addr={_JOBS_ADDRESS:#x},force-raw=on"),
            *("-kernel", firmware.elf),
            *(plugin if model_cycles else ()),
        ],
        timeout_s=timeout_s,
    )
    answers = [Answer() for _ in jobs.window_counts]
    for line in output.splitlines():
        fields = json.loads(line)
        if "error" in fields:
            raise EmulatorError(f"job {fields['job']}: {fields['error']}")
        answer = answers[fields["job"]]
        if "window" in fields:
            answer.windows.append(fields)
        else:
            answer.summary.update(fields)
    found = [len(answer.windows) for answer in answers]
    if found != jobs.window_counts:
        raise EmulatorError(f"expected answers for {jobs.window_counts} windows, found {found}")
    if model_cycles:
        # A mark before and a mark after every window.
        sections = read_sections(blocks)
        if len(sections) != 2 * sum(found) + 1:
            raise EmulatorError(f"expected {sum(found)} windows in {blocks}, found {len(sections)}")
        costs = iter([cost(section) for section in sections[1::2]])
        for answer in answers:
            answer.costs.extend(next(costs) for _ in answer.windows)
    return answers


def describe_tools() -> dict[str, Any]:
    """Return the tools that a count depends on, with their versions, for JSON."""
    from bakenn.backend.cmsis_nn.bundle import CMSIS_NN_REVISION, CMSIS_NN_VERSION

    return {
        "machine": f"QEMU {MACHINE}, Cortex-M7",
        "qemu": run_tool([find_tool(QEMU), "--version"]).splitlines()[0],
        "compiler": run_tool([find_tool(COMPILER), "--version"]).splitlines()[0],
        "flags": " ".join(FLAGS),
        "cmsis_nn": f"{CMSIS_NN_VERSION} ({CMSIS_NN_REVISION})",
        "method": METHOD,
        "cycle_model": MODEL,
        "cycle_corrections": [f"{what} ({source})" for what, source in CORRECTIONS],
    }


def _find_cmsis_nn() -> Path:
    """Return the directory of CMSIS-NN and CMSIS-Core in the package bakenn."""
    spec = importlib.util.find_spec("bakenn")
    if spec is None or spec.origin is None:
        raise EmulatorError(
            "expected the package bakenn, which contains CMSIS-NN, found none; install the extra"
            " 'test'"
        )
    return Path(spec.origin).parent / "backend" / "cmsis_nn" / "vendor"
