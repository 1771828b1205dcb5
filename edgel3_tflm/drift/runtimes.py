"""Models in their runtimes: the ones that are compared, and the float model as the reference."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgel3_tflm.audio.pcm import to_int16
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.runtime.artefacts import PACKED_MODEL_NAME, quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import (
    EMBEDDER_RUNTIMES,
    FLOAT_PREFIX,
    NODE,
    RUNTIMES,
    runs_packed_models,
)
from edgel3_tflm.types import FloatArray

if TYPE_CHECKING:
    from edgel3_tflm.runtime.c_library.device_frontend import DeviceFrontend

_DEVICE_PREFIX = "device:"
KERAS = f"{FLOAT_PREFIX}keras"
FLOAT_RUNTIMES = (
    *(f"{FLOAT_PREFIX}{name}" for name in RUNTIMES if not runs_packed_models(name)),
    KERAS,
)
"""Names of the runtimes that run the float model."""
COMPARABLE_RUNTIMES = (*EMBEDDER_RUNTIMES, f"{_DEVICE_PREFIX}PORT", *FLOAT_RUNTIMES)
"""Names of all runtimes that can be compared; :func:`open_runtime` takes all but Keras."""


def _do_nothing() -> None:
    pass


@dataclass(frozen=True)
class Runtime:
    """A model in a runtime.

    Parameters
    ----------
    name : str
        The name in reports.
    model : str
        The file of the deployment that it runs; empty if it runs none of them.
    embed : callable
        Takes samples (n, window_samples) and the host's log-mel (n, mels, frames) of the same
        windows, and returns embeddings (n, d), float32. A runtime with a frontend of its own, for
        example a board, uses the samples; the others use the log-mel.
    output_scale : float
        Quantization step of the embeddings; 0 if they are floats.
    close : callable
        Releases its resources, for example a port.
    is_remote : bool
        Whether a board computes the embeddings.
    rounds : bool
        Whether its own frontend takes the samples, rounded to 16 bits. The float model, as its
        reference, then takes the rounded samples too.
    """

    name: str
    model: str
    embed: Callable[[FloatArray, FloatArray], FloatArray]
    output_scale: float
    close: Callable[[], None] = _do_nothing
    is_remote: bool = False
    rounds: bool = False


def open_frontend(deployment: Deployment) -> "DeviceFrontend":
    """Open the device's frontend, built for this machine, for a deployment's quantized input."""
    from edgel3_tflm.runtime.c_library.device_frontend import DeviceFrontend

    spec = deployment.embedder(deployment.quantization).input
    return DeviceFrontend(deployment.variant.frontend, deployment.input_map, spec)


def open_runtime(deployment: Deployment, name: str) -> Runtime:
    """Open a model of a deployment in a runtime.

    Parameters
    ----------
    deployment : Deployment
    name : str
        The name of a runtime opens the quantized model, ``float:`` before it the float model.
        ``node`` is the C library on this machine: its frontend, from 16-bit samples, and its
        engine. ``device:`` and a port as :func:`edgel3_tflm.device.transports.open_transport` takes
        it opens a node.

    Returns
    -------
    Runtime
        The caller closes it.

    Raises
    ------
    RuntimeUnavailableError, ModelFileError
        As :meth:`Deployment.embedder`.
    DeviceError
        If there is no node at the port.
    """
    if name.startswith(_DEVICE_PREFIX):
        return _open_device(deployment, name)
    if name not in COMPARABLE_RUNTIMES:
        raise RuntimeUnavailableError(
            f"unknown runtime {name!r}: expected one of {', '.join(COMPARABLE_RUNTIMES)}"
        )
    if name == KERAS:
        raise RuntimeUnavailableError(
            f"{KERAS} needs the weights: open it with edgel3_tflm.converters.keras.model.open_keras"
        )
    if name == NODE:
        node = deployment.embedder(deployment.quantization, NODE)
        return Runtime(
            name,
            PACKED_MODEL_NAME,
            lambda windows, _: node.embed(windows),
            node.output.scale,
            rounds=True,
        )
    precision = "float" if name.startswith(FLOAT_PREFIX) else deployment.quantization
    runtime = name.removeprefix(FLOAT_PREFIX)
    embedder = deployment.embedder(precision, runtime)
    return Runtime(
        name,
        deployment.model_name(precision, runtime),
        lambda _, decibels: embedder.embed_log_mel(decibels),
        embedder.output.scale,
    )


def _open_device(deployment: Deployment, name: str) -> Runtime:
    from edgel3_tflm.device.client import Device
    from edgel3_tflm.device.transports import open_transport

    device = Device(open_transport(name.removeprefix(_DEVICE_PREFIX)))
    dense = deployment.manifest["artefacts"][quantized_model_name(deployment.quantization)]
    if not dense["sha256"].startswith(device.info.source_sha256.hex()):
        device.close()
        raise EdgeL3Error(
            f"{name}: expected a node with the model of {deployment.directory}, it has another;"
            " flash it again"
        )
    spec = device.info.embedding

    def embed(windows: FloatArray, _: FloatArray) -> FloatArray:
        return spec.dequantize(np.stack([device.embed_pcm(each) for each in to_int16(windows)]))

    return Runtime(
        name, PACKED_MODEL_NAME, embed, spec.scale, device.close, is_remote=True, rounds=True
    )
