"""TensorFlow, Keras 2 and TensorFlow Model Optimization (TF-MOT), imported on demand."""

import os
import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from edgel3_tflm.errors import RuntimeUnavailableError, install_hint
from edgel3_tflm.runtime.native import import_tensorflow, native_stderr


class Backend(NamedTuple):
    """The modules ``tensorflow``, ``tf_keras`` and TF-MOT's pruning."""

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
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TF-MOT can prune Keras 2 layers only
    try:
        tf = import_tensorflow()
        with native_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keras = import_module("tf_keras")
            sparsity = import_module("tensorflow_model_optimization").sparsity.keras
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"converting needs the package {error.name}, which is not installed;"
            f" {install_hint('convert')}"
        ) from error
    return Backend(tf, keras, sparsity)
