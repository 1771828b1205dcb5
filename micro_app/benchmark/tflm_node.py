"""Measures a node whose network runs in TensorFlow Lite Micro (TFLM), on the emulated Cortex-M7.

The node is the one that ``export-app --runtime tflm`` writes. It needs a build of TFLM for the
Cortex-M7, which this project does not contain.
"""

import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cycles import build_plugin, cost, read_sections
from emulator import EmulatorError

from edgel3_tflm.converters.export.app import LIBRARY_FOLDER, export_app
from edgel3_tflm.converters.export.board_files import SKETCH_NAME
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.device.elf import read_firmware_sizes
from edgel3_tflm.device.emulation import INSTRUCTIONS_PER_TICK, Emulator
from edgel3_tflm.device.firmware import build_node, find_tool, run_tool
from edgel3_tflm.runtime.deployment import Deployment


def find_tflm() -> tuple[str, ...] | None:
    """Return CMake's options for a build of TFLM, or None if the environment names none.

    EDGEL3_TFLM_INCLUDE contains the folders of TFLM's headers and of its third parties,
    EDGEL3_TFLM_LIB the library.
    """
    includes, library = (os.environ.get(f"EDGEL3_TFLM_{name}") for name in ("INCLUDE", "LIB"))
    if not includes or not library:
        return None
    folders = ";".join(includes.split(os.pathsep))
    return f"-DEDGEL3_TFLM_INCLUDE={folders}", f"-DEDGEL3_TFLM_LIBRARY={library}"


def measure_node(
    deployment: Deployment,
    directory: Path,
    windows: npt.NDArray[np.int8],
    expected: npt.NDArray[np.int8],
    tflm: tuple[str, ...],
) -> dict[str, Any]:
    """Return memory, instructions and modelled cycles of the node.

    Parameters
    ----------
    deployment : Deployment
    directory : pathlib.Path
        Directory for the project and its build.
    windows : numpy.ndarray, shape (n, rows, columns), int8
    expected : numpy.ndarray, shape (n, values), int8
        The reference kernels' embeddings of the windows.
    tflm : tuple of str
        From :func:`find_tflm`.

    Raises
    ------
    EmulatorError
        If a byte of an embedding differs.
    """
    app = export_app(deployment, BOARDS[0], directory / "app", engine="tflm").directory
    firmware = build_node(app / SKETCH_NAME / LIBRARY_FOLDER, directory / "node", options=tflm)
    # The node reads its timer before and after each run of the network.
    symbols = run_tool([find_tool("arm-none-eabi-nm"), firmware]).splitlines()
    (mark,) = (line.split()[0] for line in symbols if line.endswith(" t read_ticks"))
    blocks = directory / "node-blocks.txt"
    plugin = f"file={build_plugin(directory)},mark={mark},out={blocks}"
    instructions = []
    with (
        Emulator(firmware, options=("-plugin", plugin)) as emulator,
        emulator.open_device() as device,
    ):
        for window, embedding in zip(windows, expected, strict=True):
            differing = int((device.embed_log_mel(window) != embedding).sum())
            if differing:
                raise EmulatorError(
                    f"{deployment.variant.name}, TFLM: expected the reference kernels' bytes,"
                    f" {differing} of {embedding.size} differ"
                )
            instructions.append(device.statistics().engine_ticks * INSTRUCTIONS_PER_TICK)
    sections = read_sections(blocks)
    if len(sections) != 2 * len(windows) + 1:
        raise EmulatorError(f"expected {len(windows)} windows in {blocks}, found {len(sections)}")
    cycles = [cost(section).cycles for section in sections[1::2]]
    sizes = read_firmware_sizes(firmware)
    return {
        "instructions": instructions,
        "instructions_median": statistics.median(instructions),
        "cycles": cycles,
        "cycles_median": statistics.median(cycles),
        "arena_bytes": sizes.variables["arena"],
        "window_bytes": sizes.variables["window"],
        "flash_bytes": sizes.constant + sizes.initialized,
        "ram_bytes": sizes.initialized + sizes.zeroed,
    }


def describe_node(figures: dict[str, Any]) -> str:
    """Return the figures of a node as text."""
    return (
        f"  in TFLM, the whole node: flash {figures['flash_bytes']:,} bytes, RAM"
        f" {figures['ram_bytes']:,} bytes (arena {figures['arena_bytes']:,}), the same bytes;"
        f" median {figures['instructions_median'] / 1e6:,.1f} M instructions,"
        f" {figures['cycles_median'] / 1e6:,.1f} M modelled cycles"
    )
