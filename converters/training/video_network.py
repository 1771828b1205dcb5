"""The video subnetwork of L3: its layers, its weights, and its Keras network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.keras.generate import draw_layer
from edgel3_tflm.converters.keras.network import MOMENTUM, read_convolutions, set_convolutions
from edgel3_tflm.converters.training.recipe import VideoChoice
from edgel3_tflm.networks.variants import (
    BATCH_NORM_EPSILON,
    KERNEL_SIZE,
    POOL_AFTER,
    ConvLayer,
)
from edgel3_tflm.networks.weight_files import load_convolutions
from edgel3_tflm.networks.weights import ConvWeights, Provenance

VIDEO_NAME = "video.h5.gz"
# In the authors' code the second video convolution of L3 has its BatchNorm after its ReLU.
_RELU_FIRST = 2
# Prefix of the names of the layers.
_PREFIX = "video_"


@dataclass(frozen=True)
class VideoWeights:
    """Weights of the video subnetwork, and their provenance."""

    convs: tuple[ConvWeights, ...]
    provenance: Provenance


def video_layers(choice: VideoChoice) -> tuple[ConvLayer, ...]:
    """Return the convolutions of the video subnetwork; its input is RGB from -1 to 1."""
    side, channels, layers = choice.frame_pixels, 3, []
    for number, filters in enumerate(choice.filters, start=1):
        layers.append(
            ConvLayer(f"{_PREFIX}conv{number}", side, side, channels, filters, batch_norm=True)
        )
        channels = filters
        if number in POOL_AFTER:
            side //= 2
    return tuple(layers)


def load_video_weights(choice: VideoChoice, path: Path) -> VideoWeights:
    """Load weights of the video subnetwork, by array name and shape.

    Raises
    ------
    WeightsError
        If the file is damaged or its arrays have other shapes.
    """
    return VideoWeights(*load_convolutions(path, video_layers(choice)))


def draw_video_weights(choice: VideoChoice, seed: int) -> VideoWeights:
    """Draw weights of the video subnetwork at random."""
    generator = np.random.default_rng(seed)
    convs = tuple(draw_layer(layer, generator) for layer in video_layers(choice))
    return VideoWeights(convs, Provenance("generated", VIDEO_NAME, "", "drawn at random"))


def read_video_weights(network: Any, convs: Sequence[ConvWeights]) -> list[ConvWeights]:
    """Return the weights of a trained network, which was built with ``convs``."""
    return read_convolutions(network, convs, prefix=_PREFIX)


def build_video(choice: VideoChoice, convs: Sequence[ConvWeights]) -> Any:
    """Build the video subnetwork in Keras: (batch, pixels, pixels, 3) to (batch, embedding)."""
    keras = load_backend().keras
    x = inputs = keras.Input((choice.frame_pixels, choice.frame_pixels, 3), name="frame")
    for number, (layer, conv) in enumerate(zip(video_layers(choice), convs, strict=True), start=1):
        x = keras.layers.Conv2D(layer.out_channels, KERNEL_SIZE, padding="same", name=layer.name)(x)
        if conv.batch_norm is not None:
            following = [
                keras.layers.BatchNormalization(
                    epsilon=BATCH_NORM_EPSILON,
                    momentum=MOMENTUM,
                    name=f"{_PREFIX}batch_norm{number}",
                ),
                keras.layers.ReLU(),
            ]
            for each in reversed(following) if number == _RELU_FIRST else following:
                x = each(x)
        if number in POOL_AFTER:
            x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.GlobalMaxPooling2D(dtype="float32")(x)
    network = keras.Model(inputs, x)
    set_convolutions(network, convs, prefix=_PREFIX)
    return network
