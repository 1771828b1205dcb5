"""Embed sound of any length, block by block, in constant memory."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgel3_tflm.audio.clips import read_blocks
from edgel3_tflm.audio.framing import Framing, center_audio, pad_audio
from edgel3_tflm.embedding.models import EmbeddingModel
from edgel3_tflm.errors import EdgeL3Warning
from edgel3_tflm.types import DoubleArray, FloatArray


@dataclass(frozen=True)
class StreamEmbedder:
    """Embeds sound of any length in windows of one second.

    Parameters
    ----------
    model : EmbeddingModel
    framing : Framing
    """

    model: EmbeddingModel
    framing: Framing = field(default_factory=Framing)

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the network's input."""
        return self.model.variant.frontend.sample_rate_hz

    @property
    def provenance(self) -> tuple[str, ...]:
        """Lines of text that describe the embeddings: those of the model, then the resampler."""
        to_hz = self.sample_rate_hz
        return (*self.model.provenance, f"resampled to {to_hz} Hz by {self.framing.resampler}")

    def embed_file(self, path: Path) -> Iterator[tuple[FloatArray, DoubleArray]]:
        """Embed an audio file block by block.

        Yields and warns as :meth:`embed_blocks`.

        Raises
        ------
        AudioError
            If the file cannot be read to its end. Some embeddings may have been yielded before.
        """
        return self.embed_blocks(read_blocks(path, self.sample_rate_hz, self.framing.resampler))

    def embed_blocks(
        self, blocks: Iterable[FloatArray]
    ) -> Iterator[tuple[FloatArray, DoubleArray]]:
        """Embed mono samples that arrive block by block.

        Parameters
        ----------
        blocks : iterable of numpy.ndarray, shape (samples,), float32
            At ``sample_rate_hz``; full scale is 1.

        Yields
        ------
        embeddings : numpy.ndarray, shape (n, d), float32
            At most ``framing.batch_size`` at a time.
        times : numpy.ndarray, shape (n,), float64
            Seconds from the beginning: starts of the windows, or centres if ``framing.center``.

        Warns
        -----
        EdgeL3Warning
            After the last block, if all samples are zero or there are fewer than a window has.
        """
        samples, silent = 0, True

        def inspect() -> Iterator[FloatArray]:
            nonlocal samples, silent
            for block in blocks:
                samples += len(block)
                silent = silent and not block.any()
                yield block

        window_samples = self.model.variant.frontend.window_samples
        done = 0
        for windows in self._cut(inspect(), window_samples):
            times = (done + np.arange(len(windows))) * self.framing.hop_size
            done += len(windows)
            yield self.model.embed(windows), times
        if silent:
            warnings.warn("the audio is all zeros", EdgeL3Warning, stacklevel=2)
        if samples < window_samples:
            warnings.warn(
                "the audio is shorter than a window of one second: zeros were added",
                EdgeL3Warning,
                stacklevel=2,
            )

    def _cut(self, blocks: Iterable[FloatArray], window_samples: int) -> Iterator[FloatArray]:
        """Cut windows, at most a batch at a time; the same windows that edgel3 cuts."""
        hop = self.framing.hop_samples(self.sample_rate_hz)
        pending = np.empty(0, np.float32)
        if self.framing.center:
            pending = center_audio(pending, window_samples)
        begun = False
        skip = 0  # samples before the next window, if the hop is longer than a window
        for block in blocks:
            pending = np.concatenate([pending, block[skip:]])
            skip = max(0, skip - len(block))
            if len(pending) < window_samples:
                continue
            begun = True
            windows = np.lib.stride_tricks.sliding_window_view(pending, window_samples)[::hop]
            for first in range(0, len(windows), self.framing.batch_size):
                yield windows[first : first + self.framing.batch_size]
            skip = max(0, len(windows) * hop - len(pending))
            pending = pending[len(windows) * hop :]
        # The last window is padded. edgel3 has 1 + ceil((N - window) / hop) windows.
        left = len(pending) - skip
        if not begun or left + hop > window_samples:
            padded = pad_audio(pending, window_samples, hop)
            yield padded[np.newaxis]
