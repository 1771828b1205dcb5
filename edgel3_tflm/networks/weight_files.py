"""Weight files: reading them, finding the network that they belong to, and writing them."""

import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgel3_tflm.errors import EdgeL3Error, WeightsError, on_one_line
from edgel3_tflm.files import git_blob_id, sha256_hex
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.hdf5 import (
    DESCRIPTION_ATTRIBUTE,
    FILTERS_ATTRIBUTE,
    KIND_ATTRIBUTE,
    Claims,
    LayerArrays,
    read_array,
    read_bytes,
    read_hdf5,
    unpack,
)
from edgel3_tflm.networks.hdf5_objects import Array
from edgel3_tflm.networks.hints import OPTIONS, Hints
from edgel3_tflm.networks.variants import ConvLayer, Variant
from edgel3_tflm.networks.weights import (
    TRAINED_KINDS,
    BatchNorm,
    ConvWeights,
    NetworkWeights,
    Provenance,
)
from edgel3_tflm.types import FloatArray

_Convs = tuple[ConvWeights, ...]


def load_file(
    path: Path,
    variant: Variant | None,
    expected_blob_id: str | None = None,
    hints: Hints = OPTIONS,
) -> NetworkWeights:
    """Load a weight file.

    Parameters
    ----------
    path : pathlib.Path
    variant : Variant or None
        The expected network. If None, the shapes of the arrays decide.
    expected_blob_id : str, optional
        The git blob id that the bytes must have.
    hints : Hints
        How the user chooses the network. The error says how to choose the file's network.

    Raises
    ------
    WeightsError
        If the file is damaged or contains another network.
    """
    data = read_bytes(path)
    if expected_blob_id is not None:
        check_blob_id(data, path, expected_blob_id)
    provenance = _provenance_of_file(path, data)
    published = _find_published(data, VARIANTS.values() if variant is None else [variant])
    if published is not None:
        variant = published
        provenance = replace(
            provenance,
            kind="published",
            description=f"published weights {path.name} (git blob id verified)",
        )

    def assemble(arrays: LayerArrays, order: list[str], claims: Claims) -> NetworkWeights:
        found = provenance
        if claims.training is not None and published is None:
            kind, description = claims.training
            description = f"{provenance.description}; it says of itself: {description}"
            found = replace(provenance, kind=kind, description=description)
        return _assemble(variant, found, arrays, order, claims.filters, hints)

    try:
        return read_hdf5(unpack(data), assemble)
    except EdgeL3Error as error:
        raise WeightsError(f"{path}: {on_one_line(str(error))}") from error.__cause__


def inspect_weights(path: Path) -> NetworkWeights:
    """Load a weight file of any known network; the shapes of its arrays decide which one.

    All files of the sparse family have the shapes of the dense L3. They are loaded as dense L3,
    unless the bytes equal a published file.

    Raises
    ------
    WeightsError
        If the file is damaged or fits no network.
    """
    return load_file(path, None)


def load_convolutions(
    path: Path, layers: Sequence[ConvLayer]
) -> tuple[tuple[ConvWeights, ...], Provenance]:
    """Load a stack of convolutions that belongs to no known network, by array name and shape.

    Parameters
    ----------
    path : pathlib.Path
        An .h5 or .h5.gz file.
    layers : sequence of ConvLayer
        The expected layers. The BatchNorm of the last one may be missing, because files of an
        embedding end at the convolution.

    Raises
    ------
    WeightsError
        If the file is damaged or contains other layers.
    """
    data = read_bytes(path)

    def assemble(arrays: LayerArrays, order: list[str], _: Claims) -> _Convs:
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
        convs = read_hdf5(unpack(data), assemble)
    except EdgeL3Error as error:
        raise WeightsError(f"{path}: {on_one_line(str(error))}") from error.__cause__
    return convs, _provenance_of_file(path, data)


def check_blob_id(data: bytes, where: object, expected: str) -> None:
    """Check that bytes are those of a published file.

    Raises
    ------
    WeightsError
        If their git blob id is not ``expected``. The message begins with ``where``.
    """
    if (found := git_blob_id(data)) != expected:
        raise WeightsError(
            f"{where}: expected the published file with git blob id {expected}, found {found};"
            " remove the file and fetch it again"
        )


def _find_published(data: bytes, variants: Iterable[Variant]) -> Variant | None:
    """Return the network whose published file has these bytes; None if there is none."""
    blob_id = git_blob_id(data)
    for variant in variants:
        if variant.published is not None and variant.published.git_blob_id == blob_id:
            return variant
    return None


def _provenance_of_file(path: Path, data: bytes) -> Provenance:
    return Provenance(
        kind="file",
        name=path.name,
        sha256=sha256_hex(data),
        description=f"weights file {path.name} given by the user",
    )


