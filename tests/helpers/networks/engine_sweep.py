"""Networks of odd sizes and of every sparsity, for the engine's tests."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgel3_tflm.runtime.c_library.engine import Kernels
from helpers.networks.engine_networks import draw_network
from helpers.networks.int8_network import Int8Network

BOTH_KERNELS: tuple[Kernels, ...] = ("best", "portable")
SPARSITIES = (0, 0.15, 0.5, 0.85, 0.98, 1)
WIDTHS = (7, 33, 63, 64, 65, 127, 129, 199)
"""Around 64 and 128 columns, which AVX-512 kernels process at once."""


def sweep(
    sparsity: float, widths: tuple[int, ...] = WIDTHS
) -> Iterator[tuple[np.random.Generator, Int8Network]]:
    """Yield networks of odd sizes, each with a random number generator."""
    for seed, columns in enumerate(widths):
        rng = np.random.default_rng([seed, int(100 * sparsity)])
        network = draw_network(
            rng,
            rows=int(rng.choice([5, 9, 13])),
            columns=columns,
            filters=[15, 33, 24, 11],
            pools=["none", "2x2", "none", "global"],
            sparsity=sparsity,
            activations=["relu", "none", "relu6", "none"],
        )
        yield rng, network


def aligned_memory(size: int) -> npt.NDArray[np.uint8]:
    """Return zeroed memory at a multiple of 64 bytes."""
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]
