"""Embeddings as a step of a scikit-learn pipeline. Needs scikit-learn: the extra ``probe``."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from edgel3_tflm.audio.framing import Framing
from edgel3_tflm.audio.resampling import SOXR, resample_blocks
from edgel3_tflm.embedding.api import open_model
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import RuntimeUnavailableError, install_hint
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import FloatArray

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise RuntimeUnavailableError(
        f"EdgeL3Transformer needs scikit-learn 1.6 or later; {install_hint('probe')}"
    ) from error


class EdgeL3Transformer(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Turn clips into embeddings: the mean over the windows of each clip.

    Nothing is learned from the clips: ``fit`` opens the model and checks the parameters.

    Parameters
    ----------
    model : Deployment, str or pathlib.Path, optional
        A deployment or its directory. By default EdgeL3 with 95.45 % of zeros, in float. A model
        that is opened already is no parameter, because scikit-learn copies parameters.
    hop_s : float
        Seconds from one window of 1 s to the next.
    sample_rate_hz : float, optional
        Sample rate of clips that are given as samples; by default the network's.
    quantization, runtime : str, optional
        As for :func:`edgel3_tflm.embed_file`.
    resampler : {'soxr', 'kaiser_best'}
        For clips with another sample rate than the network's.

    Attributes
    ----------
    n_features_in_ : int
        Samples of a clip, if the clips were given as samples.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> pipeline = make_pipeline(EdgeL3Transformer("edgel3"), LogisticRegression())
    >>> pipeline.fit(["dog.wav", "rain.wav"], ["dog", "rain"]).predict(["street.wav"])
    array(['rain'], dtype='<U4')
    """

    def __init__(
        self,
        model: Deployment | str | PathLike[str] | None = None,
        *,
        hop_s: float = 0.5,
        sample_rate_hz: float | None = None,
        quantization: str | None = None,
        runtime: str | None = None,
        resampler: str = SOXR,
    ) -> None:
        self.model = model
        self.hop_s = hop_s
        self.sample_rate_hz = sample_rate_hz
        self.quantization = quantization
        self.runtime = runtime
        self.resampler = resampler

    def fit(self, X: Sequence[str | PathLike[str]] | npt.ArrayLike, y: object = None) -> Self:  # noqa: N803
        """Open the model, and remember the length of clips that are given as samples.

        Parameters
        ----------
        X : sequence of paths, or array_like of shape (n, samples)
            Audio files; or mono samples at ``sample_rate_hz``, full scale 1.
        y : object
            Not used.

        Returns
        -------
        EdgeL3Transformer
            Itself.

        Raises
        ------
        EdgeL3Error
            If a parameter is out of its range, or the model cannot be opened.
        """
        del y
        if not _are_paths(X):
            validate_data(self, X)
        self._n_features_out = self._open().model.variant.embedding_size
        return self

    def transform(self, X: Sequence[str | PathLike[str]] | npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Embed clips.

        Parameters
        ----------
        X : sequence of paths, or array_like of shape (n, samples)
            As for :meth:`fit`.

        Returns
        -------
        numpy.ndarray, shape (n, d), float32
            A data frame if ``set_output`` asks for one.

        Raises
        ------
        EdgeL3Error
            If a clip cannot be read, or has samples that are NaN or infinite.
        """
        check_is_fitted(self)
        given: Any = X
        clips = map(Path, given) if _are_paths(X) else validate_data(self, X, reset=False)
        embedder = self._open()
        return np.stack([self._embed(embedder, clip) for clip in clips])

    def _embed(self, embedder: StreamEmbedder, clip: Any) -> FloatArray:
        if isinstance(clip, Path):
            parts = embedder.embed_file(clip)
        else:
            to_hz = embedder.sample_rate_hz
            samples = np.asarray(clip, np.float32)
            parts = embedder.embed_blocks(
                resample_blocks([samples], self.sample_rate_hz or to_hz, to_hz, self.resampler)
            )
        mean: FloatArray = np.concatenate([values for values, _ in parts]).mean(axis=0)
        return mean

    def _open(self) -> StreamEmbedder:
        """Return the opened model. A copy in another process opens it again."""
        key = (self.model, self.hop_s, self.quantization, self.runtime, self.resampler)
        opened: tuple[Any, StreamEmbedder] | None = self.__dict__.get("_opened")
        if opened is None or opened[0] != key:
            model = open_model(self.model, quantization=self.quantization, runtime=self.runtime)
            framing = Framing(self.hop_s, center=False, resampler=self.resampler)
            self._opened = opened = (key, StreamEmbedder(model, framing))
        return opened[1]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_n_features_out")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the opened model, whose interpreter cannot be copied."""
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_opened", None)
        return state


def _are_paths(clips: Any) -> bool:
    """Return whether clips are paths of files, and not rows of samples."""
    return (
        not isinstance(clips, str)
        and hasattr(clips, "__len__")
        and np.ndim(clips) == 1
        and len(clips) > 0
        and all(isinstance(each, str | PathLike) for each in clips)
    )
