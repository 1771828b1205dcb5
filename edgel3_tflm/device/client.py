"""A node - a board, or the emulated one - as its host sees it: windows in, embeddings out."""

import secrets
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.device.transports import _CHUNK_BYTES, Closing, DeviceError, Transport
from edgel3_tflm.device.wire import (
    MAX_BODY,
    Command,
    Decoder,
    Failure,
    Info,
    LiveEvent,
    Packet,
    Refusal,
    Statistics,
    WireError,
    encode,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.types import Int8Array

TIMEOUT_S = 2.0
"""How long a node may take to answer what it need not compute."""
COMPUTE_TIMEOUT_S = 60.0
"""How long it may take for a window: an emulated board on a busy machine is slow."""
ATTEMPTS = 4
_PCM, _LOG_MEL = 0, 1

_REASONS = {
    Refusal.COMMAND: "it does not know the command; update its firmware",
    Refusal.LENGTH: "the request has another length than its firmware expects; update it",
    Refusal.VALUE: "a field is out of range; update its firmware, or this package",
    Refusal.STATE: "there is no window, or not all of one; send a window first",
    Refusal.OFFSET: "bytes before these are missing; send the window again",
    Refusal.BUSY: "it is streaming; end that first",
    Refusal.ENGINE: "its model, or the memory for it, is damaged; run the self-test",
    Refusal.ABSENT: "its firmware has no such part (a microphone, or a classifier)",
}


class RefusedError(DeviceError):
    """A request that the node answered with an error."""

    def __init__(self, command: int, status: int) -> None:
        try:
            self.refusal: Refusal | None = Refusal(status)
            reason = _REASONS[self.refusal]
        except ValueError:
            self.refusal = None
            reason = f"status {status}, which this version does not know; update this package"
        name = Command(command).name if command in tuple(Command) else str(command)
        super().__init__(f"the node refuses {name}: {reason}")


class Device(Closing):
    """A node at the other end of a transport, which is closed with it.

    A request that is not answered in time is sent again; answers that come too late are dropped.
    A node that was left streaming is told to stop.

    Parameters
    ----------
    transport : Transport
    timeout_s, compute_timeout_s : float
        How long an attempt waits for an answer, and for one that needs a window computed.
    attempts : int
        How often a request is sent before the node counts as lost.

    Attributes
    ----------
    info : Info
    resent : int
        Requests that were sent again.

    Raises
    ------
    DeviceError
        If no node answers, or one with another version of the protocol.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float = TIMEOUT_S,
        compute_timeout_s: float = COMPUTE_TIMEOUT_S,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._compute_timeout_s = compute_timeout_s
        self._attempts = attempts
        self._decoder = Decoder()
        self._packets: deque[Packet] = deque()
        self._live: deque[Packet] = deque(maxlen=256)
        # Answers to an earlier host are on their way, perhaps: they should not look like ours.
        self._sequence = secrets.randbelow(255)
        self.resent = 0
        self._must_stop = True  # for an earlier host
        try:
            self.info = Info.parse(self.request(Command.INFO))
            self._stop_stream()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def request(
        self,
        command: int,
        body: bytes = b"",
        *,
        timeout_s: float | None = None,
        attempts: int | None = None,
    ) -> bytes:
        """Ask, and give the answer's body.

        Raises
        ------
        RefusedError
            If the answer is an error.
        DeviceError
            If none comes, however often it is asked.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = self._attempts if attempts is None else attempts
        # 0 is for what comes unasked.
        self._sequence = self._sequence % 255 + 1
        # The zero ends what an earlier host, or a cut request, has left.
        frame = b"\0" + encode(Packet(command, self._sequence, body=body))
        for attempt in range(attempts):
            self.resent += attempt > 0
            try:
                self._transport.write(frame)
            except TimeoutError:
                continue
            answer = self._wait(command, monotonic() + timeout_s)
            if answer is None:
                continue
            if answer.status != 0:
                raise RefusedError(command, answer.status)
            return answer.body
        raise DeviceError(
            f"expected an answer from the node within {timeout_s:g} s, none came in"
            f" {attempts} attempts; is the firmware on the board, and is this its port?"
        )

    def _wait(self, command: int, deadline: float) -> Packet | None:
        """Wait for the answer to the last request; None if none comes in time."""
        while True:
            while self._packets:
                packet = self._packets.popleft()
                if (packet.command, packet.sequence) == (command, self._sequence):
                    return packet
                self._keep_if_live(packet)
            if not self._receive(deadline):
                return None

    def _keep_if_live(self, packet: Packet) -> None:
        if packet.command == Command.LIVE and packet.sequence == 0 and packet.status == 0:
            self._live.append(packet)

    def _receive(self, deadline: float) -> bool:
        """Take what has come; whether there was still time to."""
        remaining_s = deadline - monotonic()
        if remaining_s <= 0:
            return False
        packets = self._decoder.feed(self._transport.read(remaining_s))
        self._packets.extend(packet for packet in packets if packet.is_answer)
        return True

    def embed_log_mel(self, window: Int8Array) -> Int8Array:
        """Embed what the network takes, shape (mels, frames), int8; returns (embedding_size,)."""
        return self._embed(_LOG_MEL, window, (self.info.mels, self.info.frames), np.int8)

    def embed_pcm(self, window: npt.NDArray[np.int16]) -> Int8Array:
        """Embed a window of samples, shape (window_samples,), int16; returns (embedding_size,)."""
        return self._embed(_PCM, window, (self.info.window_samples,), np.int16)

    def _embed(
        self, kind: int, window: npt.NDArray[Any], shape: tuple[int, ...], dtype: type[np.generic]
    ) -> Int8Array:
        if window.shape != shape or window.dtype != dtype:
            raise ValueError(
                f"expected {dtype.__name__} of shape {shape}, got {window.dtype} of {window.shape}"
            )
        self._stop_stream()
        data = window.astype(window.dtype.newbyteorder("<")).tobytes()
        expected = _read_u32(self.request(Command.BEGIN, bytes([kind])))
        if expected != len(data):
            raise WireError(
                f"expected a node that takes {len(data)} bytes, it wants {expected}; update its"
                " firmware"
            )
        offset = 0
        while offset < len(data):
            chunk = data[offset : offset + _CHUNK_BYTES]
            there = _read_u32(self.request(Command.DATA, offset.to_bytes(4, "little") + chunk))
            if there != offset + len(chunk):
                raise WireError(
                    f"expected the node to have {offset + len(chunk)} bytes, it has {there}; is"
                    " another host using it?"
                )
            offset = there
        embedding = self.request(Command.EMBED, timeout_s=self._compute_timeout_s)
        if len(embedding) != self.info.embedding_size:
            raise WireError(
                f"expected an embedding of {self.info.embedding_size} values, got {len(embedding)}"
            )
        return np.frombuffer(embedding, np.int8)

    def log_mel(self) -> Int8Array:
        """Fetch what the network took for the window computed last, shape (mels, frames), int8."""
        size = self.info.mels * self.info.frames
        values = b""
        while len(values) < size:
            count = min(MAX_BODY, size - len(values))
            numbers = (len(values), count)
            body = b"".join(number.to_bytes(4, "little") for number in numbers)
            part = self.request(Command.LOG_MEL, body)
            if len(part) != count:
                raise WireError(f"expected {count} log-mel values, got {len(part)}")
            values += part
        return np.frombuffer(values, np.int8).reshape(self.info.mels, self.info.frames)

    def scores(self) -> npt.NDArray[np.float32]:
        """Fetch the scores of the window computed last, shape (classes,), in [0, 1]."""
        body = self.request(Command.SCORES)
        if len(body) != 4 * len(self.info.classes):
            raise WireError(f"expected {len(self.info.classes)} scores, got {len(body)} bytes")
        return np.frombuffer(body, "<f4").astype(np.float32)

    def statistics(self) -> Statistics:
        """Ask what the node has counted since its start."""
        return Statistics.parse(self.request(Command.STATISTICS))

    def self_test(self) -> Failure:
        """Have the node check its model, its memory and an embedding; returns what fails."""
        self._stop_stream()
        body = self.request(Command.SELF_TEST, timeout_s=self._compute_timeout_s)
        return Failure(_read_u32(body))

    def stream(self, *, timeout_s: float | None = None) -> Generator[LiveEvent, None, None]:
        """Have the node listen, and give each window that it hears; it stops when this is closed.

        Closing, or an error, sends one request to stop and waits ``timeout_s`` of the device for
        the answer. A node that computes a window answers later; the next call waits for it.

        Parameters
        ----------
        timeout_s : float, optional
            How long to wait for a window; as for computing one if None.

        Raises
        ------
        DeviceError
            If the node has no microphone, or no window comes in time.
        """
        if timeout_s is None:
            timeout_s = self._compute_timeout_s
        self._stop_stream()
        self._live.clear()
        try:
            self.request(Command.STREAM, b"\1")
            while True:
                deadline = monotonic() + timeout_s
                while not self._live:
                    while self._packets:
                        self._keep_if_live(self._packets.popleft())
                    if not self._live and not self._receive(deadline):
                        raise DeviceError(
                            f"expected a window from the node within {timeout_s:g} s, none came;"
                            " does its microphone work?"
                        )
                yield LiveEvent.parse(self._live.popleft().body, self.info)
        finally:
            self._must_stop = True
            # Whatever ended the stream is what the caller must see, at once.
            with suppress(EdgeL3Error):
                self._stop_stream(timeout_s=self._timeout_s, attempts=1)

    def _stop_stream(self, *, timeout_s: float | None = None, attempts: int | None = None) -> None:
        """Tell a node to stop a stream that has ended here; it may be computing a window first."""
        if not self._must_stop:
            return
        timeout_s = self._compute_timeout_s if timeout_s is None else timeout_s
        try:
            self.request(Command.STREAM, b"\0", timeout_s=timeout_s, attempts=attempts)
        except RefusedError as error:
            # Without a microphone it was not streaming; a model that is refused, not either.
            if error.refusal not in (Refusal.ABSENT, Refusal.ENGINE):
                raise
        self._must_stop = False


def _read_u32(body: bytes) -> int:
    if len(body) != 4:
        raise WireError(f"expected an answer of 4 bytes, got {len(body)}")
    return int.from_bytes(body, "little")
