"""Compares a device with the host's engine, and times it, on the same windows."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.audio.pcm import from_int16, to_int16
from edgel3_tflm.device.client import Device
from edgel3_tflm.device.transports import DeviceError
from edgel3_tflm.device.wire import Info
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.types import Progress

MIN_COSINE = 0.999
MAX_LOG_MEL_STEPS = 1
MAX_LOG_MEL_SHARE = 0.01
"""Devices compute in float32, so a log-mel value halfway between two int8 values may be rounded
either way. Synthetic tones without any noise exceed the first limit: 71 to 77 dB below the loudest
cell, where only rounding errors are left, two int8 values are possible."""


def read_pcm_windows(
    info: Info, clips: list[Path], hop_s: float
) -> list[tuple[Path, npt.NDArray[np.int16]]]:
    """Cut clips into the windows that a device takes.

    Parameters
    ----------
    info : Info
        The device's sample rate and window length.
    clips : list of pathlib.Path
        Files, or directories of them.
    hop_s : float
        Seconds from one window to the next.

    Returns
    -------
    list of (pathlib.Path, numpy.ndarray)
        Each clip and its windows, shape (n, window_samples), int16.

    Raises
    ------
    EdgeL3Error
        If a clip cannot be read.
    """
    return [
        (path, to_int16(windows))
        for path, windows in read_windows(
            find_clips(clips),
            sample_rate_hz=info.sample_rate_hz,
            window_samples=info.window_samples,
            hop_s=hop_s,
        )
    ]


@dataclass(frozen=True)
class ClipComparison:
    """How the device's results for the windows of a clip differ from the host's.

    Parameters
    ----------
    clip : str
    windows : int
        Number of windows.
    equal_embeddings : int
        Number of windows for which device and host compute the same embedding, byte for byte, from
        the host's log-mel values.
    cosine_worst : float
        Lowest cosine similarity between the embeddings that device and host compute from samples.
    log_mel_share, log_mel_steps : float, int
        Share of the int8 log-mel values that differ, and the largest difference, if both compute
        them from samples.
    """

    clip: str
    windows: int
    equal_embeddings: int
    cosine_worst: float
    log_mel_share: float
    log_mel_steps: int

    @property
    def passes(self) -> bool:
        """Whether all bytes are equal and all differences are small enough to be rounding."""
        return (
            self.equal_embeddings == self.windows
            and self.cosine_worst >= MIN_COSINE
            and self.log_mel_share <= MAX_LOG_MEL_SHARE
            and self.log_mel_steps <= MAX_LOG_MEL_STEPS
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and whether the comparison passes, for JSON."""
        return {**asdict(self), "passes": self.passes}


def compare_device(
    device: Device,
    deployment: Deployment,
    clips: list[Path],
    *,
    hop_s: float,
    progress: Progress,
) -> list[ClipComparison]:
    """Run the windows of clips on a device and on the host's engine, and compare the results.

    Parameters
    ----------
    device : Device
    deployment : Deployment
        The deployment that the device's firmware was built from.
    clips : list of pathlib.Path
        Files, or directories of them.
    hop_s : float
        Seconds from one window to the next.
    progress : callable
        ``(step, done, total)``, in windows.

    Returns
    -------
    list of ClipComparison
        One for each clip.

    Raises
    ------
    DeviceError
        If the device has another model, or does not answer.
    EdgeL3Error
        If a clip cannot be read or the engine is missing.
    """
    packed = deployment.read_model("int8", "engine")
    engine = open_interpreter(packed, "engine")
    expected_sha256 = str(deployment.manifest["artefacts"][quantized_model_name("int8")]["sha256"])[
        :32
    ]
    if device.info.source_sha256.hex() != expected_sha256:
        raise DeviceError(
            f"expected a device with the model of {deployment.directory}"
            f" ({expected_sha256[:12]}...), it has {device.info.source_sha256.hex()[:12]}...; build"
            " its firmware from this directory, or give the directory that it was built from"
        )
    embedding = device.info.embedding
    per_clip = read_pcm_windows(device.info, clips, hop_s)
    total, done = sum(len(windows) for _, windows in per_clip), 0
    results = []
    for path, windows in per_clip:
        decibels = log_mel(from_int16(windows), deployment.variant.frontend)
        inputs = deployment.input_map.apply(decibels, engine.input)
        expected = engine.run(inputs)
        equal, embeddings, differences = 0, [], []
        for samples, window, values in zip(windows, inputs[..., 0], expected, strict=True):
            equal += bool(np.array_equal(device.embed_log_mel(window), values))
            embeddings.append(device.embed_pcm(samples))
            differences.append(np.abs(device.log_mel().astype(np.int16) - window))
            done += 1
            progress("windows through the device", done, total)
        cosine = cosine_similarity(
            embedding.dequantize(expected), embedding.dequantize(np.stack(embeddings))
        )
        steps = np.stack(differences)
        results.append(
            ClipComparison(
                clip=str(path),
                windows=len(windows),
                equal_embeddings=equal,
                cosine_worst=float(cosine.min()),
                log_mel_share=float((steps != 0).mean()),
                log_mel_steps=int(steps.max()),
            )
        )
    return results


@dataclass(frozen=True)
class Timing:
    """Time that a device took for a window, in its ticks (``Info.ticks_per_second``)."""

    frontend_ticks: int
    engine_ticks: int


def time_windows(
    device: Device,
    windows: list[npt.NDArray[np.int16]],
    progress: Progress,
) -> list[Timing]:
    """Return how long a device takes for each of some windows of samples, in its ticks."""
    timings = []
    for window in windows:
        device.embed_pcm(window)
        statistics = device.statistics()
        timings.append(Timing(statistics.frontend_ticks, statistics.engine_ticks))
        progress("windows through the device", len(timings), len(windows))
    return timings
