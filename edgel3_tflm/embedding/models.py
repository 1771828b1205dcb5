"""Networks that are ready to embed, from weights or from a deployment.

A float network needs no TensorFlow: its flatbuffer is written from the weights here. An int8 one
is a deployment: one that is given, or one that is converted once and kept in the cache.
"""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import ParamSpec, TypeVar

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.framing import is_positive
from edgel3_tflm.errors import EdgeL3Error, EdgeL3Warning, ModelFileError, WeightsError
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import (
    Note,
    WeightsSource,
    cache_directory,
    load_given,
    parse_weights_source,
    unpacked_directory,
)
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import SUBSTITUTE_KINDS, NetworkWeights
from edgel3_tflm.runtime.artefacts import FLOAT, PACKED_MODEL_NAME
from edgel3_tflm.runtime.deployment import Deployment, Embedder
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME, runs_packed_models
from edgel3_tflm.types import FloatArray, Progress

QUANTIZATION_NAMES = (FLOAT, "int8")
"""What a network by its name can be; a deployment is what it was converted to, or float."""

_log = logging.getLogger(__name__)


def _log_progress(step: str, done: int, total: int) -> None:
    if done == 0:
        _log.info("%s (%d)", step, total)


@dataclass(frozen=True)
class EmbeddingModel:
    """A network in a runtime, ready to embed: what edgel3 calls a model.

    One thread at a time may use it.

    Parameters
    ----------
    variant : Variant
    quantization : str
        'float', 'int8' or 'int16x8'.
    runtime : str
    sha256 : str
        Of the bytes that the runtime runs.
    weights_kind, description : str
        Where the weights come from; the kinds are those of ``Provenance``.
    embedder : Embedder

    Warns
    -----
    EdgeL3Warning
        If the weights stand for the authors' own.
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
        """As a Keras model has it: any number of windows, values of an embedding."""
        return (None, self.variant.embedding_size)

    @property
    def is_substitute(self) -> bool:
        """Whether the weights stand for the authors' own."""
        return self.weights_kind in SUBSTITUTE_KINDS

    @property
    def provenance(self) -> tuple[str, ...]:
        """What there is to say of embeddings made with it, weights first."""
        return (
            self.description,
            f"network {self.variant.name}, {self.quantization}, in {self.runtime}",
            f"model SHA-256 {self.sha256}",
            f"edgel3-tflm {__version__}",
        )

    def embed(self, windows: FloatArray) -> FloatArray:
        """Embed windows, shape (n, samples of a second), to (n, d) float32."""
        return self.embedder.embed(windows)


@dataclass(frozen=True)
class ModelChoice:
    """What to open: small enough to travel to a worker process, and opened there.

    Parameters
    ----------
    source : Variant or pathlib.Path
        A network, or a deployment directory.
    quantization : str, optional
        One of ``QUANTIZATION_NAMES``. If not given, a network is float and a deployment what it was
        converted to.
    runtime : str, optional
        One of ``interpreters.RUNTIMES``. If not given, the engine for int8 where it was built and
        most of the network's work is zeros, else the default.
    weights : pathlib.Path or str
        Of a network: a file, or a word of ``WeightsWord`` but 'generated'.
    """

    source: Variant | Path
    quantization: str | None = None
    runtime: str | None = None
    weights: WeightsSource = "auto"

    def settle(
        self, progress: Progress = _log_progress, note: Note = _log.warning
    ) -> "ModelChoice":
        """Convert a network to int8 if it is to be int8 and is not yet in the cache, or damaged.

        Parameters
        ----------
        progress : callable
            Told of a conversion.
        note : callable
            Told of a damaged deployment, and of the stand-in, before a conversion.

        Returns
        -------
        ModelChoice
            One that several processes may open at once: of the deployment, or this one.

        Raises
        ------
        EdgeL3Error
            If there are no weights, or nothing to convert with.
        """
        if isinstance(self.source, Path) or self.quantization in (None, FLOAT):
            return self
        if self.quantization not in QUANTIZATION_NAMES:
            raise EdgeL3Error(
                f"unknown quantization {self.quantization!r}: expected one of"
                f" {', '.join(QUANTIZATION_NAMES)}; for another, convert and give the deployment"
            )
        weights = _load(self.source, self.weights)
        # What they are converted to follows from these, and from the version.
        name = f"{weights.variant.name}-{weights.provenance.sha256[:16]}-{__version__}"
        directory = cache_directory() / "deployments" / name
        if not _is_whole(directory, note):
            self._convert(directory, progress, note)
        return replace(self, source=directory)

    def _convert(self, directory: Path, progress: Progress, note: Note) -> None:
        """Convert into the cache, unless another process has done so meanwhile."""
        from edgel3_tflm.converters.pipeline import ConvertOptions, convert

        assert isinstance(self.source, Variant)  # noqa: S101 - tells mypy
        with _locked(directory):
            if _is_whole(directory, _log.info):
                return
            shutil.rmtree(directory, ignore_errors=True)  # a damaged one may lack its manifest
            _log.info("converting %s to int8, once", self.source.name)
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
            One a core if not given.
        progress, note : callable
            As for :meth:`settle`.

        Raises
        ------
        EdgeL3Error
            If weights or deployment cannot be used, or a package is missing.
        """
        choice = self.settle(progress, note)
        if isinstance(choice.source, Path):
            return open_deployment(
                Deployment.load(choice.source), choice.quantization, choice.runtime, threads=threads
            )
        return _open_float(choice.source, choice.weights, choice.runtime, threads)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other processes from writing a directory of the cache."""
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
    """Whether a deployment is in the cache as it was written; says so if it is there, damaged."""
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
    """Open a deployment; its own quantization if none is given.

    Raises
    ------
    EdgeL3Error
        If it has no such model, or the runtime cannot run it.
    """
    quantization = quantization or deployment.quantization
    if runtime is None:
        runtime = (
            "engine" if quantization != FLOAT and _suits_engine(deployment) else DEFAULT_RUNTIME
        )
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


