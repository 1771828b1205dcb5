"""Open a network that embeds, from weights or from a deployment.

A float network needs no TensorFlow: its flatbuffer is written directly from the weights. An int8
network needs a deployment. It is given, or converted once and kept in the cache.
"""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgel3_tflm._version import __version__
from edgel3_tflm.errors import EdgeL3Error, EdgeL3Warning, ModelFileError, WeightsError
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.networks.sources import Note, WeightsSource, cache_directory, load_given
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import SUBSTITUTE_KINDS, NetworkWeights
from edgel3_tflm.runtime.artefacts import FLOAT
from edgel3_tflm.runtime.deployment import Deployment, Embedder
from edgel3_tflm.runtime.fastest import CANDIDATES, choose_runtime
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import runs_packed_models, split_runtime
from edgel3_tflm.types import FloatArray, Progress

QUANTIZATION_NAMES = (FLOAT, "int8")
"""Quantizations of a network that is not a deployment yet."""

_log = logging.getLogger(__name__)


def _log_progress(step: str, done: int, total: int) -> None:
    if done == 0:
        _log.info("%s (%d)", step, total)


@dataclass(frozen=True)
class EmbeddingModel:
    """A network in a runtime, ready to embed. The package edgel3 calls it a model.

    Only one thread at a time may use it.

    Parameters
    ----------
    variant : Variant
    quantization : str
        'float', 'int8' or 'int16x8'.
    runtime : str
        One of ``interpreters.EMBEDDER_RUNTIMES``.
    sha256 : str
        Digest of the file that the runtime runs.
    weights_kind, description : str
        Source of the weights, as in :class:`edgel3_tflm.networks.weights.Provenance`.
    embedder : Embedder

    Warns
    -----
    EdgeL3Warning
        If the weights replace the authors' weights.
    """

    variant: Variant
    quantization: str
    runtime: str
    sha256: str
    weights_kind: str
    description: str
    embedder: Embedder

    def __post_init__(self) -> None:
        if self.is_substitute:
            warnings.warn(self.description, EdgeL3Warning, stacklevel=2)

    @property
    def output_shape(self) -> tuple[None, int]:
        """Shape of the result, ``(None, embedding size)``, as a Keras model reports it."""
        return (None, self.variant.embedding_size)

    @property
    def is_substitute(self) -> bool:
        """Whether the weights replace the authors' weights: bundled or generated."""
        return self.weights_kind in SUBSTITUTE_KINDS

    @property
    def provenance(self) -> tuple[str, ...]:
        """Lines of text that describe the model; the first one describes the weights."""
        return (
            self.description,
            f"network {self.variant.name}, {self.quantization}, in {self.runtime}",
            f"model SHA-256 {self.sha256}",
            f"edgel3-tflm {__version__}",
        )

    def embed(self, windows: FloatArray) -> FloatArray:
        """Embed windows of one second.

        Parameters
        ----------
        windows : numpy.ndarray, shape (n, samples of a second), float32
            At the network's sample rate; full scale is 1.

        Returns
        -------
        numpy.ndarray, shape (n, d), float32
        """
        return self.embedder.embed(windows)


