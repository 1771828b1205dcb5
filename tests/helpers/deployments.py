"""The contents of a deployment."""

DEPLOYMENT_FILES = [
    "edgel3_model.cc",
    "edgel3_model.h",
    "edgel3_model_frontend.c",
    "edgel3_model_frontend.h",
    "edgel3_packed_model.c",
    "edgel3_packed_model.h",
    "float.tflite",
    "int8.tflite",
    "int8_packed.tflite",
    "manifest.json",
    "packed.edgel3",
]
"""The files that convert writes for int8, in order."""
