"""Weight files: what is read, what is refused, and where they are looked for."""

import contextlib
import dataclasses
import gzip
import http.server
import importlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.keras_hdf5 import array_path, hdf5_bytes, random_weights, write_hdf5

from edgel3_tflm.errors import WeightsError
from edgel3_tflm.files import git_blob_id, sha256_hex
from edgel3_tflm.networks import hdf5, sources
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.sources import cache_directory, load_weights
from edgel3_tflm.networks.variants import PublishedFile, Variant
from edgel3_tflm.networks.weight_files import inspect_weights, pack_weights
from edgel3_tflm.networks.weights import BatchNorm, NetworkWeights, Provenance

SEA_64 = VARIANTS["sea-ust-64"]
SPARSE = VARIANTS["edgel3-95.45-ft"]
# The topology of SEA with few filters: files of 75 kB, nearly all of it structure.
SMALL_FILTERS = (2, 3, 2, 4, 2, 5, 2, 3)
SMALL = dataclasses.replace(SEA_64, filters=SMALL_FILTERS, published=None)
KERNEL_1 = array_path("conv2d_1", "kernel")


@pytest.fixture(scope="module")
def small() -> NetworkWeights:
    return random_weights(SMALL, seed=1)


@pytest.fixture(scope="module")
def small_file(small: NetworkWeights) -> bytes:
    return hdf5_bytes(small)


@pytest.fixture(scope="module")
def sea_64() -> NetworkWeights:
    return random_weights(SEA_64, seed=2)


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
    """Put another dataset in the place of one."""

    def edit(opened: h5py.File) -> None:
        del opened[path]
        opened.create_dataset(path, **options)

    return modified(file, edit)


def load_bytes(data: bytes, directory: Path, variant: Variant = SMALL) -> NetworkWeights:
    path = directory / "weights.h5"
    path.write_bytes(data)
    return load_weights(variant, path)


def refusal_of(load: Callable[[], object]) -> str:
    """Return the message of the error, which must be of one line a terminal can show."""
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


# What is read


@pytest.mark.parametrize("layout", ["full", "weights-only"])
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
@pytest.mark.parametrize("first_number", [1, 2, 9, 93, 99_995])
def test_arrays_read_back_bit_for_bit(
    tmp_path: Path, small: NetworkWeights, layout: Any, listed: bool, first_number: int
) -> None:
    path = tmp_path / "weights.h5"
    write_hdf5(path, small, layout=layout, layer_names=listed, first_number=first_number)
    assert_equal_bits(load_weights(SMALL, path), small)


@pytest.mark.parametrize("name", ["w.h5", "w.h5.gz", "w.hdf5", "w"])
def test_gzip_is_told_by_its_bytes_not_by_the_name(
    tmp_path: Path, small: NetworkWeights, small_file: bytes, name: str
) -> None:
    for data in (small_file, gzip.compress(small_file)):
        (tmp_path / name).write_bytes(data)
        assert_equal_bits(load_weights(SMALL, tmp_path / name), small)


def test_order_is_the_one_the_file_lists(
    tmp_path: Path, small: NetworkWeights, small_file: bytes
) -> None:
    # Keras lists layers in the network's order; numbers need not follow it.
    def swap_first_two(file: h5py.File) -> None:
        root = file["model_weights"]
        for layer in ("conv2d_1", "conv2d_2"):
            root.move(layer, f"old_{layer}")
        root.move("old_conv2d_1", "conv2d_2")
        root.move("old_conv2d_2", "conv2d_1")
        names = {b"conv2d_1": b"conv2d_2", b"conv2d_2": b"conv2d_1"}
        listed = [names.get(name, name) for name in root.attrs["layer_names"]]
        root.attrs["layer_names"] = np.array(listed)

    assert_equal_bits(load_bytes(modified(small_file, swap_first_two), tmp_path), small)


def test_without_a_usable_list_layers_go_by_number(
    tmp_path: Path, small: NetworkWeights, small_file: bytes
) -> None:
    unusable = (
        np.array([b"conv2d_1"]),
        np.array([[b"conv2d_1"]]),
        np.bytes_("conv2d_1"),
        "conv2d_1",
        ["conv2d_1", "conv2d_2"],
        7,
        np.ones(3),
        np.zeros(0),
        h5py.Empty("f"),
    )
    for names in unusable:

        def relist(file: h5py.File, names: object = names) -> None:
            file["model_weights"].attrs["layer_names"] = names

        assert_equal_bits(load_bytes(modified(small_file, relist), tmp_path), small)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
def test_every_ieee_float_type_is_read_as_float32(
    tmp_path: Path, small: NetworkWeights, dtype: str
) -> None:
    write_hdf5(tmp_path / "w.h5", small, dtype=dtype)
    for found, expected in zip(
        arrays_of(load_weights(SMALL, tmp_path / "w.h5")), arrays_of(small), strict=True
    ):
        assert found.dtype == np.float32
        assert found.tobytes() == expected.astype(dtype).astype(np.float32).tobytes()


