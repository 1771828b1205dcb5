"""HDF5 files that are refused: not HDF5, damaged, too large, or with links that leave the file."""

import contextlib
import gzip
import io
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.networks.keras_hdf5 import hdf5_bytes, write_hdf5
from helpers.networks.small_weights import (
    KERNEL_1,
    SMALL,
    assert_equal_bits,
    in_newer_version,
    load_bytes,
    modified,
    refusal_of,
    refusal_of_bytes,
)

from edgel3_tflm.errors import WeightsError
from edgel3_tflm.networks import hdf5
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.weights import NetworkWeights

# Bytes that are no weight file


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89",
        b"\x89HDF\r\n\x1a\n",
        b"\x89HDF\r\n\x1a\n" + bytes(200),
        b"\x89HDF\r\n\x1a\n\0" + b"\xff" * 200,
        b"<!DOCTYPE html><html>not found</html>",
        bytes(100_000),
        b"\x80\x04\x95" + bytes(50),
        b"PK\x03\x04" + bytes(100),
    ],
    ids=["empty", "byte", "signature", "zeros", "ones", "html", "null", "pickle", "zip"],
)
def test_bytes_that_are_no_hdf5_are_refused(tmp_path: Path, data: bytes) -> None:
    assert "HDF5" in refusal_of_bytes(data, tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"), [(".", "Is a directory"), ("none.h5", "No such file or directory")]
)
def test_path_that_is_no_file_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    message = refusal_of(lambda: load_weights(SMALL, path))
    assert message == f"{path}: cannot read weights: {reason}"


def test_file_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_HDF5_BYTES", 1_000_000)
    assert "there are more" in refusal_of(lambda: load_weights(SMALL, Path("/dev/zero")))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_bound_on_the_size_is_the_last_size_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_file: bytes, packed: bool
) -> None:
    data = gzip.compress(small_file) if packed else small_file
    monkeypatch.setattr(hdf5, "MAX_HDF5_BYTES", len(small_file))
    load_bytes(data, tmp_path)
    monkeypatch.setattr(hdf5, "MAX_HDF5_BYTES", len(small_file) - 1)
    assert "there are more" in refusal_of_bytes(data, tmp_path)


