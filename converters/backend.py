"""TensorFlow, Keras 2 and TensorFlow Model Optimization (TF-MOT), imported on demand."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from edgel3_tflm.errors import RuntimeUnavailableError, install_hint
from edgel3_tflm.runtime.native import import_tensorflow, native_stderr


class Backend(NamedTuple):
    """The modules ``tensorflow`` and ``tf_keras``."""

    tf: Any
    keras: Any


@contextmanager
def _importing() -> Iterator[None]:
    """Hide messages and warnings of the packages; name the one that is not installed."""
    try:
        with native_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"converting needs the package {error.name}, which is not installed;"
            f" {install_hint('convert')}"
        ) from error


@lru_cache
def load_backend() -> Backend:
    """Import TensorFlow and Keras 2.

    Raises
    ------
    RuntimeUnavailableError
        If one of them is not installed.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TF-MOT can prune Keras 2 layers only
    with _importing():
        return Backend(import_tensorflow(), import_module("tf_keras"))


@lru_cache
def load_pruning() -> Any:
    """Import TF-MOT's pruning, which most conversions do not need.

    Raises
    ------
    RuntimeUnavailableError
        If it is not installed.
    """
    load_backend()
    with _importing():
        return import_module("tensorflow_model_optimization").sparsity.keras
