"""Networks of odd sizes and of every sparsity, for the engine's tests."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgel3_tflm.runtime.c_library.engine import supported_kernels
from helpers.networks.engine_networks import draw_network
from helpers.networks.int8_network import Int8Network, with_layer

KERNELS = supported_kernels()
"""All sets of kernels that this processor supports."""
SPARSITIES = (0, 0.15, 0.5, 0.85, 0.98, 1)
WIDTHS = (7, 33, 63, 64, 65, 127, 129, 199)
"""Around multiples of 32 and 64 columns, which kernels process at once."""


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


EXTREMES = ([-128], [127], [-128, 127], [-128, 0, 0, 0, 0, 127], [-1, 1], [-65, 63, 64, 65, 66])
"""Weights around the limits of 8-bit and 16-bit arithmetic."""


def draw_extreme(values: list[int]) -> tuple[np.random.Generator, Int8Network]:
    """Draw a network with these weights only. Returns it with its random number generator."""
    rng = np.random.default_rng(len(values) + values[0] + 128)
    network = draw_network(
        rng, rows=6, columns=66, filters=[4, 9, 5], pools=["none", "2x2", "global"]
    )
    for position, conv in enumerate(network.layers):
        kernel = rng.choice(np.array(values, np.int8), conv.kernel.shape)
        # The new weights are larger: keep the standard deviation at about 16 quantized values.
        scales = (conv.scales * np.float32(0.3)).astype(np.float32)
        network = with_layer(network, position, kernel=kernel, scales=scales)
    return rng, network


def aligned_memory(size: int) -> npt.NDArray[np.uint8]:
    """Return zeroed memory at a multiple of 64 bytes."""
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]
