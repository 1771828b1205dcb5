"""The names of ``edgel3.edgel3_exceptions``."""

from edgel3_tflm.errors import EdgeL3Error

__all__ = ["EdgeL3Error"]
