"""The processes or Dask workers that embed a corpus."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from edgel3_tflm.cores import available_cores
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError, install_hint

LOCAL, DASK = "local", "dask"
WORKERS_TIMEOUT_S = 300
"""Time that a run waits for the first worker of a Dask cluster."""


def has_own_workers(scheduler: str) -> bool:
    """Return whether a scheduler is the address of a cluster, and not the word for one here.

    Raises
    ------
    EdgeL3Error
        If it is neither.
    """
    if scheduler in (LOCAL, DASK):
        return False
    if ":" not in scheduler:
        raise EdgeL3Error(
            f"unknown scheduler {scheduler!r}: expected {LOCAL}, {DASK} or the address of a Dask"
            " scheduler, tcp://HOST:8786 for example"
        )
    return True


@contextmanager
def open_executor(
    scheduler: str,
    workers: int | None,
    note: Callable[[str], None],
) -> Iterator[tuple[Executor, Callable[[], None]]]:
    """Open the executor that runs the tasks.

    Parameters
    ----------
    scheduler : str
        'local', 'dask' for a cluster on this machine, or the address of a Dask scheduler.
    workers : int, optional
        Number of processes; by default one for each core. A cluster at an address has its own.
    note : callable
        Called with a line of text when the cluster has no worker.

    Yields
    ------
    executor : concurrent.futures.Executor
    check : callable
        To be called while no task finishes. Raises EdgeL3Error if no worker can run the tasks.

    Raises
    ------
    RuntimeUnavailableError
        If the package distributed is missing.
    EdgeL3Error
        If the scheduler is unknown, cannot be reached or is lost, or if Dask cannot run a task.
    """
    at_address = has_own_workers(scheduler)
    if scheduler == LOCAL:
        # Spawned, because the threads of the runtimes do not survive a fork.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            workers or available_cores(), mp_context=context, initializer=_follow_parent
        )
        try:
            yield pool, lambda: None
        finally:
            pool.shutdown(cancel_futures=True)
        return
    try:
        distributed: Any = import_module("distributed")  # its type information is incomplete
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"a Dask cluster needs the package distributed, which cannot be loaded here ({error});"
            f" {install_hint('dask')}"
        ) from error
    try:
        if not at_address:
            client = distributed.Client(
                n_workers=workers or available_cores(), threads_per_worker=1, dashboard_address=None
            )
        else:
            client = distributed.Client(scheduler)
    except (OSError, ValueError) as error:
        raise EdgeL3Error(
            f"expected a Dask scheduler at {scheduler}, cannot reach it: {error}"
        ) from error
    address = client.scheduler.address
    with client:
        # Dask must not reuse the result of an earlier run: the parts may have been removed.
        executor = client.get_executor(pure=False)
        try:
            yield executor, WorkerCheck(client, address, note)
        except CancelledError as error:
            raise EdgeL3Error(
                f"lost the Dask scheduler at {address}; finished parts are kept: start it again and"
                " run the same command again"
            ) from error
        except Exception as error:
            # The exceptions of Dask, such as KilledWorker, have no common base class.
            if not type(error).__module__.startswith("distributed."):
                raise
            raise EdgeL3Error(
                f"Dask gave up: {error}; finished parts are kept: run the same command again"
            ) from error
        finally:
            executor.shutdown(wait=False)


class WorkerCheck:
    """Reports a Dask cluster without workers, and ends the run if none comes in time."""

    def __init__(self, client: Any, address: str, note: Callable[[str], None]) -> None:
        self._client = client
        self._address = address
        self._note = note
        self._since_s: float | None = None

    def __call__(self) -> None:
        """Report a cluster that has no worker, once.

        Raises
        ------
        EdgeL3Error
            If it has had no worker for ``WORKERS_TIMEOUT_S``.
        """
        if self._client.nthreads():
            self._since_s = None
            return
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
            self._note(
                f"{self._address} has no worker: waiting for one, up to {WORKERS_TIMEOUT_S} s"
            )
        if now_s - self._since_s >= WORKERS_TIMEOUT_S:
            raise EdgeL3Error(
                f"{self._address}: no worker came within {WORKERS_TIMEOUT_S} s; start workers of"
                " this cluster, then run the same command again: finished parts are kept"
            )


def _follow_parent() -> None:
    """Make a worker process end when its parent ends for any reason, and at Ctrl-C at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
