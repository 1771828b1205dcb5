"""Writes models as sources and headers for firmware projects.

The flatbuffer becomes C++ for TensorFlow Lite Micro (TFLM). The packed model becomes C99, which C++
compilers accept too, for the library ``edgel3``. A project needs one of the two pairs; both headers
contain the same constants of frontend, input and output. A third pair contains the tables of the
library's frontend, for both kinds of project.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.log_mel import DYNAMIC_RANGE_DB, FrontendTables
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.device.footprint import count_levels_bytes
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.networks.variants import FrontendSpec, Variant
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.tensors import TensorSpec

SOURCE_NAME = "edgel3_model.cc"
HEADER_NAME = "edgel3_model.h"
PACKED_SOURCE_NAME = "edgel3_packed_model.c"
PACKED_HEADER_NAME = "edgel3_packed_model.h"
TFLM_HEADER_NAME = "edgel3_tflm_model.h"
FRONTEND_SOURCE_NAME = "edgel3_model_frontend.c"
FRONTEND_HEADER_NAME = "edgel3_model_frontend.h"
_BYTES_PER_LINE = 16
_NUMBERS_PER_LINE = 6
ARENA_HEADROOM_BYTES = 2048
"""Scratch memory that optimised kernels need in addition to the host's reference kernels: the
im2col rows of CMSIS-NN and their alignment to 16 bytes."""


def _write_bytes(data: bytes) -> str:
    table = [f"0x{value:02x}," for value in range(256)]
    return "\n".join(
        "".join(table[value] for value in data[start : start + _BYTES_PER_LINE])
        for start in range(0, len(data), _BYTES_PER_LINE)
    )


def write_source(model: bytes, banner: str) -> str:
    """Return the .cc file of a flatbuffer: a constant array."""
    return f"""{banner}
#include "{HEADER_NAME}"

alignas(16)
{_write_placements()}const unsigned char edgel3_model[EDGEL3_MODEL_BYTES] = {{
{_write_bytes(model)}
}};
"""


def _write_placements() -> str:
    """Return C lines that keep the next constant in flash where constants are copied to RAM."""
    return "".join(
        f"#if {' || '.join(f'defined({macro})' for macro in board.macros)}\n"
        f"{board.constant_placement}\n"
        "#endif\n"
        for board in BOARDS
        if board.constant_placement
    )


def write_packed_source(blob: bytes, banner: str) -> str:
    """Return the .c file of a packed model: a constant array."""
    return f"""{banner}
#include "{PACKED_HEADER_NAME}"

// C99 has no word for alignment; GCC, Clang and the compilers for Arm share this one.
__attribute__((aligned(16)))
{_write_placements()}const unsigned char edgel3_packed_model[EDGEL3_PACKED_MODEL_BYTES] = {{
{_write_bytes(blob)}
}};
"""


def write_header(
    banner: str,
    constants: str,
    *,
    model_bytes: int,
    arena_bytes: int | None,
    arena_source: str = "on TFLM's host build",
) -> str:
    """Return the .h file of a flatbuffer: its size, its arena, and the constants.

    Parameters
    ----------
    banner : str
        From :func:`write_banner`.
    constants : str
        From :func:`write_constants`.
    model_bytes : int
    arena_bytes : int, optional
        None if it is unknown: the header then lacks the arena.
    arena_source : str
        End of the comment that states what ``arena_bytes`` was measured on.
    """
    arena = "// Tensor arena: not measured, because tflite-micro is not installed.\n"
    if arena_bytes is not None:
        arena = f"""\
// Tensor arena: {arena_bytes} bytes {arena_source}, plus {ARENA_HEADROOM_BYTES} for the
// scratch buffers of optimised kernels.
#define EDGEL3_MODEL_ARENA_BYTES {arena_bytes + ARENA_HEADROOM_BYTES}
"""
    return f"""{banner}
#ifndef EDGEL3_MODEL_H_
#define EDGEL3_MODEL_H_

// The flatbuffer, 16-byte aligned. Put it where the board keeps constants (flash).
#define EDGEL3_MODEL_BYTES {model_bytes}
extern const unsigned char edgel3_model[EDGEL3_MODEL_BYTES];

{arena}
{constants}
#endif  // EDGEL3_MODEL_H_
"""


def write_packed_header(
    banner: str,
    constants: str,
    *,
    blob_bytes: int,
    arena_bytes: int,
    fast_arena_bytes: int,
    self_test_crc32: int,
) -> str:
    """Return the .h file of a packed model: its size, arenas, self-test and the constants.

    Parameters
    ----------
    banner : str
        From :func:`write_banner`.
    constants : str
        From :func:`write_constants`.
    blob_bytes : int
    arena_bytes, fast_arena_bytes : int
        The least arena, and that of the fastest kernels of a Cortex-M7.
    self_test_crc32 : int
        CRC-32 of the embedding of the self-test's window.
    """
    return f"""{banner}
