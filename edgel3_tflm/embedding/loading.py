"""Networks by edgel3's four arguments: model type, embedding size, retraining and sparsity."""

from pathlib import Path

from edgel3_tflm.audio.framing import is_positive
from edgel3_tflm.embedding.models import EmbeddingModel, ModelChoice
from edgel3_tflm.embedding.openl3 import refuse_openl3_arguments
from edgel3_tflm.errors import EdgeL3Error, WeightsError
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import parse_weights_source, unpacked_directories
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.runtime.artefacts import FLOAT


def find_network(model_type: str, emb_dim: int, retrain_type: str, sparsity: float) -> Variant:
    """Return the network that edgel3's four arguments select.

    All four are checked, even those that the model type does not use.

    Parameters
    ----------
    model_type, emb_dim, retrain_type, sparsity
        As for :func:`load_embedding_model`.

    Raises
    ------
    EdgeL3Error
        If an argument has none of its values.
    """
    if not is_positive(sparsity):
        raise EdgeL3Error(f"expected a sparsity in percent, got {sparsity!r}")
    find_variant("sea", embedding_size=emb_dim)
    find_variant("sparse", sparsity=str(sparsity), retrain_type=retrain_type)
    return find_variant(
        model_type, sparsity=str(sparsity), retrain_type=retrain_type, embedding_size=emb_dim
    )


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
    """Load a network, ready to embed.

    Parameters
    ----------
    model_type : {'sparse', 'sea', 'dense'}
        'sparse' is EdgeL3, 'sea' is SEA-UST and 'dense' is L3, which has no published weights.
    emb_dim : {512, 256, 128, 64}
        Number of values of an embedding. Used only for 'sea'; 'sparse' and 'dense' have 512.
    retrain_type : {'ft', 'kd'}
        Fine-tuned or knowledge-distilled weights. Used only for 'sparse'.
    sparsity : float
        Percent of the weights that are zero: 53.5, 63.5, 72.3, 73.5, 81.0, 87.0, 90.5 or 95.45.
        Used only for 'sparse'. Weights for 97, 98 and 99 were not published and must be given.
    quantization : {'float', 'int8'}
        'int8' converts the network the first time, which needs the extra ``convert``. The result is
        kept in the cache.
    runtime : str, optional
        The interpreter; see :class:`edgel3_tflm.embedding.models.ModelChoice` for the default.
    weights : str or pathlib.Path
        A weight file; 'published'; 'bundled' for the stand-in that is part of this package; or
        'auto' for the published weights, and for the stand-in if these cannot be downloaded.

    Returns
    -------
    EmbeddingModel

    Raises
    ------
    EdgeL3Error
        If an argument has none of its values, or there are no weights.

    Warns
    -----
    EdgeL3Warning
        If the weights are the stand-in's.

    Examples
    --------
    >>> model = load_embedding_model("sea", 64, "ft", 95.45)
    >>> model.output_shape
    (None, 64)
    """
    variant = find_network(model_type, emb_dim, retrain_type, sparsity)
    return ModelChoice(variant, quantization, runtime, parse_weights_source(weights)).open()


def load_embedding_model_path(
    model_type: str, emb_dim: int, retrain_type: str, sparsity: float
) -> str:
    """Return the path of a network's unpacked weight file, as the package edgel3 has it.

    The path is inside the package edgel3 if that is installed, and in the cache otherwise. The file
    may be missing. If it exists, :func:`load_embedding_model` finds it.

    Parameters
    ----------
    model_type, emb_dim, retrain_type, sparsity
        As for :func:`load_embedding_model`.

    Raises
    ------
    EdgeL3Error
        If an argument has none of its values, or no weights were published for the network.
    """
    variant = find_network(model_type, emb_dim, retrain_type, sparsity)
    if variant.published is None:
        raise WeightsError(f"{variant.name}: no weights are published for this network")
    return str(unpacked_directories()[0] / variant.published.name.removesuffix(".gz"))
