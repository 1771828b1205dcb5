"""Calibration: the clips whose activations set the ranges of a quantized model."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.types import FloatArray

_HOP_S = 0.5


@dataclass(frozen=True)
class Calibration:
    """A directory of clips and the frontend they are seen through."""

    directory: Path
    frontend: FrontendSpec

    @cached_property
    def clips(self) -> list[Path]:
        """Every clip under the directory, sorted by path.

        Raises
        ------
        AudioError
            If there is none.
        """
        return find_clips([self.directory])

    def digests(self) -> list[dict[str, str]]:
        """Name and SHA-256 of every clip."""
        return [
            {
                "file": clip.relative_to(self.directory).as_posix(),
                "sha256": sha256_hex(clip.read_bytes()),
            }
            for clip in self.clips
        ]

    def spectrograms(self) -> Iterator[FloatArray]:
        """Log-mel spectrograms, clip by clip.

        The first is a click in silence: its decibels reach both ends of the scale, so the input's
        quantization covers all that the frontend can produce, whatever the clips hold.

        Yields
        ------
        numpy.ndarray, shape (n, mels, frames), float32

        Raises
        ------
        AudioError
            For the first clip that cannot be used.
        """
        spec = self.frontend
        click = np.zeros((1, spec.window_samples), np.float32)
        click[0, spec.window_samples // 2] = 1
        yield log_mel(click, spec)
        for _, windows in read_windows(
            self.clips,
            sample_rate_hz=spec.sample_rate_hz,
            window_samples=spec.window_samples,
            hop_s=_HOP_S,
        ):
            yield log_mel(windows, spec)
