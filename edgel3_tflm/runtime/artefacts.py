"""Names of the files in a deployment, and the possible types of its models."""

MANIFEST_NAME = "manifest.json"
FLOAT_MODEL_NAME = "float.tflite"
PACKED_MODEL_NAME = "packed.edgel3"
PACKED_FLATBUFFER_NAME = "int8_packed.tflite"
HEAD_NAME = "edgel3_head.json"
"""The classifier that ``train-head`` adds to a deployment."""
FLOAT = "float"
QUANTIZATIONS = ("int8", "int16x8")
"""Quantizations of ``convert``: all int8, or int16 activations with int8 weights."""


def quantized_model_name(quantization: str) -> str:
    """Return the file name of the quantized flatbuffer."""
    return f"{quantization}.tflite"
