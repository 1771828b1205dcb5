"""Safe reading of HDF5 files: arrays by layer and name, from files that nobody vouches for.

Nothing is deserialized: no Keras configuration, no pickle. No link is followed, and no array may
have its values in another file.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from edgel3_tflm.errors import WeightsError, on_one_line
from edgel3_tflm.networks.variants import CONVOLUTIONS
from edgel3_tflm.networks.weights import TRAINED_KINDS
from edgel3_tflm.types import FloatArray

# The largest published file has 36 MB: 18.7 MB of weights, 16.8 MB of DFT kernels.
MAX_HDF5_BYTES = 256 * 1024 * 1024
# Published files contain about 80 groups and 70 arrays.
_MAX_HDF5_ITEMS = 5000
# Signature, superblock version 0 (three more versions follow), 8-byte offsets and lengths.
_HDF5_SUPERBLOCK = re.compile(rb"\x89HDF\r\n\x1a\n\0...\0\x08\x08.{9}\0{8}", re.DOTALL)
_FRACTAL_HEAP = b"FRHP\0"
_LOCAL_HEAP = b"HEAP"
_END_OF_FREE_LIST = 1

_TOO_LARGE = (
    f"expected at most {MAX_HDF5_BYTES} bytes, there are more; this is no weight file of EdgeL3 or"
    " SEA-UST"
)
_DAMAGED_GZIP = "expected a whole gzip file, it is cut or damaged"


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a weight file.

    Raises
    ------
    WeightsError
        If the file cannot be read or is larger than a weight file can be.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_HDF5_BYTES + 1)  # a device may never end
    except OSError as error:
        raise WeightsError(f"{path}: cannot read weights: {error.strerror}") from error
    if len(data) > MAX_HDF5_BYTES:
        raise WeightsError(f"{path}: {_TOO_LARGE}")
    return data


def unpack(data: bytes) -> bytes:
    """Decompress gzip up to the largest size of a weight file; return other bytes unchanged.

    Raises
    ------
    WeightsError
        If the gzip data is damaged or contains more bytes.
    """
    if data[:2] != b"\x1f\x8b":
        return data
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = inflate.decompress(data, MAX_HDF5_BYTES + 1)
    except zlib.error as error:
        raise WeightsError(f"{_DAMAGED_GZIP} ({error}); fetch it again") from error
    if len(unpacked) > MAX_HDF5_BYTES:
        raise WeightsError(_TOO_LARGE)
    if not inflate.eof:
        raise WeightsError(f"{_DAMAGED_GZIP} (it ends early); fetch it again")
    return unpacked


def _check_structure(data: bytes) -> None:
    """Refuse structures that Keras 2 does not write and that libhdf5 1.14 reads unsafely.

    With a damaged fractal heap (groups of the newer file versions), libhdf5 frees memory that it
    never allocated. With a local heap whose list of free blocks is a loop, it never returns.
    """
    if not _HDF5_SUPERBLOCK.match(data):
        raise WeightsError(
            "expected an HDF5 file of the first version, as Keras 2 and h5py write by default;"
            " it is not one"
        )
    if _FRACTAL_HEAP in data:
        raise WeightsError("expected groups as Keras 2 writes, found a fractal heap")
    steps = 0
    position = data.find(_LOCAL_HEAP)
    while 0 <= position <= len(data) - 32:
        size, free, address = struct.unpack_from("<QQQ", data, position + 8)
        # libhdf5 itself refuses an offset past the heap, and an address past the file.
        while free != _END_OF_FREE_LIST and free < size and address + free + 8 <= len(data):
            free = struct.unpack_from("<Q", data, address + free)[0]
            steps += 1
            if steps > _MAX_HDF5_ITEMS:
                raise WeightsError("expected heaps as Keras 2 writes, found an endless free list")
        position = data.find(_LOCAL_HEAP, position + 1)


def _member(group: h5py.Group, name: str) -> Any:
    """Open a member through a hard link; soft and external links could leave the file."""
    # A slash would make the name a path through links that were not checked.
    if "/" in name or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise WeightsError(f"{name}: expected a group or an array of the file itself, found none")
    return group[name]


def _datasets(root: h5py.Group) -> Iterator[tuple[str, str, h5py.Dataset]]:
    """Yield layer (the group directly below ``root``), name and dataset; follow hard links only."""
    groups = [("", root)]
    visited = 0
    while groups:
        layer, group = groups.pop()
        visited += len(group)
        if visited > _MAX_HDF5_ITEMS:  # ends loops of hard links
            raise WeightsError(f"expected at most {_MAX_HDF5_ITEMS} HDF5 items, found more")
        for name in group:
            if not isinstance(name, str):  # h5py returns bytes that it cannot decode
                raise WeightsError(f"expected names in UTF-8, found {name!r}")
            item = _member(group, name)
            if isinstance(item, h5py.Group):
                groups.append((layer or name, item))
            elif isinstance(item, h5py.Dataset) and layer:
                yield layer, name, item


FILTERS_ATTRIBUTE = "edgel3_tflm_filters"
KIND_ATTRIBUTE = "edgel3_tflm_kind"
DESCRIPTION_ATTRIBUTE = "edgel3_tflm_description"
# A shortened description has 503 characters, of at most four bytes each.
_MAX_STRING_BYTES = 2048
_ARRAY_NAMES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


def _layer_order(group: h5py.Group, layers: list[str]) -> list[str]:
    """Return the layers in the order that the file lists.

    If the list does not contain all layers, sort by number, with the embedding layer last.
    """
    listed = _listed_layers(group)
    if set(layers) <= set(listed):
        return sorted(layers, key=listed.index)

    def by_number(layer: str) -> tuple[bool, list[int]]:
        return (
            "embedding_layer" in layer,
            [int(digits) for digits in re.findall(r"\d+", layer.removeprefix("conv2d"))],
        )

    return sorted(layers, key=by_number)


def _listed_layers(group: h5py.Group) -> list[str]:
    if "layer_names" not in group.attrs:
        return []
    attribute = group.attrs.get_id("layer_names")
    if attribute.dtype.kind != "S" or len(attribute.shape or ()) != 1:
        return []
    return [name.decode() for name in group.attrs["layer_names"]]


def _own_filters(group: h5py.Group) -> tuple[int, ...] | None:
    """Return the filters that :func:`pack_weights` wrote; None if the file states no filters."""
    if FILTERS_ATTRIBUTE not in group.attrs:
        return None
    attribute = group.attrs.get_id(FILTERS_ATTRIBUTE)
    shape: tuple[int, ...] = attribute.shape or ()
    if attribute.dtype != np.int64 or len(shape) != 1 or not 1 <= shape[0] <= CONVOLUTIONS:
        raise WeightsError(
            f"{FILTERS_ATTRIBUTE}: expected 1 to {CONVOLUTIONS} int64, found {attribute.dtype} of"
            f" shape {attribute.shape}"
        )
    return tuple(group.attrs[FILTERS_ATTRIBUTE].tolist())


def _training(group: h5py.Group) -> tuple[str, str] | None:
    """Return the kind and the description of the training that the file states; None if neither.

    Anybody can write these attributes. Only kinds in ``TRAINED_KINDS`` are believed: a file cannot
    state that it is 'published', for example.
    """
    if KIND_ATTRIBUTE not in group.attrs:
        return None
    kind = _read_string(group, KIND_ATTRIBUTE)
    if kind not in TRAINED_KINDS:
        return None
    return kind, on_one_line(_read_string(group, DESCRIPTION_ATTRIBUTE))


def _read_string(group: h5py.Group, name: str) -> str:
    attribute = group.attrs.get_id(name)
    size = attribute.dtype.itemsize
    if attribute.dtype.kind != "S" or attribute.shape != () or size > _MAX_STRING_BYTES:
        raise WeightsError(
            f"{name}: expected a string of at most {_MAX_STRING_BYTES} bytes, found"
            f" {attribute.dtype} of shape {attribute.shape}"
        )
    return bytes(group.attrs[name]).decode()


@dataclass(frozen=True)
class Claims:
    """Attributes that :func:`pack_weights` writes in addition to the arrays.

    ``filters`` are the network's, ``training`` is kind and description; None if not stated.
    """

    filters: tuple[int, ...] | None
    training: tuple[str, str] | None


LayerArrays = dict[str, dict[str, h5py.Dataset]]
_Assembled = TypeVar("_Assembled")


def read_hdf5(
    data: bytes,
    assemble: Callable[[LayerArrays, list[str], Claims], _Assembled],
) -> _Assembled:
    """Read an HDF5 file in memory, and return the result of ``assemble``.

    Parameters
    ----------
    data : bytes
    assemble : callable
        Called with the arrays by layer, the names of the layers in order, and the claims. The
        arrays can be read only during the call.

    Raises
    ------
    WeightsError
        If the file is damaged or is not one that Keras 2 writes.
    """
    _check_structure(data)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            root = _member(file, "model_weights") if "model_weights" in file else file
            if not isinstance(root, h5py.Group):
                raise WeightsError("expected the group model_weights, found an array")
            arrays: LayerArrays = {}
            for layer, name, dataset in _datasets(root):
                array = name.removesuffix(":0")
                if array not in _ARRAY_NAMES:
                    continue
                if array in arrays.setdefault(layer, {}):
                    raise WeightsError(f"{layer}/{array}: expected one array, found two")
                arrays[layer][array] = _plain(dataset, f"{layer}/{array}")
            order = _layer_order(root, list(arrays))
            return assemble(arrays, order, Claims(_own_filters(root), _training(root)))
    # h5py raises these for damaged structures, when it opens, lists or reads.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise WeightsError(
            f"expected a whole HDF5 file of Keras weights, it is cut or damaged ({error})"
        ) from error


def _plain(dataset: h5py.Dataset, label: str) -> h5py.Dataset:
    """Refuse values in another file, and compression: a few bytes could unpack to gigabytes."""
    if dataset.external or dataset.is_virtual:
        raise WeightsError(f"{label}: expected values in the file itself, they are in another file")
    if dataset.chunks is not None:
        raise WeightsError(f"{label}: expected values in one piece, as Keras writes, found chunks")
    return dataset


def read_array(
    arrays: LayerArrays, layer: str, name: str, shape: tuple[int, ...], hint: str
) -> FloatArray:
    """Return one array as float32.

    Raises
    ------
    WeightsError
        If the array is missing, has another shape or type, or contains NaN or infinity; ``hint``
        ends the message.
    """
    dataset, label = arrays[layer].get(name), f"{layer}/{name}"
    if dataset is None:
        raise WeightsError(f"{label}: expected an array of shape {shape}, it is missing")
    # The shape is checked before anything is read: a false size must not allocate memory.
    if dataset.shape != shape or dataset.dtype.kind != "f":
        raise WeightsError(
            f"{label}: expected floats of shape {shape}, found {dataset.dtype} of shape"
            f" {dataset.shape}{hint}"
        )
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, see below
        values: FloatArray = dataset[()].astype(np.float32)
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise WeightsError(f"{label}: expected finite values, {bad} are NaN or infinite")
    return values
