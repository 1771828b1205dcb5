"""Embeddings of sound and of files, as edgel3's users call them.

Everything is computed block by block, arrays and files alike: a recording of a day takes no more
memory than one of a minute, and has the numbers it has in one piece.
"""

import logging
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio import (
    BLOCK_FRAMES,
    FloatArray,
    hop_in_samples,
    mix_down,
    read_blocks,
)
from edgel3_tflm.deployment import Deployment
from edgel3_tflm.errors import AudioError, EdgeL3Error, EdgeL3Warning
from edgel3_tflm.files import new_file
from edgel3_tflm.models import (
    EmbeddingModel,
    ModelChoice,
    find_network,
    find_weights_source,
    is_positive,
    open_deployment,
    refuse_openl3_arguments,
)
from edgel3_tflm.resampling import KAISER_BEST, check_resampler, resample_blocks

TimeArray = npt.NDArray[np.float64]
ModelLike = EmbeddingModel | Deployment | str | PathLike[str]
"""What is taken as a model; a string or path is a deployment directory's."""

DEFAULT_BATCH_SIZE = 32
"""Windows of one call of the runtime; some 15 MB of samples and spectrograms."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Framing:
    """How sound is cut into windows of a second.

    Parameters
    ----------
    hop_size : float
        Seconds from one window to the next.
    center : bool
        Begin with half a window of zeros, so that a time is the middle of its window.
    batch_size : int
        Windows of one call of the runtime; it changes no result.
    resampler : str
        One of ``resampling.RESAMPLERS``, for sound of another sample rate than the network's.

    Raises
    ------
    EdgeL3Error
        If one is out of its range.
    """

    hop_size: float = 0.1
    center: bool = True
    batch_size: int = DEFAULT_BATCH_SIZE
    resampler: str = KAISER_BEST

    def __post_init__(self) -> None:
        if not is_positive(self.hop_size):
            raise EdgeL3Error(f"expected a hop size in seconds above 0, got {self.hop_size!r}")
        if self.center not in (True, False):
            raise EdgeL3Error(f"expected center to be True or False, got {self.center!r}")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise EdgeL3Error(f"expected a batch size of 1 or more, got {self.batch_size!r}")
        check_resampler(self.resampler)

    def hop_samples(self, sample_rate_hz: int) -> int:
        """Return the whole samples of a hop, as :func:`edgel3_tflm.audio.hop_in_samples` does."""
        return hop_in_samples(self.hop_size, sample_rate_hz)


@dataclass(frozen=True)
class StreamEmbedder:
    """Embeds sound of any length, window by window."""

    model: EmbeddingModel
    framing: Framing = Framing()

    @property
    def sample_rate_hz(self) -> int:
        """What the network takes."""
        return self.model.variant.frontend.sample_rate_hz

    @property
    def provenance(self) -> tuple[str, ...]:
        """What there is to say of its embeddings: of the model, and how sound is resampled."""
        to_hz = self.sample_rate_hz
        return (*self.model.provenance, f"resampled to {to_hz} Hz by {self.framing.resampler}")

    def embed_file(self, path: Path) -> Iterator[tuple[FloatArray, TimeArray]]:
        """Embed a file block by block; :meth:`embed_blocks` says what comes and what is warned of.

        Raises
        ------
        AudioError
            If the file cannot be read to its end, after any number of blocks.
        """
        return self.embed_blocks(read_blocks(path, self.sample_rate_hz, self.framing.resampler))

    def embed_blocks(self, blocks: Iterable[FloatArray]) -> Iterator[tuple[FloatArray, TimeArray]]:
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
            held = _center_audio(held, window_samples)
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
            padded = _pad_audio(held, window_samples, hop)
            yield padded[np.newaxis]


def _center_audio(audio: npt.NDArray[Any], frame_len: int) -> npt.NDArray[Any]:
    """Put half a window of zeros in front; the odd sample of an odd window is left out."""
    return np.pad(audio, (frame_len // 2, 0))


def _pad_audio(audio: npt.NDArray[Any], frame_len: int, hop_len: int) -> npt.NDArray[Any]:
    """Append zeros until windows of ``frame_len``, one every ``hop_len``, use every sample."""
    hops = -(-max(0, audio.size - frame_len) // hop_len)
    return np.pad(audio, (0, frame_len + hops * hop_len - audio.size))


@overload
def get_embedding(
    audio: npt.NDArray[Any], sr: float, *arguments: Any, **options: Any
) -> tuple[FloatArray, TimeArray]: ...


@overload
def get_embedding(
    audio: Sequence[npt.NDArray[Any]], sr: float | Sequence[float], *arguments: Any, **options: Any
) -> tuple[list[FloatArray], list[TimeArray]]: ...


@refuse_openl3_arguments
def get_embedding(
    audio: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
    sr: float | Sequence[float],
    model: ModelLike | None = None,
    model_type: str = "sparse",
    emb_dim: int = 128,
    retrain_type: str = "ft",
    sparsity: float = 95.45,
    center: bool = True,
    hop_size: float = 0.1,
    verbose: int = 1,
    *,
    quantization: str | None = None,
    runtime: str | None = None,
    weights: str | Path = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    resampler: str = KAISER_BEST,
) -> tuple[FloatArray | list[FloatArray], TimeArray | list[TimeArray]]:
    """Compute embeddings of a sound, one every ``hop_size`` seconds; or of several, as openl3 does.

    Channels are averaged and the result is resampled to what the network takes; zeros are appended
    so that every sample is used.

    Parameters
    ----------
    audio : numpy.ndarray, shape (N,) or (N, channels), or a list of such arrays
    sr : float or list of float
        Sample rate in Hz; of a list of sounds one for all, or one for each.
    model : optional
        What :func:`edgel3_tflm.models.load_embedding_model` returned, a ``Deployment`` or a
        deployment directory. It is opened for every call where it is not loaded yet: load it once
        for many sounds. What is given here decides on the network; the next four are checked and
        not used.
    model_type, emb_dim, retrain_type, sparsity, weights
        As for :func:`edgel3_tflm.models.load_embedding_model`.
    center : bool
        Put half a window of zeros in front, so that a time is the middle of its window.
    hop_size : float
        Seconds.
    verbose : {0, 1}
        As edgel3 has it; what there is to say is in the log of the package at level INFO.
    quantization : {'float', 'int8'}, optional
        If not given, float; of a deployment, what it was converted to.
    runtime : str, optional
        As for :class:`edgel3_tflm.models.ModelChoice`.
    batch_size : int
        Windows of one call of the runtime; it changes no result.
    resampler : {'kaiser_best', 'soxr'}
        For a sound of another sample rate than the network's: edgel3's own, or a faster one, with
        embeddings a little apart.

    Returns
    -------
    embedding : numpy.ndarray, shape (n, d), float32
        A list of one for each sound if a list was given.
    timestamps : numpy.ndarray, shape (n,)
        Seconds; a list likewise.

    Raises
    ------
    EdgeL3Error
        If the audio is empty, has more than two dimensions, more channels than samples or samples
        that are no numbers; if an argument is out of its range; if there is no model.

    Warns
    -----
    EdgeL3Warning
        If the audio is all zeros or shorter than a window, or the weights are the stand-in's.
    """
    several = _is_list_of_arrays(audio)
    sounds = [_check_audio(each) for each in (audio if several else [audio])]
    rates_hz = _check_rates(sr, len(sounds) if several else None)
    if verbose not in (0, 1):
        raise EdgeL3Error(f"expected verbose to be 0 or 1, got {verbose!r}")
    framing = Framing(hop_size, center, batch_size, resampler)
    opened = open_model(
        model, model_type, emb_dim, retrain_type, sparsity, quantization, runtime, weights
    )
    embedder = StreamEmbedder(opened, framing)
    embeddings, times = [], []
    for sound, rate_hz in zip(sounds, rates_hz, strict=True):
        blocks = resample_blocks(_divide(sound), rate_hz, embedder.sample_rate_hz, resampler)
        found = list(embedder.embed_blocks(blocks))
        embeddings.append(np.concatenate([part for part, _ in found]))
        times.append(np.concatenate([part for _, part in found]))
        _log.info("%d embeddings of %d values", *embeddings[-1].shape)
    return (embeddings, times) if several else (embeddings[0], times[0])


def _is_list_of_arrays(audio: Any) -> bool:
    """Tell several sounds from one, whose samples or frames may be a list too."""
    return (
        isinstance(audio, list | tuple)
        and len(audio) > 0
        and not isinstance(audio[0], list | tuple)
        and np.ndim(audio[0]) > 0
    )


def _check_audio(audio: Any) -> npt.NDArray[Any]:
    try:
        samples: npt.NDArray[Any] = np.asarray(audio)
    except ValueError as error:
        raise AudioError(f"expected audio as an array or a list of arrays, got {error}") from error
    if samples.size == 0:
        raise AudioError("expected audio, got none (0 samples)")
    if samples.ndim not in (1, 2):
        raise AudioError(
            f"expected audio of shape (samples,) or (samples, channels), got {samples.shape}"
        )
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        raise AudioError(
            f"expected audio of shape (samples, channels), got {samples.shape}, which has more"
            " channels than samples; where channels come first, give audio.T"
        )
    if samples.dtype.kind not in "fiub":
        raise AudioError(f"expected real numbers as samples, got {samples.dtype}")
    return samples


def _check_rates(sr: Any, sounds: int | None) -> list[float]:
    """One sample rate for each sound; ``sounds`` is None if a single one was not in a list."""
    if sounds is None or np.ndim(sr) == 0:
        rates_hz = [sr] * (sounds or 1)
    else:
        rates_hz = list(sr)
        if len(rates_hz) != sounds:
            raise EdgeL3Error(
                f"expected a sample rate for all of {sounds} sounds, or one for each, got"
                f" {len(rates_hz)}"
            )
    for rate_hz in rates_hz:
        if not is_positive(rate_hz):
            raise EdgeL3Error(f"expected a sample rate in Hz above 0, got {rate_hz!r}")
    return [float(rate_hz) for rate_hz in rates_hz]


def _divide(audio: npt.NDArray[Any]) -> Iterator[FloatArray]:
    """Mix down and divide samples as a file's are."""
    for first in range(0, len(audio), BLOCK_FRAMES):
        block = audio[first : first + BLOCK_FRAMES]
        yield mix_down(block.reshape(len(block), -1))