def _suits_engine(deployment: Deployment) -> bool:
    """Whether the engine is there, and faster than dense kernels: enough of the work is zeros."""
    if find_spec("edgel3_tflm._engine") is None:
        return False
    layers = deployment.manifest["layers"]
    dense, effective = (
        sum(layer[key] for layer in layers) for key in ("dense_macs", "effective_macs")
    )
    return PACKED_MODEL_NAME in deployment.manifest["artefacts"] and effective < dense / 2


def _open_float(
    variant: Variant, source: WeightsSource, runtime: str | None, threads: int | None
) -> EmbeddingModel:
    runtime = runtime or DEFAULT_RUNTIME
    if runs_packed_models(runtime):
        raise EdgeL3Error(f"the runtime {runtime} runs int8 only: expected quantization int8")
    from edgel3_tflm.converters.pruning.prune import PruningResult, prune
    from edgel3_tflm.converters.quantization.chain import fold, write_float_chain

    given = _load(variant, source)
    variant = given.variant  # with the file's own filters, where it has any
    # Weights that have the plan's zeros are left alone, which takes no TensorFlow.
    pruned = PruningResult(given, ()) if variant.plan is None else prune(given, variant.plan)
    spec, weights = variant.frontend, pruned.weights
    model = write_float_chain(fold(weights), spec.mels, spec.frames)
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
            " convert, and give the deployment"
        )
    return weights


def find_network(model_type: str, emb_dim: int, retrain_type: str, sparsity: float) -> Variant:
    """Find a network by edgel3's four words.

    Raises
    ------
    EdgeL3Error
        If one is not edgel3's; unlike there, every published sparsity is one.
    """
    if not is_positive(sparsity):
        raise EdgeL3Error(f"expected a sparsity in percent, got {sparsity!r}")
    # All four are checked, those that are not read too.
    find_variant("sea", embedding_size=emb_dim)
    find_variant("sparse", sparsity=str(sparsity), retrain_type=retrain_type)
    return find_variant(
        model_type, sparsity=str(sparsity), retrain_type=retrain_type, embedding_size=emb_dim
    )


_OPENL3_ARGUMENTS = {
    "input_repr": "leave it out: all networks here take the same log-mel spectrogram",
    "content_type": "leave it out: model_type chooses the network",
    "embedding_size": "give emb_dim, with model_type='sea'",
    "frontend": "leave it out: the frontend is the published networks' own",
    "batch_size": "give it to get_embedding or process_file",
}

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def refuse_openl3_arguments(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Make a function say what stands here for an argument that openl3's function takes.

    The function raises EdgeL3Error where one is given that it does not have itself.
    """
    known = signature(function).parameters

    @wraps(function)
    def checked(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        for name in kwargs:
            if name in _OPENL3_ARGUMENTS and name not in known:
                raise EdgeL3Error(
                    f"{function.__name__} has no argument {name!r}, which is openl3's:"
                    f" {_OPENL3_ARGUMENTS[name]}"
                )
        return function(*args, **kwargs)

    return checked


@refuse_openl3_arguments
def load_embedding_model(
    model_type: str,
    emb_dim: int,
    retrain_type: str,
    sparsity: float,
    *,
    quantization: str = FLOAT,
    runtime: str | None = None,
    weights: str | Path = "auto",
) -> EmbeddingModel:
    """Load a network by edgel3's words.

    Parameters
    ----------
    model_type : {'sparse', 'sea', 'dense'}
        EdgeL3, UST-specialised, or L3, for which there are no published weights.
    emb_dim : {512, 256, 128, 64}
        Values of an embedding; read only for 'sea'.
    retrain_type : {'ft', 'kd'}
        Fine-tuned or knowledge-distilled; read only for 'sparse'.
    sparsity : float
        Percent of zeros: 95.45, 53.5, 63.5, 72.3, 87.0 and the others of ``variants.PLANS``; read
        only for 'sparse'.
    quantization : {'float', 'int8'}
        The first time int8 is asked for, the network is converted, for which the extra ``convert``
        must be installed; the result is kept in the cache.
    runtime : str, optional
        As for :class:`ModelChoice`.
    weights : str or pathlib.Path
        A file; 'published'; 'bundled', the stand-in; 'auto', the stand-in where the published ones
        cannot be reached.

    Raises
    ------
    EdgeL3Error
        If a word is unknown, or there are no weights.

    Warns
    -----
    EdgeL3Warning
        If the weights are the stand-in's.
    """
    variant = find_network(model_type, emb_dim, retrain_type, sparsity)
    return ModelChoice(variant, quantization, runtime, parse_weights_source(weights)).open()


def load_embedding_model_path(
    model_type: str, emb_dim: int, retrain_type: str, sparsity: float
) -> str:
    """Path of a network's unpacked weight file, as an edgel3 package has it.

    In the package if it is installed, else in the cache. There need be no file: it is one of the
    places that are looked at.

    Raises
    ------
    EdgeL3Error
        If a word is unknown, or no file was published.
    """
    variant = find_network(model_type, emb_dim, retrain_type, sparsity)
    if variant.published is None:
        raise WeightsError(f"{variant.name}: no weights are published for this network")
    package = find_spec("edgel3")
    installed = (package and package.submodule_search_locations) or []
    directory = next(map(Path, installed), unpacked_directory())
    return str(directory / variant.published.name.removesuffix(".gz"))
