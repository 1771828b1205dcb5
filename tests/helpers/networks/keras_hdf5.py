"""Weight files in the published layout, written with h5py from random weights.

The layout is that of the files of edgel3's authors, as Keras 2.0.9 saves a model: see
``edgel3_sea_ust_audio_emb_64.h5``.
"""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from edgel3_tflm.networks.variants import POOL_AFTER, ConvLayer, Variant
from edgel3_tflm.networks.weights import BatchNorm, ConvWeights, NetworkWeights, Provenance

Layout = Literal["full", "weights-only"]
FloatArray = npt.NDArray[np.float32]

EMBEDDING_LAYER = "audio_embedding_layer"
# The published files also contain the frontend's DFT kernels and mel filters. These replace them.
_FRONTEND_SHAPES = {"real_kernels": (8, 1, 1, 5), "imag_kernels": (8, 1, 1, 5), "Variable": (5, 4)}
_NORM_ARRAYS = {
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "mean",
    "moving_variance": "variance",
}


def random_weights(
    variant: Variant, *, seed: int = 0, sparsity: Sequence[float] | None = None
) -> NetworkWeights:
    """Return random weights, different in every array.

    Kernels are from N(0, 2 / fan-in). ``sparsity`` is the percent of zeros of each layer: the
    smallest magnitudes are set to zero, as many as TensorFlow Model Optimization sets to zero.
    """
    generator = np.random.default_rng(seed)
    percents = sparsity or (0.0,) * len(variant.layers)
    return NetworkWeights(
        variant,
        _draw_norm(generator, 1),
        tuple(
            _draw_conv(generator, layer, percent)
            for layer, percent in zip(variant.layers, percents, strict=True)
        ),
        Provenance("file", "random", "", f"drawn at random with seed {seed}"),
    )


def kept_count(size: int, percent: float) -> int:
    """Return how many weights TensorFlow Model Optimization keeps: it rounds ties to even."""
    return int(np.rint(np.float32(size) * np.float32(1 - percent / 100)))


def _draw_conv(generator: np.random.Generator, layer: ConvLayer, percent: float) -> ConvWeights:
    fan_in = layer.kernel_size // layer.out_channels
    kernel = generator.standard_normal(layer.kernel_shape, np.float32)
    kernel *= np.float32(np.sqrt(2 / fan_in))
    zeros = layer.kernel_size - kept_count(layer.kernel_size, percent)
    if zeros:
        kernel.reshape(-1)[np.argpartition(np.abs(kernel), zeros - 1, axis=None)[:zeros]] = 0
    bias = _draw(generator, layer.out_channels, 0.0, 0.05)
    norm = _draw_norm(generator, layer.out_channels) if layer.batch_norm else None
    return ConvWeights(kernel, bias, norm)


def _draw_norm(generator: np.random.Generator, channels: int) -> BatchNorm:
    return BatchNorm(
        gamma=_draw(generator, channels, 1.0, 0.1),
        beta=_draw(generator, channels, 0.0, 0.1),
        mean=_draw(generator, channels, 0.0, 0.1),
        variance=generator.uniform(0.5, 1.5, channels).astype(np.float32),
    )


def _draw(generator: np.random.Generator, size: int, mean: float, deviation: float) -> FloatArray:
    return generator.normal(mean, deviation, size).astype(np.float32)


def write_hdf5(
    target: Path | io.BytesIO,
    weights: NetworkWeights,
    *,
    layout: Layout = "full",
    first_number: int = 1,
    layer_names: bool = True,
    dtype: npt.DTypeLike = np.float32,
) -> None:
    """Write a weight file as Keras 2 does, gzipped if the target's name ends in ``.gz``.

    Parameters
    ----------
    target : pathlib.Path or io.BytesIO
    weights : NetworkWeights
    layout : {'full', 'weights-only'}
        A model with its configuration, and the weights in the group ``model_weights``; or the
        weights alone, in the root group.
    first_number : int
        Number of the first convolution and of the first BatchNorm.
    layer_names : bool
        Whether the file lists its layers in order.
    dtype : numpy.dtype
        Type of the stored values.
    """
    data = hdf5_bytes(
        weights, layout=layout, first_number=first_number, layer_names=layer_names, dtype=dtype
    )
    if isinstance(target, io.BytesIO):
        target.write(data)
    else:
        packed = gzip.compress(data, compresslevel=1, mtime=0)
        target.write_bytes(packed if target.suffix == ".gz" else data)


def hdf5_bytes(
    weights: NetworkWeights,
    *,
    layout: Layout = "full",
    first_number: int = 1,
    layer_names: bool = True,
    dtype: npt.DTypeLike = np.float32,
) -> bytes:
    """Return the bytes that `write_hdf5` writes, not gzipped."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        root: Any = file
        if layout == "full":
            file.attrs["backend"] = np.bytes_("tensorflow")
            file.attrs["keras_version"] = np.bytes_("2.0.9")
            file.attrs["model_config"] = np.bytes_('{"class_name": "Model", "config": {}}')
            root = file.create_group("model_weights")
        root.attrs["backend"] = np.bytes_("tensorflow")
        root.attrs["keras_version"] = np.bytes_("2.0.9")
        layers = _layers(weights, first_number)
        if layer_names:
            root.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for layer, arrays in layers.items():
            group = root.create_group(layer)
            names = [f"{layer}/{array}:0" for array in arrays]
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name, values in zip(names, arrays.values(), strict=True):
                group.create_dataset(name, data=values.astype(dtype))
    return buffer.getvalue()


def array_path(layer: str, array: str, layout: Layout = "full") -> str:
    """Return the path of an array in a file."""
    return f"{'model_weights/' if layout == 'full' else ''}{layer}/{layer}/{array}:0"


def _layers(weights: NetworkWeights, first_number: int) -> dict[str, dict[str, FloatArray]]:
    """Return the layers in the network's order, with the names of Keras and their arrays."""
    frontend = {
        name: np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        for name, shape in _FRONTEND_SHAPES.items()
    }
    layers: dict[str, dict[str, FloatArray]] = {
        "input_1": {},
        "melspectrogram_1": frontend,
        f"batch_normalization_{first_number}": _norm_arrays(weights.input_norm),
    }
    for index, conv in enumerate(weights.convs):
        number = first_number + index
        last = index == len(weights.convs) - 1
        name = EMBEDDING_LAYER if last else f"conv2d_{number}"
        layers[name] = {"kernel": conv.kernel, "bias": conv.bias}
        if conv.batch_norm is not None:
            layers[f"batch_normalization_{number + 1}"] = _norm_arrays(conv.batch_norm)
            layers[f"activation_{number}"] = {}
        if index + 1 in POOL_AFTER:
            layers[f"max_pooling2d_{number}"] = {}
    layers["flatten_1"] = {}
    return layers


def _norm_arrays(norm: BatchNorm) -> dict[str, FloatArray]:
    return {array: getattr(norm, field) for array, field in _NORM_ARRAYS.items()}