def _assemble(
    variant: Variant | None,
    provenance: Provenance,
    arrays: LayerArrays,
    order: list[str],
    own_filters: tuple[int, ...] | None,
    hints: Hints,
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
            + _hint(known, shapes, len(norms), hints)
        )
    own_shapes = [layer.kernel_shape for layer in variant.layers]
    hint = "" if shapes == own_shapes else _hint(known, shapes, len(norms), hints)

    input_norm = _read_norm(arrays, norms[0], 1, hint)
    loaded = _read_convs(arrays, variant.layers, convs, norms[1:], hint)
    return NetworkWeights(variant, input_norm, loaded, provenance)


def _split(arrays: LayerArrays, order: list[str]) -> tuple[list[str], list[str]]:
    """Return the names of the convolutions and the names of the BatchNorms, in order."""
    convs = [name for name in order if "kernel" in arrays[name] or "bias" in arrays[name]]
    return convs, [name for name in order if name not in convs]


def _read_convs(
    arrays: LayerArrays, layers: Sequence[ConvLayer], convs: list[str], norms: list[str], hint: str
) -> _Convs:
    """Read convolutions, each with its BatchNorm if the layer has one."""
    remaining = iter(norms)
    loaded = []
    for layer, name in zip(layers, convs, strict=True):
        kernel = read_array(arrays, name, "kernel", layer.kernel_shape, hint)
        bias = read_array(arrays, name, "bias", (layer.out_channels,), hint)
        norm = None
        if layer.batch_norm:
            norm = _read_norm(arrays, next(remaining), layer.out_channels, hint)
        loaded.append(ConvWeights(kernel, bias, norm))
    return tuple(loaded)


def _read_norm(arrays: LayerArrays, layer: str, channels: int, hint: str) -> BatchNorm:
    norm = BatchNorm(
        *(
            read_array(arrays, layer, name, (channels,), hint)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
    )
    if (norm.variance < 0).any():
        raise WeightsError(f"{layer}/moving_variance: expected no negative value, found some")
    return norm


def _kernel_shape(layer: dict[str, Array]) -> tuple[int, ...]:
    return tuple(layer["kernel"].shape or ()) if "kernel" in layer else ()


def _known_variants(own_filters: tuple[int, ...] | None) -> list[Variant]:
    """Return the networks that a file may belong to, with the file's filters if it states any."""
    if own_filters is None:
        return list(VARIANTS.values())
    return [_shape_as(known, own_filters) for known in VARIANTS.values()]


def _shape_as(variant: Variant, filters: tuple[int, ...]) -> Variant:
    """Return a network of the table with these filters and as many convolutions."""
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


def _hint(
    known: list[Variant], kernel_shapes: list[tuple[int, ...]], norm_count: int, hints: Hints
) -> str:
    """Return how to choose the network that the arrays fit; empty if they fit no known one."""
    for variant in known:
        if _fits(variant, kernel_shapes, norm_count):
            return f"; these are the shapes of {hints.describe(variant)}"
    return ""


def pack_weights(weights: NetworkWeights) -> bytes:
    """Return the bytes of a small .h5.gz file that :func:`load_file` reads.

    The layout is the published one, weights only. Kernels are float16, so the file of a pruned
    network is little larger than its non-zero values. If the network has a depth or filters of its
    own, the file states its filters. If this package trained the network, the file states the kind
    and the description of the training. The same weights give the same bytes.
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
        attributes[FILTERS_ATTRIBUTE] = np.array(weights.variant.filters, np.int64)
    if weights.provenance.kind in TRAINED_KINDS:
        attributes[KIND_ATTRIBUTE] = np.bytes_(weights.provenance.kind.encode())
        description = on_one_line(weights.provenance.description)
        attributes[DESCRIPTION_ATTRIBUTE] = np.bytes_(description.encode())
    return _pack_layers(layers, attributes)


def pack_convolutions(convs: Sequence[ConvWeights]) -> bytes:
    """Return the bytes of a file that :func:`load_convolutions` reads; kernels are float32."""
    layers: dict[str, dict[str, FloatArray]] = {}
    for number, conv in enumerate(convs, start=1):
        layers[f"conv2d_{number}"] = {"kernel": conv.kernel, "bias": conv.bias}
        if conv.batch_norm is not None:
            layers[f"batch_normalization_{number}"] = _norm_arrays(conv.batch_norm)
    return _pack_layers(layers)


def _pack_layers(
    layers: Mapping[str, Mapping[str, FloatArray]], attributes: Mapping[str, Any] | None = None
) -> bytes:
    import h5py  # only this function needs it; it is in the extra convert

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
