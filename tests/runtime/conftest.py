"""Fixtures of the engine's tests: a small network of all encodings, and its packed model."""

import numpy as np
import pytest
from helpers.networks.engine_networks import draw_network
from helpers.networks.int8_network import Int8Network, build

from edgel3_tflm.converters.export.pack import pack


@pytest.fixture
def small() -> Int8Network:
    """Four convolutions, pools over odd rows and columns, all encodings."""
    return draw_network(
        np.random.default_rng(1),
        rows=13,
        columns=11,
        filters=[12, 24, 24, 10],
        pools=["none", "2x2", "2x2", "global"],
        sparsity=[0.1, 0.8, 0.97, 0.5],
    )


@pytest.fixture
def blob(small: Int8Network) -> bytes:
    return pack(build(small))