@dataclass(frozen=True)
class ModelChoice:
    """Describes a model to open. It is small and can be sent to a worker process.

    Parameters
    ----------
    source : Variant or pathlib.Path
        A network, or a deployment directory.
    quantization : str, optional
        By default, 'float' for a network and a deployment's own quantization. Otherwise one of
        ``QUANTIZATION_NAMES`` for a network, and 'float' or its own quantization for a deployment.
    runtime : str, optional
        One of ``interpreters.EMBEDDER_RUNTIMES``. By default the fastest on this machine that gives
        the exact result; see :mod:`edgel3_tflm.runtime.fastest`.
    weights : pathlib.Path or str
        Weights of a network: a file, or a word of ``WeightsWord`` except 'generated'. Not used for
        a deployment.
    """

    source: Variant | Path
    quantization: str | None = None
    runtime: str | None = None
    weights: WeightsSource = "auto"

    def settle(
        self, progress: Progress = _log_progress, note: Note = _log.warning
    ) -> "ModelChoice":
        """Convert a network to int8 if that is chosen and the cache has no intact conversion.

        Parameters
        ----------
        progress : callable
            Called with the progress of a conversion.
        note : callable
            Called before a conversion with a line of text: about a damaged deployment in the cache,
            or about the stand-in weights.

        Returns
        -------
        ModelChoice
            A choice that several processes may open at the same time: the deployment in the cache,
            or ``self`` if nothing has to be converted.

        Raises
        ------
        EdgeL3Error
            If there are no weights, or TensorFlow is missing.
        """
        if isinstance(self.source, Path) or self.quantization in (None, FLOAT):
            return self
        if self.quantization not in QUANTIZATION_NAMES:
            raise EdgeL3Error(
                f"unknown quantization {self.quantization!r}: expected one of"
                f" {', '.join(QUANTIZATION_NAMES)}; for another, convert and give the deployment"
            )
        weights = _load(self.source, self.weights)
        # The result of a conversion depends on the weights and on the version of this package.
        name = f"{weights.variant.name}-{weights.provenance.sha256[:16]}-{__version__}"
        directory = cache_directory() / "deployments" / name
        if not _is_whole(directory, note):
            self._convert(directory, progress, note)
        return replace(self, source=directory)

    def _convert(self, directory: Path, progress: Progress, note: Note) -> None:
        """Convert into the cache, unless another process has done it in the meantime."""
        from edgel3_tflm.converters.pipeline import ConvertOptions, convert

        assert isinstance(self.source, Variant)  # noqa: S101 - narrows for mypy
        with _locked(directory):
            if _is_whole(directory, _log.info):
                return
            shutil.rmtree(directory, ignore_errors=True)  # a damaged one may lack its manifest
            _log.info("converting %s to int8; the result is kept in the cache", self.source.name)
            convert(ConvertOptions(self.source, self.weights), directory, progress, note)

    def open(
        self,
        *,
        threads: int | None = None,
        progress: Progress = _log_progress,
        note: Note = _log.warning,
    ) -> EmbeddingModel:
        """Open the model.

        Parameters
        ----------
        threads : int, optional
            Number of threads; by default one for each core.
        progress, note : callable
            As for :meth:`settle`.

        Returns
        -------
        EmbeddingModel

        Raises
        ------
        EdgeL3Error
            If the weights or the deployment cannot be used, or a package is missing.
        """
        quantization, runtime = split_runtime(self.quantization, self.runtime)
        choice = replace(self, quantization=quantization, runtime=runtime).settle(progress, note)
        if isinstance(choice.source, Path):
            return open_deployment(
                Deployment.load(choice.source), choice.quantization, choice.runtime, threads=threads
            )
        return _open_float(choice.source, choice.weights, choice.runtime, threads)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Prevent other processes from writing a directory of the cache at the same time."""
    from filelock import FileLock  # takes long to load

    lock = FileLock(directory.with_name(f".{directory.name}.lock"))
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise EdgeL3Error(
            f"cannot write {directory}: {error.strerror or error}; set EDGEL3_TFLM_CACHE to a"
            " directory that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _is_whole(directory: Path, note: Note) -> bool:
    """Whether the cache has an intact deployment; calls ``note`` if it is damaged."""
    if not directory.exists():
        return False
    try:
        Deployment.load(directory)
    except ModelFileError as error:
        note(f"the deployment in the cache is damaged and is converted again: {error}")
        return False
    return True


def open_deployment(
    deployment: Deployment,
    quantization: str | None = None,
    runtime: str | None = None,
    *,
    threads: int | None = None,
) -> EmbeddingModel:
    """Open a model of a deployment.

    Parameters
    ----------
    deployment : Deployment
    quantization, runtime : str, optional
        As for :class:`ModelChoice`.
    threads : int, optional
        Number of threads; by default one for each core.

    Raises
    ------
    EdgeL3Error
        If the deployment has no such model, or the runtime cannot run it.
    """
    quantization, runtime = split_runtime(quantization, runtime)
    quantization = quantization or deployment.quantization
    runtime = runtime or deployment.fastest_runtime(quantization)
    weights = deployment.manifest["weights"]
    return EmbeddingModel(
        deployment.variant,
        quantization,
        runtime,
        sha256_hex(deployment.read_model(quantization, runtime)),
        str(weights["kind"]),
        str(weights["description"]),
        deployment.embedder(quantization, runtime, threads=threads),
    )


def _open_float(
    variant: Variant, source: WeightsSource, runtime: str | None, threads: int | None
) -> EmbeddingModel:
    if runtime is not None and runs_packed_models(runtime):
        raise EdgeL3Error(f"the runtime {runtime} runs int8 only: expected quantization int8")
    from edgel3_tflm.converters.pruning.prune import PruningResult, prune
    from edgel3_tflm.converters.quantization.chain import fold
    from edgel3_tflm.converters.quantization.chain_writer import write_float_chain

    given = _load(variant, source)
    variant = given.variant  # a weight file may have its own numbers of filters
    # Weights that have the zeros of the plan already are not changed, without TensorFlow.
    pruned = PruningResult(given, ()) if variant.plan is None else prune(given, variant.plan)
    spec, weights = variant.frontend, pruned.weights
    model = write_float_chain(fold(weights), spec.mels, spec.frames)
    runtime = runtime or choose_runtime(dict.fromkeys(CANDIDATES[FLOAT], model))
    return EmbeddingModel(
        variant,
        FLOAT,
        runtime,
        sha256_hex(model),
        weights.provenance.kind,
        f"{variant.name}, {pruned.description}",
        Embedder(model, variant, InputMap.of(weights), runtime, threads=threads),
    )


def _load(variant: Variant, source: WeightsSource) -> NetworkWeights:
    weights = load_given(variant, source)
    if weights is None:
        raise WeightsError(
            "expected weights that were trained, got 'generated'; to try the pipeline with them,"
            " run `edgel3-tflm convert` and give the deployment"
        )
    return weights
