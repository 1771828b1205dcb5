"""The engine of the C library ``edgel3``: it runs packed models on this machine.

The embeddings equal those of a microcontroller byte for byte, and those of TensorFlow Lite's
reference kernels with the dense model.
"""

import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgel3_tflm.cores import available_cores
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.c_library.library import allocate, check, ffi, lib, pointer
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.runtime.threads import WindowPool
from edgel3_tflm.types import Int8Array

Kernels = Literal["best", "avx512", "avxvnni", "avx2", "neon", "portable"]
"""A set of kernels: the one for an instruction set, or that in portable C99. ``best`` is the one
that the environment variable ``EDGEL3_KERNELS`` names, or the fastest for this processor. The
results are equal."""

KERNELS_VARIABLE = "EDGEL3_KERNELS"


def supported_kernels() -> tuple[Kernels, ...]:
    """Return the sets of kernels that this processor supports, the fastest first."""
    names: tuple[Kernels, ...] = get_args(Kernels)
    return tuple(name for name in names if name != "best" and _choice(name) >= 0)


def _choice(name: str) -> int:
    return int(lib.edgel3_find_kernels(name.encode(errors="replace")))


def _find_kernels(kernels: Kernels) -> int:
    variable = os.environ.get(KERNELS_VARIABLE) if kernels == "best" else None
    name = variable or kernels
    choice = _choice(name)
    if choice < 0:
        known = ", ".join(("best", *supported_kernels()))
        raise EdgeL3Error(
            f"{KERNELS_VARIABLE if variable else 'kernels'} is {name!r}: on this processor the"
            f" engine has the kernels {known}; choose one of them"
        )
    return choice


@dataclass(frozen=True)
class EngineInfo:
    """Description of a packed model.

    Parameters
    ----------
    rows, columns : int
        Mel bins and frames of the input.
    embedding_size : int
    input_scale, input_zero_point, output_scale, output_zero_point : float and int
        Quantization: ``real = scale * (q - zero_point)``.
    convolutions : int
        Number of convolutions.
    source_sha256 : bytes
        First 16 bytes of the SHA-256 of the dense flatbuffer.
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
    """Check a packed model completely and return its description.

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
    """Return the bytes of arena that the engine needs on this machine.

    With portable kernels the number is that of a microcontroller.

    Raises
    ------
    ModelFileError
        If the engine refuses the model.
    EdgeL3Error
        If this processor lacks the kernels.
    """
    size = ffi.new("size_t *")
    check(lib.edgel3_arena_bytes(ffi.from_buffer(model), len(model), _find_kernels(kernels), size))
    return int(size[0])


def check_values(values: npt.NDArray[Any], shape: tuple[int, ...]) -> Int8Array:
    """Return the values as a contiguous array, after a check of their type and shape.

    Raises
    ------
    ValueError
        If the type or the shape is another one.
    """
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
    """A packed model in an arena. Only one thread at a time may use it.

    Parameters
    ----------
    model : bytes
        A packed model.
    kernels : Kernels
    arena : numpy.ndarray, shape (n,), uint8, optional
        Memory for the engine, aligned to 16 bytes. By default it is allocated.

    Raises
    ------
    ModelFileError
        If the engine refuses the model.
    EdgeL3Error
        If this processor lacks the kernels, or the arena is too small or not aligned.
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
        # The engine keeps pointers to both: these references keep them alive.
        self._model = ffi.from_buffer(model)
        self._arena = ffi.from_buffer("uint8_t[]", arena, require_writable=True)
        engine = ffi.new("edgel3_engine **")
        check(
            lib.edgel3_open(
                engine,
                self._model,
                len(model),
                _find_kernels(kernels),
                self._arena,
                len(self._arena),
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
        """Begin a window. Rows that were pushed before are discarded."""
        lib.edgel3_begin(self._engine)

    def push_row(self, row: Int8Array) -> None:
        """Push the next row of the window, shape (columns,), int8. The first is the lowest mel bin.

        Raises
        ------
        EdgeL3Error
            If the window is complete already.
        """
        row = check_values(row, (self.info.columns,))
        check(lib.edgel3_push_row(self._engine, pointer(row)))

    def finish(self) -> Int8Array:
        """Return the embedding of the window, shape (embedding_size,), int8.

        Raises
        ------
        EdgeL3Error
            If rows are missing.
        """
        embedding = np.empty(self.info.embedding_size, np.int8)
        check(lib.edgel3_finish(self._engine, pointer(embedding)))
        return embedding

    def trace(self, window: Int8Array) -> tuple[Int8Array, ...]:
        """Run a window and return the input of each convolution, for debugging.

        Rows and columns that a pool drops are missing, as in the dense model.

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


class EngineInterpreter:
    """The engine with the interface of an interpreter. It distributes windows over threads.

    Parameters
    ----------
    model : bytes
        A packed model.
    kernels : Kernels
    threads : int, optional
        By default one for each core that this process may use.

    Raises
    ------
    ModelFileError
        If the engine refuses the model.
    EdgeL3Error
        If this processor lacks the kernels.
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
        """Run windows, several in parallel.

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
