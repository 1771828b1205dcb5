"""The node: its firmware on the emulated Cortex-M7, and its program, as a host sees them.

More noise than the usual 12 connections of it: EDGEL3_NOISE_ROUNDS=1000.
"""

import os
import pty
import random
import re
import shutil
import socket
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.ports import pump

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.device.client import Device, RefusedError
from edgel3_tflm.device.emulation import Emulator, Program
from edgel3_tflm.device.firmware import ToolError, build_node, find_sources
from edgel3_tflm.device.transports import (
    DeviceError,
    SocketTransport,
    Transport,
    open_transport,
)
from edgel3_tflm.device.wire import Command, Decoder, Failure, Packet, Refusal, encode
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.engine import Engine
from edgel3_tflm.runtime.packed import plan_memory

Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]

NOISE_ROUNDS = int(os.environ.get("EDGEL3_NOISE_ROUNDS", "12"))


class Expected:
    """What a deployment's node must answer, from the host's engine and frontend."""

    def __init__(self, deployment: Deployment) -> None:
        packed = deployment.read_packed_model()
        assert packed is not None
        self.deployment = deployment
        self.packed = packed
        self._engine = Engine(packed)
        self.input = deployment.embedder("int8")._interpreter.input

    def embedding(self, window: Int8Array) -> Int8Array:
        return self._engine.run(window)

    def log_mel(self, samples: Int16Array) -> Int8Array:
        decibels = log_mel(
            samples[np.newaxis] / np.float32(32768), self.deployment.variant.frontend
        )
        return self.deployment.input_map.apply(decibels, self.input)[0, :, :, 0]

    def real(self, embedding: Int8Array) -> npt.NDArray[np.float32]:
        info = self._engine.info
        return np.float32(info.output_scale) * (
            embedding.astype(np.float32) - info.output_zero_point
        )


