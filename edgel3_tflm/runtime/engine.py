"""The C library ``edgel3``, built for this machine: its engine and its frontend.

What the engine computes are the bytes that a microcontroller computes, and those of TensorFlow
Lite's reference kernels with the dense model. The frontend's are those of the portable transform.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgel3_tflm.cores import available_cores
from edgel3_tflm.errors import (
    EdgeL3Error,
    ModelFileError,
    RuntimeUnavailableError,
    install_hint,
)
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.runtime.threads import WindowPool
from edgel3_tflm.types import Int8Array

try:
    from edgel3_tflm._engine import ffi, lib
except ImportError as error:
    raise RuntimeUnavailableError(
        f"the runtime engine needs the C library edgel3, which this installation lacks ({error});"
        " install a C compiler, gcc or clang, and then edgel3-tflm again:"
        f" {install_hint(options='--force-reinstall --no-deps')}"
    ) from error


Kernels = Literal["best", "portable"]
"""The fastest this processor has, or the C99 ones, which define the result."""

_KERNELS = {"best": lib.EDGEL3_KERNELS_BEST, "portable": lib.EDGEL3_KERNELS_PORTABLE}

# A cache line, and what AVX-512 loads at once.
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
    """Raise the error that a status of the C library means."""
    if status == lib.EDGEL3_OK:
        return
    text = ffi.string(lib.edgel3_status_text(status)).decode()
    if status in _MODEL_REMEDIES:
        raise ModelFileError(f"the engine refuses this model: {text}; {_MODEL_REMEDIES[status]}")
    raise EdgeL3Error(f"the engine refuses this call: {text}; {_CALL_REMEDIES[status]}")


@dataclass(frozen=True)
class EngineInfo:
    """What a packed model says about itself.

    ``rows`` are mel bins, ``columns`` frames; ``source_sha256`` is the first half of the digest of
    the dense flatbuffer.
    """

    rows: int
    columns: int
    embedding_size: int
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int
    convolutions: int
    source_sha256: bytes


def describe(model: bytes) -> EngineInfo:
    """Check a packed model whole and describe it.

    Raises
    ------
    ModelFileError
        If the engine refuses the model.
    """
    info = ffi.new("edgel3_info *")
    check(lib.edgel3_describe(ffi.from_buffer(model), len(model), info))
    return EngineInfo(
        rows=info.rows,
        columns=info.columns,
        embedding_size=info.embedding,
        input_scale=info.input_scale,
        input_zero_point=info.input_zero_point,
        output_scale=info.output_scale,
        output_zero_point=info.output_zero_point,
        convolutions=info.convolutions,
        source_sha256=bytes(info.source_sha256),
    )


def arena_bytes(model: bytes, kernels: Kernels = "best") -> int:
    """Bytes of arena an engine needs here; with portable kernels, as many as on a microcontroller.

    Raises
    ------
    ModelFileError
        If the engine refuses the model.
    """
    size = ffi.new("size_t *")
    check(lib.edgel3_arena_bytes(ffi.from_buffer(model), len(model), _KERNELS[kernels], size))
    return int(size[0])


def allocate(size: int) -> npt.NDArray[np.uint8]:
    """Return memory of ``size`` bytes, aligned as the C library requires."""
    memory = np.empty(size + _ARENA_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ARENA_ALIGNMENT
    return memory[start : start + size]


def check_values(values: npt.NDArray[Any], shape: tuple[int, ...]) -> Int8Array:
    """Refuse what the C library would read wrongly."""
    if values.shape != shape or values.dtype != np.int8:
        raise ValueError(f"expected int8 of shape {shape}, got {values.dtype} of {values.shape}")
    return np.ascontiguousarray(values)


def _collect_row(
    context: Any, convolution: int, _row: int, values: Any, channels: int, columns: int, stride: int
) -> None:
    planes = np.frombuffer(ffi.buffer(values, channels * stride), np.uint8)
    row = planes.reshape(channels, stride)[:, :columns].T ^ np.uint8(128)
    ffi.from_handle(context)[convolution].append(row.view(np.int8))


ffi.def_extern(name="edgel3_collect_row")(_collect_row)


class Engine:
    """An engine in an arena of its own; one thread at a time may use it.

    Parameters
    ----------
    model : bytes
        A packed model.
    kernels : {'best', 'portable'}
    arena : numpy.ndarray, shape (n,), uint8, optional
        Memory to work in, in place of the engine's own.

    Raises
    ------
    ModelFileError
        If the engine refuses the model.
    EdgeL3Error
        If the arena is too small or not aligned.
    """

    def __init__(
        self,
        model: bytes,
        kernels: Kernels = "best",
        *,
        arena: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.info = describe(model)
        if arena is None:
            arena = allocate(arena_bytes(model, kernels))
        # Both stay where they are as long as these references live.
        self._model = ffi.from_buffer(model)
        self._arena = ffi.from_buffer("uint8_t[]", arena, require_writable=True)
        engine = ffi.new("edgel3_engine **")
        check(
            lib.edgel3_open(
                engine, self._model, len(model), _KERNELS[kernels], self._arena, len(self._arena)
            )
        )
        self._engine = engine[0]

    def run(self, window: Int8Array) -> Int8Array:
        """Embed a window of shape (rows, columns), int8; returns (embedding_size,) int8."""
        window = check_values(window, (self.info.rows, self.info.columns))
        embedding = np.empty(self.info.embedding_size, np.int8)
        check(lib.edgel3_run(self._engine, pointer(window), pointer(embedding)))
        return embedding

    def begin(self) -> None:
        """Begin a window; rows pushed before are forgotten."""
        lib.edgel3_begin(self._engine)

    def push_row(self, row: Int8Array) -> None:
        """Push the next row of the window, shape (columns,), int8; the lowest mel bin comes first.

        Raises
        ------
        EdgeL3Error
            If the window has all of its rows.
        """
        row = check_values(row, (self.info.columns,))
        check(lib.edgel3_push_row(self._engine, pointer(row)))

    def finish(self) -> Int8Array:
        """Embedding of the window, shape (embedding_size,), int8.

        Raises
        ------
        EdgeL3Error
            If rows are missing.
        """
        embedding = np.empty(self.info.embedding_size, np.int8)
        check(lib.edgel3_finish(self._engine, pointer(embedding)))
        return embedding

    def trace(self, window: Int8Array) -> tuple[Int8Array, ...]:
        """Run a window and keep what enters the convolutions, for debugging.

        Rows and columns that a pool leaves over are missing, as they are in the dense model.

        Returns
        -------
        tuple of numpy.ndarray, shape (rows, columns, channels), int8
            One for each convolution.
        """
        maps: list[list[Int8Array]] = [[] for _ in range(self.info.convolutions)]
        handle = ffi.new_handle(maps)
        lib.edgel3_set_row_hook(self._engine, lib.edgel3_collect_row, handle)
        try:
            self.run(window)
        finally:
            lib.edgel3_set_row_hook(self._engine, ffi.NULL, ffi.NULL)
        return tuple(np.stack(rows) for rows in maps)


def pointer(values: Int8Array) -> Any:
    """Return a C pointer to the first value."""
    return ffi.from_buffer("int8_t[]", values)


class EngineInterpreter:
    """The engine as an interpreter: windows are spread over threads.

    Parameters
    ----------
    model : bytes
        A packed model.
    kernels : {'best', 'portable'}
    threads : int, optional
        One for each core that this process may use if not given.

    Raises
    ------
    ModelFileError
        If the engine refuses the model.
    """

    def __init__(
        self, model: bytes, kernels: Kernels = "best", *, threads: int | None = None
    ) -> None:
        self._pool = WindowPool(lambda: Engine(model, kernels).run, threads or available_cores())
        info = describe(model)
        self.input = TensorSpec(
            shape=(1, info.rows, info.columns, 1),
            dtype=np.dtype(np.int8),
            scale=info.input_scale,
            zero_point=info.input_zero_point,
        )
        self.output = TensorSpec(
            shape=(1, info.embedding_size),
            dtype=np.dtype(np.int8),
            scale=info.output_scale,
            zero_point=info.output_zero_point,
        )

    def run(self, windows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run windows, several at a time.

        Parameters
        ----------
        windows : numpy.ndarray, shape (n, rows, columns, 1), int8

        Returns
        -------
        numpy.ndarray, shape (n, embedding_size), int8
        """
        windows = check_values(windows, (len(windows), *self.input.shape[1:]))
        outputs = np.empty((len(windows), *self.output.shape[1:]), np.int8)
        self._pool.run(windows[..., 0], outputs)
        return outputs
