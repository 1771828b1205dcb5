"""Drift of the frontend, apart from that of the quantization.

The host computes log-mel in float64, a device in float32 from 16-bit samples. Both are seen through
both models, so that the share of each is told.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.audio.pcm import from_int16, to_int16
from edgel3_tflm.metrics import cosine_similarity, sqnr_db
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.device_frontend import DeviceFrontend
from edgel3_tflm.types import FloatArray


@dataclass(frozen=True)
class EmbeddingDrift:
    """Drift of embeddings against the float model's behind the host's frontend."""

    cosine_mean: float
    cosine_worst: float
    sqnr_db: float

    @classmethod
    def of(cls, reference: FloatArray, other: FloatArray) -> "EmbeddingDrift":
        """Measure ``other`` against ``reference``, both of shape (n, d)."""
        cosine = cosine_similarity(reference, other)
        return cls(float(cosine.mean()), float(cosine.min()), sqnr_db(reference, other))


@dataclass(frozen=True)
class FrontendDrift:
    """What the device's frontend changes, over ``windows`` windows.

    ``log_mel_mean_db`` and ``log_mel_worst_db`` are absolute differences of decibels;
    ``input_changed`` is the share of the quantized model's input values that are others,
    ``input_steps`` by how many steps at most. The embeddings: the float model behind the host's
    log-mel of 16-bit samples, the float model behind the device's frontend, the quantized model
    behind the host's, and the quantized model behind the device's.
    """

    windows: int
    log_mel_mean_db: float
    log_mel_worst_db: float
    input_changed: float
    input_steps: int
    sixteen_bits_alone: EmbeddingDrift
    frontend_alone: EmbeddingDrift
    quantization_alone: EmbeddingDrift
    both: EmbeddingDrift


def open_frontend(deployment: Deployment) -> DeviceFrontend:
    """Open the device's frontend for a deployment's quantized input."""
    spec = deployment.embedder(deployment.quantization).input
    return DeviceFrontend(deployment.variant.frontend, deployment.input_map, spec)


def measure_frontend(
    deployment: Deployment,
    embed_in_float: Callable[[FloatArray, FloatArray], FloatArray],
    windows: FloatArray,
    decibels: FloatArray,
    reference: FloatArray,
) -> FrontendDrift:
    """Compare the frontends on windows.

    Parameters
    ----------
    deployment : Deployment
    embed_in_float : callable
        The float model, as :class:`edgel3_tflm.drift.subjects.Subject` has it.
    windows : numpy.ndarray, shape (n, window_samples), float32
    decibels : numpy.ndarray, shape (n, mels, frames), float32
        The host's log-mel of these windows.
    reference : numpy.ndarray, shape (n, d), float32
        The float model's embeddings of these spectrograms.

    Raises
    ------
    RuntimeUnavailableError
        If the C library is not built.
    """
    frontend = open_frontend(deployment)
    samples = to_int16(windows)
    from_device = np.stack([frontend.log_mel(each) for each in samples])
    difference = np.abs(from_device.astype(np.float64) - decibels)
    quantized = deployment.embedder(deployment.quantization)
    steps = np.abs(
        deployment.input_map.apply(from_device, quantized.input).astype(np.int64)
        - deployment.input_map.apply(decibels, quantized.input)
    )
    rounded = reference
    if not np.array_equal(real := from_int16(samples), windows):
        rounded = embed_in_float(real, log_mel(real, deployment.variant.frontend))
    return FrontendDrift(
        windows=len(windows),
        log_mel_mean_db=float(difference.mean()),
        log_mel_worst_db=float(difference.max()),
        input_changed=float(np.count_nonzero(steps) / steps.size),
        input_steps=int(steps.max()),
        sixteen_bits_alone=EmbeddingDrift.of(reference, rounded),
        frontend_alone=EmbeddingDrift.of(reference, embed_in_float(windows, from_device)),
        quantization_alone=EmbeddingDrift.of(reference, quantized.embed_log_mel(decibels)),
        both=EmbeddingDrift.of(reference, quantized.embed_log_mel(from_device)),
    )
