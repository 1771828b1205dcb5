"""Weights of small networks, and the file that contains them."""

import pytest
from helpers.networks.keras_hdf5 import hdf5_bytes, random_weights
from helpers.networks.small_weights import SEA_64, SMALL

from edgel3_tflm.networks.weights import NetworkWeights


@pytest.fixture(scope="module")
def small() -> NetworkWeights:
    return random_weights(SMALL, seed=1)


@pytest.fixture(scope="module")
def small_file(small: NetworkWeights) -> bytes:
    return hdf5_bytes(small)


@pytest.fixture(scope="module")
def sea_64() -> NetworkWeights:
    return random_weights(SEA_64, seed=2)
