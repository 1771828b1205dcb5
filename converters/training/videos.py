"""Reading videos: a frame at a time, and the second of sound around that time."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from edgel3_tflm.errors import (
    EdgeL3Error,
    RuntimeUnavailableError,
    VideoError,
    install_hint,
)
from edgel3_tflm.types import FloatArray

_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts"),
    ".webm",
}
# A window of sound is resampled with this margin on both sides, so that the filter settles.
_MARGIN_S = 0.05
# A container may declare more sound than it contains, because encoders pad the sound.
_SLACK_S = 0.5
# The last frame may be shown for this long.
_LAST_FRAME_S = 1.5

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Video:
    """A video file; both pictures and sound exist from ``start_s`` to ``end_s``, in seconds."""

    path: Path
    sha256: str
    start_s: float
    end_s: float


OnDamaged = Callable[[VideoError], None]
"""Called with the error of a video that is left out."""


def find_videos(
    directory: Path,
    on_video: Callable[[int, int], None],
    on_damaged: OnDamaged | None = None,
) -> list[Video]:
    """Open the videos of a directory and its subdirectories, sorted by path.

    Each video is decoded at its start and at its end, to find truncated files before training.

    Parameters
    ----------
    directory : pathlib.Path
    on_video : callable
        Called with the number of videos read and their total.
    on_damaged : callable, optional
        Called with the error of each video that cannot be used; the video is left out. If None,
        the error is raised.

    Returns
    -------
    list of Video

    Raises
    ------
    EdgeL3Error
        If the directory does not exist or contains no videos.
    VideoError
        If a video is damaged, lacks pictures or sound, or is shorter than one second.
    RuntimeUnavailableError
        If PyAV is not installed.
    """
    if not directory.is_dir():
        raise EdgeL3Error(f"{directory}: expected a directory of videos, it does not exist")
    _load_av()
    paths = sorted(
        path for path in directory.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()
    )
    if not paths:
        raise EdgeL3Error(
            f"{directory}: expected videos ({' '.join(sorted(_SUFFIXES))}), found none"
        )
    videos = []
    for done, path in enumerate(paths, start=1):
        try:
            videos.append(_open(path))
        except VideoError as error:
            if on_damaged is None:
                raise
            on_damaged(error)
        on_video(done, len(paths))
    return videos


def _load_av() -> Any:
    try:
        return import_module("av")
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"reading videos needs the package av, which is not installed; {install_hint('video')}"
        ) from error


@contextmanager
def _decoding(path: Path) -> Iterator[Any]:
    """Open a container; errors of libav become a VideoError of one line."""
    av = _load_av()
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(
            path, f"expected a whole video, it is damaged or not a video ({reason})"
        ) from error


def _open(path: Path) -> Video:
    with _decoding(path) as container:
        streams = (container.streams.video, container.streams.audio)
        missing = [
            kind for kind, found in zip(("pictures", "sound"), streams, strict=True) if not found
        ]
        if missing:
            raise VideoError(
                path, f"expected pictures and sound, it has no {' and no '.join(missing)}"
            )
        starts, ends = [], []
        for stream in (streams[0][0], streams[1][0]):
            start_s, end_s = _span(container, stream)
            starts.append(start_s)
            ends.append(end_s)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    video = Video(path, digest.hexdigest(), max(starts), min(ends))
    if video.end_s - video.start_s < 1:
        raise VideoError(
            path,
            "expected at least one second of pictures with sound, found"
            f" {max(0.0, video.end_s - video.start_s):.2f} s",
        )
    for time_s in (video.start_s + 0.5, video.end_s - 0.5):
        read_frame(video, time_s, short_side=8)
        read_sound(video, time_s, sample_rate_hz=8000)
    return video


def _span(container: Any, stream: Any) -> tuple[float, float]:
    """Return start and end of a stream, or those of the container if the stream has none."""
    start_s = float((stream.start_time or 0) * stream.time_base)
    if stream.duration is not None:
        return start_s, start_s + float(stream.duration * stream.time_base)
    if container.duration is None:
        raise ValueError("its duration is unknown")
    # Both in microseconds.
    return start_s, ((container.start_time or 0) + container.duration) / 1e6


def _decode_from(container: Any, stream: Any, time_s: float) -> Iterator[Any]:
    """Yield frames from the last key frame before a time; frames without a time are left out."""
    container.seek(max(0, int(time_s / stream.time_base)), stream=stream)
    return (frame for frame in container.decode(stream) if frame.time is not None)


def read_frame(video: Video, time_s: float, short_side: int) -> Pixels:
    """Read the frame that is shown at a time.

    Parameters
    ----------
    video : Video
    time_s : float
    short_side : int
        Length in pixels to which the shorter side of the frame is scaled.

    Returns
    -------
    numpy.ndarray, shape (height, width, 3), uint8

    Raises
    ------
    VideoError
        If the file cannot be decoded at this time.
    """
    with _decoding(video.path) as container:
        last = None
        for frame in _decode_from(container, container.streams.video[0], time_s):
            if last is not None and frame.time > time_s:
                break
            last = frame
        else:  # no later frame: the last one may be shown for a while
            if last is None or last.time < time_s - _LAST_FRAME_S:
                raise ValueError(f"no picture at {time_s:.2f} s")
        scale = short_side / min(last.width, last.height)
        width, height = (max(short_side, round(side * scale)) for side in (last.width, last.height))
        scaled: Pixels = last.reformat(width, height, format="rgb24").to_ndarray()
    return scaled


def read_sound(video: Video, time_s: float, sample_rate_hz: int) -> FloatArray:
    """Read the second of sound around a time: channels averaged, resampled by soxr.

    Gaps in the sound become silence.

    Returns
    -------
    numpy.ndarray, shape (sample_rate_hz,), float32

    Raises
    ------
    VideoError
        If the file cannot be decoded at this time.
    """
    av = _load_av()
    start_s = time_s - 0.5 - _MARGIN_S
    end_s = time_s + 0.5 + _MARGIN_S
    with _decoding(video.path) as container:
        stream = container.streams.audio[0]
        to_float = av.AudioResampler(format="fltp")
        rate_hz = stream.rate
        first = round(start_s * rate_hz)
        mono = np.zeros(round(end_s * rate_hz) - first, np.float32)
        reached_s = start_s
        for frame in _decode_from(container, stream, start_s):
            if frame.time >= end_s:
                break
            for part in to_float.resample(frame):
                samples = part.to_ndarray().mean(axis=0)
                position = round(frame.time * rate_hz) - first
                inside = slice(max(0, position), max(0, position + len(samples)))
                samples = samples[max(0, -position) :][: max(0, len(mono) - inside.start)]
                mono[inside][: len(samples)] = samples
                reached_s = frame.time + part.samples / rate_hz
        if reached_s < min(time_s, video.end_s - _SLACK_S):
            raise ValueError(f"no sound at {time_s:.2f} s")
    if not np.isfinite(mono).all():
        raise VideoError(video.path, "expected finite samples, some are NaN or infinite")
    resampled = soxr.resample(mono, rate_hz, sample_rate_hz, quality="HQ")
    margin = round(_MARGIN_S * sample_rate_hz)
    window = resampled[margin : margin + sample_rate_hz]
    return np.pad(window, (0, sample_rate_hz - len(window))).astype(np.float32)
