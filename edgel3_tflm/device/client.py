"""The client of a node, which is a board, the emulated board or a program on this machine."""

import secrets
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.device.transports import Closing, DeviceError, Transport
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
"""Time limit in seconds for answers that need no computation of a window."""
COMPUTE_TIMEOUT_S = 60.0
"""Time limit in seconds for a window. The emulated board is slow on a busy machine."""
ATTEMPTS = 4
_PCM, _LOG_MEL = 0, 1
# The body of a DATA request begins with an offset of 4 bytes.
_CHUNK_BYTES = MAX_BODY - 4

_REASONS = {
    Refusal.COMMAND: "it does not know the command; update its firmware",
    Refusal.LENGTH: "its firmware expects another length of the request; update its firmware",
    Refusal.VALUE: "a field is out of range; update its firmware, or this package",
    Refusal.STATE: "it has no complete window; send a window first",
    Refusal.OFFSET: "earlier bytes of the window are missing; send the window again",
    Refusal.BUSY: "it is streaming; stop the stream first",
    Refusal.ENGINE: "its model, or the memory for it, is damaged; run the self-test",
    Refusal.ABSENT: "its firmware has no such part (a microphone, or a classifier)",
}


class RefusedError(DeviceError):
    """The node answered a request with an error."""

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
    """A node at the other end of a transport.

    The client sends a request again if no answer comes in time, and drops late answers. It stops a
    node that an earlier host left streaming. Closing the device closes the transport.

    Parameters
    ----------
    transport : Transport
    timeout_s, compute_timeout_s : float
        Seconds that an attempt waits for an answer, and for an answer that needs a window computed.
    attempts : int
        Number of times that a request is sent before the client gives up.

    Attributes
    ----------
    info : Info
    resent : int
        Number of times that a request was sent again.

    Raises
    ------
    DeviceError
        If no node answers.
    WireError
        If the node has another version of the protocol.
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
        # Late answers to an earlier host must not match: the sequence starts at a random number.
        self._sequence = secrets.randbelow(255)
        self.resent = 0
        self._must_stop = True  # an earlier host may have left the node streaming
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
        """Send a request and return the body of the answer.

        Raises
        ------
        RefusedError
            If the answer is an error.
        DeviceError
            If no attempt is answered.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = self._attempts if attempts is None else attempts
        # Sequence number 0 is for packets that answer no request.
        self._sequence = self._sequence % 255 + 1
        # The zero byte ends an incomplete frame of an earlier request.
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
            f" {attempts} attempts; check that the firmware is on the board and that this is its"
            " port"
        )

    def _wait(self, command: int, deadline: float) -> Packet | None:
        """Return the answer to the last request, or None if none comes in time."""
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
        """Wait for bytes and decode them; returns False if the deadline has passed."""
        remaining_s = deadline - monotonic()
        if remaining_s <= 0:
            return False
        packets = self._decoder.feed(self._transport.read(remaining_s))
        self._packets.extend(packet for packet in packets if packet.is_answer)
        return True

    def embed_log_mel(self, window: Int8Array) -> Int8Array:
        """Return the embedding of int8 log-mel values.

        Parameters
        ----------
        window : numpy.ndarray, shape (mels, frames), int8

        Returns
        -------
        numpy.ndarray, shape (embedding_size,), int8
        """
        return self._embed(_LOG_MEL, window, (self.info.mels, self.info.frames), np.int8)

    def embed_pcm(self, window: npt.NDArray[np.int16]) -> Int8Array:
        """Return the embedding of a window of samples.

        Parameters
        ----------
        window : numpy.ndarray, shape (window_samples,), int16

        Returns
        -------
        numpy.ndarray, shape (embedding_size,), int8
        """
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
                f"expected a node whose window has {len(data)} bytes, got {expected}; update its"
                " firmware"
            )
        offset = 0
        while offset < len(data):
            chunk = data[offset : offset + _CHUNK_BYTES]
            received = _read_u32(self.request(Command.DATA, offset.to_bytes(4, "little") + chunk))
            if received != offset + len(chunk):
                raise WireError(
                    f"expected the node to have {offset + len(chunk)} bytes, it has {received};"
                    " check that no other host uses it"
                )
            offset = received
        embedding = self.request(Command.EMBED, timeout_s=self._compute_timeout_s)
        if len(embedding) != self.info.embedding_size:
            raise WireError(
                f"expected an embedding of {self.info.embedding_size} values, got {len(embedding)}"
            )
        return np.frombuffer(embedding, np.int8)

    def log_mel(self) -> Int8Array:
        """Return the network's input for the last window, shape (mels, frames), int8."""
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
        """Return the scores of the last window, shape (classes,), float32 in [0, 1]."""
        body = self.request(Command.SCORES)
        if len(body) != 4 * len(self.info.classes):
            raise WireError(f"expected {len(self.info.classes)} scores, got {len(body)} bytes")
        return np.frombuffer(body, "<f4").astype(np.float32)

    def statistics(self) -> Statistics:
        """Return the node's counters."""
        return Statistics.parse(self.request(Command.STATISTICS))

    def self_test(self) -> Failure:
        """Have the node check its model, its memory and an embedding; returns the failures."""
        self._stop_stream()
        body = self.request(Command.SELF_TEST, timeout_s=self._compute_timeout_s)
        return Failure(_read_u32(body))

    def stream(self, *, timeout_s: float | None = None) -> Generator[LiveEvent, None, None]:
        """Have the node record from its microphone, and yield each window that it computes.

        The stream stops when the generator is closed or an error occurs: the client sends one
        request to stop and waits for the answer, for the device's ``timeout_s``. A node that is
        computing a window answers later; the next call then waits for this answer.

        Parameters
        ----------
        timeout_s : float, optional
            Seconds to wait for a window; if None, the device's ``compute_timeout_s``.

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
                            " check its microphone"
                        )
                yield LiveEvent.parse(self._live.popleft().body, self.info)
        finally:
            self._must_stop = True
            # The caller must see the error that ended the stream, not a second one.
            with suppress(EdgeL3Error):
                self._stop_stream(timeout_s=self._timeout_s, attempts=1)

    def _stop_stream(self, *, timeout_s: float | None = None, attempts: int | None = None) -> None:
        """Send the request to stop a stream, if one may be running on the node."""
        if not self._must_stop:
            return
        timeout_s = self._compute_timeout_s if timeout_s is None else timeout_s
        try:
            self.request(Command.STREAM, b"\0", timeout_s=timeout_s, attempts=attempts)
        except RefusedError as error:
            # A node without a microphone, or with a damaged model, was not streaming.

            if error.refusal not in (Refusal.ABSENT, Refusal.ENGINE):
                raise
        self._must_stop = False


def _read_u32(body: bytes) -> int:
    if len(body) != 4:
        raise WireError(f"expected an answer of 4 bytes, got {len(body)}")
    return int.from_bytes(body, "little")