def test_gzip_bomb_is_refused_before_it_unpacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound, unpacked = 1_000_000, 64 * 1024 * 1024
    bomb = gzip.compress(bytes(unpacked))
    assert len(bomb) < bound
    monkeypatch.setattr(hdf5, "MAX_HDF5_BYTES", bound)
    tracemalloc.start()
    try:
        message = refusal_of_bytes(bomb, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "there are more" in message
    # The buffers of the file (the bound and a byte), of the result (zlib doubles it) and the bomb.
    assert peak < 5 * bound < unpacked


def test_gzip_cut_anywhere_is_refused(tmp_path: Path, small_file: bytes) -> None:
    data = gzip.compress(small_file)
    cuts = {*np.linspace(2, len(data) - 1, 20, dtype=int).tolist(), 3, 9, 10, 11, len(data) - 8}
    for cut in sorted(cuts):
        assert "cut or damaged" in refusal_of_bytes(data[:cut], tmp_path)


def test_gzip_with_damaged_contents_is_refused(tmp_path: Path, small_file: bytes) -> None:
    data = gzip.compress(small_file)
    for position in (2, 3, 12, len(data) // 2, len(data) - 7, len(data) - 1):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        assert "cut or damaged" in refusal_of_bytes(bytes(damaged), tmp_path)


def test_gzip_header_without_gzip_contents_is_refused(tmp_path: Path) -> None:
    garbage = np.random.default_rng(0).bytes(1000)
    for data in (b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\3" + garbage, b"\x1f\x8b" + garbage):
        assert "cut or damaged" in refusal_of_bytes(data, tmp_path)


def test_gzip_within_gzip_is_refused(tmp_path: Path, small_file: bytes) -> None:
    assert "HDF5" in refusal_of_bytes(gzip.compress(gzip.compress(small_file)), tmp_path)


@pytest.mark.parametrize("layout", ["full", "weights-only"])
def test_hdf5_cut_anywhere_is_refused(tmp_path: Path, small: NetworkWeights, layout: Any) -> None:
    data = hdf5_bytes(small, layout=layout)
    cuts = np.linspace(1, len(data) - 1, 40, dtype=int).tolist()
    for cut in cuts:
        assert "HDF5" in refusal_of_bytes(data[:cut], tmp_path)


def test_address_that_no_file_has_is_refused(tmp_path: Path, small_file: bytes) -> None:
    for place in range(32, 96, 8):  # addresses in the superblock
        for address in (2**63, 2**63 - 1, 2**64 - 2):
            data = bytearray(small_file)
            data[place : place + 8] = address.to_bytes(8, "little")
            with contextlib.suppress(WeightsError):
                load_bytes(bytes(data), tmp_path)
    data = bytearray(small_file)
    data[64:72] = (2**63).to_bytes(8, "little")  # the root group
    assert "cut or damaged" in refusal_of_bytes(bytes(data), tmp_path)


def test_hdf5_of_the_newer_versions_is_read(
    tmp_path: Path, small: NetworkWeights, small_file: bytes
) -> None:
    data = in_newer_version(small_file)
    assert b"FRHP" in data  # the fractal heap of a group with many members
    assert b"TREE" not in data
    assert_equal_bits(load_bytes(data, tmp_path), small)


def test_fractal_heap_in_a_file_of_the_first_version_is_read(
    tmp_path: Path, small: NetworkWeights, small_file: bytes
) -> None:
    def add_dense_group(file: h5py.File) -> None:
        group = file["model_weights"].create_group("dense", track_order=True)
        for number in range(20):
            group.create_group(f"member_{number}")

    data = modified(small_file, add_dense_group)
    assert data[8] == 0  # still the first superblock version
    assert b"FRHP" in data
    assert_equal_bits(load_bytes(data, tmp_path), small)


@pytest.mark.parametrize("source", ["small", "published"])
def test_arrays_equal_those_of_h5py(
    small_file: bytes, source: str, request: pytest.FixtureRequest
) -> None:
    if source == "small":
        data = small_file
    else:
        data = gzip.decompress(request.getfixturevalue("sea_weights").read_bytes())

    def read_all(arrays: hdf5.LayerArrays, *_: object) -> dict[str, Any]:
        return {f"{a}/{b}": each.read() for a, found in arrays.items() for b, each in found.items()}

    found = hdf5.read_hdf5(data, read_all)
    expected = {}
    with h5py.File(io.BytesIO(data)) as file:

        def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
            parts = name.split("/")
            key = f"{parts[0]}/{parts[-1].removesuffix(':0')}"
            if isinstance(item, h5py.Dataset) and key in found:
                expected[key] = item[()]

        file["model_weights"].visititems(collect)
    assert found.keys() == expected.keys()
    for key, values in found.items():
        assert values.dtype == expected[key].dtype
        assert values.shape == expected[key].shape
        assert values.tobytes() == expected[key].tobytes()


# Links and names that lead out of the file


_NO_MEMBER = "expected a group or an array of the file itself, found none"
_TWICE = "loop: expected every group once, this one was found before"
_TOO_MANY = "expected at most 5000 HDF5 items, found more"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (KERNEL_1, "soft"),
        ("model_weights/conv2d_1", "soft"),
        ("model_weights", "soft"),
        (KERNEL_1, "external"),
        ("model_weights", "external"),
    ],
)
def test_link_is_refused_wherever_it_stands(
    tmp_path: Path, small: NetworkWeights, small_file: bytes, path: str, kind: str
) -> None:
    write_hdf5(tmp_path / "other.h5", small)

    def edit(file: h5py.File) -> None:
        file.copy(path, "elsewhere")
        del file[path]
        file[path] = (
            h5py.SoftLink("/elsewhere")
            if kind == "soft"
            else h5py.ExternalLink(str(tmp_path / "other.h5"), path)
        )

    data = modified(small_file, edit)
    name = path.rsplit("/", 1)[-1]
    # pyfive knows no external links.
    expected = f"{name}: {_NO_MEMBER}" if kind == "soft" else "cut or damaged"
    assert expected in refusal_of_bytes(data, tmp_path)


def link_softly(file: h5py.File, target: str) -> None:
    del file["model_weights/conv2d_1"]
    file["model_weights/conv2d_1"] = h5py.SoftLink(target)


def link_in_a_loop(file: h5py.File, target: str) -> None:
    file["model_weights/flatten_1/loop"] = file[target]


def repeat_an_array(file: h5py.File) -> None:
    file["model_weights/conv2d_1/other/kernel:0"] = np.ones((3, 3, 1, 2), np.float32)


def name_without_unicode(file: h5py.File) -> None:
    file.id.links.create_soft(b"model_weights/\xff\xfe", b"/")


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (partial(link_softly, target="/"), f"conv2d_1: {_NO_MEMBER}"),
        (partial(link_softly, target="/model_weights/nothing"), f"conv2d_1: {_NO_MEMBER}"),
        (partial(link_softly, target="conv2d_1"), f"conv2d_1: {_NO_MEMBER}"),
        (partial(link_in_a_loop, target="model_weights"), _TWICE),
        (partial(link_in_a_loop, target="model_weights/flatten_1"), _TWICE),
        (repeat_an_array, "conv2d_1/kernel: expected one array, found two"),
        (
            name_without_unicode,
            "expected a whole HDF5 file of Keras weights, it is cut or damaged ('utf-8' codec can't"
            " decode byte 0xff in position 0: invalid start byte)",
        ),
    ],
)
def test_members_that_keras_does_not_write_are_refused(
    tmp_path: Path, small_file: bytes, edit: Callable[[h5py.File], object], expected: str
) -> None:
    assert refusal_of_bytes(modified(small_file, edit), tmp_path) == expected


