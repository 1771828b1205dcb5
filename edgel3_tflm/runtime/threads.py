"""Run windows in several threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy.typing as npt

RunWindow = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Runs one window; neither its input nor its output has a batch dimension."""


class WindowPool:
    """Distributes windows over threads. Each thread has its own ``RunWindow``.

    A ``RunWindow`` is opened when it is first needed, because each takes memory.

    Parameters
    ----------
    open_one : callable
        Opens a ``RunWindow``. The first one is opened here, so that an error in the model is raised
        here.
    threads : int
        The largest number of threads.
    """

    def __init__(self, open_one: Callable[[], RunWindow], threads: int) -> None:
        self._open_one = open_one
        self._threads = threads
        self._idle: SimpleQueue[RunWindow] = SimpleQueue()
        self._opened = 0
        self._opening = Lock()
        self._open(1)

    def run(self, windows: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> None:
        """Run windows, shape (n, ...), and write the results to outputs, shape (n, ...)."""

        def run_one(position: int) -> None:
            run_window = self._idle.get()
            try:
                outputs[position] = run_window(windows[position])
            finally:
                self._idle.put(run_window)

        workers = min(len(windows), self._threads)
        self._open(workers)
        if workers < 2:
            for position in range(len(windows)):
                run_one(position)
        else:
            # Threads run in parallel because native code releases Python's global lock.
            with ThreadPoolExecutor(workers) as executor:
                list(executor.map(run_one, range(len(windows))))

    def _open(self, count: int) -> None:
        with self._opening:
            while self._opened < count:
                self._idle.put(self._open_one())
                self._opened += 1
