"""Weights: where they come from, and how they are read without trusting the file.

HDF5 files are read by array name and shape, never deserialized: no Keras configuration, no pickle,
no link that leaves the file.
"""

import errno
import gzip
import io
import logging
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

import h5py
import numpy as np
import numpy.typing as npt
import pooch

from edgel3_tflm.errors import EdgeL3Error, WeightsError, WeightsUnreachableError, on_one_line
from edgel3_tflm.files import git_blob_id, sha256_hex, write_whole
from edgel3_tflm.variants import (
    BATCH_NORM_EPSILON,
    CONVOLUTIONS,
    VARIANTS,
    ConvLayer,
    Variant,
)

_log = logging.getLogger(__name__)

PUBLISHED_BASE_URL = "https://github.com/ksangeeta2429/edgel3/raw/models/"
"""Where the edgel3 authors keep their weight files."""
_DOWNLOAD_TIMEOUT_S = 20

# The largest published file holds 36 MB (18.7 MB of weights, 16.8 MB of DFT kernels).
_MAX_HDF5_BYTES = 256 * 1024 * 1024
# They hold about 80 groups and 70 arrays.
_MAX_HDF5_ITEMS = 5000
# Signature, superblock version 0 (three more versions follow), 8-byte offsets and lengths.
_HDF5_SUPERBLOCK = re.compile(rb"\x89HDF\r\n\x1a\n\0...\0\x08\x08.{9}\0{8}", re.DOTALL)
_FRACTAL_HEAP = b"FRHP\0"
_LOCAL_HEAP = b"HEAP"
_END_OF_FREE_LIST = 1

_TOO_LARGE = (
    f"expected at most {_MAX_HDF5_BYTES} bytes, there are more; not one of this family's weight"
    " files"
)
_DAMAGED_GZIP = "expected a whole gzip file, it is cut or damaged"

WeightsWord = Literal["auto", "published", "bundled", "generated"]
"""What names weights beside a file; ``ConvertOptions`` says what each means."""
TRAINED_KINDS = ("distilled", "fine-tuned")
"""Kinds of weights that this package trained, which their file says of itself."""
SUBSTITUTE_KINDS = ("bundled", "generated")
"""Kinds of weights that stand for the authors' own where those cannot be had."""
_BUNDLED_PLAN = "95.45"
_BUNDLED_NAME = "edgel3_95.45_standin.h5.gz"
_BUNDLED_DESCRIPTION = (
    "STAND-IN weights of this project, not the authors' EdgeL3: the 95.45 % plan distilled from the"
    " published SEA-UST 64 (see the model card)"
)

FloatArray = npt.NDArray[np.float32]
Note = Callable[[str], None]
"""Called with a line that the user should see at once."""


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of one map; every array has shape (channels,)."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    variance: FloatArray

    @property
    def slope(self) -> FloatArray:
        """Factor of the affine map it is at inference: ``gamma / sqrt(variance + epsilon)``."""
        slope: FloatArray = self.gamma / np.sqrt(self.variance + np.float32(BATCH_NORM_EPSILON))
        return slope

    @property
    def offset(self) -> FloatArray:
        """Offset of the affine map it is at inference: ``beta - slope * mean``."""
        return self.beta - self.slope * self.mean


@dataclass(frozen=True)
class ConvWeights:
    """One convolution: kernel (3, 3, in, out), bias (out,) and the BatchNorm that follows."""

    kernel: FloatArray
    bias: FloatArray
    batch_norm: BatchNorm | None

    @property
    def zeros(self) -> int:
        """Number of kernel weights that are exactly zero."""
        return int(self.kernel.size - np.count_nonzero(self.kernel))


@dataclass(frozen=True)
class Provenance:
    """Where weights come from.

    ``kind`` is 'published' (bytes equal the authors' file), 'package' (found in an installed edgel3
    package, whose unpacked files have no known digest), 'file' (the user's), 'distilled' or
    'fine-tuned' (the user's, and the file says so), 'bundled' (this package's stand-in) or
    'generated'.
    """

    kind: str
    name: str
    sha256: str
    description: str