#ifndef EDGEL3_PACKED_MODEL_H_
#define EDGEL3_PACKED_MODEL_H_

#ifdef __cplusplus
extern "C" {{
#endif

// The packed model, 16-byte aligned, for edgel3_open(). Put it where the board keeps constants
// (flash).
#define EDGEL3_PACKED_MODEL_BYTES {blob_bytes}
extern const unsigned char edgel3_packed_model[EDGEL3_PACKED_MODEL_BYTES];

// The least arena on a microcontroller. Elsewhere kernels may need more: ask edgel3_arena_bytes().
#define EDGEL3_PACKED_MODEL_ARENA_BYTES {arena_bytes}
// With this arena the engine uses its fastest kernels on a Cortex-M7.
#define EDGEL3_PACKED_MODEL_FAST_ARENA_BYTES {fast_arena_bytes}

// CRC-32 of the embedding that the reference kernels give for the window of a node's self-test.
#define EDGEL3_PACKED_MODEL_SELF_TEST_CRC32 0x{self_test_crc32:08x}u

{constants}
#ifdef __cplusplus
}}
#endif

#endif  // EDGEL3_PACKED_MODEL_H_
"""


def write_tflm_header(
    banner: str,
    *,
    engine: str,
    arena_bytes: int,
    fast_arena_bytes: int,
    window_bytes: int,
    source_sha256: str,
    self_test_crc32: str,
    opens_ears: bool,
) -> str:
    """Return the .h file for a node that runs the flatbuffer in TFLM's interpreter.

    Parameters
    ----------
    banner : str
        From :func:`write_banner`.
    engine : str
        Name of the engine in ``edgel3_node_tflm.h`` that runs the flatbuffer.
    arena_bytes, fast_arena_bytes : int
        Size of the arena of the node's model: the least one, and that of the fastest kernels of a
        Cortex-M7.
    window_bytes : int
        Size of the other memory of the node's model.
    source_sha256 : str
        Digest of the dense flatbuffer, in hexadecimal.
    self_test_crc32 : str
        The number in the packed model's header, as C.
    opens_ears : bool
        Whether the engine lets the node hear while the network runs.
    """
    closed = """
// TFLM's own kernels cannot be interrupted, so the node does not hear while the network runs.
#ifndef EDGEL3_NODE_OPENS_EARS
#define EDGEL3_NODE_OPENS_EARS 0
#endif
"""
    half = ", ".join(f"0x{value:02x}" for value in bytes.fromhex(source_sha256)[:16])
    return f"""{banner}
#ifndef EDGEL3_TFLM_MODEL_H_
#define EDGEL3_TFLM_MODEL_H_

#include <stdint.h>

#include "{HEADER_NAME}"

#define EDGEL3_TFLM_MODEL_ENGINE {engine}

// Memory of the node's engine, which edgel3_node_tflm.h describes.
#define EDGEL3_TFLM_MODEL_ARENA_BYTES {arena_bytes}
#define EDGEL3_TFLM_MODEL_FAST_ARENA_BYTES {fast_arena_bytes}
#define EDGEL3_TFLM_MODEL_WINDOW_BYTES {window_bytes}
{"" if opens_ears else closed}
// CRC-32 of the embedding that the reference kernels give for the window of a node's self-test.
#define EDGEL3_TFLM_MODEL_SELF_TEST_CRC32 {self_test_crc32}

// First half of the SHA-256 of the dense flatbuffer.
static const uint8_t edgel3_tflm_model_source[16] = {{{half}}};

#endif  // EDGEL3_TFLM_MODEL_H_
"""


def write_constants(
    variant: Variant, input_map: InputMap, input_spec: TensorSpec, output_spec: TensorSpec
) -> str:
    """Return the constants of both headers: frontend, input and output.

    A source file may include both headers, because C and C++ allow equal definitions of a macro.
    """
    spec = variant.frontend
    factor, offset = input_map.steps(input_spec)
    element = "int8_t" if input_spec.dtype.itemsize == 1 else "int16_t"
    return f"""\
// Frontend: one second of mono audio to log-mel decibels in [-{DYNAMIC_RANGE_DB:g}, 0].
#define EDGEL3_MODEL_SAMPLE_RATE_HZ {spec.sample_rate_hz}
#define EDGEL3_MODEL_WINDOW_SAMPLES {spec.window_samples}
#define EDGEL3_MODEL_DFT_SAMPLES {spec.dft_samples}
#define EDGEL3_MODEL_HOP_SAMPLES {spec.hop_samples}
#define EDGEL3_MODEL_DYNAMIC_RANGE_DB {DYNAMIC_RANGE_DB:.1f}f

