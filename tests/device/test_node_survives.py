"""Noise, vanishing hosts and hosts that do not read do not disturb a node.

EDGEL3_NOISE_ROUNDS=1000 sends more noise than the default of 12 connections.
"""

import os
import random
import time
from collections.abc import Callable

import numpy as np
import pytest
from helpers.boards.nodes import Expected, Int16Array, u32

from edgel3_tflm.device.client import Device
from edgel3_tflm.device.emulation import Emulator
from edgel3_tflm.device.transports import (
    SocketTransport,
)
from edgel3_tflm.device.wire import Command, Decoder, Packet, Refusal, encode

NOISE_ROUNDS = int(os.environ.get("EDGEL3_NOISE_ROUNDS", "12"))


def make_noise(rng: random.Random) -> bytes:
    """Return bytes as a bad line or a faulty host may send them."""
    frame = bytearray(
        encode(
            Packet(
                rng.randrange(12),
                rng.randrange(256),
                0,
                rng.randbytes(rng.choice([0, 1, 4, 8, 50])),
            )
        )
    )
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del frame[rng.randrange(len(frame)) :]
    elif kind == 3:
        return bytes([rng.randrange(1, 256)]) * rng.randrange(2000, 2500)
    elif kind == 4:
        return bytes(rng.randrange(1, 50))
    elif kind == 5:
        return encode(Packet(Command.BEGIN, 1, 0, bytes([rng.randrange(2)]))) + encode(
            Packet(Command.DATA, 2, 0, u32(0) + rng.randbytes(rng.randrange(500)))
        )
    return bytes(frame)


def test_noise_neither_stops_nor_resets_a_node(
    connect: Callable[[], SocketTransport],
    sea: Expected,
    pcm: list[Int16Array],
    record_property: Callable[[str, object], None],
) -> None:
    window = sea.log_mel(pcm[0])
    with Device(connect()) as device:
        device.embed_log_mel(window)
        before = device.statistics()
    rng = random.Random(NOISE_ROUNDS)
    for _ in range(NOISE_ROUNDS):
        transport = connect()
        for _ in range(200):
            transport.write(make_noise(rng))
            transport.read(0)
        transport.close()  # with answers, and half a frame, still on their way
        with Device(connect()) as device:
            now = device.statistics()
            assert now.requests > before.requests
            assert now.dropped_frames > before.dropped_frames
            assert now.windows >= before.windows
            np.testing.assert_array_equal(device.embed_log_mel(window), sea.embedding(window))
        before = now
    record_property("statistics", str(before))


@pytest.mark.parametrize("kind", [0, 1])
def test_a_host_that_dies_in_mid_upload_is_followed_by_another(
    connect: Callable[[], SocketTransport], sea: Expected, pcm: list[Int16Array], kind: int
) -> None:
    transport = connect()
    with Device(transport) as device:
        before = device.statistics()
        device.request(Command.BEGIN, bytes([kind]))
        device.request(Command.DATA, u32(0) + bytes(2000))
        frame = encode(Packet(Command.DATA, 3, 0, u32(2000) + b"\1" * 1000))
        transport.write(frame[:500])
    with Device(connect()) as device:
        window = sea.log_mel(pcm[2])
        np.testing.assert_array_equal(device.embed_log_mel(window), sea.embedding(window))
        after = device.statistics()
    # QEMU, and the system, lose what was not read when the connection closed: perhaps all of it.
    assert after.dropped_frames - before.dropped_frames in (0, 1)
    assert after.windows == before.windows + 1


def test_a_host_that_dies_while_its_window_is_computed_is_followed_by_another(
    connect: Callable[[], SocketTransport], sea: Expected, pcm: list[Int16Array]
) -> None:
    windows = [sea.log_mel(samples) for samples in pcm[:2]]
    # How long the request takes to reach the node depends on the machine.
    for pause_s in (0.1, 0.1, 0.1, 1, 10, 60):
        transport = connect()
        with Device(transport) as device:
            device.embed_log_mel(windows[0])
            before = device.statistics()
            device.request(Command.BEGIN, b"\1")
            for offset in range(0, windows[1].size, 2000):
                chunk = windows[1].tobytes()[offset : offset + 2000]
                device.request(Command.DATA, u32(offset) + chunk)
            transport.write(encode(Packet(Command.EMBED, 77)))
            time.sleep(pause_s)
        with Device(connect()) as device:
            # The request itself may have been lost with the connection.
            is_computed = device.statistics().windows > before.windows
            if is_computed:
                np.testing.assert_array_equal(device.log_mel(), windows[1])
            embedding = device.embed_log_mel(windows[0])
            np.testing.assert_array_equal(embedding, sea.embedding(windows[0]))
        if is_computed:
            return
    pytest.fail("the request was lost each time")


def test_requests_sent_at_once_are_answered_in_turn(
    connect: Callable[[], SocketTransport], sea: Expected, pcm: list[Int16Array]
) -> None:
    window = sea.log_mel(pcm[0])
    data = window.tobytes()
    requests = [Packet(Command.BEGIN, 1, body=b"\1")]
    for offset in range(0, len(data), 1500):
        requests.append(Packet(Command.DATA, 2, body=u32(offset) + data[offset : offset + 1500]))
    requests += [Packet(Command.EMBED, 3), Packet(Command.INFO, 4), Packet(Command.EMBED, 5)]
    requests += [Packet(99, 6), Packet(Command.STATISTICS, 7)]
    transport, decoder, answers = connect(), Decoder(), []
    transport.write(b"\0" + b"".join(map(encode, requests)))
    while len(answers) < len(requests):
        heard = transport.read(600)
        assert heard, "the node says nothing more"
        answers += decoder.feed(heard)
    transport.close()
    assert [(each.command, each.sequence) for each in answers] == [
        (each.command, each.sequence) for each in requests
    ]
    assert all(each.is_answer for each in answers)
    statuses = [each.status for each in answers]
    assert statuses == [0] * (len(requests) - 2) + [Refusal.COMMAND, 0]
    embeddings = [each.body for each in answers if each.command == Command.EMBED]
    assert embeddings == [sea.embedding(window).tobytes()] * 2


@pytest.mark.parametrize("is_read", [True, False])
def test_a_host_that_takes_nothing_loses_answers_and_nothing_else(
    emulator: Emulator, sea: Expected, pcm: list[Int16Array], is_read: bool
) -> None:
    device = Device(transport := emulator.connect())
    window = sea.log_mel(pcm[0])
    device.embed_log_mel(window)
    question = encode(Packet(Command.LOG_MEL, 0, body=u32(0, 2048)))
    # How long the board waits depends on how fast it is emulated; a host that reads may be slow.
    for pause_s in (0, 0, 0, 0) if is_read else (2, 8, 30, 90):
        before, count = device.statistics(), 20
        transport.write(question * count)
        time.sleep(pause_s)
        decoder, answers = Decoder(), []
        while data := transport.read(5):
            answers += decoder.feed(data)
        assert {answer.body for answer in answers} <= {window.tobytes()[:2048]}
        assert decoder.dropped <= 1
        after = device.statistics()
        assert after.requests - before.requests == count + 1
        assert after.dropped_frames == before.dropped_frames
        if (len(answers) == count) == is_read:
            break
    assert (len(answers) == count) == is_read
    np.testing.assert_array_equal(device.embed_log_mel(window), sea.embedding(window))
    device.close()
