"""EdgeL3 audio embeddings on microcontrollers.

The public API; everything that needs TensorFlow lies in ``edgel3_tflm.converters``.
"""

from edgel3_tflm._version import __version__
from edgel3_tflm.deployment import Deployment, Embedder
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.frontend import log_mel
from edgel3_tflm.variants import VARIANTS, Variant, find_variant

__all__ = [
    "VARIANTS",
    "Deployment",
    "EdgeL3Error",
    "Embedder",
    "Variant",
    "__version__",
    "find_variant",
    "log_mel",
]
