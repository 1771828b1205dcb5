"""A node that answers by a script, and a clock that advances only while the node is silent."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from edgel3_tflm.device.client import Device
from edgel3_tflm.device.wire import VERSION, Command, Decoder, Packet, Refusal, encode

TIMEOUT_S, COMPUTE_TIMEOUT_S, ATTEMPTS = 2, 60, 3
Item = Packet | bytes | BaseException
Reply = Callable[[Packet], list[Item]]


@dataclass
class Clock:
    """A clock that counts the seconds that the client waited for a silent node."""

    now: float = 0.0

    @classmethod
    def install(cls, monkeypatch: pytest.MonkeyPatch) -> "Clock":
        """Replace the clock of :mod:`edgel3_tflm.device.client`."""
        clock = cls()
        monkeypatch.setattr("edgel3_tflm.device.client.monotonic", lambda: clock.now)
        return clock


class ScriptedNode:
    """A transport whose node answers each request by the next entry of a script.

    An entry returns packets and bytes to read, and errors to raise. Requests beyond the script are
    not answered. A read takes no time if there is something to read, and its whole timeout if not.
    """

    def __init__(self, clock: Clock, *script: Reply) -> None:
        self._clock = clock
        self._script = list(script)
        self._waiting: list[bytes | BaseException] = []
        self.requests: list[Packet] = []

    def write(self, data: bytes) -> None:
        (request,) = Decoder().feed(data)
        self.requests.append(request)
        answers = self._script.pop(0)(request) if self._script else []
        self._waiting += [encode(each) if isinstance(each, Packet) else each for each in answers]

    def read(self, timeout_s: float) -> bytes:
        if not self._waiting:
            self._clock.now += timeout_s
            return b""
        item = self._waiting.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        pass


def answer(body: bytes = b"", status: int = 0, **changes: int) -> Reply:
    """Return a script's entry that answers a request; ``later`` is added to the sequence number."""

    def reply(request: Packet) -> list[Item]:
        sequence = (request.sequence + changes.get("later", 0)) % 256
        command = changes.get("command", request.command)
        return [Packet(command, sequence, status, body, is_answer=True)]

    return reply


def stay_silent(request: Packet) -> list[Item]:
    del request
    return []


def write_info(*, embedding_size: int = 64) -> bytes:
    """Return the description of a node with SEA-UST and without a classifier, as on the wire."""
    sizes = (VERSION, 0, 8000, 8000, 64, 50, embedding_size, 0)
    numbers = struct.pack("<HHII4Hfi16s4I", *sizes, 0.5, -3, bytes(16), 1, 2, 3, 1_000_000)
    return numbers + b"scripted\0" + b"1.0\0"


def open_scripted(clock: Clock, *script: Reply) -> tuple[ScriptedNode, Device]:
    """Open a device whose node has no microphone; the script begins after the first requests."""
    node = ScriptedNode(clock, answer(write_info()), answer(status=Refusal.ABSENT), *script)
    device = Device(
        node, timeout_s=TIMEOUT_S, compute_timeout_s=COMPUTE_TIMEOUT_S, attempts=ATTEMPTS
    )
    assert [request.command for request in node.requests] == [Command.INFO, Command.STREAM]
    return node, device
