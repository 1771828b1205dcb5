"""Networks, windows and damaged models that several tests of the engine share."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from helpers.networks.int8_network import Int8Network, random_network, with_layer

Int8Array = npt.NDArray[np.int8]


def draw_windows(rng: np.random.Generator, network: Int8Network) -> Int8Array:
    """Return windows of one extreme value, of noise, and of rows of zeros between rows of noise."""
    shape = (1, network.rows, network.columns, 1)
    zero = network.input.zero_point
    noise = rng.integers(-128, 127, (3, *shape[1:]), np.int8, endpoint=True)
    striped = noise[:1].copy()
    striped[:, 1::2] = zero
    constant = [np.full(shape, value, np.int8) for value in (-128, 127, zero)]
    return np.concatenate([*constant, noise, striped])


def draw_network(rng: np.random.Generator, **parameters: Any) -> Int8Network:
    """Draw a network in which the values of the deeper layers also vary with the window.

    After the first convolution, the standard deviation is about 16 quantized values; at the input
    it is 74. The scales of the deeper kernels are therefore larger by a factor of 4.
    """
    network = random_network(rng, **parameters)
    for position, conv in enumerate(network.layers[1:], start=1):
        scales = (conv.scales * np.float32(4)).astype(np.float32)
        network = with_layer(network, position, scales=scales)
    return network


def clip_windows(deployment: Deployment, clips: list[Path], count: int) -> Int8Array:
    """Return the int8 model's input for the first windows of clips."""
    spec = deployment.variant.frontend
    samples = [
        windows
        for _, windows in read_windows(
            clips,
            sample_rate_hz=spec.sample_rate_hz,
            window_samples=spec.window_samples,
            hop_s=0.5,
        )
    ]
    decibels = log_mel(np.concatenate(samples)[:count], spec)
    assert len(decibels) == count
    tensor = open_interpreter(deployment.read_model("int8")).input
    windows: Int8Array = deployment.input_map.apply(decibels, tensor)
    return windows


def seal(blob: bytes) -> bytes:
    """Return a changed packed model with the right checksum."""
    return blob[:12] + struct.pack("<I", zlib.crc32(blob[16:])) + blob[16:]


def changed(blob: bytes, position: int, value: int) -> bytes:
    """Return a copy with another value of one byte."""
    return blob[:position] + bytes([value]) + blob[position + 1 :]
