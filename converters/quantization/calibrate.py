"""The calibration clips: their activations determine the ranges of a quantized model."""

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
    """A directory of clips, and the frontend that turns them into log-mel spectrograms."""

    directory: Path
    frontend: FrontendSpec

    @cached_property
    def clips(self) -> list[Path]:
        """Every clip under the directory, sorted by path.

        Raises
        ------
        AudioError
            If the directory contains no clip.
        """
        return find_clips([self.directory])

    def digests(self) -> list[dict[str, str]]:
        """Return the name and SHA-256 of every clip, for the manifest."""
        return [
            {
                "file": clip.relative_to(self.directory).as_posix(),
                "sha256": sha256_hex(clip.read_bytes()),
            }
            for clip in self.clips
        ]

    def spectrograms(self) -> Iterator[FloatArray]:
        """Compute log-mel spectrograms, clip by clip.

        The first is of a click in silence. Its decibels reach both ends of the scale, so the
        input's quantization covers every output of the frontend, whatever the clips contain.

        Yields
        ------
        numpy.ndarray, shape (n, mels, frames), float32

        Raises
        ------
        AudioError
            If a clip cannot be used; the message contains the first such clip.
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
