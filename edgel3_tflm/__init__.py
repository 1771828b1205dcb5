"""EdgeL3 audio embeddings on microcontrollers.

The names below are the public API. Each is imported at its first use, so that the package is quick
to import. Only :func:`convert`, int8 on demand and ``edgel3_tflm.converters`` need TensorFlow, and
only :class:`EdgeL3Transformer` needs scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgel3_tflm._version import __version__

if TYPE_CHECKING:
    from edgel3_tflm.api.deploying import Estimate, compare, convert, estimate
    from edgel3_tflm.api.sounds import Embeddings, Stream, embed_file, embed_folder
    from edgel3_tflm.api.transformer import EdgeL3Transformer
    from edgel3_tflm.audio.log_mel import log_mel
    from edgel3_tflm.embedding.api import get_embedding, process_file
    from edgel3_tflm.embedding.loading import load_embedding_model
    from edgel3_tflm.embedding.npz import get_output_path
    from edgel3_tflm.errors import EdgeL3Error, EdgeL3Warning
    from edgel3_tflm.networks.catalogue import VARIANTS, find_variant
    from edgel3_tflm.networks.variants import Variant
    from edgel3_tflm.runtime.deployment import Deployment, Embedder

__all__ = [
    "VARIANTS",
    "Deployment",
    "EdgeL3Error",
    "EdgeL3Transformer",
    "EdgeL3Warning",
    "Embedder",
    "Embeddings",
    "Estimate",
    "Stream",
    "Variant",
    "__version__",
    "compare",
    "convert",
    "embed_file",
    "embed_folder",
    "estimate",
    "find_variant",
    "get_embedding",
    "get_output_path",
    "load_embedding_model",
    "log_mel",
    "process_file",
]

_MODULES = {
    "api.deploying": ("Estimate", "compare", "convert", "estimate"),
    "api.sounds": ("Embeddings", "Stream", "embed_file", "embed_folder"),
    "api.transformer": ("EdgeL3Transformer",),
    "audio.log_mel": ("log_mel",),
    "embedding.api": ("get_embedding", "process_file"),
    "embedding.loading": ("load_embedding_model",),
    "embedding.npz": ("get_output_path",),
    "errors": ("EdgeL3Error", "EdgeL3Warning"),
    "networks.catalogue": ("VARIANTS", "find_variant"),
    "networks.variants": ("Variant",),
    "runtime.deployment": ("Deployment", "Embedder"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import an exported name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the exported names, for completion in a notebook."""
    return sorted(__all__)
