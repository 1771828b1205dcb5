"""What is compared, and what it is compared with."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgel3_tflm.audio.pcm import to_int16
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.runtime.artefacts import PACKED_MODEL_NAME, quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import (
    DEFAULT_RUNTIME,
    RUNTIMES,
    runs_packed_models,
)
from edgel3_tflm.types import FloatArray

if TYPE_CHECKING:
    pass

_log = logging.getLogger(__name__)

NODE = "node"
FLOAT_PREFIX = "float:"
_DEVICE_PREFIX = "device:"
KERAS = f"{FLOAT_PREFIX}keras"
FLOAT_SUBJECTS = (
    *(f"{FLOAT_PREFIX}{name}" for name in RUNTIMES if not runs_packed_models(name)),
    KERAS,
)
"""Those that run the float model."""
SUBJECTS = (*RUNTIMES, NODE, f"{_DEVICE_PREFIX}PORT", *FLOAT_SUBJECTS)
"""Names of what is compared; :func:`open_subject` takes all but Keras."""
DEFAULT_REFERENCE = f"{FLOAT_PREFIX}{DEFAULT_RUNTIME}"


def _leave_open() -> None:
    pass


@dataclass(frozen=True)
class Subject:
    """What is compared, or what the others are compared with.

    Parameters
    ----------
    name : str
        As the report calls it.
    model : str
        The file of the deployment that it runs; empty for what is no file of it.
    embed : callable
        Takes samples (n, window_samples) and the host's log-mel (n, mels, frames) of the same
        windows, and returns embeddings (n, d), float32. What runs elsewhere, on a board for
        example, takes the samples.
    output_scale : float
        Step of the embeddings; 0 for floats.
    close : callable
        Gives back what it holds, a port for example.
    """

    name: str
    model: str
    embed: Callable[[FloatArray, FloatArray], FloatArray]
    output_scale: float
    close: Callable[[], None] = _leave_open


def open_subject(deployment: Deployment, name: str) -> Subject:
    """Open a runtime to compare.

    Parameters
    ----------
    deployment : Deployment
    name : str
        A runtime, for the quantized model; ``float:`` and a runtime, for the float one; ``node``,
        the C library whole, here: its frontend, from 16-bit samples, and its engine; or
        ``device:`` and a port as :func:`edgel3_tflm.device.transports.open_transport` takes it, for
        a node.

    Raises
    ------
    RuntimeUnavailableError, ModelFileError
        As :meth:`Deployment.embedder`.
    DeviceError
        If there is no node at the port.
    """
    if name.startswith(_DEVICE_PREFIX):
        return _open_device(deployment, name)
    if name not in SUBJECTS:
        raise RuntimeUnavailableError(
            f"unknown runtime {name!r}: expected one of {', '.join(SUBJECTS)}"
        )
    if name == KERAS:
        raise RuntimeUnavailableError(
            f"{KERAS} needs the weights: open it with edgel3_tflm.converters.keras.model.open_keras"
        )
    if name == NODE:
        from edgel3_tflm.drift.frontend import open_frontend

        engine = deployment.embedder(deployment.quantization, "engine")
        frontend = open_frontend(deployment)

        def embed(windows: FloatArray, _: FloatArray) -> FloatArray:
            decibels = [frontend.log_mel(each) for each in to_int16(windows)]
            return engine.embed_log_mel(np.stack(decibels))

        return Subject(name, PACKED_MODEL_NAME, embed, engine.output.scale)
    precision = "float" if name.startswith(FLOAT_PREFIX) else deployment.quantization
    runtime = name.removeprefix(FLOAT_PREFIX)
    embedder = deployment.embedder(precision, runtime)
    return Subject(
        name,
        deployment.model_name(precision, runtime),
        lambda _, decibels: embedder.embed_log_mel(decibels),
        embedder.output.scale,
    )


def _open_device(deployment: Deployment, name: str) -> Subject:
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

    return Subject(name, PACKED_MODEL_NAME, embed, spec.scale, device.close)