@dataclass(frozen=True)
class NetworkWeights:
    """All weights of a variant, from the input BatchNorm to the last convolution."""

    variant: Variant
    input_norm: BatchNorm
    convs: tuple[ConvWeights, ...]
    provenance: Provenance

    @property
    def sparsity_percent(self) -> float:
        """Zeros among all kernel weights."""
        size = sum(conv.kernel.size for conv in self.convs)
        return 100 * sum(conv.zeros for conv in self.convs) / size


def cache_directory() -> Path:
    """Directory of downloaded weights; ``EDGEL3_TFLM_CACHE`` overrides the system's place."""
    return Path(os.environ.get("EDGEL3_TFLM_CACHE") or pooch.os_cache("edgel3-tflm"))


def unpacked_directory() -> Path:
    """Directory of files as an installed edgel3 package has them; in the cache."""
    return cache_directory() / "edgel3"


def load_weights(
    variant: Variant, source: Path | None = None, *, base_url: str = PUBLISHED_BASE_URL
) -> NetworkWeights:
    """Load weights from a file, or else the published ones.

    Published weights are looked for in the cache, in an installed edgel3 package (or in a copy of
    its files, :func:`unpacked_directory`) and at the authors' address, in this order; what is
    downloaded must have the published git blob id.

    A file that :func:`pack_weights` wrote of a network with a depth or filters of its own says so,
    and the result's variant has them.

    Parameters
    ----------
    variant : Variant
    source : pathlib.Path, optional
        An .h5 or .h5.gz file, as a full Keras 2 model or weights only.
    base_url : str
        Address the published files lie under.

    Raises
    ------
    WeightsError
        If no weights can be had, or they are damaged or of another shape.
    """
    if source is not None:
        return _load_file(source, variant)
    published = variant.published
    if published is None:
        raise WeightsError(
            f"{variant.name}: no weights are published for this network; give --weights FILE"
            " (dense L3 weights are pruned to the plan)"
        )
    cached = cache_directory() / published.name
    if os.path.isfile(cached):  # noqa: PTH113 - Path.is_file raises where the name is too long
        return _load_file(cached, variant, expected_blob_id=published.git_blob_id)
    # Looked up, not imported: edgel3 needs a Keras that does not load beside this TensorFlow.
    package = find_spec("edgel3")
    installed = (package and package.submodule_search_locations) or []
    for directory in [*map(Path, installed), unpacked_directory()]:
        unpacked = directory / published.name.removesuffix(".gz")
        if os.path.isfile(unpacked):  # noqa: PTH113
            weights = _load_file(unpacked, variant)
            provenance = replace(
                weights.provenance,
                kind="package",
                description=f"unpacked {unpacked.name} as of an edgel3 package (digest unknown)",
            )
            return replace(weights, provenance=provenance)
    _download(base_url + published.name, cached, published.git_blob_id)
    return _load_file(cached, variant, expected_blob_id=published.git_blob_id)


def load_bundled_weights(variant: Variant) -> NetworkWeights:
    """Load the stand-in that ships with this package.

    Raises
    ------
    WeightsError
        If there is none for the network.
    """
    if not _has_bundled_weights(variant):
        raise WeightsError(
            f"{variant.name}: expected the {_BUNDLED_PLAN} % network, the only one with bundled"
            " weights; give --weights FILE or --weights generated"
        )
    path = Path(str(files("edgel3_tflm.standin"))) / _BUNDLED_NAME
    weights = _load_file(path, variant)
    provenance = replace(weights.provenance, kind="bundled", description=_BUNDLED_DESCRIPTION)
    return replace(weights, provenance=provenance)


def _has_bundled_weights(variant: Variant) -> bool:
    return variant.plan is not None and variant.plan.package_name == _BUNDLED_PLAN


