"""The wire in C and in Python: the same frames, and no packet from a damaged one."""

import ctypes
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgel3_tflm.device.wire import (
    MAX_BODY,
    Command,
    Decoder,
    Info,
    LiveEvent,
    Packet,
    Statistics,
    WireError,
    encode,
)

SOURCES = Path(__file__).parents[2] / "micro_app" / "lib" / "edgel3" / "src"
# A packet of the greatest length, its COBS, and the zero.
MAX_FRAME = 3 + MAX_BODY + 4 + 9 + 1
# EDGEL3_WIRE_BODY_OFFSET: the packet ends where the frame's memory ends.
BODY_OFFSET = MAX_FRAME - MAX_BODY - 4

settings.register_profile("wire", deadline=None, derandomize=True, max_examples=150)
settings.load_profile("wire")


class CPacket(ctypes.Structure):
    _fields_ = (
        ("command", ctypes.c_uint8),
        ("sequence", ctypes.c_uint8),
        ("status", ctypes.c_uint8),
        ("body", ctypes.c_void_p),
        ("length", ctypes.c_uint32),
    )


class CDecoderState(ctypes.Structure):
    _fields_ = (
        ("frame", ctypes.c_uint8 * MAX_FRAME),
        ("length", ctypes.c_uint32),
        ("dropped", ctypes.c_uint32),
    )


