"""EdgeL3 audio embeddings on microcontrollers.

The public API; everything that needs TensorFlow lies in ``edgel3_tflm.converters``.
"""

from edgel3_tflm._version import __version__
from edgel3_tflm.core import get_embedding, get_output_path, process_file
from edgel3_tflm.deployment import Deployment, Embedder
from edgel3_tflm.errors import EdgeL3Error, EdgeL3Warning
from edgel3_tflm.frontend import log_mel
from edgel3_tflm.models import load_embedding_model
from edgel3_tflm.variants import VARIANTS, Variant, find_variant

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
