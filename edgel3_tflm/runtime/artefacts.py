"""The names of a deployment's files, and the types that its models can have."""

MANIFEST_NAME = "manifest.json"
FLOAT_MODEL_NAME = "float.tflite"
PACKED_MODEL_NAME = "packed.edgel3"
PACKED_FLATBUFFER_NAME = "int8_packed.tflite"
FLOAT = "float"
QUANTIZATIONS = ("int8", "int16x8")
"""Types of activations and weights that ``convert`` makes: int8, or int16 with int8 weights."""


def quantized_model_name(quantization: str) -> str:
    """File name of the quantized flatbuffer."""
    return f"{quantization}.tflite"