def open_model(
    model: ModelLike | None,
    model_type: str = "sparse",
    emb_dim: int = 128,
    retrain_type: str = "ft",
    sparsity: float = 95.45,
    quantization: str | None = None,
    runtime: str | None = None,
    weights: str | Path = "auto",
) -> EmbeddingModel:
    """Open what is given as a model, or else the network that edgel3's words name.

    Raises
    ------
    EdgeL3Error
        As :func:`get_embedding`, of which these arguments are.
    """
    network = find_network(model_type, emb_dim, retrain_type, sparsity)
    if model is None:
        return ModelChoice(network, quantization, runtime, find_weights_source(weights)).open()
    if isinstance(model, EmbeddingModel):
        asked = (quantization or model.quantization, runtime or model.runtime)
        if asked != (model.quantization, model.runtime):
            raise EdgeL3Error(
                f"expected the model's own {model.quantization} in {model.runtime}, got"
                f" {' in '.join(asked)}; load it so"
            )
        return model
    if isinstance(model, Deployment):
        return open_deployment(model, quantization, runtime)
    if isinstance(model, str | PathLike):
        return ModelChoice(Path(model), quantization, runtime).open()
    raise EdgeL3Error(
        "expected as a model what load_embedding_model returns, a Deployment or its directory, got"
        f" {type(model).__name__}"
    )


