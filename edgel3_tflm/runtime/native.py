"""Native libraries: the order they are loaded in, and what they print."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

_log = logging.getLogger(__name__)


def import_tensorflow() -> Any:
    """Import TensorFlow without its chatter, and with tflite-runtime already loaded."""
    import_tflite_runtime()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with native_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow
    logging.getLogger("absl").setLevel(logging.ERROR)
    return tensorflow


def import_tflite_runtime() -> Any:
    """Import tflite-runtime's interpreter; TensorFlow may be loaded already.

    Loaded after TensorFlow, tflite-runtime would find TensorFlow's symbols, of another version, and
    fail in every call: the loader is told to look for its own first.
    """
    flags = sys.getdlopenflags()
    if "tensorflow" in sys.modules:
        sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        from tflite_runtime import interpreter
    finally:
        sys.setdlopenflags(flags)
    return interpreter


_stderr_lock = RLock()


@contextmanager
def native_stderr() -> Iterator[Callable[[], str]]:
    """Catch what native code writes to standard error; Python's own writes still reach the user.

    Standard error is the process's: other threads that want to catch it wait. One thread may nest
    uses; the text goes to the innermost.

    Yields
    ------
    callable
        Returns the text caught so far, while the context lasts. At the end the text goes to the
        log at level DEBUG.
    """
    with _stderr_lock:
        python_stderr = sys.stderr
        python_stderr.flush()
        saved = os.dup(2)
        with tempfile.TemporaryFile() as caught, os.fdopen(saved, "w", buffering=1) as terminal:

            def text() -> str:
                return os.pread(caught.fileno(), 1 << 20, 0).decode(errors="replace")

            try:
                os.dup2(caught.fileno(), 2)
                # Only a stream that writes to descriptor 2 has to be led around the capture.
                if python_stderr is sys.__stderr__:
                    sys.stderr = terminal
                yield text
            finally:
                os.dup2(saved, 2)
                sys.stderr = python_stderr
                if messages := text().strip():
                    _log.debug("%s", messages)
