"""Runtimes behind one small interface: a model goes in, windows in, embeddings out.

================== ===============================================================================
``tflite-runtime`` the base install's interpreter
``litert``         ai-edge-litert, its successor; XNNPACK kernels, int8 values off by a few
``reference``      tf.lite with the BUILTIN_REF resolver: the bit-exact reference
``tflm``           TFLite Micro itself, built for the host (tflite-micro)
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
from edgel3_tflm.runtime.native import (
    import_tensorflow,
    import_tflite_runtime,
    native_stderr,
)
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
    """The interface that tflite-runtime, ai-edge-litert and tf.lite share.

    A window to a thread: threads within a window wait for each other at every layer.
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
            warnings.simplefilter("ignore")  # tf.lite announces its own end at every use
            resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
            return tf.lite.Interpreter(model_content=model, experimental_op_resolver_type=resolver)

    return _TFLiteInterpreter(open_native, threads)


# The host build's arena is taken from the heap at once; the dense L3 network needs 6.5 MB as int8.
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
    from edgel3_tflm.runtime.engine import EngineInterpreter

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
"""Names :func:`open_interpreter` takes."""
DEFAULT_RUNTIME = "tflite-runtime"


def runs_packed_models(runtime: str) -> bool:
    """Whether a runtime takes a packed model, and no flatbuffer."""
    return runtime in _RUNTIMES and _RUNTIMES[runtime].runs_packed_models


def open_interpreter(
    model: bytes, runtime: str = DEFAULT_RUNTIME, *, threads: int | None = None
) -> Interpreter:
    """Load a model into a runtime.

    Parameters
    ----------
    model : bytes
        A TFLite flatbuffer with one input and one output; for the engine a packed model.
    runtime : str
        One of ``RUNTIMES``.
    threads : int, optional
        How many windows to run at a time, each in memory of its own; one a core if not given.
        TFLM runs one.

    Raises
    ------
    RuntimeUnavailableError
        If the name is unknown, its package not installed or the engine not built.
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
        return known.open(model, threads)  # checks every byte itself
    summarize(model)  # native code follows offsets blindly: a damaged file is refused before
    try:
        with native_stderr():
            return known.open(model, threads)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(f"{runtime} refuses this flatbuffer: {reason}") from error


def measure_arena_bytes(model: bytes) -> int:
    """Bytes of tensor arena TFLM's host build allocates for a model.

    The host's pointers are twice as wide as a Cortex-M's, so a board needs slightly less of the
    bookkeeping; optimised kernels there may ask for scratch buffers that the host's do not need.

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
