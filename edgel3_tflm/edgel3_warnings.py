"""The warnings under edgel3's name for this module."""

from edgel3_tflm.errors import EdgeL3Warning

__all__ = ["EdgeL3Warning"]
