"""Embeddings of files, of folders and of sound that is still arriving."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.clips import find_clips, mix_down, refuse_non_finite
from edgel3_tflm.audio.framing import Framing
from edgel3_tflm.audio.resampling import KAISER_BEST, SOXR, resample_blocks
from edgel3_tflm.embedding.api import ModelLike, check_audio, open_model
from edgel3_tflm.embedding.models import EmbeddingModel
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import AudioError
from edgel3_tflm.notebook import html_table
from edgel3_tflm.types import DoubleArray, FloatArray, Progress

_SHOWN_CLIPS = 10


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the windows of one clip or of several.

    ``numpy.asarray(embeddings)`` is ``embeddings.values``, so that libraries take it as a matrix.

    Parameters
    ----------
    values : numpy.ndarray, shape (n, d), float32
        One row for each window.
    times_s : numpy.ndarray, shape (n,), float64
        Time of the window within its clip, in seconds.
    clips : numpy.ndarray, shape (n,), str
        The clip of the window.
    provenance : tuple of str
        Lines of text about weights, model and resampler.
    damaged : mapping of str to str
        Clips that were left out, with the reason.
    """

    values: FloatArray
    times_s: DoubleArray
    clips: npt.NDArray[np.str_]
    provenance: tuple[str, ...]
    damaged: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        converted: npt.NDArray[Any] = self.values.astype(dtype or np.float32, copy=bool(copy))
        return converted

    def mean_by_clip(self) -> tuple[list[str], FloatArray]:
        """Return the clips, sorted by name, and the mean embedding of each, shape (clips, d)."""
        names, index = np.unique(self.clips, return_inverse=True)
        means = np.stack(
            [self.values[index == number].mean(axis=0) for number in range(len(names))]
        )
        return [str(name) for name in names], means

    def _repr_html_(self) -> str:
        """Return a table of the clips for a notebook."""
        names, counts = np.unique(self.clips, return_counts=True)
        rows = [
            (str(name), f"{count:,}")
            for name, count in zip(names[:_SHOWN_CLIPS], counts[:_SHOWN_CLIPS], strict=True)
        ]
        if len(names) > _SHOWN_CLIPS:
            rows.append((f"and {len(names) - _SHOWN_CLIPS:,} more", ""))
        count, size = self.values.shape
        return html_table(
            f"{count:,} embeddings of {size} values", ("clip", "windows"), rows, self.provenance
        )


def embed_file(
    path: str | PathLike[str],
    model: ModelLike | None = None,
    *,
    hop_s: float = 0.1,
    center: bool = True,
    quantization: str | None = None,
    runtime: str | None = None,
    resampler: str = KAISER_BEST,
) -> Embeddings:
    """Embed an audio file.

    The defaults are those of :func:`get_embedding` and of the command ``embed``.

    Parameters
    ----------
    path : str or pathlib.Path
        A file of any length, in a format that libsndfile reads.
    model : EmbeddingModel, Deployment, str or pathlib.Path, optional
        A loaded model, a deployment, or the directory of one. By default EdgeL3 with 95.45 % of
        zeros, in float; it is opened at every call.
    hop_s : float
        Seconds from one window of 1 s to the next.
    center : bool
        Put half a window of zeros before the audio, so that a time is the centre of its window.
    quantization : str, optional
        'float', or the type that the deployment was converted to, which is its default.
    runtime : str, optional
        A name that ``--runtime`` takes: 'engine', or 'node' for what a board computes.
    resampler : {'kaiser_best', 'soxr'}
        For a file with another sample rate than the network's.

    Returns
    -------
    Embeddings

    Raises
    ------
    EdgeL3Error
        If the file cannot be read, or the model cannot be opened.

    Warns
    -----
    EdgeL3Warning
        If the file is silent or shorter than a window, or the weights are the stand-in's.

    Examples
    --------
    >>> embeddings = embed_file("street.wav", hop_s=0.5)  # 10 seconds
    >>> embeddings.values.shape
    (20, 512)
    """
    opened = open_model(model, quantization=quantization, runtime=runtime)
    embedder = StreamEmbedder(opened, Framing(hop_s, center, resampler=resampler))
    return _join(embedder, [_embed(embedder, Path(path), str(path))], {})