def read_pcm(clips: list[Path], deployment: Deployment) -> list[Int16Array]:
    """Windows of clips from their middle, int16, and silence."""
    spec = deployment.variant.frontend
    rate, size = spec.sample_rate_hz, spec.window_samples
    pcm = [
        np.clip(np.round(windows[len(windows) // 2] * 32768), -32768, 32767).astype(np.int16)
        for _, windows in read_windows(clips, sample_rate_hz=rate, window_samples=size, hop_s=0.5)
    ]
    return [*pcm, np.zeros(size, np.int16)]


@pytest.fixture(scope="module")
def sea(tiny_int8: Deployment) -> Expected:
    return Expected(tiny_int8)


@pytest.fixture(scope="module")
def clips(sounds: Path) -> list[Path]:
    found = find_clips([sounds])
    return [found[index] for index in (0, len(found) // 3, len(found) // 2, len(found) - 1)]


@pytest.fixture(scope="module")
def pcm(clips: list[Path], sea: Expected) -> list[Int16Array]:
    return read_pcm(clips, sea.deployment)


@pytest.fixture(scope="module")
def emulator(sea: Expected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    firmware = build_node(sea.deployment.directory, tmp_path_factory.mktemp("firmware"))
    with Emulator(firmware) as running:
        yield running


@pytest.fixture(scope="module")
def program(sea: Expected, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node as a program under AddressSanitizer and UndefinedBehaviorSanitizer."""
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -g"
    return build_node(
        sea.deployment.directory,
        tmp_path_factory.mktemp("program"),
        "host",
        options=(f"-DCMAKE_C_FLAGS={flags}",),
    )


@pytest.fixture(params=["emulator", "program"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[], SocketTransport]]:
    """Connect to a node: the emulated board, and then the program."""
    if request.param == "emulator":
        running: Emulator = request.getfixturevalue("emulator")
        yield running.connect
        assert running.failure() is None
    else:
        started = Program(request.getfixturevalue("program"))
        yield started.connect
        assert started.close() == ""


@pytest.fixture
def device(connect: Callable[[], SocketTransport]) -> Iterator[Device]:
    with Device(connect()) as found:
        yield found


def check_pcm(device: Device, expected: Expected, samples: Int16Array) -> None:
    embedding = device.embed_pcm(samples)
    window = device.log_mel()
    np.testing.assert_array_equal(embedding, expected.embedding(window))
    difference = np.abs(window.astype(int) - expected.log_mel(samples))
    # A step is decided by rounding: float32 and float64 differ where a value lies on its edge.
    assert difference.max() <= 1
    assert (difference != 0).mean() <= 0.01
    pair = [
        expected.real(each)[np.newaxis]
        for each in (embedding, expected.embedding(expected.log_mel(samples)))
    ]
    assert cosine_similarity(*pair)[0] >= 0.999


# ---- what a node computes ----


def test_a_node_says_what_it_is(device: Device, sea: Expected) -> None:
    info, spec = device.info, sea.deployment.variant.frontend
    assert info.version == __version__
    assert info.source_sha256 == sha256(sea.deployment.read_model("int8")).digest()[:16]
    assert (info.sample_rate_hz, info.window_samples) == (spec.sample_rate_hz, spec.window_samples)
    assert (info.mels, info.frames, info.embedding_size) == (spec.mels, spec.frames, 4)
    assert info.packed_bytes == len(sea.packed)
    assert info.classes == ()
    if info.board == "mps2-an500":
        # The log-mel values lie in the arena before the network runs.
        log_mel_bytes = 4 * spec.mels * spec.frames
        assert info.arena_bytes == max(plan_memory(sea.packed).arena_bytes, log_mel_bytes)
        assert info.ticks_per_second == 25_000_000


def test_a_node_s_own_test_finds_nothing(device: Device) -> None:
    assert device.self_test() == Failure(0)


def test_log_mel_input_gives_the_bytes_of_the_host_s_engine(
    device: Device, sea: Expected, pcm: list[Int16Array]
) -> None:
    before = device.statistics()
    for samples in pcm:
        window = sea.log_mel(samples)
        np.testing.assert_array_equal(device.embed_log_mel(window), sea.embedding(window))
        np.testing.assert_array_equal(device.log_mel(), window)
    after = device.statistics()
    assert after.windows - before.windows == len(pcm)
    assert after.engine_ticks > 0
    assert after.frontend_ticks == 0


def test_samples_give_the_log_mel_of_the_host_but_for_rounding(
    device: Device, sea: Expected, pcm: list[Int16Array]
) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(-32768, 32767, len(pcm[0]), np.int16, endpoint=True)
    for samples in [*pcm, noise]:
        check_pcm(device, sea, samples)
    assert device.statistics().frontend_ticks > 0


def test_the_95_45_network_on_the_emulated_board(
    standin: Deployment, clips: list[Path], tmp_path: Path
) -> None:
    expected = Expected(standin)
    firmware = build_node(standin.directory, tmp_path / "build")
    sizes = subprocess.run(
        ["arm-none-eabi-size", firmware], check=True, capture_output=True, text=True
    )
    text, data, bss = map(int, sizes.stdout.splitlines()[1].split()[:3])
    assert len(expected.packed) < text + data <= 600_000
    assert data + bss <= 320_000  # with a stack of 16 KiB
    samples, *_ = read_pcm(clips[:1], standin)
    with Emulator(firmware) as running, Device(running.connect()) as device:
        assert device.info.arena_bytes >= 4 * device.info.mels * device.info.frames
        assert device.self_test() == Failure(0)
        check_pcm(device, expected, samples)
        window = expected.log_mel(samples)
        np.testing.assert_array_equal(device.embed_log_mel(window), expected.embedding(window))


def test_what_a_node_hears_is_what_it_embeds(emulator: Emulator, pcm: list[Int16Array]) -> None:
    with Device(emulator.connect()) as device, emulator.connect_microphone() as microphone:
        expected = [device.embed_pcm(samples) for samples in pcm[:2]]
        sound = np.concatenate(pcm[:3]).astype("<i2").tobytes()
        stream = device.stream()
        sender = threading.Thread(target=microphone.sendall, args=(sound,))
        sender.start()
        first, second = next(stream), next(stream)
        with pytest.raises(RefusedError, match="it is streaming"):
            device.embed_pcm(pcm[0])
        assert device.statistics().windows >= second.number
        sender.join()
        stream.close()
        for event, embedding in zip((first, second), expected, strict=True):
            np.testing.assert_array_equal(event.embedding, embedding)
            assert event.scores.shape == (0,)
        assert second.number == first.number + 1
        assert second.milliseconds > first.milliseconds
        np.testing.assert_array_equal(device.embed_pcm(pcm[0]), expected[0])


def test_a_microphone_that_says_nothing_is_an_error(emulator: Emulator) -> None:
    with Device(emulator.connect()) as device:
        with pytest.raises(DeviceError, match=r"within 0\.2 s, none came; check its microphone"):
            next(device.stream(timeout_s=0.2))
        assert device.self_test() == Failure(0)  # it streams no longer


# ---- what a node refuses ----


def refusal_of(device: Device, command: int, body: bytes = b"") -> Refusal | None:
    try:
        device.request(command, body, timeout_s=600)
    except RefusedError as error:
        return error.refusal
    return None


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


@pytest.mark.parametrize("command", [0, 10, 11, 64, 127])
def test_an_unknown_command_is_refused(device: Device, command: int) -> None:
    assert refusal_of(device, command) == Refusal.COMMAND


@pytest.mark.parametrize(
    ("command", "lengths"),
    [
        (Command.INFO, (1, 2048)),
        (Command.BEGIN, (0, 2)),
        (Command.DATA, (0, 3)),
        (Command.EMBED, (1, 4)),
        (Command.LOG_MEL, (0, 7, 9)),
        (Command.SCORES, (1,)),
        (Command.STATISTICS, (1,)),
        (Command.STREAM, (0, 2)),
        (Command.SELF_TEST, (1,)),
    ],
)
def test_a_body_of_another_length_is_refused(
    device: Device, command: int, lengths: tuple[int, ...]
) -> None:
    for length in lengths:
        assert refusal_of(device, command, bytes(length)) == Refusal.LENGTH


def test_a_field_out_of_range_is_refused(
    device: Device, sea: Expected, pcm: list[Int16Array]
) -> None:
    assert refusal_of(device, Command.BEGIN, b"\2") == Refusal.VALUE
    assert refusal_of(device, Command.STREAM, b"\2") == Refusal.VALUE
    size = device.info.mels * device.info.frames
    device.embed_log_mel(sea.log_mel(pcm[0]))
    for offset, count in [(0, 2049), (size, 1), (size - 1, 2), (2**32 - 1, 1), (1, 2**32 - 1)]:
        assert refusal_of(device, Command.LOG_MEL, u32(offset, count)) == Refusal.VALUE
    assert device.request(Command.LOG_MEL, u32(size, 0)) == b""
    device.request(Command.BEGIN, b"\1")
    for offset, length in [(size, 1), (size + 1, 0), (2**32 - 1, 2)]:
        body = u32(offset) + bytes(length)
        assert refusal_of(device, Command.DATA, body) == Refusal.VALUE
    device.request(Command.BEGIN, b"\0")
    assert refusal_of(device, Command.DATA, u32(0) + bytes(3)) == Refusal.VALUE
    assert refusal_of(device, Command.DATA, u32(1) + bytes(2)) == Refusal.OFFSET


def test_what_comes_too_early_is_refused(device: Device) -> None:
    assert device.self_test() == Failure(0)  # it forgets the window
    for command, body in [
        (Command.DATA, u32(0)),
        (Command.EMBED, b""),
        (Command.LOG_MEL, u32(0, 1)),
    ]:
        assert refusal_of(device, command, body) == Refusal.STATE
    device.request(Command.BEGIN, b"\1")
    device.request(Command.DATA, u32(0) + bytes(100))
    assert refusal_of(device, Command.EMBED) == Refusal.STATE
    assert refusal_of(device, Command.DATA, u32(101) + b"\0") == Refusal.OFFSET
    assert refusal_of(device, Command.LOG_MEL, u32(0, 1)) == Refusal.STATE


def test_what_is_not_there_is_refused(device: Device) -> None:
    assert refusal_of(device, Command.SCORES) == Refusal.ABSENT
    if device.info.board == "host":
        assert refusal_of(device, Command.STREAM, b"\1") == Refusal.ABSENT


@pytest.mark.parametrize("kind", [0, 1])
def test_chunks_that_come_again_or_overlap_are_taken_once(
    device: Device, sea: Expected, pcm: list[Int16Array], kind: int
) -> None:
    samples = pcm[1]
    data = samples.astype("<i2").tobytes() if kind == 0 else sea.log_mel(samples).tobytes()
    expected = device.embed_pcm(samples) if kind == 0 else sea.embedding(sea.log_mel(samples))
    device.request(Command.BEGIN, bytes([kind]))
    there = 0
    rng = random.Random(kind)  # noqa: S311
    while there < len(data):
        offset = 2 * rng.randint(0, there // 2)
        chunk = data[offset : offset + 2 * rng.randint(0, 1022)]
        for _ in range(rng.randint(1, 2)):
            answer = device.request(Command.DATA, u32(offset) + chunk)
            there = max(there, offset + len(chunk))
            assert answer == u32(there)
        if rng.random() < 0.8:  # on, more often than not
            answer = device.request(Command.DATA, u32(there) + data[there : there + 700])
            there = min(len(data), there + 700)
            assert answer == u32(there)
    for _ in range(2):
        embedding = device.request(Command.EMBED, timeout_s=600)
        np.testing.assert_array_equal(np.frombuffer(embedding, np.int8), expected)


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "failure"),
    [
        ("edgel3_packed_model.h", "(CRC32 0x)", r"\g<1>f", Failure.OTHER_EMBEDDING),
        ("edgel3_packed_model.c", r"(\{\n)0x45", r"\g<1>0x44", Failure.MODEL_REFUSED),
        ("edgel3_model_frontend.c", r"\d+(,  // hop_samples)", r"3\g<1>", Failure.MODEL_REFUSED),
    ],
)
def test_a_node_with_other_files_answers_and_says_so(
    sea: Expected, tmp_path: Path, name: str, pattern: str, replacement: str, failure: Failure
) -> None:
    directory = tmp_path / "deployment"
    shutil.copytree(sea.deployment.directory, directory)
    source = directory / name
    text, count = re.subn(pattern, replacement, source.read_text(), count=1)
    assert count == 1
    # A digit more: eight of them are left.
    source.write_text(re.sub(r"CRC32 0xf(\w{7})\w", r"CRC32 0xf\1", text))
    options = ("-DCMAKE_BUILD_TYPE=Debug",)
    running = Program(build_node(directory, tmp_path / "build", "host", options=options))
    with Device(running.connect()) as device:
        assert device.self_test() == failure
        if failure == Failure.MODEL_REFUSED:
            with pytest.raises(RefusedError, match="run the self-test"):
                device.embed_pcm(np.zeros(device.info.window_samples, np.int16))
    running.close()


# ---- what a node survives ----


def make_noise(rng: random.Random) -> bytes:
    """Whatever a bad line, or a bad host, may send."""
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
    rng = random.Random(NOISE_ROUNDS)  # noqa: S311
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


# ---- what the client survives ----


class BadLine:
    """A transport that loses, damages and delays in either direction."""

    def __init__(self, inner: Transport, seed: int) -> None:
        self._inner = inner
        self._rng = random.Random(seed)  # noqa: S311
        self._late = b""

    def write(self, data: bytes) -> None:
        self._inner.write(self._spoil(data))

    def read(self, timeout_s: float) -> bytes:
        data = self._spoil(self._inner.read(timeout_s))
        if self._rng.random() < 0.05:  # behind the next
            data, self._late = self._late, data
        return data

    def close(self) -> None:
        self._inner.close()

    def _spoil(self, data: bytes) -> bytes:
        kind = self._rng.randrange(40)
        if kind == 0 or not data:
            return b""
        at = self._rng.randrange(len(data))
        if kind == 1:
            return data[:at]
        if kind == 2:
            return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]
        if kind == 3:
            return data + data[at:]
        return data


@pytest.mark.parametrize("seed", range(3))
def test_embeddings_over_a_bad_line_are_right(
    program: Path, sea: Expected, pcm: list[Int16Array], seed: int
) -> None:
    running = Program(program)
    line = BadLine(running.connect(), seed)
    with Device(line, timeout_s=0.1, compute_timeout_s=1, attempts=1000) as device:
        for samples in pcm:
            window = sea.log_mel(samples)
            np.testing.assert_array_equal(device.embed_log_mel(window), sea.embedding(window))
            embedding = device.embed_pcm(samples)
            np.testing.assert_array_equal(embedding, sea.embedding(device.log_mel()))
        assert device.resent > 0
    assert running.close() == ""


def test_a_connection_that_is_closed_is_an_error(program: Path) -> None:
    running = Program(program)
    device = Device(running.connect())
    running._process.kill()
    with pytest.raises(DeviceError, match="lost the connection"):
        device.statistics()
    running.close()


def test_a_node_behind_a_tcp_port(program: Path) -> None:
    with Program(program) as running, socket.create_server(("127.0.0.1", 0)) as server:
        port = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        transport = open_transport(port)
        client, _ = server.accept()
        with client, running._ours.dup() as node:
            pump(lambda: client.recv(4096), node.sendall)
            pump(lambda: node.recv(4096), client.sendall)
            device = Device(transport)
            assert device.self_test() == Failure(0)
            device.close()


def test_a_node_behind_a_serial_port(program: Path, sea: Expected, pcm: list[Int16Array]) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    with Program(program) as running, running._ours.dup() as node:
        pump(lambda: os.read(ours, 4096), node.sendall)
        pump(lambda: node.recv(1024), lambda data: os.write(ours, data))
        window = sea.log_mel(pcm[0])
        with Device(open_transport(os.ttyname(theirs))) as device:
            np.testing.assert_array_equal(device.embed_log_mel(window), sea.embedding(window))
    os.close(theirs)


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("/dev/ttyNONE0", "expected a serial port, or tcp:HOST:PORT; it cannot be opened"),
        ("tcp:127.0.0.1", "expected tcp:HOST:PORT"),
        ("tcp:127.0.0.1:0", "expected tcp:HOST:PORT"),
        ("tcp::99", "expected tcp:HOST:PORT"),
        ("tcp:127.0.0.1:1", "expected a node that listens there, cannot connect"),
    ],
)
def test_a_port_that_cannot_be_opened_is_an_error(port: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        open_transport(port)


# ---- building and starting ----


@pytest.mark.parametrize(("budget", "compiles"), [(30_000, True), (25_000, False)])
def test_memory_beyond_the_budget_does_not_compile(
    sea: Expected, budget: int, compiles: bool
) -> None:
    micro_app = find_sources()
    includes = [f"-I{path}" for path in (micro_app / "lib/edgel3/src", sea.deployment.directory)]
    done = subprocess.run(
        [
            *("gcc", "-fsyntax-only", f"-DEDGEL3_NODE_RAM_BUDGET_BYTES={budget}u"),
            *(*includes, micro_app / "boards/host/node.c"),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == compiles
    assert ("edgel3_node_needs_more_ram_than_its_budget" in done.stderr) != compiles


def test_a_directory_that_is_no_deployment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"expected edgel3_packed_model\.c, which"):
        build_node(tmp_path, tmp_path / "build", "host")


def test_a_missing_tool_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="apt-get install gcc-arm-none-eabi"):
        build_node(tmp_path, tmp_path / "build")
    with pytest.raises(ToolError, match="apt-get install cmake"):
        build_node(tmp_path, tmp_path / "build", "host")
    with pytest.raises(ToolError, match="apt-get install qemu-system-arm"):
        Emulator(tmp_path / "node.elf")


def test_firmware_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    with (
        Emulator(tmp_path / "node.elf") as running,
        pytest.raises(DeviceError, match="the emulated board"),
    ):
        Device(running.connect())