def find_weights(variant: Variant, note: Note = _log.info) -> NetworkWeights:
    """Load the published weights, or the stand-in where they cannot be reached.

    Parameters
    ----------
    variant : Variant
    note : callable
        Told when the stand-in takes their place, and why.

    Raises
    ------
    WeightsError
        If neither can be had, or a file that was found is damaged.
    """
    try:
        return load_weights(variant)
    except WeightsUnreachableError as unreachable:
        if not _has_bundled_weights(variant):
            raise
        note(
            f"STAND-IN weights take the place of the published ones of {variant.name}:"
            f" {unreachable}"
        )
        return load_bundled_weights(variant)


def load_given(
    variant: Variant, source: Path | WeightsWord, note: Note = _log.info
) -> NetworkWeights | None:
    """Load the weights that are asked for, by a file or a word.

    Parameters
    ----------
    variant : Variant
    source : pathlib.Path or str
    note : callable
        As for :func:`find_weights`.

    Returns
    -------
    NetworkWeights or None
        None if they are to be generated.

    Raises
    ------
    WeightsError
        If they cannot be had.
    """
    if isinstance(source, Path):
        return load_weights(variant, source)
    if source == "auto":
        return find_weights(variant, note)
    if source == "bundled":
        return load_bundled_weights(variant)
    return load_weights(variant) if source == "published" else None


def inspect_weights(path: Path) -> NetworkWeights:
    """Read a weight file of any known network; the arrays' shapes tell which.

    The sparse family's files all have the dense L3's shapes: they count as that, unless the bytes
    are a published file's.

    Raises
    ------
    WeightsError
        If the file is damaged or fits no network.
    """
    return _load_file(path, None)


def load_convolutions(
    path: Path, layers: Sequence[ConvLayer]
) -> tuple[tuple[ConvWeights, ...], Provenance]:
    """Load a stack of convolutions that is not a known network's, by array name and shape.

    Parameters
    ----------
    path : pathlib.Path
        An .h5 or .h5.gz file.
    layers : sequence of ConvLayer
        What is expected. The last one's BatchNorm may be missing: files of an embedding end at the
        convolution.

    Raises
    ------
    WeightsError
        If the file is damaged or holds something else.
    """
    data = _read_bytes(path)

    def assemble(arrays: _Arrays, order: list[str], _: _Claims) -> _Convs:
        convs, norms = _split(arrays, order)
        needed = sum(layer.batch_norm for layer in layers)
        if len(convs) != len(layers) or len(norms) not in (needed - 1, needed):
            raise WeightsError(
                f"expected {len(layers)} convolutions and {needed} BatchNorms, found {len(convs)}"
                f" and {len(norms)}"
            )
        ends_early = len(norms) < needed
        found = [*layers[:-1], replace(layers[-1], batch_norm=False)] if ends_early else layers
        return _read_convs(arrays, found, convs, norms, "")

    try:
        convs = _read_hdf5(_unpack(data), assemble)
    except EdgeL3Error as error:
        raise WeightsError(f"{path}: {on_one_line(str(error))}") from error.__cause__
    return convs, _provenance_of_file(path, data)


class _BoundedBuffer(io.BytesIO):
    """A download in memory; it may not be larger than a weight file can be."""

    def write(self, chunk: Any) -> int:
        if self.tell() + len(chunk) > _MAX_HDF5_BYTES:
            raise OSError(errno.EFBIG, "more bytes than a weight file has")
        return super().write(chunk)


