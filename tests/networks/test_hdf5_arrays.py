"""Arrays of an HDF5 file that do not fit the network."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.networks.keras_hdf5 import array_path
from helpers.networks.small_weights import (
    KERNEL_1,
    load_bytes,
    modified,
    refusal_of_bytes,
    with_array,
)

from edgel3_tflm.networks import hdf5

KERNEL = ("conv2d_1", "kernel")
ONES = np.ones((3, 3, 1, 2), np.float32)
CHUNKS = "expected values in one piece, as Keras writes, found chunks"


def shape_error(expected: object, found: object) -> str:
    return f"expected floats of shape {expected}, found float32 of shape {found}"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("array", "options", "expected"),
    [
        *(
            (KERNEL, {"data": np.ones(shape, np.float32)}, shape_error((3, 3, 1, 2), shape))
            for shape in (
                (3, 3, 1, 5),
                *[(2,), (2, 1, 3, 3), (9, 1, 2), (18,), (3, 3, 1, 2, 1)],  # another order of axes
            )
        ),
        (KERNEL, {"data": h5py.Empty("f4")}, shape_error((3, 3, 1, 2), None)),
        (("conv2d_1", "bias"), {"data": h5py.Empty("f4")}, shape_error((2,), None)),
        # float32 holds values up to 3.4e38
        (KERNEL, {"data": 1e300 * ONES.astype(float)}, "expected finite values, 18 are NaN or inf"),
        (
            ("batch_normalization_2", "moving_variance"),
            {"data": np.array([1, -1e-9], np.float32)},
            "expected no negative value",
        ),
        # A chunk may unpack to a thousand times its size, whatever the array's shape says.
        (KERNEL, {"data": ONES, "compression": "gzip"}, CHUNKS),
        (KERNEL, {"data": ONES, "chunks": True}, CHUNKS),
        (KERNEL, {"data": ONES, "maxshape": (None, 3, 1, 2)}, CHUNKS),
    ],
)
def test_array_that_does_not_fit_is_refused(
    tmp_path: Path,
    small_file: bytes,
    array: tuple[str, str],
    options: dict[str, Any],
    expected: str,
) -> None:
    data = with_array(small_file, array_path(*array), **options)
    message = refusal_of_bytes(data, tmp_path)
    assert message.startswith(f"{'/'.join(array)}: {expected}")
    assert ";" not in message  # no hint: these are the shapes of no network


@pytest.mark.parametrize(
    ("layer", "array", "expected"),
    [
        ("conv2d_3", "kernel", "conv2d_3/kernel: expected an array of shape (3, 3, 3, 2)"),
        ("conv2d_3", "bias", "conv2d_3/bias: expected an array of shape (2,)"),
        ("audio_embedding_layer", "bias", "audio_embedding_layer/bias: expected an array"),
        ("batch_normalization_4", "gamma", "batch_normalization_4/gamma: expected an array"),
        ("batch_normalization_4", "moving_mean", "batch_normalization_4/moving_mean: expected"),
        ("batch_normalization_9", "moving_variance", "batch_normalization_9/moving_variance: "),
    ],
)
def test_missing_array_is_named(
    tmp_path: Path, small_file: bytes, layer: str, array: str, expected: str
) -> None:
    def delete(file: h5py.File) -> None:
        del file[array_path(layer, array)]

    message = refusal_of_bytes(modified(small_file, delete), tmp_path)
    assert message.startswith(expected)
    assert message.endswith("it is missing")


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        ("batch_normalization_1", "found 8 and 8"),
        ("batch_normalization_5", "found 8 and 8"),
        ("conv2d_5", "found 7 and 9"),
        ("audio_embedding_layer", "found 7 and 9"),
    ],
)
def test_missing_layer_is_refused_with_the_counts(
    tmp_path: Path, small_file: bytes, layer: str, found: str
) -> None:
    def delete(file: h5py.File) -> None:
        del file[f"model_weights/{layer}"]

    message = refusal_of_bytes(modified(small_file, delete), tmp_path)
    assert message == f"expected 8 convolutions and 9 BatchNorms for sea-ust-64, {found}"


@pytest.mark.parametrize(
    ("layer", "array"),
    [
        ("conv2d_1", "kernel"),
        ("audio_embedding_layer", "bias"),
        ("batch_normalization_1", "beta"),
        ("batch_normalization_9", "moving_variance"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_refused_with_its_array(
    tmp_path: Path, small_file: bytes, layer: str, array: str, value: float
) -> None:
    def spoil(file: h5py.File) -> None:
        dataset = file[array_path(layer, array)]
        values = dataset[()]
        values.flat[-1] = value
        dataset[...] = values

    message = refusal_of_bytes(modified(small_file, spoil), tmp_path)
    assert message == f"{layer}/{array}: expected finite values, 1 are NaN or infinite"


def test_variance_of_zero_is_accepted(tmp_path: Path, small_file: bytes) -> None:
    path = array_path("batch_normalization_2", "moving_variance")
    data = with_array(small_file, path, data=np.array([1, 0], np.float32))
    norm = load_bytes(data, tmp_path).convs[0].batch_norm
    assert norm is not None
    assert norm.variance.tolist() == [1, 0]


@pytest.mark.parametrize(
    "dtype",
    [
        np.int8,
        np.int32,
        np.uint64,
        np.bool_,
        np.complex64,
        np.dtype([("real", np.float32)]),
        "S4",
        h5py.string_dtype(),
        h5py.vlen_dtype(np.dtype(np.float32)),
        h5py.ref_dtype,
        h5py.regionref_dtype,
        h5py.enum_dtype({"zero": 0}, basetype=np.int8),
        h5py.opaque_dtype(np.dtype("V4")),
    ],
    ids=str,
)
def test_array_of_another_type_is_refused(tmp_path: Path, small_file: bytes, dtype: Any) -> None:
    data = with_array(small_file, KERNEL_1, shape=(3, 3, 1, 2), dtype=dtype)
    message = refusal_of_bytes(data, tmp_path)
    assert message.startswith("conv2d_1/kernel: expected floats of shape (3, 3, 1, 2), found ")


def test_values_stored_in_another_file_are_refused(tmp_path: Path, small_file: bytes) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(18, np.float32).tobytes())
    storage = [(str(secret), 0, 72)]
    data = with_array(small_file, KERNEL_1, shape=(3, 3, 1, 2), dtype="f4", external=storage)
    with h5py.File(io.BytesIO(data)) as file:
        assert file[KERNEL_1][()].sum() == 18  # what a trusting reader gets
    message = refusal_of_bytes(data, tmp_path)
    assert message == (
        "conv2d_1/kernel: expected values in the file itself, they are in another file"
    )


def test_virtual_array_is_refused(tmp_path: Path, small_file: bytes) -> None:
    layout = h5py.VirtualLayout((3, 3, 1, 2), "f4")
    layout[...] = h5py.VirtualSource(".", KERNEL_1.replace("_1/", "_2/"), shape=(3, 3, 1, 2))

    def edit(file: h5py.File) -> None:
        del file[KERNEL_1]
        file.create_virtual_dataset(KERNEL_1, layout)

    message = refusal_of_bytes(modified(small_file, edit), tmp_path)
    assert message.endswith("they are in another file")


@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2**20), (2**62,), (3, 3, 2**30, 2**20)])
def test_array_that_claims_a_huge_shape_allocates_nothing(
    tmp_path: Path, small_file: bytes, shape: tuple[int, ...]
) -> None:
    # Contiguous arrays get their place in the file when they are first written.
    data = with_array(small_file, KERNEL_1, shape=shape, dtype="i1")
    assert len(data) < 200_000
    tracemalloc.start()
    try:
        message = refusal_of_bytes(data, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert f"found int8 of shape {shape}" in message
    assert peak < hdf5.MAX_HDF5_BYTES + 10_000_000  # the buffer the file is read to