def test_weights_of_the_sparse_family_read_back_with_their_zeros(tmp_path: Path) -> None:
    assert SPARSE.plan is not None
    weights = random_weights(SPARSE, sparsity=SPARSE.plan.layers)
    write_hdf5(tmp_path / "edgel3.h5", weights)
    loaded = load_weights(SPARSE, tmp_path / "edgel3.h5")
    assert_equal_bits(loaded, weights)
    # As TF-MOT rounds: 36,864 * 0.15 = 5529.6 weights of conv2 stay, and so on.
    assert [conv.kernel.size - conv.zeros for conv in loaded.convs] == [
        576, 5530, 11059, 22118, 73728, 29491, 23593, 47186,
    ]  # fmt: skip
    assert loaded.sparsity_percent == 100 * (4_682_304 - 213_281) / 4_682_304


def test_negative_zeros_count_as_zeros(small: NetworkWeights) -> None:
    conv = dataclasses.replace(small.convs[1], kernel=small.convs[1].kernel * np.float32(-0.0))
    assert conv.zeros == conv.kernel.size == 54
    assert small.convs[1].zeros == 0


def test_provenance_of_a_users_file_names_it_and_its_digest(
    tmp_path: Path, small_file: bytes
) -> None:
    provenance = load_bytes(small_file, tmp_path).provenance
    assert (provenance.kind, provenance.name) == ("file", "weights.h5")
    assert provenance.sha256 == sha256_hex(small_file)
    assert "given by the user" in provenance.description


def test_batch_norm_is_the_affine_map_of_its_definition(small: NetworkWeights) -> None:
    norm = small.convs[5].batch_norm
    assert norm is not None
    gamma, beta, mean, variance = (
        array.astype(np.float64) for array in (norm.gamma, norm.beta, norm.mean, norm.variance)
    )
    slope = gamma / np.sqrt(variance + 1e-3)
    # Float32 rounds epsilon, the sum, the root and the quotient (half an ulp, 2^-24, each; the root
    # halves the errors before it): below 4 * 2^-24 in all. The product and the difference add one
    # each.
    np.testing.assert_allclose(norm.slope, slope, rtol=4 * 2**-24, atol=0)
    atol = 2**-24 * (6 * np.abs(slope * mean) + np.abs(beta)).max()
    np.testing.assert_allclose(norm.offset, beta - slope * mean, rtol=0, atol=atol)


def test_batch_norm_keeps_the_published_epsilon() -> None:
    one = np.ones(1, np.float32)
    norm = BatchNorm(one, one, one, np.zeros(1, np.float32))
    assert abs(float(norm.slope[0]) - 1000**0.5) < 1e-4


# The published file


def test_published_sea_64_is_read_and_recognised(sea_weights: Path) -> None:
    weights = load_weights(SEA_64, sea_weights)
    assert weights.provenance.kind == "published"
    assert weights.provenance.name == sea_weights.name
    assert weights.variant is SEA_64
    assert [conv.kernel.shape for conv in weights.convs] == [
        layer.kernel_shape for layer in SEA_64.layers
    ]
    with h5py.File(io.BytesIO(gzip.decompress(sea_weights.read_bytes()))) as file:
        last = file[array_path("audio_embedding_layer", "kernel")][()]
        first_norm = file[array_path("batch_normalization_1", "moving_variance")][()]
        last_norm = file[array_path("batch_normalization_9", "gamma")][()]
    assert weights.convs[7].kernel.tobytes() == last.tobytes()
    assert weights.input_norm.variance.tobytes() == first_norm.tobytes()
    assert weights.convs[7].batch_norm is not None
    assert weights.convs[7].batch_norm.gamma.tobytes() == last_norm.tobytes()


def test_published_sea_64_has_the_blob_id_the_registry_knows(sea_weights: Path) -> None:
    assert SEA_64.published is not None
    assert SEA_64.published.name == sea_weights.name
    assert git_blob_id(sea_weights.read_bytes()) == SEA_64.published.git_blob_id


def test_unpacked_published_file_is_not_called_published(tmp_path: Path, sea_weights: Path) -> None:
    unpacked = gzip.decompress(sea_weights.read_bytes())
    assert load_bytes(unpacked, tmp_path, SEA_64).provenance.kind == "file"


def test_published_file_is_read_as_it_was_written_here(sea_weights: Path) -> None:
    """The layout that these tests write is the one of the published file."""
    published = load_weights(SEA_64, sea_weights)
    written = hdf5_bytes(published)
    with (
        h5py.File(io.BytesIO(gzip.decompress(sea_weights.read_bytes()))) as file,
        h5py.File(io.BytesIO(written)) as own,
    ):

        def arrays(of: h5py.File) -> dict[str, tuple[tuple[int, ...], str, str | None]]:
            found: dict[str, Any] = {}
            of.visititems(
                lambda name, item: found.update(
                    {name: (item.shape, item.dtype.str, item.chunks)}
                    if isinstance(item, h5py.Dataset) and "melspectrogram" not in name
                    else {}
                )
            )
            return found

        assert arrays(own) == arrays(file)
        for root in (own["model_weights"], file["model_weights"]):
            assert root.attrs["layer_names"].dtype.kind == "S"
        assert file["model_weights/melspectrogram_1"].attrs["weight_names"].tolist() == (
            own["model_weights/melspectrogram_1"].attrs["weight_names"].tolist()
        )


