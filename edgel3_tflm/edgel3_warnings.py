"""The names of ``edgel3.edgel3_warnings``."""

from edgel3_tflm.errors import EdgeL3Warning

__all__ = ["EdgeL3Warning"]
