"""EdgeL3 audio embeddings on microcontrollers.

The names below are the public API. Only ``edgel3_tflm.converters`` needs TensorFlow.
"""

from edgel3_tflm._version import __version__
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
    "EdgeL3Warning",
    "Embedder",
    "Variant",
    "__version__",
    "find_variant",
    "get_embedding",
    "get_output_path",
    "load_embedding_model",
    "log_mel",
    "process_file",
]
