"""Videos: a frame and the sound around it, and pairs of both that belong together or do not."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
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
# A window of sound is resampled with this much on both sides, for the filter to settle in.
_MARGIN_S = 0.05
# Containers may say a little more than there is: encoders pad the sound.
_SLACK_S = 0.5
_LAST_FRAME_S = 1.5
# Frames are scaled before they are cropped, as in L3: 256 pixels for a crop of 224.
_SCALE = 8 / 7
_MOST_DRAWS = 100

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Video:
    """A file with pictures and sound, and the time, in seconds, that has both."""

    path: Path
    sha256: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Pairs:
    """Frames and one second of sound each.

    Parameters
    ----------
    frames : numpy.ndarray, shape (n, pixels, pixels, 3), uint8
        Red, green, blue.
    windows : numpy.ndarray, shape (n, samples), float32
    matching : numpy.ndarray, shape (n,), bool
        Whether the sound is the frame's own.
    """

    frames: Pixels
    windows: FloatArray
    matching: npt.NDArray[np.bool_]


OnDamaged = Callable[[VideoError], None]


def find_videos(
    directory: Path,
    on_video: Callable[[int, int], None],
    on_damaged: OnDamaged | None = None,
) -> list[Video]:
    """Open the videos of a directory and of those in it, sorted by path.

    Each is decoded at its start and its end, so that one that is cut is found before training.

    Parameters
    ----------
    directory : pathlib.Path
    on_video : callable
        Called with the number of videos done and their total.
    on_damaged : callable, optional
        Called with the error of each video that cannot be used, which is left out; raised if None.

    Raises
    ------
    EdgeL3Error
        If there are none.
    VideoError
        If one is damaged, lacks pictures or sound or is shorter than a second.
    RuntimeUnavailableError
        If PyAV is not installed.
    """
    if not directory.is_dir():
        raise EdgeL3Error(f"{directory}: expected a directory of videos, there is none")
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
    """Open a container; what libav finds wrong with it becomes one line with the file's name."""
    av = _load_av()
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(
            path, f"expected a whole video, it is damaged or none ({reason})"
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
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    video = Video(path, digest, max(starts), min(ends))
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
    """Start and end of a stream; of the container where the stream does not say."""
    start_s = float((stream.start_time or 0) * stream.time_base)
    if stream.duration is not None:
        return start_s, start_s + float(stream.duration * stream.time_base)
    if container.duration is None:
        raise ValueError("its length is not known")
    # Both in microseconds.
    return start_s, ((container.start_time or 0) + container.duration) / 1e6


def _decode_from(container: Any, stream: Any, time_s: float) -> Iterator[Any]:
    """Frames of a stream, from one that is not after a time; those without a time are left out."""
    container.seek(max(0, int(time_s / stream.time_base)), stream=stream)
    return (frame for frame in container.decode(stream) if frame.time is not None)


def read_frame(video: Video, time_s: float, short_side: int) -> Pixels:
    """Read the frame that is seen at a time.

    Parameters
    ----------
    video : Video
    time_s : float
    short_side : int
        The frame is scaled to this many pixels on its shorter side.

    Returns
    -------
    numpy.ndarray, shape (height, width, 3), uint8

    Raises
    ------
    VideoError
        If the file cannot be decoded there.
    """
    with _decoding(video.path) as container:
        last = None
        for frame in _decode_from(container, container.streams.video[0], time_s):
            if last is not None and frame.time > time_s:
                break
            last = frame
        else:  # there is none behind it: it may last a while
            if last is None or last.time < time_s - _LAST_FRAME_S:
                raise ValueError(f"no picture at {time_s:.2f} s")
        scale = short_side / min(last.width, last.height)
        width, height = (max(short_side, round(side * scale)) for side in (last.width, last.height))
        scaled: Pixels = last.reformat(width, height, format="rgb24").to_ndarray()
    return scaled


def read_sound(video: Video, time_s: float, sample_rate_hz: int) -> FloatArray:
    """Read the second of sound around a time, channels averaged; resampling is soxr's.

    A gap in the sound is silence.

    Returns
    -------
    numpy.ndarray, shape (sample_rate_hz,), float32

    Raises
    ------
    VideoError
        If the file cannot be decoded there.
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
                place = round(frame.time * rate_hz) - first
                inside = slice(max(0, place), max(0, place + len(samples)))
                samples = samples[max(0, -place) :][: max(0, len(mono) - inside.start)]
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


class PairSource:
    """An endless supply of pairs: half with the frame's own sound, half with another video's.

    Parameters
    ----------
    videos : sequence of Video
        Two at least.
    sample_rate_hz, frame_pixels : int
    varied : bool
        Whether frames are cropped anywhere and flipped, or cropped in the middle.
    on_damaged : callable, optional
        Called with the error where a video cannot be decoded, perhaps by several threads; another
        pair is drawn. Raised if None.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        *,
        sample_rate_hz: int,
        frame_pixels: int,
        varied: bool,
        on_damaged: OnDamaged | None = None,
    ) -> None:
        self._videos = videos
        self._on_damaged = on_damaged
        self._sample_rate_hz = sample_rate_hz
        self._frame_pixels = frame_pixels
        self._varied = varied

    def batch(self, seed: int, number: int, pairs: int) -> Pairs:
        """Make the batch of a number; the same numbers give the same batch, in any order.

        Raises
        ------
        VideoError
            If a video cannot be decoded, or if many in a row cannot.
        """
        generator = np.random.default_rng([seed, number])
        frames, windows, matching = zip(
            *(self._whole_pair(generator) for _ in range(pairs)), strict=True
        )
        return Pairs(np.stack(frames), np.stack(windows), np.array(matching))

    def _whole_pair(self, generator: np.random.Generator) -> tuple[Pixels, FloatArray, bool]:
        """Draw until both videos can be decoded where they were drawn."""
        for left in reversed(range(_MOST_DRAWS)):
            try:
                return self._pair(generator)
            except VideoError as error:
                if self._on_damaged is None or not left:
                    raise
                self._on_damaged(error)
        raise AssertionError  # the last draw returned or raised

    def _pair(self, generator: np.random.Generator) -> tuple[Pixels, FloatArray, bool]:
        seen = int(generator.integers(len(self._videos)))
        other = (seen + int(generator.integers(1, len(self._videos)))) % len(self._videos)
        is_match = bool(generator.random() < 0.5)
        # Drawn in any case, so that nothing else of the pair depends on which kind it is.
        times_s = [self._time_s(self._videos[each], generator) for each in (seen, other)]
        frame = self._crop(
            read_frame(self._videos[seen], times_s[0], round(self._frame_pixels * _SCALE)),
            generator,
        )
        heard, time_s = (seen, times_s[0]) if is_match else (other, times_s[1])
        return frame, read_sound(self._videos[heard], time_s, self._sample_rate_hz), is_match

    @staticmethod
    def _time_s(video: Video, generator: np.random.Generator) -> float:
        return float(generator.uniform(video.start_s + 0.5, video.end_s - 0.5))

    def _crop(self, frame: Pixels, generator: np.random.Generator) -> Pixels:
        spare = [side - self._frame_pixels for side in frame.shape[:2]]
        top, left = (side // 2 for side in spare)
        if self._varied:
            top, left = (int(generator.integers(side + 1)) for side in spare)
            if generator.random() < 0.5:
                frame = frame[:, ::-1]
        return frame[top : top + self._frame_pixels, left : left + self._frame_pixels]
