"""Native libraries: load them in an order that works, and catch what they print."""

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
    """Import TensorFlow, and keep its log messages from the user."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with native_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow
    logging.getLogger("absl").setLevel(logging.ERROR)
    return tensorflow


def import_tflite_runtime() -> Any:
    """Import tflite-runtime's interpreter, even if TensorFlow is loaded already.

    After TensorFlow, tflite-runtime would be linked to TensorFlow's symbols, which are of another
    version, and every call would fail. The loader is therefore told to prefer the library's own
    symbols.
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
    """Catch what native code writes to standard error. Python's own output still reaches the user.

    Standard error belongs to the whole process, so only one thread at a time can catch it; others
    wait. Within a thread, contexts may be nested; the innermost catches the text.

    Yields
    ------
    callable
        Returns the text caught so far. It works only inside the context. At the end the text is
        logged at level DEBUG.
    """
    with _stderr_lock:
        python_stderr = sys.stderr
        python_stderr.flush()
        saved = os.dup(2)
        with tempfile.TemporaryFile() as caught, os.fdopen(saved, "w", buffering=1) as terminal:

            def text() -> str:
                caught.seek(0)
                found = caught.read(1 << 20).decode(errors="replace")
                caught.seek(0, os.SEEK_END)  # native code writes at the same position
                return found

            try:
                os.dup2(caught.fileno(), 2)
                # Python's stream is replaced only if it writes to descriptor 2.
                if python_stderr is sys.__stderr__:
                    sys.stderr = terminal
                yield text
            finally:
                os.dup2(saved, 2)
                sys.stderr = python_stderr
                if messages := text().strip():
                    _log.debug("%s", messages)
