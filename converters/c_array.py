"""Models as sources and headers that a firmware project compiles in.

The flatbuffer is C++, for TFLite Micro; the packed model is C99 that C++ compilers accept too, for
the library ``edgel3``. A project takes one of the pairs: both headers hold the same constants of
frontend, input and output.
"""

from edgel3_tflm import __version__
from edgel3_tflm.deployment import InputMap
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.frontend import DYNAMIC_RANGE_DB
from edgel3_tflm.interpreters import TensorSpec
from edgel3_tflm.variants import Variant

SOURCE_NAME = "edgel3_model.cc"
HEADER_NAME = "edgel3_model.h"
PACKED_SOURCE_NAME = "edgel3_packed_model.c"
PACKED_HEADER_NAME = "edgel3_packed_model.h"
_BYTES_PER_LINE = 16
# Scratch that optimised kernels ask for and the host's reference kernels do not: CMSIS-NN's
# im2col rows, and the slack of their 16-byte alignment.
_ARENA_HEADROOM_BYTES = 2048


def _write_bytes(data: bytes) -> str:
    table = [f"0x{value:02x}," for value in range(256)]
    return "\n".join(
        "".join(table[value] for value in data[start : start + _BYTES_PER_LINE])
        for start in range(0, len(data), _BYTES_PER_LINE)
    )


def write_source(model: bytes, banner: str) -> str:
    """Write the .cc file: the flatbuffer as a constant array."""
    return f"""{banner}
#include "{HEADER_NAME}"

alignas(16) const unsigned char edgel3_model[EDGEL3_MODEL_BYTES] = {{
{_write_bytes(model)}
}};
"""


def write_packed_source(blob: bytes, banner: str) -> str:
    """Write the .c file: the packed model as a constant array."""
    return f"""{banner}
#include "{PACKED_HEADER_NAME}"

// C99 has no word for alignment; GCC, Clang and the compilers for Arm share this one.
__attribute__((aligned(16)))
const unsigned char edgel3_packed_model[EDGEL3_PACKED_MODEL_BYTES] = {{
{_write_bytes(blob)}
}};
"""


def write_header(banner: str, constants: str, *, model_bytes: int, arena_bytes: int) -> str:
    """Write the .h file of the flatbuffer: size, arena hint and what ``write_constants`` gave."""
    return f"""{banner}
#ifndef EDGEL3_MODEL_H_
#define EDGEL3_MODEL_H_

// The flatbuffer, 16-byte aligned. Put it where the board keeps constants (flash).
#define EDGEL3_MODEL_BYTES {model_bytes}
extern const unsigned char edgel3_model[EDGEL3_MODEL_BYTES];

// Tensor arena: {arena_bytes} bytes on TFLM's host build, plus {_ARENA_HEADROOM_BYTES} for the
// scratch buffers of optimised kernels.
#define EDGEL3_MODEL_ARENA_BYTES {arena_bytes + _ARENA_HEADROOM_BYTES}

{constants}
#endif  // EDGEL3_MODEL_H_
"""


def write_packed_header(banner: str, constants: str, *, blob_bytes: int, arena_bytes: int) -> str:
    """Write the .h file of the packed model: size, arena and what ``write_constants`` gave."""
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

// What edgel3_arena_bytes() answers on a microcontroller. Elsewhere kernels may need more: ask it.
#define EDGEL3_PACKED_MODEL_ARENA_BYTES {arena_bytes}

{constants}
#ifdef __cplusplus
}}
#endif

#endif  // EDGEL3_PACKED_MODEL_H_
"""


def write_constants(
    variant: Variant, input_map: InputMap, input_spec: TensorSpec, output_spec: TensorSpec
) -> str:
    """Write the constants of both headers: frontend, input and output.

    A file that includes both sees each defined twice alike, which C and C++ allow.
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


def write_banner(model: bytes, variant: Variant, description: str) -> str:
    """Write the comment at the head of both files: what made them, from which model and weights."""
    # File names of the user's stand in the description: none may end or extend the comment.
    safe = description.encode("ascii", "backslashreplace").decode().replace("\\", "/")
    safe = "".join(character if character.isprintable() else "?" for character in safe)
    return (
        f"// Generated by edgel3-tflm {__version__}; do not edit.\n"
        f"// Network: {variant.name}. Model SHA-256: {sha256_hex(model)}\n"
        f"// Weights: {safe}"
    )