# Recognising a network


@pytest.mark.parametrize(
    "name", ["sea-ust-512", "sea-ust-256", "sea-ust-128", "sea-ust-64", "l3-dense"]
)
def test_network_is_identified_by_its_shapes(tmp_path: Path, name: str) -> None:
    weights = random_weights(VARIANTS[name])
    write_hdf5(tmp_path / "w.h5", weights, layout="weights-only", first_number=7)
    inspected = inspect_weights(tmp_path / "w.h5")
    assert inspected.variant.name == name
    assert inspected.provenance.kind == "file"
    assert_equal_bits(inspected, weights)


def test_published_file_is_identified_by_its_bytes(sea_weights: Path) -> None:
    inspected = inspect_weights(sea_weights)
    assert inspected.variant is SEA_64
    assert inspected.provenance.kind == "published"


def test_sparse_file_counts_as_dense_l3_unless_its_bytes_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.h5.gz"
    write_hdf5(path, random_weights(SPARSE))
    assert inspect_weights(path).variant.name == "l3-dense"
    published = PublishedFile(path.name, git_blob_id(path.read_bytes()))
    known = dataclasses.replace(SPARSE, published=published)
    monkeypatch.setitem(VARIANTS, SPARSE.name, known)
    inspected = inspect_weights(path)
    assert inspected.variant is known
    assert inspected.provenance.kind == "published"


def test_network_of_other_shapes_is_not_identified(tmp_path: Path, small_file: bytes) -> None:
    (tmp_path / "w.h5").write_bytes(small_file)
    message = refusal_of(lambda: inspect_weights(tmp_path / "w.h5"))
    assert message.endswith(
        "expected the kernels of L3, EdgeL3 or SEA-UST, these fit none of them: 3x3x1x2, 3x3x2x3,"
        " 3x3x3x2, 3x3x2x4, 3x3x4x2, 3x3x2x5, 3x3x5x2, 3x3x2x3"
    )


