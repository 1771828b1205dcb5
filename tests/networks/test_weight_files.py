"""Weight files: their arrays, the network that these fit, and what a file claims about itself."""

import dataclasses
import gzip
import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.networks.keras_hdf5 import array_path, hdf5_bytes, random_weights, write_hdf5
from helpers.networks.small_weights import (
    SEA_64,
    SMALL,
    SMALL_FILTERS,
    SPARSE,
    arrays_of,
    assert_equal_bits,
    load_bytes,
    modified,
    refusal_of,
    refusal_of_bytes,
    with_array,
)

from edgel3_tflm.files import git_blob_id, sha256_hex
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import PublishedFile, Variant
from edgel3_tflm.networks.weight_files import inspect_weights, pack_weights
from edgel3_tflm.networks.weights import NetworkWeights, Provenance


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


def test_provenance_of_a_users_file_names_it_and_its_digest(
    tmp_path: Path, small_file: bytes
) -> None:
    provenance = load_bytes(small_file, tmp_path).provenance
    assert (provenance.kind, provenance.name) == ("file", "weights.h5")
    assert provenance.sha256 == sha256_hex(small_file)
    assert "given by the user" in provenance.description


# The published file of SEA-UST 64


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


# The network that the arrays fit


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


# Claims: the filters and the training that a file states


@pytest.mark.parametrize(
    ("loaded", "written", "hint"),
    [
        ("sea-ust-128", "sea-ust-64", "--model-type sea --embedding-size 64"),
        ("sea-ust-64", "sea-ust-256", "--model-type sea --embedding-size 256"),
        ("edgel3-95.45-ft", "sea-ust-64", "--model-type sea --embedding-size 64"),
        ("l3-dense", "sea-ust-512", "--model-type sea --embedding-size 512"),
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
        " (3, 3, 128, 64); these are the shapes of --model-type sea --embedding-size 64"
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
