"""The one place where TensorFlow is imported: quietly, with Keras 2, behind tflite-runtime."""

import logging
import os
import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from edgel3_tflm.errors import RuntimeUnavailableError
from edgel3_tflm.interpreters import native_stderr


class Backend(NamedTuple):
    """The modules the converters work with."""

    tf: Any
    keras: Any
    sparsity: Any


@lru_cache
def load_backend() -> Backend:
    """Import TensorFlow, Keras 2 and TF-MOT.

    Raises
    ------
    RuntimeUnavailableError
        If one of them is not installed.
    """
    # tflite-runtime fails in every call if TensorFlow's symbols are loaded before its own.
    import tflite_runtime.interpreter  # noqa: F401

    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TF-MOT prunes Keras 2 layers only
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        with native_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tf = import_module("tensorflow")
            keras = import_module("tf_keras")
            sparsity = import_module("tensorflow_model_optimization").sparsity.keras
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"converting needs the package {error.name}, which is not installed;"
            " pip install 'edgel3-tflm[convert]'"
        ) from error
    logging.getLogger("absl").setLevel(logging.ERROR)
    return Backend(tf, keras, sparsity)