def test_name_that_is_a_path_is_refused(tmp_path: Path, small_file: bytes) -> None:
    # A reader of paths would follow it, through whatever links lie on the way.
    data = small_file.replace(b"activation_1\0", b"./conv2d_1\0\0\0")
    assert data != small_file
    message = refusal_of_bytes(data, tmp_path)
    assert message == f"./conv2d_1: {_NO_MEMBER}"


def test_more_groups_than_a_network_has_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("g")
        for number in range(5001):
            file[f"g/{number}"] = file["g"]
    assert refusal_of_bytes(buffer.getvalue(), tmp_path) == _TOO_MANY


def test_list_of_layers_that_claims_a_huge_size_allocates_nothing(
    tmp_path: Path, small_file: bytes
) -> None:
    name = small_file.index(b"layer_names\0")
    with h5py.File(io.BytesIO(small_file)) as file:
        count = len(file["model_weights"].attrs["layer_names"])
    dimensions = count.to_bytes(8, "little") * 2  # the present one and the largest allowed
    start = small_file.index(dimensions, name)
    for claimed in (2**20, 2**40, 2**62, 2**64 - 1):
        data = bytearray(small_file)
        data[start : start + 16] = claimed.to_bytes(8, "little") * 2
        assert "cut or damaged" in refusal_of_bytes(bytes(data), tmp_path)


def test_names_in_a_file_cannot_break_the_line_of_a_message(
    tmp_path: Path, small_file: bytes
) -> None:
    layer = "conv2d_1\n\x1b[2Jroot# \u202e" + "x" * 2000

    def edit(file: h5py.File) -> None:
        file["model_weights"].move("conv2d_1", layer)
        del file["model_weights"].attrs["layer_names"]
        del file[f"model_weights/{layer}/conv2d_1/bias:0"]

    message = refusal_of_bytes(modified(small_file, edit), tmp_path)
    assert message.startswith("conv2d_1\\n\\x1b[2Jroot# \\u202exxx")
