"""A network of a few filters, its weight file, and changes to that file."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgel3_tflm.errors import WeightsError
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import NetworkWeights
from helpers.networks.keras_hdf5 import array_path

SEA_64 = VARIANTS["sea-ust-64"]
SPARSE = VARIANTS["edgel3-95.45-ft"]
# The layers of SEA with few filters: files of 75 kB, nearly all of it structure.
SMALL_FILTERS = (2, 3, 2, 4, 2, 5, 2, 3)
SMALL = dataclasses.replace(SEA_64, filters=SMALL_FILTERS, published=None)
KERNEL_1 = array_path("conv2d_1", "kernel")


def arrays_of(weights: NetworkWeights) -> list[np.ndarray[Any, Any]]:
    norms = [weights.input_norm, *(conv.batch_norm for conv in weights.convs)]
    arrays = [array for conv in weights.convs for array in (conv.kernel, conv.bias)]
    for norm in norms:
        if norm is not None:
            arrays += [norm.gamma, norm.beta, norm.mean, norm.variance]
    return arrays


def assert_equal_bits(found: NetworkWeights, expected: NetworkWeights) -> None:
    pairs = list(zip(arrays_of(found), arrays_of(expected), strict=True))
    assert len(pairs) == 2 * 8 + 4 * (1 + sum(layer.batch_norm for layer in found.variant.layers))
    for array, other in pairs:
        assert array.dtype == np.float32
        assert array.shape == other.shape
        assert array.tobytes() == other.tobytes()


def modified(data: bytes, edit: Callable[[h5py.File], object]) -> bytes:
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        edit(file)
    return buffer.getvalue()


def with_array(file: bytes, path: str, /, **options: Any) -> bytes:
    """Replace a dataset by another one."""

    def edit(opened: h5py.File) -> None:
        del opened[path]
        opened.create_dataset(path, **options)

    return modified(file, edit)


def in_newer_version(data: bytes) -> bytes:
    """Write the arrays to a file in which every object has the newest version of its format."""
    newer = io.BytesIO()
    with h5py.File(io.BytesIO(data)) as source, h5py.File(newer, "w", libver="latest") as file:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                file.create_dataset(name, data=item[()])

        source.visititems(copy)
    return newer.getvalue()


def load_bytes(data: bytes, directory: Path, variant: Variant = SMALL) -> NetworkWeights:
    path = directory / "weights.h5"
    path.write_bytes(data)
    return load_weights(variant, path)


def refusal_of(load: Callable[[], object]) -> str:
    """Return the message of the error, which must be one printable line."""
    with pytest.raises(WeightsError) as refusal:
        load()
    message = str(refusal.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def refusal_of_bytes(data: bytes, directory: Path, variant: Variant = SMALL) -> str:
    message = refusal_of(lambda: load_bytes(data, directory, variant))
    prefix = f"{directory / 'weights.h5'}: "
    assert message.startswith(prefix)
    return message.removeprefix(prefix)