def test_file_without_kernels_is_not_identified(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_group("model_weights")
    message = refusal_of(lambda: inspect_weights(tmp_path / "w.h5"))
    assert message.endswith("these fit none of them: no kernels")


# Arrays that do not fit


@pytest.mark.parametrize(
    ("loaded", "written", "hint"),
    [
        ("sea-ust-128", "sea-ust-64", "--model-type sea --emb-dim 64"),
        ("sea-ust-64", "sea-ust-256", "--model-type sea --emb-dim 256"),
        ("edgel3-95.45-ft", "sea-ust-64", "--model-type sea --emb-dim 64"),
        ("l3-dense", "sea-ust-512", "--model-type sea --emb-dim 512"),
        ("sea-ust-512", "l3-dense", "--model-type sparse"),
    ],
)
def test_file_of_another_network_is_refused_with_its_options(
    tmp_path: Path, loaded: str, written: str, hint: str
) -> None:
    data = hdf5_bytes(random_weights(VARIANTS[written]))
    message = refusal_of_bytes(data, tmp_path, VARIANTS[loaded])
    assert message.endswith(f"; these are the shapes of {hint}")


OWN = VARIANTS[f"sea-ust-filters-{'-'.join(map(str, SMALL_FILTERS))}"]


@pytest.fixture(scope="module")
def own_file() -> bytes:
    return gzip.decompress(pack_weights(random_weights(OWN, seed=5)))


def test_file_says_the_filters_that_no_table_has(tmp_path: Path, own_file: bytes) -> None:
    assert load_bytes(own_file, tmp_path, SEA_64).variant == OWN
    assert load_bytes(own_file, tmp_path, OWN).variant == OWN
    assert inspect_weights(tmp_path / "weights.h5").variant == OWN


def test_file_of_a_known_network_says_no_filters(tmp_path: Path, sea_64: NetworkWeights) -> None:
    data = gzip.decompress(pack_weights(sea_64))
    assert b"filters" not in data
    assert load_bytes(data, tmp_path, SEA_64).variant == SEA_64


def test_plan_is_laid_over_a_file_s_own_filters(tmp_path: Path) -> None:
    dense = VARIANTS["l3-dense"].with_filters(SMALL_FILTERS)
    data = gzip.decompress(pack_weights(random_weights(dense)))
    assert load_bytes(data, tmp_path, SPARSE).variant == SPARSE.with_filters(SMALL_FILTERS)


@pytest.mark.parametrize("loaded", [SPARSE, OWN.with_filters((1,) * 8)], ids=["family", "filters"])
def test_file_of_other_filters_is_refused_with_its_own(
    tmp_path: Path, own_file: bytes, loaded: Variant
) -> None:
    assert refusal_of_bytes(own_file, tmp_path, loaded).endswith(
        "; these are the shapes of --model-type sea with the filters 2, 3, 2, 4, 2, 5, 2, 3"
    )


@pytest.mark.parametrize(
    ("filters", "part"),
    [
        (np.array([2, 3], np.int64), "expected 2 convolutions and 3 BatchNorms"),
        (np.array(SMALL_FILTERS, np.float32), "expected 1 to 8 int64"),
        (b"2, 3", "expected 1 to 8 int64"),
        (np.array((0, *SMALL_FILTERS[1:]), np.int64), "from 1 to 1024"),
        (np.array((2**40, *SMALL_FILTERS[1:]), np.int64), "from 1 to 1024"),
        (np.array((3, *SMALL_FILTERS[1:]), np.int64), "conv2d_1/kernel"),
    ],
)
def test_filters_that_are_none_or_not_the_arrays_are_refused(
    tmp_path: Path, own_file: bytes, filters: Any, part: str
) -> None:
    def change(file: h5py.File) -> None:
        file.attrs["edgel3_tflm_filters"] = filters

    assert part in refusal_of_bytes(modified(own_file, change), tmp_path, SEA_64)


@pytest.fixture
def trained_file() -> bytes:
    provenance = Provenance("distilled", "student.h5.gz", "", "distilled in a test")
    weights = dataclasses.replace(random_weights(OWN), provenance=provenance)
    return gzip.decompress(pack_weights(weights))


def test_file_says_how_it_was_trained(tmp_path: Path, trained_file: bytes) -> None:
    path = tmp_path / "mine.h5"
    path.write_bytes(trained_file)
    provenance = load_weights(SEA_64, path).provenance
    assert (provenance.kind, provenance.name) == ("distilled", "mine.h5")
    assert provenance.description == (
        "weights file mine.h5 given by the user; it says of itself: distilled in a test"
    )


@pytest.mark.parametrize("kind", ["published", "package", "bundled", "generated", "file", ""])
def test_a_claim_of_anything_but_training_is_not_believed(
    tmp_path: Path, trained_file: bytes, kind: str
) -> None:
    def claim(file: h5py.File) -> None:
        file.attrs["edgel3_tflm_kind"] = np.bytes_(kind.encode())
        file.attrs["edgel3_tflm_description"] = np.bytes_(b"published weights of the authors")

    path = tmp_path / "mine.h5"
    path.write_bytes(modified(trained_file, claim))
    provenance = load_weights(SEA_64, path).provenance
    assert provenance.kind == "file"
    assert provenance.description == "weights file mine.h5 given by the user"


@pytest.mark.parametrize("name", ["edgel3_tflm_kind", "edgel3_tflm_description"])
@pytest.mark.parametrize(
    ("value", "part"),
    [
        (3, "expected a string of at most 2048 bytes"),
        ([b"a", b"b"], "expected a string of at most 2048 bytes"),
        ("of any length", "expected a string of at most 2048 bytes"),
        (np.bytes_(b"x" * 3000), "expected a string of at most 2048 bytes"),
        (h5py.Empty("S10"), "expected a string of at most 2048 bytes"),
        (np.bytes_(b"\xff\xfe"), "cut or damaged"),
    ],
    ids=["number", "two", "variable", "long", "empty", "not UTF-8"],
)
def test_a_claim_that_is_no_string_is_refused(
    tmp_path: Path, trained_file: bytes, name: str, value: Any, part: str
) -> None:
    def claim(file: h5py.File) -> None:
        file.attrs[name] = value

    assert part in refusal_of_bytes(modified(trained_file, claim), tmp_path, SEA_64)


def test_a_claim_is_one_printable_line(tmp_path: Path, trained_file: bytes) -> None:
    def claim(file: h5py.File) -> None:
        file.attrs["edgel3_tflm_description"] = np.bytes_(b"fine\n\x1b[2Jerror: none" + b"x" * 900)

    path = tmp_path / "mine.h5"
    path.write_bytes(modified(trained_file, claim))
    description = load_weights(SEA_64, path).provenance.description
    assert description.isprintable()
    assert len(description) < 600


def test_other_shape_is_refused_with_layer_expected_and_found(
    tmp_path: Path, sea_64: NetworkWeights
) -> None:
    message = refusal_of_bytes(hdf5_bytes(sea_64), tmp_path, VARIANTS["sea-ust-128"])
    assert message == (
        "conv2d_7/kernel: expected floats of shape (3, 3, 128, 128), found float32 of shape"
        " (3, 3, 128, 64); these are the shapes of --model-type sea --emb-dim 64"
    )


@pytest.mark.parametrize("name", ["l3-dense", "sea-ust-64"])
def test_own_file_without_a_layer_brings_no_hint(tmp_path: Path, name: str) -> None:
    def delete(file: h5py.File) -> None:
        del file["model_weights/batch_normalization_3"]

    data = modified(hdf5_bytes(random_weights(VARIANTS[name])), delete)
    assert ";" not in refusal_of_bytes(data, tmp_path, VARIANTS[name])


def test_own_file_with_another_bias_brings_no_hint(tmp_path: Path, sea_64: NetworkWeights) -> None:
    path = array_path("conv2d_1", "bias")
    data = with_array(hdf5_bytes(sea_64), path, data=np.ones(31, np.float32))
    assert refusal_of_bytes(data, tmp_path, SEA_64) == (
        "conv2d_1/bias: expected floats of shape (32,), found float32 of shape (31,)"
    )


def test_shape_of_no_known_network_brings_no_hint(tmp_path: Path, small_file: bytes) -> None:
    data = with_array(small_file, KERNEL_1, data=np.ones((3, 3, 1, 5), np.float32))
    assert refusal_of_bytes(data, tmp_path) == (
        "conv2d_1/kernel: expected floats of shape (3, 3, 1, 2), found float32 of shape"
        " (3, 3, 1, 5)"
    )


@pytest.mark.parametrize("shape", [(2,), (2, 1, 3, 3), (9, 1, 2), (18,), (3, 3, 1, 2, 1)])
def test_values_in_another_order_of_axes_are_refused(
    tmp_path: Path, small_file: bytes, shape: tuple[int, ...]
) -> None:
    data = with_array(small_file, KERNEL_1, data=np.ones(shape, np.float32))
    assert f"of shape {shape}" in refusal_of_bytes(data, tmp_path)


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


def test_two_arrays_of_one_name_in_a_layer_are_refused(tmp_path: Path, small_file: bytes) -> None:
    def duplicate(file: h5py.File) -> None:
        file["model_weights/conv2d_1/other/kernel:0"] = np.ones((3, 3, 1, 2), np.float32)

    message = refusal_of_bytes(modified(small_file, duplicate), tmp_path)
    assert message == "conv2d_1/kernel: expected one array, found two"


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


@pytest.mark.filterwarnings("error")
def test_double_that_float32_cannot_hold_is_refused_without_a_warning(
    tmp_path: Path, small_file: bytes
) -> None:
    data = with_array(small_file, KERNEL_1, data=np.full((3, 3, 1, 2), 1e300))
    message = refusal_of_bytes(data, tmp_path)
    assert message == "conv2d_1/kernel: expected finite values, 18 are NaN or infinite"


def test_negative_variance_is_refused(tmp_path: Path, small_file: bytes) -> None:
    path = array_path("batch_normalization_2", "moving_variance")
    data = with_array(small_file, path, data=np.array([1, -1e-9], np.float32))
    message = refusal_of_bytes(data, tmp_path)
    assert message.startswith("batch_normalization_2/moving_variance: expected no negative value")


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


def test_array_without_any_value_is_refused(tmp_path: Path, small_file: bytes) -> None:
    for layer, array in (("conv2d_1", "kernel"), ("conv2d_1", "bias")):
        data = with_array(small_file, array_path(layer, array), data=h5py.Empty("f4"))
        message = refusal_of_bytes(data, tmp_path)
        assert message.startswith(f"{layer}/{array}: expected floats of shape")


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


def test_directory_is_refused(tmp_path: Path) -> None:
    message = refusal_of(lambda: load_weights(SMALL, tmp_path))
    assert message == f"{tmp_path}: cannot read weights: Is a directory"


def test_missing_file_is_refused(tmp_path: Path) -> None:
    message = refusal_of(lambda: load_weights(SMALL, tmp_path / "none.h5"))
    assert message == f"{tmp_path / 'none.h5'}: cannot read weights: No such file or directory"


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
    data[40:56] = len(small_file).to_bytes(8, "little") + (2**63).to_bytes(8, "little")
    assert "cut or damaged" in refusal_of_bytes(bytes(data), tmp_path)


def test_hdf5_of_the_newer_versions_is_refused(tmp_path: Path, small_file: bytes) -> None:
    # libhdf5 1.14 frees memory it never allocated where their fractal heaps are damaged.
    newer = io.BytesIO()
    with (
        h5py.File(io.BytesIO(small_file)) as source,
        h5py.File(newer, "w", libver="latest") as file,
    ):
        source.copy("model_weights", file)
    assert "HDF5 file of the first version" in refusal_of_bytes(newer.getvalue(), tmp_path)


def test_fractal_heap_in_a_file_of_the_first_version_is_refused(
    tmp_path: Path, small_file: bytes
) -> None:
    def add_dense_group(file: h5py.File) -> None:
        group = file.create_group("dense", track_order=True)
        for number in range(20):
            group.create_group(f"member_{number}")

    data = modified(small_file, add_dense_group)
    assert data[8] == 0  # still the first superblock version
    assert "found a fractal heap" in refusal_of_bytes(data, tmp_path)


# Files that reach for more than themselves


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
    assert refusal_of_bytes(data, tmp_path) == (
        f"{name}: expected a group or an array of the file itself, found none"
    )


@pytest.mark.parametrize("target", ["/", "/model_weights/nothing", "conv2d_1"])
def test_soft_link_that_loops_or_dangles_is_refused(
    tmp_path: Path, small_file: bytes, target: str
) -> None:
    def edit(file: h5py.File) -> None:
        del file["model_weights/conv2d_1"]
        file["model_weights/conv2d_1"] = h5py.SoftLink(target)

    message = refusal_of_bytes(modified(small_file, edit), tmp_path)
    assert message == "conv2d_1: expected a group or an array of the file itself, found none"


def test_name_that_is_a_path_is_refused(tmp_path: Path, small_file: bytes) -> None:
    # libhdf5 would follow it, through whatever links lie on the way.
    data = small_file.replace(b"activation_1\0", b"./conv2d_1\0\0\0")
    assert data != small_file
    message = refusal_of_bytes(data, tmp_path)
    assert message == "./conv2d_1: expected a group or an array of the file itself, found none"


def test_hard_links_in_a_loop_are_refused(tmp_path: Path, small_file: bytes) -> None:
    for target in ("model_weights", "model_weights/flatten_1"):

        def loop(file: h5py.File, target: str = target) -> None:
            file["model_weights/flatten_1/loop"] = file[target]

        message = refusal_of_bytes(modified(small_file, loop), tmp_path)
        assert message == "expected at most 5000 HDF5 items, found more"


def test_more_groups_than_a_network_has_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("g")
        for number in range(5001):
            file[f"g/{number}"] = file["g"]
    message = refusal_of_bytes(buffer.getvalue(), tmp_path)
    assert message == "expected at most 5000 HDF5 items, found more"


def test_values_stored_in_another_file_are_refused(tmp_path: Path, small_file: bytes) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(18, np.float32).tobytes())
    storage = [(str(secret), 0, 72)]
    data = with_array(small_file, KERNEL_1, shape=(3, 3, 1, 2), dtype="f4", external=storage)
    with h5py.File(io.BytesIO(data)) as file:
        assert file[KERNEL_1][()].sum() == 18  # what a trusting reader gets
    message = refusal_of_bytes(data, tmp_path)
    assert message == (
        "conv2d_1/kernel: expected values in the file itself, they lie in another file"
    )


