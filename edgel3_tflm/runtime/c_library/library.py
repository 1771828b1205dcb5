"""The C library ``edgel3``, built for this machine as a Python extension."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.errors import EdgeL3Error, ModelFileError, RuntimeUnavailableError, install_hint
from edgel3_tflm.types import Int8Array

try:
    from edgel3_tflm._engine import ffi, lib
except ImportError as error:
    raise RuntimeUnavailableError(
        f"the runtime engine needs the C library edgel3, which this installation lacks ({error});"
        " install a C compiler, gcc or clang, and then edgel3-tflm again:"
        f" {install_hint(options='--force-reinstall --no-deps')}"
    ) from error

__all__ = ["allocate", "check", "ffi", "lib", "pointer"]

# A cache line, and the bytes that AVX-512 loads at once.
_ARENA_ALIGNMENT = 64

_MODEL_REMEDIES = {
    lib.EDGEL3_ERROR_TRUNCATED: "convert again",
    lib.EDGEL3_ERROR_MAGIC: "give it the packed.edgel3 of a deployment",
    lib.EDGEL3_ERROR_VERSION: "convert again, with this version of edgel3-tflm",
    lib.EDGEL3_ERROR_CHECKSUM: "convert again",
    lib.EDGEL3_ERROR_INCONSISTENT: "convert again",
}
_CALL_REMEDIES = {
    lib.EDGEL3_ERROR_ARGUMENT: f"align the arena to {lib.EDGEL3_ARENA_ALIGNMENT} bytes",
    lib.EDGEL3_ERROR_ARENA: "give it as many bytes as arena_bytes says",
    lib.EDGEL3_ERROR_STATE: "begin a window, push all of its rows, then finish",
}


def check(status: int) -> None:
    """Raise the error that belongs to a status code of the C library, if it is an error.

    Raises
    ------
    ModelFileError
        If the library refused a model.
    EdgeL3Error
        If the library refused another argument or the order of calls.
    """
    if status == lib.EDGEL3_OK:
        return
    text = ffi.string(lib.edgel3_status_text(status)).decode()
    if status in _MODEL_REMEDIES:
        raise ModelFileError(f"the engine refuses this model: {text}; {_MODEL_REMEDIES[status]}")
    raise EdgeL3Error(f"the engine refuses this call: {text}; {_CALL_REMEDIES[status]}")


def allocate(size: int) -> npt.NDArray[np.uint8]:
    """Return memory of ``size`` bytes, aligned to 64 bytes; the library needs 16."""
    memory = np.empty(size + _ARENA_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ARENA_ALIGNMENT
    return memory[start : start + size]


def pointer(values: Int8Array) -> Any:
    """Return a C pointer to the first value."""
    return ffi.from_buffer("int8_t[]", values)
