"""A node that answers as a test tells it, on a clock that only its silence moves."""

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
    """Seconds that a silent node has been waited for."""

    now: float = 0.0

    @classmethod
    def install(cls, monkeypatch: pytest.MonkeyPatch) -> "Clock":
        """Replace the clock of :mod:`edgel3_tflm.device.client`."""
        clock = cls()
        monkeypatch.setattr("edgel3_tflm.device.client.monotonic", lambda: clock.now)
        return clock


class ScriptedNode:
    """A transport; one entry of the script a request: packets and bytes to read, errors to raise.

    Requests beyond the script are not answered. Reading takes no time if something is there,
    else all that the reader grants.
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
    def reply(request: Packet) -> list[Item]:
        sequence = (request.sequence + changes.get("later", 0)) % 256
        command = changes.get("command", request.command)
        return [Packet(command, sequence, status, body, is_answer=True)]

    return reply


def stay_silent(request: Packet) -> list[Item]:
    del request
    return []


def write_info(*, embedding_size: int = 64) -> bytes:
    """Write the description of a node of SEA-UST without a classifier."""
    sizes = (VERSION, 0, 8000, 8000, 64, 50, embedding_size, 0)
    numbers = struct.pack("<HHII4Hfi16s4I", *sizes, 0.5, -3, bytes(16), 1, 2, 3, 1_000_000)
    return numbers + b"scripted\0" + b"1.0\0"


def open_scripted(clock: Clock, *script: Reply) -> tuple[ScriptedNode, Device]:
    """Open a node that was not streaming, and answers by a script from there on."""
    node = ScriptedNode(clock, answer(write_info()), answer(status=Refusal.ABSENT), *script)
    device = Device(
        node, timeout_s=TIMEOUT_S, compute_timeout_s=COMPUTE_TIMEOUT_S, attempts=ATTEMPTS
    )
    assert [request.command for request in node.requests] == [Command.INFO, Command.STREAM]
    return node, device