def embed_folder(
    folder: str | PathLike[str],
    model: ModelLike | None = None,
    *,
    hop_s: float = 0.1,
    center: bool = True,
    quantization: str | None = None,
    runtime: str | None = None,
    resampler: str = KAISER_BEST,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> Embeddings:
    """Embed all audio files below a folder into one matrix.

    All embeddings are in memory. For a corpus that does not fit there, use the command
    ``embed --manifest``.

    Parameters
    ----------
    folder : str or pathlib.Path
    model, hop_s, center, quantization, runtime, resampler
        As for :func:`embed_file`.
    keep_going : bool
        Leave out files that cannot be read, and list them in ``damaged``.
    progress : callable, optional
        Progress callback: ``(step, done, total)``, in files.

    Returns
    -------
    Embeddings
        ``clips`` has paths relative to ``folder``, in their order.

    Raises
    ------
    EdgeL3Error
        As :func:`embed_file`; also if the folder contains no audio file, or all are damaged.

    Examples
    --------
    >>> embeddings = embed_folder("recordings", "edgel3", hop_s=1)
    >>> names, matrix = embeddings.mean_by_clip()
    """
    root = Path(folder)
    paths = find_clips([root])
    opened = open_model(model, quantization=quantization, runtime=runtime)
    embedder = StreamEmbedder(opened, Framing(hop_s, center, resampler=resampler))
    parts: list[_Part] = []
    damaged: dict[str, str] = {}
    for done, path in enumerate(paths):
        if progress is not None:
            progress("embed files", done, len(paths))
        name = path.relative_to(root).as_posix() if path != root else path.name
        try:
            parts.append(_embed(embedder, path, name))
        except AudioError as error:
            if not keep_going:
                raise
            damaged[name] = str(error)
    if progress is not None:
        progress("embed files", len(paths), len(paths))
    if not parts:
        raise AudioError(
            f"{root}: expected a file that can be read; {next(iter(damaged.values()))}"
        )
    return _join(embedder, parts, damaged)


_Part = tuple[str, FloatArray, DoubleArray]


def _embed(embedder: StreamEmbedder, path: Path, name: str) -> _Part:
    found = list(embedder.embed_file(path))
    values = np.concatenate([values for values, _ in found])
    return name, values, np.concatenate([times for _, times in found])


def _join(embedder: StreamEmbedder, parts: list[_Part], damaged: Mapping[str, str]) -> Embeddings:
    return Embeddings(
        np.concatenate([values for _, values, _ in parts]),
        np.concatenate([times for _, _, times in parts]),
        np.repeat([name for name, _, _ in parts], [len(times) for _, _, times in parts]),
        embedder.provenance,
        damaged,
    )


class Stream:
    """Embeds sound while it arrives: blocks of samples in, embeddings out.

    A window is embedded as soon as its last sample has arrived. Memory use is constant.

    Parameters
    ----------
    model : EmbeddingModel, Deployment, str or pathlib.Path, optional
        As for :func:`embed_file`. It is opened once.
    sample_rate_hz : float, optional
        Sample rate of the blocks; by default the network's, which :attr:`sample_rate_hz` returns.
        Blocks of another rate are resampled by soxr.
    hop_s : float
        Seconds from one window of 1 s to the next.
    quantization, runtime : str, optional
        As for :func:`embed_file`.

    Raises
    ------
    EdgeL3Error
        If an argument is out of its range, or the model cannot be opened.

    Examples
    --------
    The microphone of this computer, with the package sounddevice:

    >>> import sounddevice
    >>> stream = Stream("edgel3", hop_s=0.5)
    >>> with sounddevice.InputStream(stream.sample_rate_hz, channels=1) as microphone:
    ...     blocks = (microphone.read(4800)[0] for _ in range(100))
    ...     for embedding, time_s in stream.embed(blocks):
    ...         print(f"{time_s:.1f} s: {embedding[:4]}")
    """

    def __init__(
        self,
        model: ModelLike | None = None,
        *,
        sample_rate_hz: float | None = None,
        hop_s: float = 0.5,
        quantization: str | None = None,
        runtime: str | None = None,
    ) -> None:
        # One window in a batch, because the next one has not arrived yet.
        framing = Framing(hop_s, center=False, batch_size=1, resampler=SOXR)
        opened = open_model(model, quantization=quantization, runtime=runtime)
        self._embedder = StreamEmbedder(opened, framing)
        self.sample_rate_hz = sample_rate_hz or self._embedder.sample_rate_hz

    @property
    def model(self) -> EmbeddingModel:
        """The opened model."""
        return self._embedder.model

    @property
    def provenance(self) -> tuple[str, ...]:
        """Lines of text about weights, model and resampler."""
        return self._embedder.provenance

    def embed(self, blocks: Iterable[npt.ArrayLike]) -> Iterator[tuple[FloatArray, float]]:
        """Embed blocks of samples as they arrive.

        Parameters
        ----------
        blocks : iterable of array_like, shape (samples,) or (samples, channels)
            Samples at ``sample_rate_hz``; full scale is 1. Channels are averaged. Blocks may have
            any length; they do not change the result.

        Yields
        ------
        embedding : numpy.ndarray, shape (d,), float32
        time_s : float
            Start of the window, in seconds from the first sample.

        Raises
        ------
        AudioError
            If a block has another shape, or values that are NaN, infinite or not real numbers.

        Warns
        -----
        EdgeL3Warning
            At the end, if all samples were zero, or there were fewer than a window has.
        """
        mono = map(_to_mono, blocks)
        resampled = resample_blocks(mono, self.sample_rate_hz, self._embedder.sample_rate_hz, SOXR)
        for values, times in self._embedder.embed_blocks(resampled):
            yield values[0], float(times[0])


def _to_mono(block: npt.ArrayLike) -> FloatArray:
    samples = np.asarray(block)
    if samples.size == 0:
        return np.empty(0, np.float32)
    samples = check_audio(samples)
    mono = mix_down(samples.reshape(len(samples), -1))
    refuse_non_finite(mono, "samples")
    return mono