def test_virtual_array_is_refused(tmp_path: Path, small_file: bytes) -> None:
    layout = h5py.VirtualLayout((3, 3, 1, 2), "f4")
    layout[...] = h5py.VirtualSource(".", KERNEL_1.replace("_1/", "_2/"), shape=(3, 3, 1, 2))

    def edit(file: h5py.File) -> None:
        del file[KERNEL_1]
        file.create_virtual_dataset(KERNEL_1, layout)

    message = refusal_of_bytes(modified(small_file, edit), tmp_path)
    assert message.endswith("they lie in another file")


def test_packed_chunks_are_refused(tmp_path: Path, small_file: bytes) -> None:
    # A chunk may unpack to a thousand times its size, whatever the array's shape says.
    values = np.ones((3, 3, 1, 2), np.float32)
    for options in ({"compression": "gzip"}, {"chunks": True}, {"maxshape": (None, 3, 1, 2)}):
        data = with_array(small_file, KERNEL_1, data=values, **options)
        message = refusal_of_bytes(data, tmp_path)
        assert message == (
            "conv2d_1/kernel: expected values in one piece, as Keras writes, found chunks"
        )


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


def test_name_that_is_no_unicode_is_refused(tmp_path: Path, small_file: bytes) -> None:
    def edit(file: h5py.File) -> None:
        file.id.links.create_soft(b"model_weights/\xff\xfe", b"/")

    message = refusal_of_bytes(modified(small_file, edit), tmp_path)
    assert message == "expected names in UTF-8, found b'\\xff\\xfe'"


