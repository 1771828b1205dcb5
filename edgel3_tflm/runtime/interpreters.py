"""Open a model in one of several runtimes, all with the same interface.

================== ===============================================================================
``litert``         LiteRT, TensorFlow Lite's successor, with the kernels of XNNPACK; int8 results
                   can differ from the reference by a few
``litert-builtin`` LiteRT's own kernels; on x86 int8 results have the bytes of the reference, with
                   rare exceptions
``reference``      LiteRT's reference kernels (BUILTIN_REF), which define the exact result
``tflite-runtime`` the last release of TensorFlow Lite's interpreter, of the year 2023
``tflm``           TensorFlow Lite Micro, built for the host (package tflite-micro)
``engine``         the C library edgel3, built for the host; runs the packed model, not a flatbuffer
``node``           the engine after the frontend of a board, which takes 16-bit samples; opened by
                   :class:`edgel3_tflm.runtime.deployment.Embedder` only
================== ===============================================================================
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.cores import available_cores
from edgel3_tflm.errors import ModelFileError, RuntimeUnavailableError, install_hint
from edgel3_tflm.runtime.artefacts import FLOAT
from edgel3_tflm.runtime.flatbuffer import summarize
from edgel3_tflm.runtime.native import import_tflite_runtime, native_stderr
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
    """A model in ai-edge-litert or tflite-runtime, whose interfaces are the same.

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
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        # Its extension prints a long text and then raises an error without a message.
        raise RuntimeUnavailableError(
            f"the runtime tflite-runtime needs NumPy 1, found {np.__version__};"
            f" {install_hint('tflite-runtime')}, or choose another runtime"
        )
    tflite = import_tflite_runtime()
    return _TFLiteInterpreter(
        lambda: tflite.Interpreter(model_content=model, num_threads=1), threads
    )


def _open_litert(model: bytes, threads: int, kernels: str) -> Interpreter:
    """Open a flatbuffer in LiteRT with one of its sets of kernels."""
    from ai_edge_litert import interpreter as litert

    resolver = litert.OpResolverType[kernels]
    return _TFLiteInterpreter(
        lambda: litert.Interpreter(
            model_content=model, num_threads=1, experimental_op_resolver_type=resolver
        ),
        threads,
    )


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
    only_for: str = ""


def _litert(kernels: str) -> _Runtime:
    return _Runtime("ai_edge_litert", None, partial(_open_litert, kernels=kernels))


_RUNTIMES = {
    "litert": _litert("AUTO"),
    "litert-builtin": _litert("BUILTIN_WITHOUT_DEFAULT_DELEGATES"),
    "reference": _litert("BUILTIN_REF"),
    "tflite-runtime": _Runtime(
        "tflite_runtime",
        "tflite-runtime",
        _open_tflite_runtime,
        only_for=" (its last release is for Linux with Python 3.10 or 3.11, and NumPy 1)",
    ),
    "tflm": _Runtime("tflite_micro", "convert", _open_tflm),
    "engine": _Runtime("cffi", None, _open_engine, runs_packed_models=True),
}
RUNTIMES = tuple(_RUNTIMES)
"""Runtimes that :func:`open_interpreter` can open."""
NODE = "node"
_NODE_ENGINE = "engine"
EMBEDDER_RUNTIMES = (*RUNTIMES, NODE)
"""Runtimes that take the samples of windows: those above, and the engine after its own frontend."""
FLOAT_PREFIX = "float:"
"""Before the name of a runtime: it runs the float model."""
DEFAULT_RUNTIME = "litert"
"""Runs float models, and quantized models where nobody needs a board's exact result."""
EXACT_RUNTIME = "litert-builtin"
"""Runs quantized models where the result has to be a board's: in conversions and measurements."""


def runs_packed_models(runtime: str) -> bool:
    """Whether a runtime runs packed models instead of flatbuffers."""
    runtime = interpreter_of(runtime)
    return runtime in _RUNTIMES and _RUNTIMES[runtime].runs_packed_models


def interpreter_of(runtime: str) -> str:
    """Return the interpreter of a runtime: the engine for the node, else the runtime itself."""
    return _NODE_ENGINE if runtime == NODE else runtime


def split_runtime(precision: str | None, runtime: str | None) -> tuple[str | None, str | None]:
    """Return precision and runtime, where ``float:NAME`` names the float model in a runtime.

    Parameters
    ----------
    precision, runtime : str, optional

    Raises
    ------
    RuntimeUnavailableError
        If the prefix contradicts the precision.
    """
    if runtime is None or not runtime.startswith(FLOAT_PREFIX):
        return precision, runtime
    if precision not in (None, FLOAT):
        raise RuntimeUnavailableError(
            f"expected the runtime of a model in {precision}, got {runtime}, which runs the float"
            f" model; leave out {FLOAT_PREFIX!r}"
        )
    return FLOAT, runtime.removeprefix(FLOAT_PREFIX)


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
            f" {install_hint(known.extra)}{known.only_for}"
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
