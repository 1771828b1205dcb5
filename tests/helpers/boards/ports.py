"""Connects two ports in tests of devices."""

import threading
from collections.abc import Callable


def pump(source: Callable[[], bytes], sink: Callable[[bytes], object]) -> threading.Thread:
    """Copy bytes from one port to another in a thread, until either closes."""

    def carry() -> None:
        try:
            while data := source():
                sink(data)
        except OSError:
            pass

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    return thread
