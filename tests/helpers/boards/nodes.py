"""The results that a node must return, computed on this machine."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.audio.pcm import to_int16
from edgel3_tflm.runtime.c_library.engine import Engine
from edgel3_tflm.runtime.deployment import Deployment

Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]


class Expected:
    """The results that a deployment's node must return, from the host's engine and frontend."""

    def __init__(self, deployment: Deployment) -> None:
        packed = deployment.read_packed_model()
        assert packed is not None
        self.deployment = deployment
        self.packed = packed
        self._engine = Engine(packed)
        self.input = deployment.embedder("int8")._interpreter.input

    def embedding(self, window: Int8Array) -> Int8Array:
        return self._engine.run(window)

    def log_mel(self, samples: Int16Array) -> Int8Array:
        decibels = log_mel(
            samples[np.newaxis] / np.float32(32768), self.deployment.variant.frontend
        )
        return self.deployment.input_map.apply(decibels, self.input)[0, :, :, 0]

    def real(self, embedding: Int8Array) -> npt.NDArray[np.float32]:
        info = self._engine.info
        return np.float32(info.output_scale) * (
            embedding.astype(np.float32) - info.output_zero_point
        )


def read_pcm(clips: list[Path], deployment: Deployment) -> list[Int16Array]:
    """Return the middle window of each clip, and a window of silence, as int16."""
    spec = deployment.variant.frontend
    rate, size = spec.sample_rate_hz, spec.window_samples
    pcm = [
        to_int16(windows[len(windows) // 2])
        for _, windows in read_windows(clips, sample_rate_hz=rate, window_samples=size, hop_s=0.5)
    ]
    return [*pcm, np.zeros(size, np.int16)]


def u32(*values: int) -> bytes:
    """Return numbers as the protocol encodes them."""
    return b"".join(value.to_bytes(4, "little") for value in values)