class CWire:
    """The C library's encoder and decoder, with Python's names."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def encode(self, packet: Packet) -> bytes:
        frame = (ctypes.c_uint8 * MAX_FRAME)()
        body = ctypes.create_string_buffer(packet.body, len(packet.body) + 1)
        encoded = self._encode(packet, frame, ctypes.addressof(body))
        # Again, with the body in the memory of the frame.
        in_place = ctypes.addressof(frame) + BODY_OFFSET
        ctypes.memmove(in_place, packet.body, len(packet.body))
        assert self._encode(packet, frame, in_place) == encoded
        return encoded

    def _encode(self, packet: Packet, frame: "ctypes.Array[ctypes.c_uint8]", body: int) -> bytes:
        command = packet.command | 0x80 * packet.is_answer
        c_packet = CPacket(
            command,
            packet.sequence,
            packet.status,
            body,
            len(packet.body),
        )
        size = self._library.edgel3_wire_encode(ctypes.byref(c_packet), frame)
        return bytes(frame[:size])

    def decode(self, data: bytes) -> tuple[list[Packet], int]:
        """Packets, and how many frames were dropped."""
        state, packet, packets = CDecoderState(), CPacket(), []
        arguments = ctypes.byref(state), ctypes.byref(packet)
        for byte in data:
            if self._library.edgel3_wire_decode(arguments[0], ctypes.c_uint8(byte), arguments[1]):
                body = ctypes.string_at(packet.body, packet.length)
                is_answer = bool(packet.command & 0x80)
                fields = packet.command & 0x7F, packet.sequence, packet.status, body, is_answer
                packets.append(Packet(*fields))
        return packets, state.dropped


@pytest.fixture(scope="module")
def c_wire(tmp_path_factory: pytest.TempPathFactory) -> CWire:
    library = tmp_path_factory.mktemp("wire") / "libwire.so"
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.fail("needs gcc; on Debian: apt-get install gcc")
    sources = SOURCES / "edgel3_wire.c", SOURCES / "edgel3_packed.c"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", *sources, "-o", library], check=True)
    return CWire(library)


def decode(data: bytes) -> tuple[list[Packet], int]:
    decoder = Decoder()
    return decoder.feed(data), decoder.dropped


byte = st.integers(0, 255)
# Runs make blocks of COBS that are full, which random bytes hardly ever do.
runs = st.lists(
    st.tuples(st.sampled_from([b"\0", b"\1", b"\xff"]), st.integers(1, 600)), max_size=5
).map(lambda pairs: b"".join(value * count for value, count in pairs)[:MAX_BODY])
bodies = st.one_of(st.binary(max_size=64), st.binary(max_size=MAX_BODY), runs)
packets = st.builds(Packet, st.integers(0, 127), byte, byte, bodies, st.booleans())


def test_a_frame_is_what_is_written_above_the_code() -> None:
    content = bytes([Command.BEGIN, 7, 0, 1])
    checksum = zlib.crc32(content).to_bytes(4, "little")
    assert 0 not in checksum
    assert encode(Packet(Command.BEGIN, 7, body=b"\1")) == (
        b"\3" + content[:2] + b"\6" + content[3:] + checksum + b"\0"
    )


@given(packets)
@example(Packet(1, 1))
@example(Packet(127, 255, 255, b"\xff" * MAX_BODY, is_answer=True))
@example(Packet(1, 1, 1, b"\0" * MAX_BODY))
def test_both_write_the_same_frame_and_read_it_back(c_wire: CWire, packet: Packet) -> None:
    frame = encode(packet)
    assert len(frame) <= MAX_FRAME
    assert frame.index(0) == len(frame) - 1
    assert c_wire.encode(packet) == frame
    assert decode(frame) == c_wire.decode(frame) == ([packet], 0)


@pytest.mark.parametrize("length", [*range(246, 256), *range(500, 510), MAX_BODY])
@pytest.mark.parametrize("value", [b"\0", b"\1"])
def test_full_blocks_are_the_same_in_both(c_wire: CWire, length: int, value: bytes) -> None:
    for other in range(3):  # a zero, so far from the end
        body = value * (length - other) + bytes(min(1, other)) + value * max(0, other - 1)
        frame = encode(Packet(1, 2, 3, body))
        assert c_wire.encode(Packet(1, 2, 3, body)) == frame
        assert decode(frame) == c_wire.decode(frame) == ([Packet(1, 2, 3, body)], 0)


@given(st.lists(packets, max_size=4), st.data())
def test_pieces_of_any_size_give_the_same_packets(sent: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = Decoder()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    assert found == sent
    assert decoder.dropped == 0


@given(packets, st.data())
def test_a_damaged_frame_gives_no_other_packet(
    c_wire: CWire, packet: Packet, data: st.DataObject
) -> None:
    frame = bytearray(encode(packet))
    kind = data.draw(st.sampled_from(["bit", "cut", "doubled", "inserted", "missing"]))
    position = data.draw(st.integers(0, len(frame) - 2))
    length = data.draw(st.integers(1, 40))
    if kind == "bit":
        frame[position] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del frame[position:]
    elif kind == "doubled":
        frame[position:position] = frame[position : position + length]
    elif kind == "inserted":
        frame[position:position] = data.draw(st.binary(min_size=1, max_size=8))
    else:
        del frame[position : position + length]
    following = Packet(3, 9, body=b"next")
    stream = bytes(frame) + b"\0" + encode(following)
    found, dropped = decode(stream)
    # Damage beside a frame leaves it whole, and it may be the whole frame that is doubled.
    assert found[-1] == following
    assert found[:-1] in ([], [packet], [packet, packet])
    assert (found, dropped) == c_wire.decode(stream)


noise = st.one_of(
    st.binary(max_size=200),
    packets.map(encode),
    st.tuples(packets.map(encode), byte, st.integers(0, 63)).map(
        lambda damage: damage[0][: damage[2]] + bytes([damage[1]]) + damage[0][damage[2] + 1 :]
    ),
    st.integers(MAX_FRAME - 3, MAX_FRAME + 300).map(lambda length: b"\7" * length),
    st.just(b"\0"),
)


@given(st.lists(noise, max_size=5).map(b"".join))
def test_both_make_the_same_of_any_bytes_and_recover_at_the_next_zero(
    c_wire: CWire, stream: bytes
) -> None:
    following = Packet(5, 200, body=b"\0after\0")
    found, dropped = decode(stream + b"\0" + encode(following))
    assert (found, dropped) == c_wire.decode(stream + b"\0" + encode(following))
    assert found[-1] == following
    assert len(found) + dropped <= (stream + b"\0").count(0) + 1


@pytest.mark.parametrize("length", [MAX_FRAME - 2, MAX_FRAME - 1, MAX_FRAME, 10 * MAX_FRAME])
def test_a_frame_that_is_too_long_is_dropped_once(c_wire: CWire, length: int) -> None:
    stream = b"\1" * length + b"\0"
    assert decode(stream) == c_wire.decode(stream) == ([], 1)


def test_a_packet_beyond_the_greatest_is_no_packet(c_wire: CWire) -> None:
    from cobs import cobs

    content = bytes(3 + MAX_BODY + 1)
    stream = cobs.encode(content + zlib.crc32(content).to_bytes(4, "little")) + b"\0"
    assert len(stream) <= MAX_FRAME
    assert decode(stream) == c_wire.decode(stream) == ([], 1)


@pytest.mark.parametrize("size", range(7))
def test_a_packet_below_the_least_is_no_packet(c_wire: CWire, size: int) -> None:
    from cobs import cobs

    content = bytes(max(0, size - 4))
    stream = cobs.encode(content + zlib.crc32(content).to_bytes(4, "little")[:size]) + b"\0"
    assert decode(stream) == c_wire.decode(stream) == ([], 1)


@pytest.mark.parametrize("wrong", [{"body": bytes(MAX_BODY + 1)}, {"command": 128}])
def test_what_does_not_fit_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="2048 bytes of body"):
        encode(replace(Packet(1, 1), **wrong))  # type: ignore[arg-type]


INFO = struct.pack(
    "<HHII4Hfi16s4I", 2, 2, 8000, 8000, 64, 50, 64, 0, 0.25, -128, b"s" * 16, 4, 5, 6, 7
)


def test_info_is_read_field_by_field() -> None:
    info = Info.parse(INFO + b"board\x000.1.0\0dog\0\xc3\xa9t\xc3\xa9\0")
    assert info == Info(
        board="board",
        version="0.1.0",
        sample_rate_hz=8000,
        window_samples=8000,
        mels=64,
        frames=50,
        embedding_size=64,
        embedding_scale=0.25,
        embedding_zero_point=-128,
        source_sha256=b"s" * 16,
        packed_bytes=4,
        arena_bytes=5,
        window_bytes=6,
        ticks_per_second=7,
        classes=("dog", "été"),
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "a whole description of the node, got 0 bytes"),
        (INFO, "a whole description of the node, got 60 bytes"),
        (b"\1" + INFO[1:], "version 2 of the protocol, got version 1"),
        (INFO + b"board\x000.1.0\0dog\0", "names of 2 classes, got 1"),
    ],
)
def test_info_that_is_not_whole_is_an_error(body: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        Info.parse(body)


@given(st.binary(max_size=200))
def test_no_body_is_more_than_a_wire_error(body: bytes) -> None:
    info = Info.parse(INFO + b"board\x000.1.0\0a\0b\0")
    for parse in (Info.parse, Statistics.parse, lambda each: LiveEvent.parse(each, info)):
        try:
            parse(body)
        except WireError as error:
            assert "expected" in str(error)  # noqa: PT017


def test_the_coverage_is_the_share_of_sound_that_is_in_windows() -> None:
    body = struct.pack("<6I2Q", 1, 2, 3, 1000, 5, 6, 6 * 2**40, 2 * 2**40 - 1000)
    statistics = Statistics.parse(body)
    assert (statistics.windows, statistics.missed_samples) == (3, 1000)
    assert statistics.coverage == 0.75
    assert Statistics.parse(bytes(40)).coverage is None
    with pytest.raises(WireError, match="statistics of 40 bytes, got 24"):
        Statistics.parse(body[:24])


def test_a_live_event_is_read_part_by_part() -> None:
    info = Info.parse(INFO + b"board\x000.1.0\0a\0b\0")
    embedding = np.arange(-32, 32, dtype=np.int8)
    figures = (3, 4000, 2**40, 5, 6, 7)
    head = struct.pack("<IIQIII", *figures)
    body = head + embedding.tobytes() + struct.pack("<ff", 0.25, 0.75)
    event = LiveEvent.parse(body, info)
    assert (event.number, event.milliseconds, event.first_sample) == figures[:3]
    assert (event.missed_samples, event.frontend_ticks, event.engine_ticks) == figures[3:]
    np.testing.assert_array_equal(event.embedding, embedding)
    np.testing.assert_array_equal(event.scores, [0.25, 0.75])
    with pytest.raises(WireError, match="expected a live event of 100 bytes, got 99"):
        LiveEvent.parse(body[:-1], info)
