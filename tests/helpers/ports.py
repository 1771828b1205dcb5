"""A port pair for device tests."""

import threading
from collections.abc import Callable

# ---- transports ----


def pump(source: Callable[[], bytes], sink: Callable[[bytes], object]) -> threading.Thread:
    """Carry bytes over until either end closes."""

    def carry() -> None:
        try:
            while data := source():
                sink(data)
        except OSError:
            pass

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    return thread