@refuse_openl3_arguments
def process_file(
    filepath: str | PathLike[str] | Sequence[str | PathLike[str]],
    output_dir: str | PathLike[str] | None = None,
    suffix: str | None = None,
    model: ModelLike | None = None,
    model_type: str = "sparse",
    emb_dim: int = 128,
    sparsity: float = 95.45,
    center: bool = True,
    hop_size: float = 0.1,
    verbose: bool = True,
    *,
    retrain_type: str = "ft",
    quantization: str | None = None,
    runtime: str | None = None,
    weights: str | Path = "auto",
    batch_size: int = DEFAULT_BATCH_SIZE,
    resampler: str = KAISER_BEST,
    overwrite: bool = True,
) -> None:
    """Compute the embeddings of a file, or of several, and write each file's as .npz.

    Files of any length, and of any format libsndfile reads; they are never in memory as a whole.
    :func:`write_embeddings` says what is written.

    Parameters
    ----------
    filepath : path or sequence of paths
    output_dir : path, optional
        Made if it does not exist; beside the file if not given.
    suffix : str, optional
        ``name_suffix.npz`` is written; ``name.npz`` if not given.
    model, model_type, emb_dim, sparsity, center, hop_size, retrain_type, quantization, runtime,
    weights, batch_size, resampler
        As for :func:`get_embedding`.
    verbose : bool
        As edgel3 has it; what there is to say is in the log of the package at level INFO.
    overwrite : bool
        Whether a file whose embeddings exist is embedded again, as edgel3 does.

    Raises
    ------
    EdgeL3Error
        As :func:`get_embedding`, or if a file cannot be read or written. Nothing is left of its
        embeddings then; those of the files before it are whole.

    Warns
    -----
    EdgeL3Warning
        As :func:`get_embedding`.
    """
    del verbose
    sources = [filepath] if isinstance(filepath, str | PathLike) else list(filepath)
    plan = plan_outputs([Path(each) for each in sources], output_dir, suffix)
    framing = Framing(hop_size, center, batch_size, resampler)
    opened = open_model(
        model, model_type, emb_dim, retrain_type, sparsity, quantization, runtime, weights
    )
    embedder = StreamEmbedder(opened, framing)
    for source, target in plan.items():
        if overwrite or not target.exists():
            write_embeddings(embedder, source, target)


