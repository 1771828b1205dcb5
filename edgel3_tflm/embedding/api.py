"""Embeddings of sound and of files, as edgel3's users call them.

Everything is computed block by block, arrays and files alike: a recording of a day takes no more
memory than one of a minute, and has the numbers it has in one piece.
"""

import logging
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.clips import BLOCK_FRAMES, mix_down
from edgel3_tflm.audio.framing import DEFAULT_BATCH_SIZE, Framing, is_positive
from edgel3_tflm.audio.resampling import KAISER_BEST, resample_blocks
from edgel3_tflm.embedding.models import (
    EmbeddingModel,
    ModelChoice,
    find_network,
    open_deployment,
    refuse_openl3_arguments,
)
from edgel3_tflm.embedding.npz import plan_outputs, write_embeddings
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.networks.sources import parse_weights_source
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import DoubleArray, FloatArray

ModelLike = EmbeddingModel | Deployment | str | PathLike[str]
"""What is taken as a model; a string or path is a deployment directory's."""

_log = logging.getLogger(__name__)


@overload
def get_embedding(
    audio: npt.NDArray[Any], sr: float, *arguments: Any, **options: Any
) -> tuple[FloatArray, DoubleArray]: ...


@overload
def get_embedding(
    audio: Sequence[npt.NDArray[Any]], sr: float | Sequence[float], *arguments: Any, **options: Any
) -> tuple[list[FloatArray], list[DoubleArray]]: ...


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
) -> tuple[FloatArray | list[FloatArray], DoubleArray | list[DoubleArray]]:
    """Compute embeddings of a sound, one every ``hop_size`` seconds; or of several, as openl3 does.

    Channels are averaged and the result is resampled to what the network takes; zeros are appended
    so that every sample is used.

    Parameters
    ----------
    audio : numpy.ndarray, shape (N,) or (N, channels), or a list of such arrays
    sr : float or list of float
        Sample rate in Hz; of a list of sounds one for all, or one for each.
    model : optional
        What :func:`edgel3_tflm.load_embedding_model` returned, a ``Deployment`` or a deployment
        directory. It is opened for every call where it is not loaded yet: load it once
        for many sounds. What is given here decides on the network; the next four are checked and
        not used.
    model_type, emb_dim, retrain_type, sparsity, weights
        As for :func:`edgel3_tflm.embedding.models.load_embedding_model`.
    center : bool
        Put half a window of zeros in front, so that a time is the middle of its window.
    hop_size : float
        Seconds.
    verbose : {0, 1}
        As edgel3 has it; what there is to say is in the log of the package at level INFO.
    quantization : {'float', 'int8'}, optional
        If not given, float; of a deployment, what it was converted to.
    runtime : str, optional
        As for :class:`edgel3_tflm.embedding.models.ModelChoice`.
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
        return ModelChoice(network, quantization, runtime, parse_weights_source(weights)).open()
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
