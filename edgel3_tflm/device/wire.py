"""The wire protocol between host and node: frames, packets and the contents of answers.

A frame is a COBS-encoded packet, followed by a zero byte. A packet consists of command, sequence
number and status (one byte each), a body of at most :data:`MAX_BODY` bytes, and the CRC-32 of all
these. ``edgel3_wire.h`` of the C library defines the commands. All numbers are little-endian.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError, install_hint
from edgel3_tflm.runtime.tensors import TensorSpec

try:
    from cobs import cobs
except ImportError as error:
    raise RuntimeUnavailableError(
        "talking to a device needs the package cobs, which is not installed;"
        f" {install_hint('device')}"
    ) from error

VERSION = 2
MAX_BODY = 2048
_HEAD = struct.Struct("<3B")
_CHECKSUM = struct.Struct("<I")
_ANSWER = 0x80
_MAX_PACKET = _HEAD.size + MAX_BODY + _CHECKSUM.size
_MAX_FRAME = _MAX_PACKET + _MAX_PACKET // 254 + 2


class Command(IntEnum):
    """Commands of a request. A node sends LIVE without a request."""

    INFO = 1
    BEGIN = 2
    DATA = 3
    EMBED = 4
    LOG_MEL = 5
    SCORES = 6
    STATISTICS = 7
    STREAM = 8
    SELF_TEST = 9
    LIVE = 10


class Refusal(IntEnum):
    """Reason why a node refuses a request."""

    COMMAND = 1
    LENGTH = 2
    VALUE = 3
    STATE = 4
    OFFSET = 5
    BUSY = 6
    ENGINE = 7
    ABSENT = 8


class Failure(IntFlag):
    """Failures that a self-test reports."""

    MODEL_REFUSED = 1
    MEMORY_TOO_SMALL = 2
    OTHER_EMBEDDING = 4

    @property
    def names(self) -> list[str]:
        """Names of the bits that are set; unknown bits are given by number."""
        bits = [bit for bit in range(32) if self >> bit & 1]
        return [Failure(1 << bit).name or f"UNKNOWN_BIT_{bit}" for bit in bits]


class WireError(EdgeL3Error):
    """An answer violates the protocol."""


@dataclass(frozen=True)
class Packet:
    """A packet without its checksum.

    ``status`` is 0 in a request. In an answer it is 0 or a :class:`Refusal`.
    """

    command: int
    sequence: int
    status: int = 0
    body: bytes = b""
    is_answer: bool = False


def encode(packet: Packet) -> bytes:
    """Return the frame of a packet, including the zero byte at its end.

    Raises
    ------
    ValueError
        If the command or the body is too large.
    """
    if len(packet.body) > MAX_BODY or not 0 <= packet.command < _ANSWER:
        raise ValueError(
            f"expected a command below {_ANSWER} and at most {MAX_BODY} bytes of body, got"
            f" {packet.command} and {len(packet.body)}"
        )
    answer = _ANSWER if packet.is_answer else 0
    content = _HEAD.pack(packet.command | answer, packet.sequence, packet.status) + packet.body
    stuffed: bytes = cobs.encode(content + _CHECKSUM.pack(zlib.crc32(content)))
    return stuffed + b"\0"


def _read_frame(frame: bytes) -> Packet | None:
    """Return the packet in a frame without its zero byte, or None if the frame is damaged."""
    try:
        content: bytes = cobs.decode(frame)
    except cobs.DecodeError:
        return None
    if not _HEAD.size + _CHECKSUM.size <= len(content) <= _MAX_PACKET:
        return None
    content, (checksum,) = content[: -_CHECKSUM.size], _CHECKSUM.unpack(content[-_CHECKSUM.size :])
    if zlib.crc32(content) != checksum:
        return None
    command, sequence, status = _HEAD.unpack_from(content)
    return Packet(
        command & ~_ANSWER, sequence, status, content[_HEAD.size :], bool(command & _ANSWER)
    )


class Decoder:
    """Decodes frames that arrive in pieces of any size.

    ``dropped`` counts the frames that were damaged, cut or too long.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._frame = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that these bytes complete."""
        packets = []
        *ends, rest = data.split(b"\0")
        for end in ends:
            self._append(end)
            if self._frame:
                too_long = len(self._frame) >= _MAX_FRAME
                packet = None if too_long else _read_frame(bytes(self._frame))
                if packet is None:
                    self.dropped += 1
                else:
                    packets.append(packet)
                self._frame.clear()
        self._append(rest)
        return packets

    def _append(self, part: bytes) -> None:
        """Append to the current frame, at most until its length shows that it is too long."""
        self._frame += part[: _MAX_FRAME - len(self._frame)]


_INFO = struct.Struct("<HHII4Hfi16s4I")


@dataclass(frozen=True)
class Info:
    """A node's description of itself.

    Parameters
    ----------
    board, version : str
        Name of the board, and version of the C library.
    sample_rate_hz, window_samples : int
    mels, frames : int
        Shape of the log-mel spectrogram of a window.
    embedding_size : int
    embedding_scale, embedding_zero_point : float, int
        ``real = scale * (q - zero_point)``.
    source_sha256 : bytes
        First half of the SHA-256 of the dense flatbuffer that the model was packed from.
    packed_bytes, arena_bytes, window_bytes : int
        Sizes of the packed model (flash), of the arena and of the window (both RAM).
    ticks_per_second : int
        Frequency of the ticks in :class:`Statistics`.
    classes : tuple of str
        Classes of the node's classifier; empty if it has none.
    """

    board: str
    version: str
    sample_rate_hz: int
    window_samples: int
    mels: int
    frames: int
    embedding_size: int
    embedding_scale: float
    embedding_zero_point: int
    source_sha256: bytes
    packed_bytes: int
    arena_bytes: int
    window_bytes: int
    ticks_per_second: int
    classes: tuple[str, ...]

    @property
    def embedding(self) -> TensorSpec:
        """Shape, type and quantization of the embedding."""
        return TensorSpec(
            shape=(1, self.embedding_size),
            dtype=np.dtype(np.int8),
            scale=self.embedding_scale,
            zero_point=self.embedding_zero_point,
        )

    @classmethod
    def parse(cls, body: bytes) -> "Info":
        """Return the description in an answer's body.

        Raises
        ------
        WireError
            If the version of the protocol is another one, or the body is cut.
        """
        if len(body) >= 2 and (version := int.from_bytes(body[:2], "little")) != VERSION:
            raise WireError(
                f"expected a node with version {VERSION} of the protocol, got version {version};"
                " update this package, or the node's firmware"
            )
        strings = [text.decode(errors="replace") for text in body[_INFO.size :].split(b"\0")]
        if len(body) < _INFO.size or len(strings) < 3:
            raise WireError(f"expected a whole description of the node, got {len(body)} bytes")
        fields = _INFO.unpack_from(body)
        _, classes, sample_rate_hz, window_samples, mels, frames, embedding_size, _ = fields[:8]
        scale, zero_point, digest = fields[8:11]
        packed_bytes, arena_bytes, window_bytes, ticks_per_second = fields[11:]
        board, library, *labels = strings[:-1]
        if len(labels) != classes:
            raise WireError(f"expected the names of {classes} classes, got {len(labels)}")
        return cls(
            board=board,
            version=library,
            sample_rate_hz=sample_rate_hz,
            window_samples=window_samples,
            mels=mels,
            frames=frames,
            embedding_size=embedding_size,
            embedding_scale=scale,
            embedding_zero_point=zero_point,
            source_sha256=digest,
            packed_bytes=packed_bytes,
            arena_bytes=arena_bytes,
            window_bytes=window_bytes,
            ticks_per_second=ticks_per_second,
            classes=tuple(labels),
        )


_STATISTICS = struct.Struct("<6I2Q")


@dataclass(frozen=True)
class Statistics:
    """Counters of a node since its start, modulo 2^32 or, for the last two, 2^64.

    Parameters
    ----------
    requests : int
        Requests answered before this one.
    dropped_frames : int
        Frames that were damaged, cut or too long.
    windows : int
        Windows computed.
    missed_samples : int
        Samples from the microphone that were lost, because the node was computing with closed ears
        or did not keep up.
    frontend_ticks, engine_ticks : int
        Time for the last window. ``frontend_ticks`` is 0 if the host sent log-mel values.
    covered_samples : int
        Samples from the microphone in windows that were computed.
    skipped_samples : int
        Samples from the microphone that were heard, but are in no window, because the network takes
        longer than a window lasts.
    """

    requests: int
    dropped_frames: int
    windows: int
    missed_samples: int
    frontend_ticks: int
    engine_ticks: int
    covered_samples: int
    skipped_samples: int

    @property
    def coverage(self) -> float | None:
        """Share of the microphone's sound that is in windows; None if none was computed."""
        if self.covered_samples == 0:
            return None
        other = self.skipped_samples + self.missed_samples
        return self.covered_samples / (self.covered_samples + other)

    @classmethod
    def parse(cls, body: bytes) -> "Statistics":
        """Return the counters in an answer's body."""
        if len(body) != _STATISTICS.size:
            raise WireError(f"expected statistics of {_STATISTICS.size} bytes, got {len(body)}")
        return cls(*_STATISTICS.unpack(body))


