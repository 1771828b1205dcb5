"""Windows spread over threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy.typing as npt

RunWindow = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Runs a single window: an input without its batch dimension to an output without it."""


class WindowPool:
    """Spreads windows over threads, each with a ``RunWindow`` of its own.

    They are opened as they are needed: memory for those that are never used is not taken.

    Parameters
    ----------
    open_one : callable
        Opens a ``RunWindow``; the first at once, so that what refuses a model does so here.
    threads : int
    """

    def __init__(self, open_one: Callable[[], RunWindow], threads: int) -> None:
        self._open_one = open_one
        self._threads = threads
        self._idle: SimpleQueue[RunWindow] = SimpleQueue()
        self._opened = 0
        self._opening = Lock()
        self._open(1)

    def run(self, windows: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> None:
        """Run windows, shape (n, ...), several at a time, into outputs, shape (n, ...)."""

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
            # Native code runs without Python's lock.
            with ThreadPoolExecutor(workers) as executor:
                list(executor.map(run_one, range(len(windows))))

    def _open(self, count: int) -> None:
        with self._opening:
            while self._opened < count:
                self._idle.put(self._open_one())
                self._opened += 1
