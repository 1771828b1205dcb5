"""Networks and windows that the engine's tests share."""

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
from helpers.int8_network import Int8Network, random_network, with_layer

Int8Array = npt.NDArray[np.int8]


def draw_windows(rng: np.random.Generator, network: Int8Network) -> Int8Array:
    """The extremes, noise, and rows of nothing but zeros between rows of noise."""
    shape = (1, network.rows, network.columns, 1)
    zero = network.input.zero_point
    noise = rng.integers(-128, 127, (3, *shape[1:]), np.int8, endpoint=True)
    striped = noise[:1].copy()
    striped[:, 1::2] = zero
    constant = [np.full(shape, value, np.int8) for value in (-128, 127, zero)]
    return np.concatenate([*constant, noise, striped])


def draw_network(rng: np.random.Generator, **parameters: Any) -> Int8Network:
    """Draw a network whose deeper layers, too, vary with the window.

    Behind the first convolution values spread by some 16 steps, not by the 74 of the input.
    """
    network = random_network(rng, **parameters)
    for position, conv in enumerate(network.layers[1:], start=1):
        scales = (conv.scales * np.float32(4)).astype(np.float32)
        network = with_layer(network, position, scales=scales)
    return network


def clip_windows(deployment: Deployment, clips: list[Path], count: int) -> Int8Array:
    """Input of the int8 model for the first windows of clips."""
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
    """Give changed bytes the checksum that they should have."""
    return blob[:12] + struct.pack("<I", zlib.crc32(blob[16:])) + blob[16:]


def changed(blob: bytes, position: int, value: int) -> bytes:
    return blob[:position] + bytes([value]) + blob[position + 1 :]
