"""Short synthetic videos: each colour has its own sound."""

import colorsys
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]


VIDEOS = 40
KINDS = 4


def make_sound(kind: int, time_s: FloatArray) -> FloatArray:
    """A tone, beeps, a chord or glides: each of them differs from the others in every second."""
    tone = np.sin(2 * np.pi * 1000 * time_s)
    chord = sum(np.sin(2 * np.pi * hertz * time_s) for hertz in range(300, 3900, 300))
    glides = np.sin(2 * np.pi * (400 * time_s + 1400 * (time_s % 1) ** 2))
    return 0.3 * [tone, tone * (time_s * 8 % 1 < 0.5), chord / 3, glides][kind]


def write_video(
    path: Path, number: int, *, heard: int | None = None, sound: bool = True, seconds: int = 2
) -> None:
    """Write a moving square in one of four colours, with the sound of its colour."""
    generator = np.random.default_rng(number)
    seen = number % KINDS
    colour = [round(255 * value) for value in colorsys.hsv_to_rgb(seen / KINDS, 1, 1)]
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=4)
        pictures.width = pictures.height = 48
        pictures.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for _ in range(4 * seconds):
            image = np.full((48, 48, 3), 30, np.uint8)
            row, column = generator.integers(0, 24, 2)
            image[row : row + 24, column : column + 24] = colour
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(pictures.encode())
        if audio is None:
            return
        time_s = np.arange(8000 * seconds) / 8000
        noise = generator.normal(0, 0.01, len(time_s))
        samples = (make_sound(seen if heard is None else heard, time_s) + noise).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def ignore_video(done: int, total: int) -> None:
    pass