LOAD_DAMAGED = """
import dataclasses, json, resource, signal, sys
from pathlib import Path
import numpy as np
from edgel3_tflm.errors import WeightsError
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.sources import load_weights

source, filters, kind, count = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
data = Path(source).read_bytes()
path = Path(source).with_suffix(".damaged")
variant = dataclasses.replace(VARIANTS["sea-ust-64"], filters=tuple(filters))
offsets = [
    at for at in range(0, len(data) - 7, 8) if 0 < int.from_bytes(data[at : at + 8], "little")
    < len(data)
]
outcomes = {"loaded": 0, "refused": 0}
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for seed in range(count):
    generator = np.random.default_rng(seed)
    damaged = bytearray(data)
    if kind == "first 8 kB":
        damaged[generator.integers(8192)] ^= 1 << generator.integers(8)
    elif kind == "anywhere":
        damaged[generator.integers(len(data))] ^= generator.integers(1, 256)
    elif kind == "offsets":  # addresses and sizes of structures, led somewhere else in the file
        here, there = generator.choice(offsets, 2)
        damaged[here : here + 8] = damaged[there : there + 8]
    elif kind == "nothing":
        pass
    path.write_bytes(damaged)
    signal.alarm(20)
    try:
        weights = load_weights(variant, path)
    except WeightsError as error:
        assert str(error).isprintable()
        outcomes["refused"] += 1
    else:
        for conv in weights.convs:
            assert np.isfinite(conv.kernel).all() and np.isfinite(conv.bias).all()
        outcomes["loaded"] += 1
    signal.alarm(0)
print(json.dumps(outcomes))
"""


