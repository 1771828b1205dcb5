"""Drift of the frontend, separate from that of quantization.

The host computes log-mel in float64; a device computes it in float32 from 16-bit samples. Both
models, float and quantized, run on both log-mels.
"""

from collections.abc import Callable

import numpy as np

from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.audio.pcm import round_to_int16, to_int16
from edgel3_tflm.drift.figures import EmbeddingDrift, FrontendDrift
from edgel3_tflm.drift.runtimes import open_frontend
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import FloatArray


def embed_rounded(
    embed_in_float: Callable[[FloatArray, FloatArray], FloatArray],
    windows: FloatArray,
    reference: FloatArray,
    spec: FrontendSpec,
) -> FloatArray:
    """Return the float model's embeddings of windows that are rounded to 16 bits.

    Parameters
    ----------
    embed_in_float, windows
        As for :func:`measure_frontend`.
    reference : numpy.ndarray, shape (n, d), float32
        Embeddings of the windows as they are. They are returned if rounding changes nothing.
    spec : FrontendSpec
    """
    rounded = round_to_int16(windows)
    if np.array_equal(rounded, windows):
        return reference
    return embed_in_float(rounded, log_mel(rounded, spec))


def measure_frontend(
    deployment: Deployment,
    embed_in_float: Callable[[FloatArray, FloatArray], FloatArray],
    windows: FloatArray,
    decibels: FloatArray,
    reference: FloatArray,
) -> FrontendDrift:
    """Compare the device's frontend with the host's.

    Parameters
    ----------
    deployment : Deployment
    embed_in_float : callable
        The float model: ``embed`` of :class:`edgel3_tflm.drift.runtimes.Runtime`.
    windows : numpy.ndarray, shape (n, window_samples), float32
    decibels : numpy.ndarray, shape (n, mels, frames), float32
        Log-mel that the host computed from these windows.
    reference : numpy.ndarray, shape (n, d), float32
        Embeddings of ``decibels`` by the float model.

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
    rounded = embed_rounded(embed_in_float, windows, reference, deployment.variant.frontend)
    in_float = embed_in_float(windows, from_device)
    in_int8 = quantized.embed_log_mel(from_device)
    return FrontendDrift(
        windows=len(windows),
        log_mel_mean_db=float(difference.mean()),
        log_mel_worst_db=float(difference.max()),
        input_changed=float(np.count_nonzero(steps) / steps.size),
        input_steps=int(steps.max()),
        sixteen_bits_alone=EmbeddingDrift.of(reference, rounded),
        frontend_alone=EmbeddingDrift.of(reference, in_float),
        quantization_alone=EmbeddingDrift.of(reference, quantized.embed_log_mel(decibels)),
        both=EmbeddingDrift.of(reference, in_int8),
        frontend_step=EmbeddingDrift.of(rounded, in_float),
        quantization_step=EmbeddingDrift.of(in_float, in_int8),
    )
