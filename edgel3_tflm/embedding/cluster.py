"""The processes or Dask workers that embed a corpus."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    CancelledError,
    Executor,
    ProcessPoolExecutor,
)
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Literal

from edgel3_tflm.cores import available_cores
from edgel3_tflm.errors import (
    EdgeL3Error,
    RuntimeUnavailableError,
    install_hint,
)

EngineName = Literal["local", "dask"]
WORKERS_TIMEOUT_S = 300
"""How long a run waits for a Dask cluster that has no worker."""
_POLL_S = 1


@contextmanager
def open_executor(
    engine: EngineName,
    workers: int | None,
    scheduler: str | None,
    note: Callable[[str], None],
) -> Iterator[tuple[Executor, Callable[[], None]]]:
    """Open what runs the parts, and a check that it can."""
    if engine == "local":
        # Not forked: the runtimes' threads would not be there in the child.
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
        distributed: Any = import_module("distributed")  # its types leave holes
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"a Dask cluster needs the package distributed, which cannot be loaded here ({error});"
            f" {install_hint('dask')}"
        ) from error
    try:
        if scheduler is None:
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
        # A result of an earlier run would tell of parts that may have been removed since.
        executor = client.get_executor(pure=False)
        try:
            yield executor, WorkerCheck(client, address, note)
        except CancelledError as error:
            raise EdgeL3Error(
                f"lost the Dask scheduler at {address}; what was done is kept: start it again, then"
                " run the same command again"
            ) from error
        except Exception as error:
            # Dask's own, such as KilledWorker, have no common root.
            if not type(error).__module__.startswith("distributed."):
                raise
            raise EdgeL3Error(
                f"Dask gave up: {error}; what was done is kept: run the same command again"
            ) from error
        finally:
            executor.shutdown(wait=False)


class WorkerCheck:
    """Says that a Dask cluster has no worker, and gives up if that lasts."""

    def __init__(self, client: Any, address: str, note: Callable[[str], None]) -> None:
        self._client = client
        self._address = address
        self._note = note
        self._since_s: float | None = None

    def __call__(self) -> None:
        """Note a cluster that has no worker.

        Raises
        ------
        EdgeL3Error
            If it has had none for ``WORKERS_TIMEOUT_S``.
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
                f"{self._address}: no worker came within {WORKERS_TIMEOUT_S} s; start some of this"
                " cluster, then run the same command again: what was done is kept"
            )


def _follow_parent() -> None:
    """End with the process that started this one, however that ended, and at Ctrl-C at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