def load_damaged(source: Path, kind: str, count: int) -> dict[str, int]:
    """Load damaged files in a process that may neither crash, hang nor take 4 GB."""
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            LOAD_DAMAGED,
            str(source),
            json.dumps(SMALL_FILTERS),
            kind,
            f"{count}",
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr[-2000:]
    outcomes: dict[str, int] = json.loads(process.stdout)
    assert sum(outcomes.values()) == count
    return outcomes


@pytest.mark.parametrize("kind", ["first 8 kB", "anywhere", "offsets"])
def test_damaged_bytes_are_refused_or_leave_finite_weights(
    tmp_path: Path, small_file: bytes, kind: str
) -> None:
    (tmp_path / "w.h5").write_bytes(small_file)
    outcomes = load_damaged(tmp_path / "w.h5", kind, count=300)
    assert min(outcomes.values()) > 30, outcomes  # damage both in use and in gaps was tried


def test_undamaged_file_survives_the_test_of_damaged_ones(
    tmp_path: Path, small_file: bytes
) -> None:
    (tmp_path / "w.h5").write_bytes(small_file)
    assert load_damaged(tmp_path / "w.h5", "nothing", count=1) == {"loaded": 1, "refused": 0}


def test_endless_list_of_free_blocks_is_refused(tmp_path: Path, small_file: bytes) -> None:
    # libhdf5 1.14 would follow it for ever, and allocate at every step.
    heaps = []
    position = small_file.find(b"HEAP")
    while position >= 0:
        heaps.append(position)
        position = small_file.find(b"HEAP", position + 1)
    assert len(heaps) > 50
    for heap in (heaps[0], heaps[len(heaps) // 2], heaps[-1]):
        block = int.from_bytes(small_file[heap + 24 : heap + 32], "little") + 8
        data = bytearray(small_file)
        data[heap + 16 : heap + 24] = (8).to_bytes(8, "little")
        data[block : block + 16] = (8).to_bytes(8, "little") + (16).to_bytes(8, "little")
        (tmp_path / "w.h5").write_bytes(data)
        outcome = load_damaged(tmp_path / "w.h5", "nothing", count=1)
        assert outcome == {"loaded": 0, "refused": 1}
        assert "endless free list" in refusal_of_bytes(bytes(data), tmp_path)


# Where published weights are looked for


class Server(http.server.ThreadingHTTPServer):
    """Serves ``data`` in the way the first part of the path says, and counts the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data = b""
        self.requested: list[str] = []

    def base_url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is expected here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        way = self.path.split("/")[1]
        data = self.server.data
        if way == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        if way != "endless":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if way == "right":
            self.wfile.write(data)
        elif way == "wrong":
            self.wfile.write(data[:-1] + bytes([data[-1] ^ 1]))
        elif way == "cut":
            self.wfile.write(data[: len(data) // 2])
        elif way == "endless":
            while True:
                self.wfile.write(bytes(65536))

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def published_file(small_file: bytes) -> bytes:
    return gzip.compress(small_file, mtime=0)


@pytest.fixture
def published(published_file: bytes) -> Variant:
    """The small network, as if its file were published."""
    name = "edgel3_tflm_test_only.h5.gz"
    return dataclasses.replace(SMALL, published=PublishedFile(name, git_blob_id(published_file)))


def file_name(variant: Variant) -> str:
    assert variant.published is not None
    return variant.published.name


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed edgel3 whose import is an error, without weights."""
    directory = tmp_path / "site" / "edgel3"
    directory.mkdir(parents=True)
    (directory / "__init__.py").write_text("raise SystemError('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(directory.parent))
    with pytest.raises(SystemError, match="imported"):
        importlib.import_module("edgel3")
    return directory


def test_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", "/some/where")
    assert cache_directory() == Path("/some/where")
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", "")
    assert cache_directory().name == "edgel3-tflm"
    monkeypatch.delenv("EDGEL3_TFLM_CACHE")
    assert cache_directory().name == "edgel3-tflm"


def test_network_without_published_weights_asks_for_a_file(cache: Path) -> None:
    message = refusal_of(lambda: load_weights(VARIANTS["l3-dense"]))
    assert message.startswith("l3-dense: no weights are published for this network")
    assert "--weights FILE" in message
    assert not cache.exists()


def test_cache_comes_before_package_and_download(
    cache: Path,
    package: Path,
    server: Server,
    published: Variant,
    published_file: bytes,
    small: NetworkWeights,
) -> None:
    cache.mkdir()
    (cache / file_name(published)).write_bytes(published_file)
    (package / file_name(published).removesuffix(".gz")).write_bytes(b"not read")
    weights = load_weights(published, base_url=server.base_url("right"))
    assert weights.provenance.kind == "published"
    assert weights.provenance.sha256 == sha256_hex(published_file)
    assert_equal_bits(weights, small)
    assert server.requested == []


def test_cached_file_of_other_bytes_is_refused_with_both_digests(
    cache: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    cache.mkdir()
    other = published_file[:-1] + b"\xff"
    (cache / file_name(published)).write_bytes(other)
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert message.startswith(f"{cache / file_name(published)}: ")
    assert git_blob_id(published_file) in message
    assert git_blob_id(other) in message
    assert server.requested == []


def test_installed_package_comes_before_download_and_is_not_imported(
    cache: Path,
    package: Path,
    server: Server,
    published: Variant,
    small: NetworkWeights,
    small_file: bytes,
) -> None:
    unpacked = file_name(published).removesuffix(".gz")
    (package / unpacked).write_bytes(small_file)
    weights = load_weights(published, base_url=server.base_url("right"))
    assert weights.provenance.kind == "package"
    assert weights.provenance.sha256 == sha256_hex(small_file)
    assert "digest unknown" in weights.provenance.description
    assert_equal_bits(weights, small)
    assert "edgel3" not in sys.modules
    assert server.requested == []
    assert not cache.exists()


def test_damaged_file_of_an_installed_package_is_refused(
    cache: Path, package: Path, server: Server, published: Variant, small_file: bytes
) -> None:
    unpacked = package / file_name(published).removesuffix(".gz")
    unpacked.write_bytes(small_file[:-1])
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert message.startswith(f"{unpacked}: ")
    assert server.requested == []
    assert not cache.exists()


def test_package_without_the_file_leaves_it_to_the_download(
    cache: Path, package: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    assert package.is_dir()
    server.data = published_file
    weights = load_weights(published, base_url=server.base_url("right"))
    assert weights.provenance.kind == "published"
    assert cache.is_dir()


def test_download_lands_in_the_cache_and_is_not_repeated(
    cache: Path,
    server: Server,
    published: Variant,
    published_file: bytes,
    small: NetworkWeights,
) -> None:
    server.data = published_file
    for _ in range(2):
        weights = load_weights(published, base_url=server.base_url("right"))
        assert weights.provenance.kind == "published"
        assert_equal_bits(weights, small)
    assert server.requested == [f"/right/{file_name(published)}"]
    assert [path.name for path in cache.iterdir()] == [file_name(published)]
    assert (cache / file_name(published)).read_bytes() == published_file


def assert_fetch_refused(cache: Path, published: Variant, base_url: str) -> str:
    message = refusal_of(lambda: load_weights(published, base_url=base_url))
    assert base_url + file_name(published) in message
    assert list(cache.iterdir()) == []
    return message


def test_download_of_other_bytes_is_refused_with_both_digests(
    cache: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    server.data = published_file
    message = assert_fetch_refused(cache, published, server.base_url("wrong"))
    other = published_file[:-1] + bytes([published_file[-1] ^ 1])
    assert git_blob_id(published_file) in message
    assert git_blob_id(other) in message


@pytest.mark.parametrize("way", ["missing", "cut"])
def test_failed_download_is_refused_with_what_to_do(
    cache: Path, server: Server, published: Variant, published_file: bytes, way: str
) -> None:
    server.data = published_file
    message = assert_fetch_refused(cache, published, server.base_url(way))
    assert "--weights FILE" in message
    assert str(cache) in message


def test_refused_connection_is_refused_with_what_to_do(cache: Path, published: Variant) -> None:
    with socket.socket() as bound:  # bound but not listening: connections to it are refused
        bound.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        message = assert_fetch_refused(cache, published, base_url)
    assert "--weights FILE" in message


def test_download_that_never_ends_is_refused(
    cache: Path, server: Server, published: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_HDF5_BYTES", 1_000_000)
    assert_fetch_refused(cache, published, server.base_url("endless"))


def test_cache_that_cannot_be_written_is_one_line(
    cache: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    server.data = published_file
    cache.write_bytes(b"")  # a file in the directory's place
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert "--weights FILE" in message
    assert cache.read_bytes() == b""


def test_download_that_cannot_be_moved_into_its_place_leaves_nothing(
    cache: Path, server: Server, published: Variant, published_file: bytes
) -> None:
    server.data = published_file
    (cache / file_name(published)).mkdir(parents=True)
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert "--weights FILE" in message
    assert [path.name for path in cache.iterdir()] == [file_name(published)]


def test_cache_with_a_name_the_system_refuses_is_one_line(
    server: Server, published: Variant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(tmp_path / ("x" * 300)))
    message = refusal_of(lambda: load_weights(published, base_url=server.base_url("right")))
    assert "--weights FILE" in message
