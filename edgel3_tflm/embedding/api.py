"""Embed arrays and audio files, with the functions of the package edgel3.

Arrays and files are embedded block by block. A recording of a day therefore takes no more memory
than one of a minute, and the result does not depend on the size of a block.
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
from edgel3_tflm.embedding.loading import find_network
from edgel3_tflm.embedding.models import EmbeddingModel, ModelChoice, open_deployment
from edgel3_tflm.embedding.npz import plan_outputs, write_embeddings
from edgel3_tflm.embedding.openl3 import refuse_openl3_arguments
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.networks.sources import parse_weights_source
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import DoubleArray, FloatArray

ModelLike = EmbeddingModel | Deployment | str | PathLike[str]
"""A model that is loaded, or a deployment or its directory."""

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
    """Compute the embeddings of one recording, or of several.

    The recording is cut into windows of one second, one every ``hop_size`` seconds, and each window
    becomes one embedding. Before that, channels are averaged and the samples are resampled to the
    network's rate: 48 kHz for EdgeL3 and L3, 8 kHz for SEA-UST. Zeros are appended to the last
    window so that every sample is used.

    Parameters
    ----------
    audio : numpy.ndarray, shape (samples,) or (samples, channels), or a list of such arrays
        Samples of any real type; they are converted to float32 without scaling. Full scale is 1, as
        ``soundfile.read`` returns them.
    sr : float or list of float
        Sample rate in Hz. For a list of arrays, one rate for all of them or a list of rates.
    model : EmbeddingModel, Deployment, str or pathlib.Path, optional
        The result of :func:`edgel3_tflm.load_embedding_model`, a :class:`edgel3_tflm.Deployment` or
        the directory of one. It determines the network; the next four arguments are checked but not
        used. Without it the network is loaded at every call, so load it once to embed many
        recordings.
    model_type : {'sparse', 'sea', 'dense'}
        'sparse' is EdgeL3, 'sea' is SEA-UST and 'dense' is L3, which has no published weights.
    emb_dim : {512, 256, 128, 64}
        Number of values of an embedding. Used only for 'sea'; 'sparse' and 'dense' have 512.
    retrain_type : {'ft', 'kd'}
        Fine-tuned or knowledge-distilled weights. Used only for 'sparse'.
    sparsity : float
        Percent of the weights that are zero, 95.45 for example. Used only for 'sparse';
        :func:`edgel3_tflm.load_embedding_model` lists the values.
    center : bool
        Put half a window of zeros before the recording, so that a timestamp is the centre of its
        window. If False, a timestamp is the beginning of its window.
    hop_size : float
        Time from one window to the next, in seconds.
    verbose : {0, 1}
        Accepted for compatibility with edgel3; it changes nothing. Progress is logged by the logger
        ``edgel3_tflm`` at level INFO.
    quantization : {'float', 'int8'}, optional
        By default 'float', or the quantization of the deployment that is given as ``model``.
        'int8' converts a network the first time, which needs the extra ``convert``, and keeps the
        result in the cache.
    runtime : str, optional
        The interpreter, 'litert' or 'engine' for example. By default the fastest that suits
        the model; see :class:`edgel3_tflm.embedding.models.ModelChoice`.
    weights : str or pathlib.Path
        A weight file; 'published'; 'bundled' for the stand-in that is part of this package; or
        'auto' for the published weights, and for the stand-in if these cannot be downloaded.
    batch_size : int
        Number of windows that the runtime gets at a time. It does not change the result.
    resampler : {'kaiser_best', 'soxr'}
        Resamples audio that does not have the network's rate. 'kaiser_best' gives the embeddings of
        edgel3. 'soxr' is faster, and its embeddings differ slightly.

    Returns
    -------
    embedding : numpy.ndarray, shape (n, d), float32
        One row for each window. For a list of recordings, a list with an array for each.
    timestamps : numpy.ndarray, shape (n,), float64
        Time of each window in seconds. For a list of recordings, a list with an array for each.

    Raises
    ------
    EdgeL3Error
        If the audio is empty, has more than two dimensions, has more channels than samples, or
        contains values that are NaN, infinite or not real numbers; if another argument is out of
        its range; or if the model cannot be loaded.

    Warns
    -----
    EdgeL3Warning
        If the audio is all zeros or shorter than one second, or if the weights are the stand-in's.

    Examples
    --------
    >>> import soundfile
    >>> from edgel3_tflm import get_embedding, load_embedding_model
    >>> audio, sr = soundfile.read("street.wav")  # 10 seconds
    >>> model = load_embedding_model("sparse", 128, "ft", 95.45)
    >>> embedding, timestamps = get_embedding(audio, sr, model, hop_size=0.5)
    >>> embedding.shape, timestamps[:3]
    ((20, 512), array([0. , 0.5, 1. ]))
    """
    several = _is_list_of_arrays(audio)
    sounds = [check_audio(each) for each in (audio if several else [audio])]
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
    """Whether there are several recordings; a single one may be a list of numbers."""
    return (
        isinstance(audio, list | tuple)
        and len(audio) > 0
        and not isinstance(audio[0], list | tuple)
        and np.ndim(audio[0]) > 0
    )


def check_audio(audio: Any) -> npt.NDArray[Any]:
    """Return samples as an array of shape (samples,) or (samples, channels), not empty.

    Raises
    ------
    AudioError
        If they have another shape or are not real numbers.
    """
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
    """Return a sample rate for each recording; ``sounds`` is None for one without a list."""
    if sounds is None or np.ndim(sr) == 0:
        rates_hz = [sr] * (sounds or 1)
    else:
        rates_hz = list(sr)
        if len(rates_hz) != sounds:
            raise EdgeL3Error(
                f"expected one sample rate for all {sounds} sounds, or one for each, got"
                f" {len(rates_hz)}"
            )
    for rate_hz in rates_hz:
        if not is_positive(rate_hz):
            raise EdgeL3Error(f"expected a sample rate in Hz above 0, got {rate_hz!r}")
    return [float(rate_hz) for rate_hz in rates_hz]


def _divide(audio: npt.NDArray[Any]) -> Iterator[FloatArray]:
    """Divide samples into blocks and average their channels, as it is done for files."""
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
    """Open the given model, or else the network that the other arguments select.

    Parameters are those of :func:`get_embedding`.

    Raises
    ------
    EdgeL3Error
        If an argument is out of its range, the model cannot be loaded, or a loaded model has
        another quantization or runtime.
    """
    network = find_network(model_type, emb_dim, retrain_type, sparsity)
    if model is None:
        return ModelChoice(network, quantization, runtime, parse_weights_source(weights)).open()
    if isinstance(model, EmbeddingModel):
        asked = (quantization or model.quantization, runtime or model.runtime)
        if asked != (model.quantization, model.runtime):
            raise EdgeL3Error(
                f"expected the model's own {model.quantization} in {model.runtime}, got"
                f" {' in '.join(asked)}; load the model with these"
            )
        return model
    if isinstance(model, Deployment):
        return open_deployment(model, quantization, runtime)
    if isinstance(model, str | PathLike):
        return ModelChoice(Path(model), quantization, runtime).open()
    raise EdgeL3Error(
        "expected as model the result of load_embedding_model, a Deployment or its directory, got"
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
    """Embed audio files, and write the embeddings of each as an .npz file.

    Files may have any length and any format that libsndfile reads. They are read in blocks, so that
    memory does not grow with their length. The .npz file contains three arrays: ``embedding``,
    shape (n, d), float32; ``timestamps``, shape (n,), in seconds; and ``provenance``, lines of text
    about the weights, the model and the resampler.

    Parameters
    ----------
    filepath : path or sequence of paths
        The audio files.
    output_dir : path, optional
        Directory of the .npz files. It is made if it does not exist. By default each is written to
        the directory of its audio file.
    suffix : str, optional
        Added to the file's name: ``street.wav`` becomes ``street_SUFFIX.npz``. By default
        ``street.npz``.
    model, model_type, emb_dim, sparsity, center, hop_size, retrain_type, quantization
        As for :func:`get_embedding`.
    runtime, weights, batch_size, resampler
        As for :func:`get_embedding`.
    verbose : bool
        Accepted for compatibility with edgel3; it changes nothing. Progress is logged by the logger
        ``edgel3_tflm`` at level INFO.
    overwrite : bool
        If False, files whose .npz file exists are skipped. edgel3 always overwrites.

    Raises
    ------
    EdgeL3Error
        As :func:`get_embedding`; also if a file cannot be read or written, or two files have the
        same .npz file. Nothing is written for the file that fails. The .npz files of the files
        before it are complete.

    Warns
    -----
    EdgeL3Warning
        As :func:`get_embedding`.

    Examples
    --------
    >>> from edgel3_tflm import process_file
    >>> process_file("street.wav", output_dir="embeddings")  # writes embeddings/street.npz
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