def plan_outputs(
    sources: Iterable[Path],
    output_dir: str | PathLike[str] | None = None,
    suffix: str | None = None,
) -> dict[Path, Path]:
    """Tell where each file's embeddings go.

    Raises
    ------
    EdgeL3Error
        If two would go to one place.
    """
    plan: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for source in sources:
        target = Path(get_output_path(source, f"{suffix or ''}.npz", output_dir))
        other = taken.setdefault(target, source)
        if other != source:
            raise EdgeL3Error(
                f"{other} and {source} would both be written to {target}: give them in two runs,"
                " with other output directories or suffixes"
            )
        plan[source] = target
    return plan


def get_output_path(
    filepath: str | PathLike[str], suffix: str, output_dir: str | PathLike[str] | None = None
) -> str:
    """Path of a file's embeddings.

    Parameters
    ----------
    filepath : path
        The audio file.
    suffix : str
        With its extension; joined to the file's name by an underscore unless it begins with a dot.
    output_dir : path, optional
        The file's own if not given.
    """
    path = Path(filepath)
    joint = "" if suffix.startswith(".") else "_"
    return str(Path(output_dir or path.parent) / f"{path.stem}{joint}{suffix}")


def write_embeddings(
    embedder: StreamEmbedder,
    source: Path,
    target: Path,
    progress: Callable[[float], None] = lambda _: None,
) -> int:
    """Write the embeddings of a file as .npz, whole or not at all.

    Arrays as edgel3 has them: ``embedding``, shape (n, d), float32, and ``timestamps``, shape (n,),
    seconds. ``provenance`` holds lines of text: where the weights come from is the first, the
    resampler the last.

    Parameters
    ----------
    embedder : StreamEmbedder
    source, target : pathlib.Path
    progress : callable
        Takes the time of the last window, in seconds, again and again.

    Returns
    -------
    int
        How many windows.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read, or the disk refuses a write.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeL3Error(f"cannot write {target}: {error.strerror or error}") from error
    with new_file(target) as temporary, tempfile.TemporaryFile(dir=target.parent) as rows:
        # How many rows there are stands before them in an array's file, and is known at the end.
        all_times = []
        for embeddings, times in embedder.embed_file(source):
            rows.write(embeddings.astype("<f4", copy=False).tobytes())
            all_times.append(times)
            progress(float(times[-1]))
        timestamps = np.concatenate(all_times)
        rows.seek(0)
        shape = (len(timestamps), embedder.model.variant.embedding_size)
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open("embedding.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)  # type: ignore[no-untyped-call]
                shutil.copyfileobj(rows, member)
            with archive.open("timestamps.npy", "w") as member:
                np.save(member, timestamps, allow_pickle=False)
            with archive.open("provenance.npy", "w") as member:
                np.save(member, np.array(embedder.provenance), allow_pickle=False)
    _log.info("%s: %d embeddings", target, len(timestamps))
    return len(timestamps)