_LIVE = struct.Struct("<IIQIII")


@dataclass(frozen=True)
class LiveEvent:
    """The result for a window that a node recorded with its microphone.

    Parameters
    ----------
    number : int
        Number of the window since the node's start.
    milliseconds : int
        Time at which it was computed, in ms since the node's start.
    first_sample : int
        Position of the window's first sample: samples that the microphone heard or lost since the
        stream began.
    missed_samples : int
        Samples lost since the node's start, as in :class:`Statistics`.
    frontend_ticks, engine_ticks : int
        Time for the window.
    embedding : numpy.ndarray, shape (embedding_size,), int8
    scores : numpy.ndarray, shape (classes,), float32
    """

    number: int
    milliseconds: int
    first_sample: int
    missed_samples: int
    frontend_ticks: int
    engine_ticks: int
    embedding: npt.NDArray[np.int8]
    scores: npt.NDArray[np.float32]

    @classmethod
    def parse(cls, body: bytes, info: Info) -> "LiveEvent":
        """Return the event in a packet's body; ``info`` determines the lengths of its parts."""
        split = _LIVE.size + info.embedding_size
        expected = split + 4 * len(info.classes)
        if len(body) != expected:
            raise WireError(f"expected a live event of {expected} bytes, got {len(body)}")
        embedding = np.frombuffer(body[_LIVE.size : split], np.int8)
        scores = np.frombuffer(body[split:], "<f4").astype(np.float32)
        number, milliseconds, first_sample, *figures = _LIVE.unpack_from(body)
        missed, frontend_ticks, engine_ticks = figures
        return cls(
            number,
            milliseconds,
            first_sample,
            missed,
            frontend_ticks,
            engine_ticks,
            embedding,
            scores,
        )