def pack_weights(weights: NetworkWeights) -> bytes:
    """Pack weights into a small file that :func:`load_weights` reads.

    The layout is the published one, weights only, as .h5.gz; kernels are float16, so that a pruned
    network takes little more than its non-zero values. A network with a depth or filters of its
    own has its filters written beside; one that was trained here, that and how. The same weights
    give the same bytes.
    """
    layers: dict[str, dict[str, FloatArray]] = {
        "batch_normalization_1": _norm_arrays(weights.input_norm)
    }
    for number, conv in enumerate(weights.convs, start=1):
        last = number == len(weights.convs)
        layers["audio_embedding_layer" if last else f"conv2d_{number}"] = {
            "kernel": conv.kernel.astype(np.float16),
            "bias": conv.bias,
        }
        if conv.batch_norm is not None:
            layers[f"batch_normalization_{number + 1}"] = _norm_arrays(conv.batch_norm)
    attributes: dict[str, Any] = {}
    if weights.variant.has_own_shape:
        attributes[_FILTERS_ATTRIBUTE] = np.array(weights.variant.filters, np.int64)
    if weights.provenance.kind in TRAINED_KINDS:
        attributes[_KIND_ATTRIBUTE] = np.bytes_(weights.provenance.kind.encode())
        description = on_one_line(weights.provenance.description)
        attributes[_DESCRIPTION_ATTRIBUTE] = np.bytes_(description.encode())
    return _pack_layers(layers, attributes)


def pack_convolutions(convs: Sequence[ConvWeights]) -> bytes:
    """Pack a stack of convolutions, as they are, into a file :func:`load_convolutions` reads."""
    layers: dict[str, dict[str, FloatArray]] = {}
    for number, conv in enumerate(convs, start=1):
        layers[f"conv2d_{number}"] = {"kernel": conv.kernel, "bias": conv.bias}
        if conv.batch_norm is not None:
            layers[f"batch_normalization_{number}"] = _norm_arrays(conv.batch_norm)
    return _pack_layers(layers)


def _pack_layers(
    layers: Mapping[str, Mapping[str, FloatArray]], attributes: Mapping[str, Any] | None = None
) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, value in (attributes or {}).items():
            file.attrs[name] = value
        for layer, arrays in layers.items():
            for name, values in arrays.items():
                file.create_dataset(f"{layer}/{layer}/{name}:0", data=values)
    return gzip.compress(buffer.getvalue(), mtime=0)


def _norm_arrays(norm: BatchNorm) -> dict[str, FloatArray]:
    return {
        "gamma": norm.gamma,
        "beta": norm.beta,
        "moving_mean": norm.mean,
        "moving_variance": norm.variance,
    }


def _download(url: str, target: Path, expected_blob_id: str) -> None:
    """Download, verify, then write into the cache."""
    _log.info("downloading %s", url)
    downloaded = _BoundedBuffer()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        pooch.HTTPDownloader(timeout=_DOWNLOAD_TIMEOUT_S)(url, downloaded, None)
    except OSError as error:  # requests' exceptions are OSErrors too
        raise WeightsUnreachableError(
            f"cannot fetch {url} ({type(error).__name__}); give --weights FILE, or put the file"
            f" into {target.parent}, or try the pipeline with --weights generated"
        ) from error
    _check_blob_id(downloaded.getvalue(), url, expected_blob_id)
    try:
        write_whole(target, downloaded.getvalue())
    except EdgeL3Error as error:
        raise WeightsError(
            f"{error}; give --weights FILE, or set EDGEL3_TFLM_CACHE to a directory that can be"
            " written"
        ) from error


def _check_blob_id(data: bytes, where: object, expected: str) -> None:
    if (found := git_blob_id(data)) != expected:
        raise WeightsError(
            f"{where}: expected the published file with git blob id {expected}, found {found};"
            " remove the file and fetch it again"
        )


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_HDF5_BYTES + 1)  # a device may never end
    except OSError as error:
        raise WeightsError(f"{path}: cannot read weights: {error.strerror}") from error
    if len(data) > _MAX_HDF5_BYTES:
        raise WeightsError(f"{path}: {_TOO_LARGE}")
    return data


def _provenance_of_file(path: Path, data: bytes) -> Provenance:
    return Provenance(
        kind="file",
        name=path.name,
        sha256=sha256_hex(data),
        description=f"weights file {path.name} given by the user",
    )


