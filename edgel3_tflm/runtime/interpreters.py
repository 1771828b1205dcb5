"""Open a model in one of several runtimes, all with the same interface.

================== ===============================================================================
``tflite-runtime`` the interpreter of the base installation
``litert``         ai-edge-litert, its successor; int8 results can differ by a few (XNNPACK)
``reference``      tf.lite with reference kernels (BUILTIN_REF), which define the exact result
``tflm``           TensorFlow Lite Micro, built for the host (package tflite-micro)
``engine``         the C library edgel3, built for the host; runs the packed model, not a flatbuffer
================== ===============================================================================
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.cores import available_cores
from edgel3_tflm.errors import ModelFileError, RuntimeUnavailableError, install_hint
from edgel3_tflm.runtime.flatbuffer import summarize
from edgel3_tflm.runtime.native import import_tensorflow, import_tflite_runtime, native_stderr
from edgel3_tflm.runtime.tensors import Interpreter, TensorSpec
from edgel3_tflm.runtime.threads import RunWindow, WindowPool


def _tensor_spec(details: dict[str, Any]) -> TensorSpec:
    quantization = details["quantization_parameters"]
    scales, zero_points = quantization["scales"], quantization["zero_points"]
    return TensorSpec(
        shape=tuple(int(n) for n in details["shape"]),
        dtype=np.dtype(details["dtype"]),
        scale=float(scales[0]) if len(scales) else 0.0,
        zero_point=int(zero_points[0]) if len(zero_points) else 0,
    )


class _TFLiteInterpreter:
    """A model in tflite-runtime, ai-edge-litert or tf.lite, whose interfaces are the same.

    Each thread runs whole windows, because threads within a window wait for each other after each
    layer.
    """

    def __init__(self, open_native: Callable[[], Any], threads: int) -> None:
        details: list[tuple[dict[str, Any], dict[str, Any]]] = []

        def open_one() -> RunWindow:
            with native_stderr():
                interpreter = open_native()
                interpreter.allocate_tensors()
            (input_details,) = interpreter.get_input_details()
            (output_details,) = interpreter.get_output_details()
            details.append((input_details, output_details))

            def run_window(window: npt.NDArray[Any]) -> npt.NDArray[Any]:
                interpreter.set_tensor(input_details["index"], window[np.newaxis])
                interpreter.invoke()
                output: npt.NDArray[Any] = interpreter.get_tensor(output_details["index"])[0]
                return output

            return run_window

        self._pool = WindowPool(open_one, threads)
        self.input, self.output = map(_tensor_spec, details[0])

    def run(self, windows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        outputs = np.empty((len(windows), *self.output.shape[1:]), self.output.dtype)
        self._pool.run(windows, outputs)
        return outputs


class _TFLMInterpreter:
    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self.input = _tensor_spec(interpreter.get_input_details(0))
        self.output = _tensor_spec(interpreter.get_output_details(0))

    def run(self, windows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        outputs = np.empty((len(windows), *self.output.shape[1:]), self.output.dtype)
        for window, output in zip(windows, outputs, strict=True):
            self._interpreter.set_input(window[np.newaxis], 0)
            self._interpreter.invoke()
            output[:] = self._interpreter.get_output(0)[0]
        return outputs


def _open_tflite_runtime(model: bytes, threads: int) -> Interpreter:
    tflite = import_tflite_runtime()
    return _TFLiteInterpreter(
        lambda: tflite.Interpreter(model_content=model, num_threads=1), threads
    )


def _open_litert(model: bytes, threads: int) -> Interpreter:
    from ai_edge_litert import interpreter as litert

    return _TFLiteInterpreter(
        lambda: litert.Interpreter(model_content=model, num_threads=1), threads
    )


def _open_reference(model: bytes, threads: int) -> Interpreter:
    tf = import_tensorflow()

    def open_native() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf.lite warns at every use that it is deprecated
            resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
            return tf.lite.Interpreter(model_content=model, experimental_op_resolver_type=resolver)

    return _TFLiteInterpreter(open_native, threads)


# The host build allocates the arena at once. The dense L3 network needs 6.5 MB as int8.
_TFLM_HOST_ARENA_BYTES = 64 * 1024 * 1024


def _open_tflm(model: bytes, _threads: int) -> Interpreter:
    from tflite_micro import runtime

    with native_stderr() as messages:
        try:
            interpreter = runtime.Interpreter.from_bytes(model, arena_size=_TFLM_HOST_ARENA_BYTES)
        except RuntimeError as error:
            detail = messages().strip().replace("\n", "; ")
            raise ModelFileError(f"TFLM refuses this flatbuffer: {detail or error}") from error
    return _TFLMInterpreter(interpreter)


def _open_engine(model: bytes, threads: int) -> Interpreter:
    from edgel3_tflm.runtime.c_library.engine import EngineInterpreter

    return EngineInterpreter(model, threads=threads)


@dataclass(frozen=True)
class _Runtime:
    package: str
    extra: str | None
    open: Callable[[bytes, int], Interpreter]
    runs_packed_models: bool = False


_RUNTIMES = {
    "tflite-runtime": _Runtime("tflite_runtime", None, _open_tflite_runtime),
    "litert": _Runtime("ai_edge_litert", "litert", _open_litert),
    "reference": _Runtime("tensorflow", "convert", _open_reference),
    "tflm": _Runtime("tflite_micro", "convert", _open_tflm),
    "engine": _Runtime("cffi", None, _open_engine, runs_packed_models=True),
}
RUNTIMES = tuple(_RUNTIMES)
"""Runtimes that :func:`open_interpreter` can open."""
DEFAULT_RUNTIME = "tflite-runtime"


def runs_packed_models(runtime: str) -> bool:
    """Whether a runtime runs packed models instead of flatbuffers."""
    return runtime in _RUNTIMES and _RUNTIMES[runtime].runs_packed_models


def open_interpreter(
    model: bytes, runtime: str = DEFAULT_RUNTIME, *, threads: int | None = None
) -> Interpreter:
    """Open a model in a runtime.

    Parameters
    ----------
    model : bytes
        A TFLite flatbuffer with one input and one output; for the engine a packed model.
    runtime : str
        One of ``RUNTIMES``.
    threads : int, optional
        Number of windows to run in parallel, each in its own memory; by default one for each core.
        TFLM always runs one.

    Raises
    ------
    RuntimeUnavailableError
        If the runtime is unknown, its package is not installed or the engine is not built.
    ModelFileError
        If the model is damaged or the runtime refuses it.
    """
    if runtime not in _RUNTIMES:
        raise RuntimeUnavailableError(
            f"unknown runtime {runtime!r}: expected one of {', '.join(RUNTIMES)}"
        )
    threads = threads or available_cores()
    known = _RUNTIMES[runtime]
    if find_spec(known.package) is None:
        raise RuntimeUnavailableError(
            f"the runtime {runtime} needs the package {known.package}, which is not installed;"
            f" {install_hint(known.extra)}"
        )
    if known.runs_packed_models:
        return known.open(model, threads)  # the engine checks the model itself
    summarize(model)  # refuses a damaged file, because native code does not check offsets
    try:
        with native_stderr():
            return known.open(model, threads)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(f"{runtime} refuses this flatbuffer: {reason}") from error


def measure_arena_bytes(model: bytes) -> int:
    """Return the bytes of tensor arena that TFLM's host build allocates for a model.

    A board differs slightly: its pointers are half as wide, so that it needs less for bookkeeping,
    and optimised kernels may need additional scratch buffers.

    Parameters
    ----------
    model : bytes
        A TFLite flatbuffer.

    Raises
    ------
    RuntimeUnavailableError, ModelFileError
        As :func:`open_interpreter`.
    """
    interpreter = open_interpreter(model, "tflm")
    assert isinstance(interpreter, _TFLMInterpreter)  # noqa: S101 - narrows for the type checker
    with native_stderr() as messages:
        interpreter._interpreter.print_allocations()
        total = re.search(r"Arena allocation total (\d+) bytes", messages())
    if total is None:
        raise RuntimeUnavailableError(
            "tflite-micro does not report its arena as expected; install another release of it"
        )
    return int(total[1])
