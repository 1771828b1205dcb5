"""A device against the host: the same windows through both."""

from collections.abc import Callable
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

MIN_COSINE = 0.999
MAX_LOG_MEL_STEPS = 1
MAX_LOG_MEL_SHARE = 0.01
"""A value on the edge between two steps may be rounded to either: devices compute in float32."""


def dequantize(embeddings: npt.NDArray[np.int8], info: Info) -> npt.NDArray[np.float32]:
    """Real values of a device's embeddings."""
    return np.float32(info.embedding_scale) * (
        embeddings.astype(np.float32) - np.float32(info.embedding_zero_point)
    )


def read_pcm_windows(
    info: Info, clips: list[Path], hop_s: float
) -> list[tuple[Path, npt.NDArray[np.int16]]]:
    """Cut clips into the windows of samples that a device takes: clip and (n, samples) of each."""
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
    """The windows of a clip through device and host.

    Parameters
    ----------
    equal_embeddings : int
        Windows whose log-mel, sent by the host, gave on the device the bytes of the host's engine.
    cosine_worst : float
        Of embeddings of samples: the device's against the host's.
    log_mel_share, log_mel_steps : float, int
        Of int8 log-mel values of samples: how many differ, and by how much at the most.
    """

    clip: str
    windows: int
    equal_embeddings: int
    cosine_worst: float
    log_mel_share: float
    log_mel_steps: int

    @property
    def passes(self) -> bool:
        """Whether bytes are equal and differences within what rounding explains."""
        return (
            self.equal_embeddings == self.windows
            and self.cosine_worst >= MIN_COSINE
            and self.log_mel_share <= MAX_LOG_MEL_SHARE
            and self.log_mel_steps <= MAX_LOG_MEL_STEPS
        )

    def to_json(self) -> dict[str, Any]:
        """Turn the figures into plain data."""
        return {**asdict(self), "passes": self.passes}


def compare_device(
    device: Device,
    deployment: Deployment,
    clips: list[Path],
    *,
    hop_s: float,
    progress: Callable[[str, int, int], None],
) -> list[ClipComparison]:
    """Run the windows of clips on a device and on the host's engine.

    Raises
    ------
    DeviceError
        If the device holds another model, or does not answer.
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
    per_clip = read_pcm_windows(device.info, clips, hop_s)
    total, done = sum(len(windows) for _, windows in per_clip), 0
    results = []
    for path, windows in per_clip:
        decibels = log_mel(from_int16(windows), deployment.variant.frontend)
        inputs = deployment.input_map.apply(decibels, engine.input)
        expected = engine.run(inputs)
        equal, embeddings, differences = 0, [], []
        for samples, window, embedding in zip(windows, inputs[..., 0], expected, strict=True):
            equal += bool(np.array_equal(device.embed_log_mel(window), embedding))
            embeddings.append(device.embed_pcm(samples))
            differences.append(np.abs(device.log_mel().astype(np.int16) - window))
            done += 1
            progress("windows through the device", done, total)
        cosine = cosine_similarity(
            dequantize(expected, device.info), dequantize(np.stack(embeddings), device.info)
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
    """What a window took on a device, in its ticks."""

    frontend_ticks: int
    engine_ticks: int


def time_windows(
    device: Device,
    windows: list[npt.NDArray[np.int16]],
    progress: Callable[[str, int, int], None],
) -> list[Timing]:
    """Have a device compute windows of samples and say what each took."""
    timings = []
    for window in windows:
        device.embed_pcm(window)
        statistics = device.statistics()
        timings.append(Timing(statistics.frontend_ticks, statistics.engine_ticks))
        progress("windows through the device", len(timings), len(windows))
    return timings