def _load_file(
    path: Path, variant: Variant | None, expected_blob_id: str | None = None
) -> NetworkWeights:
    data = _read_bytes(path)
    if expected_blob_id is not None:
        _check_blob_id(data, path, expected_blob_id)
    blob_id = git_blob_id(data)
    for known in VARIANTS.values() if variant is None else [variant]:
        published = known.published is not None and known.published.git_blob_id == blob_id
        if published:
            variant = known
            break
    provenance = _provenance_of_file(path, data)
    if published:
        provenance = replace(
            provenance,
            kind="published",
            description=f"published weights {path.name} (git blob id verified)",
        )

    def assemble(arrays: _Arrays, order: list[str], claims: _Claims) -> NetworkWeights:
        said = provenance
        if claims.training is not None and not published:
            kind, description = claims.training
            description = f"{provenance.description}; it says of itself: {description}"
            said = replace(provenance, kind=kind, description=description)
        return _assemble(variant, said, arrays, order, claims.filters)

    try:
        return _read_hdf5(_unpack(data), assemble)
    except EdgeL3Error as error:
        raise WeightsError(f"{path}: {on_one_line(str(error))}") from error.__cause__


def _unpack(data: bytes) -> bytes:
    """Undo gzip, within a bound on the size."""
    if data[:2] != b"\x1f\x8b":
        return data
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = inflate.decompress(data, _MAX_HDF5_BYTES + 1)
    except zlib.error as error:
        raise WeightsError(f"{_DAMAGED_GZIP} ({error}); fetch it again") from error
    if len(unpacked) > _MAX_HDF5_BYTES:
        raise WeightsError(_TOO_LARGE)
    if not inflate.eof:
        raise WeightsError(f"{_DAMAGED_GZIP} (it ends early); fetch it again")
    return unpacked


