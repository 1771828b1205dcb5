"""Choose the fastest runtime of a model on this machine.

Only runtimes that give the requested result are candidates:

=============== ==================================================================================
float           ``litert``, ``tflite-runtime``
int8            ``engine``, ``litert-builtin``: the result is a board's. ``litert`` and
                ``tflite-runtime`` differ from it by a few.
int16x8         ``litert-builtin``
=============== ==================================================================================

The candidates run a few windows of noise, in turns. The time of the processor counts, so that other
programs disturb little. The choice is kept in the cache, and is made again for another processor,
model or version of a runtime.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgel3_tflm._version import __version__
from edgel3_tflm.cores import processor_name
from edgel3_tflm.errors import EdgeL3Error, ModelFileError, RuntimeUnavailableError
from edgel3_tflm.files import make_directory, sha256_hex, write_whole
from edgel3_tflm.networks.sources import cache_directory
from edgel3_tflm.runtime.artefacts import FLOAT
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.tensors import Interpreter

_log = logging.getLogger(__name__)

CANDIDATES = {
    FLOAT: ("litert", "tflite-runtime"),
    "int8": ("engine", "litert-builtin"),
    "int16x8": ("litert-builtin",),
}
"""Runtimes that give the requested result, by quantization; the preferred one first."""
_ROUNDS = 3
# A candidate replaces the preferred one only if it needs at most this part of the time. Two
# measurements of the same runtime can differ by a few percent.
_MARGIN = 0.9
_DISTRIBUTIONS = ("ai-edge-litert", "tflite-runtime")


def choose_runtime(models: Mapping[str, bytes]) -> str:
    """Return the fastest runtime of a model on this machine.

    Parameters
    ----------
    models : mapping
        The file that each candidate runs. The candidates are in order of preference, at least one.

    Returns
    -------
    str
        A candidate. The preferred one if no candidate can be opened.
    """
    preferred = next(iter(models))
    if len(models) == 1:
        return preferred
    situation = {
        "processor": processor_name(),
        "versions": {"edgel3-tflm": __version__, **{n: _version(n) for n in _DISTRIBUTIONS}},
        # This variable chooses the engine's kernels.
        "kernels": os.environ.get("EDGEL3_KERNELS"),
        "models": {name: sha256_hex(model) for name, model in models.items()},
    }
    digest = sha256_hex(json.dumps(situation, sort_keys=True).encode())
    path = cache_directory() / "runtimes" / f"{digest[:32]}.json"
    known = _read(path)
    if known is not None and known in models:
        return known
    opened = dict(_open(models))
    if len(opened) < 2:
        return next(iter(opened), preferred)
    seconds = dict(zip(opened, measure(list(opened.values())), strict=True))
    fastest = min(seconds, key=lambda name: seconds[name])
    first = next(iter(seconds))
    chosen = fastest if seconds[fastest] <= _MARGIN * seconds[first] else first
    _log.info("fastest runtime: %s (seconds a window: %s)", chosen, seconds)
    found = {"runtime": chosen, "seconds_a_window": seconds, **situation}
    try:
        make_directory(path.parent)
        write_whole(path, (json.dumps(found, indent=2) + "\n").encode())
    except EdgeL3Error as error:
        _log.info("the choice is not kept: %s", error)
    return chosen


def measure(
    interpreters: Sequence[Interpreter], clock: Callable[[], float] = time.thread_time
) -> list[float]:
    """Return the seconds that each interpreter needs for a window; infinity if its result is wrong.

    Parameters
    ----------
    interpreters : sequence of Interpreter
        Each runs its windows in the calling thread. The results of quantized models have to be
        equal to those of the first one.
    clock : callable
        Returns seconds.
    """
    spec = interpreters[0].input
    noise = np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)
    if spec.scale:
        noise = np.rint(noise * 32)
    windows = noise.astype(spec.dtype)
    expected = interpreters[0].run(windows)
    seconds = [np.inf] * len(interpreters)
    for _ in range(_ROUNDS):
        for number, interpreter in enumerate(interpreters):
            start = clock()
            found = interpreter.run(windows)
            if spec.scale == 0 or np.array_equal(found, expected):
                seconds[number] = min(seconds[number], clock() - start)
    return seconds


def _open(models: Mapping[str, bytes]) -> list[tuple[str, Interpreter]]:
    """Open the models in those runtimes that are installed and do not refuse them."""
    opened = []
    for name, model in models.items():
        try:
            opened.append((name, open_interpreter(model, name, threads=1)))
        except (ModelFileError, RuntimeUnavailableError) as error:
            _log.info("%s is no candidate: %s", name, error)
    return opened


def _read(path: Path) -> str | None:
    """Return the runtime that an earlier call chose; None if there is none."""
    try:
        found = json.loads(path.read_bytes())["runtime"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