// Input: {element} [mel][frame], floor(decibels * FACTOR + OFFSET + 0.5f), clamped to the type.
// The network's input BatchNorm is part of these two constants.
#define EDGEL3_MODEL_MELS {spec.mels}
#define EDGEL3_MODEL_FRAMES {spec.frames}
#define EDGEL3_MODEL_INPUT_FACTOR {factor:.9e}f
#define EDGEL3_MODEL_INPUT_OFFSET {offset:.9e}f

// Output: {element} [EDGEL3_MODEL_EMBEDDING_SIZE], value = SCALE * (q - ZERO_POINT).
#define EDGEL3_MODEL_EMBEDDING_SIZE {variant.embedding_size}
#define EDGEL3_MODEL_OUTPUT_SCALE {output_spec.scale:.9e}f
#define EDGEL3_MODEL_OUTPUT_ZERO_POINT {output_spec.zero_point}
"""


def write_float(value: np.floating[Any] | float) -> str:
    """Return a C literal of a float32. Nine digits are enough to restore the same float32."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _write_table(kind: str, name: str, values: npt.NDArray[Any]) -> str:
    numbers = [write_float(value) if kind == "float" else str(value) for value in values]
    lines = (
        " ".join(f"{number}," for number in numbers[start : start + _NUMBERS_PER_LINE])
        for start in range(0, len(numbers), _NUMBERS_PER_LINE)
    )
    return f"static const {kind} {name}[{len(numbers)}] = {{\n" + "\n".join(lines) + "\n};\n"


def write_frontend_source(
    spec: FrontendSpec, input_map: InputMap, input_spec: TensorSpec, banner: str
) -> str:
    """Return the .c file of the frontend: its tables and its configuration."""
    tables = FrontendTables.of(spec)
    factor, offset = input_map.steps(input_spec)
    # The header declares the constant, because undeclared constants have internal linkage in C++.
    return f"""{banner}
#include "{FRONTEND_HEADER_NAME}"

{_write_table("float", "window", tables.window)}
{_write_table("float", "cosines", tables.cosines)}
{_write_table("uint16_t", "mel_first", tables.mel_first)}
{_write_table("uint16_t", "mel_count", tables.mel_count)}
{_write_table("float", "mel_weights", tables.mel_weights)}
const edgel3_frontend_config edgel3_model_frontend = {{
    {spec.sample_rate_hz},  // sample_rate_hz
    {spec.window_samples},  // window_samples
    {spec.dft_samples},  // dft_samples
    {spec.hop_samples},  // hop_samples
    {spec.mels},  // mels
    {spec.frames},  // frames
    {write_float(DYNAMIC_RANGE_DB)},  // dynamic_range_db
    {write_float(factor)},  // input_factor
    {write_float(offset)},  // input_offset
    window,
    cosines,
    mel_first,
    mel_count,
    mel_weights,
}};
"""


def write_frontend_header(spec: FrontendSpec, banner: str) -> str:
    """Return the .h file of the frontend: the memory that it needs, and its declaration."""
    return f"""{banner}
#ifndef EDGEL3_MODEL_FRONTEND_H_
#define EDGEL3_MODEL_FRONTEND_H_

#include "edgel3_frontend.h"

#ifdef __cplusplus
extern "C" {{
#endif

// For edgel3_frontend_open(), which needs this much memory: the levels; spectrum and ring together.
#define EDGEL3_MODEL_FRONTEND_LEVELS_BYTES {count_levels_bytes(spec)}
#define EDGEL3_MODEL_FRONTEND_WORK_BYTES EDGEL3_FRONTEND_WORK_BYTES({spec.dft_samples}u)
extern const edgel3_frontend_config edgel3_model_frontend;

#ifdef __cplusplus
}}
#endif

#endif  // EDGEL3_MODEL_FRONTEND_H_
"""


def write_banner(model: bytes, variant: Variant, description: str) -> str:
    """Return the comment at the top of a file: its generator, network, model digest and weights."""
    # The description may contain the user's file names, which must neither end nor extend the
    # comment.
    safe = description.encode("ascii", "backslashreplace").decode().replace("\\", "/")
    safe = "".join(character if character.isprintable() else "?" for character in safe)
    return (
        f"// Generated by edgel3-tflm {__version__}; do not edit.\n"
        f"// Network: {variant.name}. Model SHA-256: {sha256_hex(model)}\n"
        f"// Weights: {safe}"
    )