def _check_structure(data: bytes) -> None:
    """Refuse what Keras 2 does not write and libhdf5 1.14 cannot be trusted with.

    A damaged fractal heap (groups of the newer file versions) makes it free memory it never
    allocated; a local heap whose list of free blocks is a loop, follow that for ever.
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
    """Open what a hard link leads to: soft and external links could leave the file."""
    # A slash would make the name a path, through links that nobody looked at.
    if "/" in name or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise WeightsError(f"{name}: expected a group or an array of the file itself, found none")
    return group[name]


def _datasets(root: h5py.Group) -> Iterator[tuple[str, str, h5py.Dataset]]:
    """Walk hard links only; yield layer (the group below ``root``), name and dataset."""
    groups = [("", root)]
    visited = 0
    while groups:
        layer, group = groups.pop()
        visited += len(group)
        if visited > _MAX_HDF5_ITEMS:  # hard links can form loops
            raise WeightsError(f"expected at most {_MAX_HDF5_ITEMS} HDF5 items, found more")
        for name in group:
            if not isinstance(name, str):  # h5py gives the bytes it cannot decode
                raise WeightsError(f"expected names in UTF-8, found {name!r}")
            item = _member(group, name)
            if isinstance(item, h5py.Group):
                groups.append((layer or name, item))
            elif isinstance(item, h5py.Dataset) and layer:
                yield layer, name, item


_FILTERS_ATTRIBUTE = "edgel3_tflm_filters"
_KIND_ATTRIBUTE = "edgel3_tflm_kind"
_DESCRIPTION_ATTRIBUTE = "edgel3_tflm_description"
# The 503 characters of a description that was cut take four bytes each at most.
_MAX_STRING_BYTES = 2048
_ARRAY_NAMES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


def _layer_order(group: h5py.Group, layers: list[str]) -> list[str]:
    """Layers as the file lists them, else by number with the embedding layer last."""
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
    """Read the filters that :func:`pack_weights` wrote down; None where it had no need."""
    if _FILTERS_ATTRIBUTE not in group.attrs:
        return None
    attribute = group.attrs.get_id(_FILTERS_ATTRIBUTE)
    shape: tuple[int, ...] = attribute.shape or ()
    if attribute.dtype != np.int64 or len(shape) != 1 or not 1 <= shape[0] <= CONVOLUTIONS:
        raise WeightsError(
            f"{_FILTERS_ATTRIBUTE}: expected 1 to {CONVOLUTIONS} int64, found {attribute.dtype} of"
            f" shape {attribute.shape}"
        )
    return tuple(group.attrs[_FILTERS_ATTRIBUTE].tolist())


def _training(group: h5py.Group) -> tuple[str, str] | None:
    """Read how the file says that it was trained, and that it was; None if it does not say so.

    Anybody can write this into a file: 'published' and the like are not for it to say.
    """
    if _KIND_ATTRIBUTE not in group.attrs:
        return None
    kind = _read_string(group, _KIND_ATTRIBUTE)
    if kind not in TRAINED_KINDS:
        return None
    return kind, on_one_line(_read_string(group, _DESCRIPTION_ATTRIBUTE))


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
class _Claims:
    """What a file that :func:`pack_weights` wrote says of itself beside its arrays."""

    filters: tuple[int, ...] | None
    training: tuple[str, str] | None


_Arrays = dict[str, dict[str, h5py.Dataset]]
_Convs = tuple[ConvWeights, ...]
_Assembled = TypeVar("_Assembled")


def _read_hdf5(
    data: bytes,
    assemble: Callable[[_Arrays, list[str], _Claims], _Assembled],
) -> _Assembled:
    _check_structure(data)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            root = _member(file, "model_weights") if "model_weights" in file else file
            if not isinstance(root, h5py.Group):
                raise WeightsError("expected the group model_weights, found an array")
            arrays: _Arrays = {}
            for layer, name, dataset in _datasets(root):
                array = name.removesuffix(":0")
                if array not in _ARRAY_NAMES:
                    continue
                if array in arrays.setdefault(layer, {}):
                    raise WeightsError(f"{layer}/{array}: expected one array, found two")
                arrays[layer][array] = _plain(dataset, f"{layer}/{array}")
            order = _layer_order(root, list(arrays))
            return assemble(arrays, order, _Claims(_own_filters(root), _training(root)))
    # h5py raises these for damaged structures met while opening, walking or reading.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise WeightsError(
            f"expected a whole HDF5 file of Keras weights, it is cut or damaged ({error})"
        ) from error


def _plain(dataset: h5py.Dataset, label: str) -> h5py.Dataset:
    """Refuse values outside the file, and filters: a few packed bytes could unpack to gigabytes."""
    if dataset.external or dataset.is_virtual:
        raise WeightsError(f"{label}: expected values in the file itself, they lie in another file")
    if dataset.chunks is not None:
        raise WeightsError(f"{label}: expected values in one piece, as Keras writes, found chunks")
    return dataset


def _assemble(
    variant: Variant | None,
    provenance: Provenance,
    arrays: _Arrays,
    order: list[str],
    own_filters: tuple[int, ...] | None,
) -> NetworkWeights:
    convs, norms = _split(arrays, order)
    shapes = [_kernel_shape(arrays[name]) for name in convs]
    known = _known_variants(own_filters)
    if variant is None:
        variant = _identify(known, shapes, len(norms))
    elif own_filters is not None and not variant.has_own_shape:
        variant = _shape_as(variant, own_filters)
    needed_norms = 1 + sum(layer.batch_norm for layer in variant.layers)
    if len(convs) != len(variant.layers) or len(norms) != needed_norms:
        raise WeightsError(
            f"expected {len(variant.layers)} convolutions and {needed_norms} BatchNorms for"
            f" {variant.name}, found {len(convs)} and {len(norms)}"
            + _hint(known, shapes, len(norms))
        )
    own_shapes = [layer.kernel_shape for layer in variant.layers]
    hint = "" if shapes == own_shapes else _hint(known, shapes, len(norms))

    input_norm = _read_norm(arrays, norms[0], 1, hint)
    loaded = _read_convs(arrays, variant.layers, convs, norms[1:], hint)
    return NetworkWeights(variant, input_norm, loaded, provenance)


def _split(arrays: _Arrays, order: list[str]) -> tuple[list[str], list[str]]:
    """Names of convolutions and of BatchNorms."""
    convs = [name for name in order if "kernel" in arrays[name] or "bias" in arrays[name]]
    return convs, [name for name in order if name not in convs]


def _read_convs(
    arrays: _Arrays, layers: Sequence[ConvLayer], convs: list[str], norms: list[str], hint: str
) -> _Convs:
    """Read convolutions, each with the BatchNorm it is to have."""
    remaining = iter(norms)
    loaded = []
    for layer, name in zip(layers, convs, strict=True):
        kernel = _read_array(arrays, name, "kernel", layer.kernel_shape, hint)
        bias = _read_array(arrays, name, "bias", (layer.out_channels,), hint)
        norm = None
        if layer.batch_norm:
            norm = _read_norm(arrays, next(remaining), layer.out_channels, hint)
        loaded.append(ConvWeights(kernel, bias, norm))
    return tuple(loaded)


def _read_norm(arrays: _Arrays, layer: str, channels: int, hint: str) -> BatchNorm:
    norm = BatchNorm(
        *(
            _read_array(arrays, layer, name, (channels,), hint)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
    )
    if (norm.variance < 0).any():
        raise WeightsError(f"{layer}/moving_variance: expected no negative value, found some")
    return norm


def _kernel_shape(layer: dict[str, h5py.Dataset]) -> tuple[int, ...]:
    return tuple(layer["kernel"].shape or ()) if "kernel" in layer else ()


def _known_variants(own_filters: tuple[int, ...] | None) -> list[Variant]:
    """Networks a file may be of: those of the table, or their like with the file's own filters."""
    if own_filters is None:
        return list(VARIANTS.values())
    return [_shape_as(known, own_filters) for known in VARIANTS.values()]


