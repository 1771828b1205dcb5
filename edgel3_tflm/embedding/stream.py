"""Embeddings of sound of any length, block by block."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgel3_tflm.audio.clips import read_blocks
from edgel3_tflm.audio.framing import Framing, center_audio, pad_audio
from edgel3_tflm.embedding.models import (
    EmbeddingModel,
)
from edgel3_tflm.errors import EdgeL3Warning
from edgel3_tflm.types import DoubleArray, FloatArray


@dataclass(frozen=True)
class StreamEmbedder:
    """Embeds sound of any length, window by window."""

    model: EmbeddingModel
    framing: Framing = field(default_factory=Framing)

    @property
    def sample_rate_hz(self) -> int:
        """What the network takes."""
        return self.model.variant.frontend.sample_rate_hz

    @property
    def provenance(self) -> tuple[str, ...]:
        """What there is to say of its embeddings: of the model, and how sound is resampled."""
        to_hz = self.sample_rate_hz
        return (*self.model.provenance, f"resampled to {to_hz} Hz by {self.framing.resampler}")

    def embed_file(self, path: Path) -> Iterator[tuple[FloatArray, DoubleArray]]:
        """Embed a file block by block; :meth:`embed_blocks` says what comes and what is warned of.

        Raises
        ------
        AudioError
            If the file cannot be read to its end, after any number of blocks.
        """
        return self.embed_blocks(read_blocks(path, self.sample_rate_hz, self.framing.resampler))

    def embed_blocks(
        self, blocks: Iterable[FloatArray]
    ) -> Iterator[tuple[FloatArray, DoubleArray]]:
        """Embed mono samples at ``sample_rate_hz`` that come block by block.

        Yields
        ------
        embeddings, times : numpy.ndarray of shape (n, d), float32; of shape (n,), seconds

        Warns
        -----
        EdgeL3Warning
            At the end, if the samples are all zero or shorter than a window.
        """
        samples, silent = 0, True

        def listen() -> Iterator[FloatArray]:
            nonlocal samples, silent
            for block in blocks:
                samples += len(block)
                silent = silent and not block.any()
                yield block

        window_samples = self.model.variant.frontend.window_samples
        done = 0
        for windows in self._cut(listen(), window_samples):
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
        """Cut windows, a batch at most at a time; as many as edgel3 cuts of the whole."""
        hop = self.framing.hop_samples(self.sample_rate_hz)
        held = np.empty(0, np.float32)
        if self.framing.center:
            held = center_audio(held, window_samples)
        begun = False
        skip = 0  # samples before the next window, where the hop is longer than a window
        for block in blocks:
            held = np.concatenate([held, block[skip:]])
            skip = max(0, skip - len(block))
            if len(held) < window_samples:
                continue
            begun = True
            windows = np.lib.stride_tricks.sliding_window_view(held, window_samples)[::hop]
            for first in range(0, len(windows), self.framing.batch_size):
                yield windows[first : first + self.framing.batch_size]
            skip = max(0, len(windows) * hop - len(held))
            held = held[len(windows) * hop :]
        # Every sample is in a window: edgel3 has 1 + ceil((N - window) / hop) of them.
        left = len(held) - skip
        if not begun or left + hop > window_samples:
            padded = pad_audio(held, window_samples, hop)
            yield padded[np.newaxis]
