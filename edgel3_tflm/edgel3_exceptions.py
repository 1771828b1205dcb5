"""The exceptions under edgel3's name for this module."""

from edgel3_tflm.errors import EdgeL3Error

__all__ = ["EdgeL3Error"]