def _shape_as(variant: Variant, filters: tuple[int, ...]) -> Variant:
    """Give a network of the table as many convolutions as there are filters, and those."""
    variant = variant.with_depth(len(filters))
    return variant if variant.filters == filters else variant.with_filters(filters)


def _fits(known: Variant, kernel_shapes: list[tuple[int, ...]], norm_count: int) -> bool:
    norms = 1 + sum(layer.batch_norm for layer in known.layers)
    return norms == norm_count and kernel_shapes == [layer.kernel_shape for layer in known.layers]


def _identify(
    known: list[Variant], kernel_shapes: list[tuple[int, ...]], norm_count: int
) -> Variant:
    for variant in known:
        if variant.model_type != "sparse" and _fits(variant, kernel_shapes, norm_count):
            return variant
    raise WeightsError(
        "expected the kernels of L3, EdgeL3 or SEA-UST, these fit none of them: "
        + (", ".join("x".join(map(str, shape)) for shape in kernel_shapes) or "no kernels")
    )


def _hint(known: list[Variant], kernel_shapes: list[tuple[int, ...]], norm_count: int) -> str:
    """Name the network that the file is of, if it is a known one."""
    for variant in known:
        if _fits(variant, kernel_shapes, norm_count):
            options = f"--model-type {variant.model_type}"
            if variant.has_own_shape:
                options += f" with the filters {', '.join(map(str, variant.filters))}"
            elif variant.model_type == "sea":
                options += f" --emb-dim {variant.embedding_size}"
            return f"; these are the shapes of {options}"
    return ""


def _read_array(
    arrays: _Arrays, layer: str, name: str, shape: tuple[int, ...], hint: str
) -> FloatArray:
    dataset, label = arrays[layer].get(name), f"{layer}/{name}"
    if dataset is None:
        raise WeightsError(f"{label}: expected an array of shape {shape}, it is missing")
    # The shape is checked before a byte is read, so that a hostile size allocates nothing.
    if dataset.shape != shape or dataset.dtype.kind != "f":
        raise WeightsError(
            f"{label}: expected floats of shape {shape}, found {dataset.dtype} of shape"
            f" {dataset.shape}{hint}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, see below
        values: FloatArray = dataset[()].astype(np.float32)
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise WeightsError(f"{label}: expected finite values, {bad} are NaN or infinite")
    return values
