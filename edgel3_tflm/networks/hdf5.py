"""Safe reading of HDF5 files: arrays by layer and name, from files that nobody vouches for.

Nothing is deserialized: no Keras configuration, no pickle. No link is followed, and no array may
have its values in another file.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgel3_tflm.errors import EdgeL3Error, WeightsError, on_one_line
from edgel3_tflm.networks.hdf5_objects import Array, Group, Hdf5File
from edgel3_tflm.networks.variants import CONVOLUTIONS
from edgel3_tflm.networks.weights import TRAINED_KINDS
from edgel3_tflm.types import FloatArray

# The largest published file has 36 MB: 18.7 MB of weights, 16.8 MB of DFT kernels.
MAX_HDF5_BYTES = 256 * 1024 * 1024
# Published files contain about 80 groups and 70 arrays.
_MAX_HDF5_ITEMS = 5000

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


def _arrays(root: Group) -> Iterator[tuple[str, str, Array]]:
    """Yield layer (the group directly below ``root``), name and array."""
    groups = [("", root)]
    seen = {root.address}
    visited = 0
    while groups:
        layer, group = groups.pop()
        visited += len(group.links)
        if visited > _MAX_HDF5_ITEMS:
            raise WeightsError(f"expected at most {_MAX_HDF5_ITEMS} HDF5 items, found more")
        for name in group.links:
            item = group.open(name)
            if isinstance(item, Array):
                if layer:
                    yield layer, name, item
                continue
            if item.address in seen:
                raise WeightsError(f"{name}: expected every group once, this one was found before")
            seen.add(item.address)
            groups.append((layer or name, item))


FILTERS_ATTRIBUTE = "edgel3_tflm_filters"
KIND_ATTRIBUTE = "edgel3_tflm_kind"
DESCRIPTION_ATTRIBUTE = "edgel3_tflm_description"
# A shortened description has 503 characters, of at most four bytes each.
_MAX_STRING_BYTES = 2048
_ARRAY_NAMES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


def _layer_order(group: Group, layers: list[str]) -> list[str]:
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


def _listed_layers(group: Group) -> list[str]:
    listed = group.attribute("layer_names")
    if listed is None or listed.dtype is None or listed.dtype.kind != "S":
        return []
    return (
        [name.decode() for name in listed.read().tolist()] if len(listed.shape or ()) == 1 else []
    )


def _own_filters(group: Group) -> tuple[int, ...] | None:
    """Return the filters that :func:`pack_weights` wrote; None if the file states no filters."""
    attribute = group.attribute(FILTERS_ATTRIBUTE)
    if attribute is None:
        return None
    shape = attribute.shape or ()
    if attribute.type_name != "int64" or len(shape) != 1 or not 1 <= shape[0] <= CONVOLUTIONS:
        raise WeightsError(
            f"{FILTERS_ATTRIBUTE}: expected 1 to {CONVOLUTIONS} int64, found"
            f" {attribute.type_name} of shape {attribute.shape}"
        )
    return tuple(attribute.read().tolist())


def _training(group: Group) -> tuple[str, str] | None:
    """Return the kind and the description of the training that the file states; None if neither.

    Anybody can write these attributes. Only kinds in ``TRAINED_KINDS`` are believed: a file cannot
    state that it is 'published', for example.
    """
    if group.attribute(KIND_ATTRIBUTE) is None:
        return None
    kind = _read_string(group, KIND_ATTRIBUTE)
    if kind not in TRAINED_KINDS:
        return None
    return kind, on_one_line(_read_string(group, DESCRIPTION_ATTRIBUTE))


def _read_string(group: Group, name: str) -> str:
    attribute = group.attribute(name)
    if attribute is None:
        raise WeightsError(f"{name}: expected a string, it is missing")
    dtype = attribute.dtype
    if (
        dtype is None
        or dtype.kind != "S"
        or attribute.shape != ()
        or dtype.itemsize > _MAX_STRING_BYTES
    ):
        raise WeightsError(
            f"{name}: expected a string of at most {_MAX_STRING_BYTES} bytes, found"
            f" {attribute.type_name} of shape {attribute.shape}"
        )
    return bytes(attribute.read()[()]).decode()


@dataclass(frozen=True)
class Claims:
    """Attributes that :func:`pack_weights` writes in addition to the arrays.

    ``filters`` are the network's, ``training`` is kind and description; None if not stated.
    """

    filters: tuple[int, ...] | None
    training: tuple[str, str] | None


LayerArrays = dict[str, dict[str, Array]]
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
        Called with the arrays by layer, the names of the layers in order, and the claims.

    Raises
    ------
    WeightsError
        If the file is damaged, or has something that no weight file of Keras has.
    """
    try:
        root = _weights_group(Hdf5File(data))
        arrays = _arrays_by_layer(root)
        order = _layer_order(root, list(arrays))
        return assemble(arrays, order, Claims(_own_filters(root), _training(root)))
    except EdgeL3Error:
        raise
    # pyfive checks little: a damaged file can raise any exception.
    except Exception as error:
        raise WeightsError(
            "expected a whole HDF5 file of Keras weights, it is cut or damaged"
            f" ({str(error) or type(error).__name__})"
        ) from error


def _weights_group(file: Hdf5File) -> Group:
    """Return the group of the layers: ``model_weights`` in a whole model, else the root."""
    root = file.root
    if "model_weights" not in root.links:
        return root
    group = root.open("model_weights")
    if isinstance(group, Array):
        raise WeightsError("expected the group model_weights, found an array")
    return group


def _arrays_by_layer(root: Group) -> LayerArrays:
    arrays: LayerArrays = {}
    for layer, name, found in _arrays(root):
        array = name.removesuffix(":0")
        if array not in _ARRAY_NAMES:
            continue
        if array in arrays.setdefault(layer, {}):
            raise WeightsError(f"{layer}/{array}: expected one array, found two")
        arrays[layer][array] = found
    return arrays


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
    found, label = arrays[layer].get(name), f"{layer}/{name}"
    if found is None:
        raise WeightsError(f"{label}: expected an array of shape {shape}, it is missing")
    if found.storage == "external":
        raise WeightsError(f"{label}: expected values in the file itself, they are in another file")
    # Compression is refused: a few bytes could unpack to gigabytes.
    if found.storage == "chunks":
        raise WeightsError(f"{label}: expected values in one piece, as Keras writes, found chunks")
    # The shape is checked before anything is read: a false size must not allocate memory.
    if found.shape != shape or found.dtype is None or found.dtype.kind != "f":
        raise WeightsError(
            f"{label}: expected floats of shape {shape}, found {found.type_name} of shape"
            f" {found.shape}{hint}"
        )
    if found.storage == "none":
        raise WeightsError(f"{label}: expected values, none were written")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, see below
        values: FloatArray = found.read().astype(np.float32)
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise WeightsError(f"{label}: expected finite values, {bad} are NaN or infinite")
    return values
