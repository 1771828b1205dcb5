"""What the node's firmware computes and refuses, on the emulated Cortex-M7 and as a program."""

import random
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from helpers.boards.nodes import Expected, Int16Array, read_pcm, u32

from edgel3_tflm._version import __version__
from edgel3_tflm.converters.export.head import Head
from edgel3_tflm.device.client import Device, RefusedError
from edgel3_tflm.device.emulation import Emulator, Program
from edgel3_tflm.device.firmware import build_node
from edgel3_tflm.device.transports import (
    DeviceError,
)
from edgel3_tflm.device.wire import Command, Failure, Refusal
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.deployment import Deployment


def check_pcm(device: Device, expected: Expected, samples: Int16Array) -> None:
    embedding = device.embed_pcm(samples)
    window = device.log_mel()
    np.testing.assert_array_equal(embedding, expected.embedding(window))
    difference = np.abs(window.astype(int) - expected.log_mel(samples))
    # Float32 and float64 round differently if a value is halfway between two int8 values.
    assert difference.max() <= 1
    assert (difference != 0).mean() <= 0.01
    pair = [
        expected.real(each)[np.newaxis]
        for each in (embedding, expected.embedding(expected.log_mel(samples)))
    ]
    assert cosine_similarity(*pair)[0] >= 0.999


def test_a_node_says_what_it_is(device: Device, sea: Expected) -> None:
    info, spec = device.info, sea.deployment.variant.frontend
    assert info.version == __version__
    assert info.source_sha256 == sha256(sea.deployment.read_model("int8")).digest()[:16]
    assert (info.sample_rate_hz, info.window_samples) == (spec.sample_rate_hz, spec.window_samples)
    assert (info.mels, info.frames, info.embedding_size) == (spec.mels, spec.frames, 4)
    assert info.packed_bytes == len(sea.packed)
    assert info.classes == ()
    if info.board == "mps2-an500":
        # With closed ears, the levels are in the arena before the network runs.
        levels_bytes = 2 * spec.mels * spec.frames
        assert info.arena_bytes == max(
            plan_memory(sea.packed, widen=True).arena_bytes, levels_bytes
        )
        assert info.ticks_per_second == 25_000_000


def test_a_head_with_too_many_classes_is_refused_and_not_named(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    # The labels alone are longer than the largest answer.
    labels = tuple(f"a class with a long name, number {number}" for number in range(100))
    values = np.ones(len(labels), np.float32)
    weights = np.ones((len(labels), 4), np.int8)
    digest = tiny_int8.manifest["artefacts"]["int8.tflite"]["sha256"]
    head = Head("softmax", labels, weights, values, values, 0, digest, {})
    (tmp_path / "head").mkdir()
    for name, data in head.write_c().items():
        (tmp_path / "head" / name).write_bytes(data)
    program = build_node(tiny_int8.directory, tmp_path / "build", "host", head=tmp_path / "head")

    with Program(program) as running, Device(running.connect()) as device:
        assert device.info.classes == ()
        assert device.self_test() == Failure.MEMORY_TOO_SMALL


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
    assert data + bss <= 380_000  # with a stack of 16 KiB
    samples, *_ = read_pcm(clips[:1], standin)
    with Emulator(firmware) as running, running.open_device() as device:
        assert device.info.arena_bytes >= 2 * device.info.mels * device.info.frames
        assert device.self_test() == Failure(0)
        check_pcm(device, expected, samples)
        window = expected.log_mel(samples)
        np.testing.assert_array_equal(device.embed_log_mel(window), expected.embedding(window))


def test_what_a_node_hears_is_what_it_embeds(emulator: Emulator, pcm: list[Int16Array]) -> None:
    with emulator.open_device() as device:
        expected = [device.embed_pcm(samples) for samples in pcm[:2]]
        emulator.play(np.concatenate(pcm[:3]))
        stream = device.stream()
        first, second = next(stream), next(stream)
        with pytest.raises(RefusedError, match="it is streaming"):
            device.embed_pcm(pcm[0])
        assert device.statistics().windows >= second.number
        stream.close()
        for event, embedding in zip((first, second), expected, strict=True):
            np.testing.assert_array_equal(event.embedding, embedding)
            assert event.scores.shape == (0,)
        assert second.number == first.number + 1
        assert second.milliseconds > first.milliseconds
        np.testing.assert_array_equal(device.embed_pcm(pcm[0]), expected[0])


def test_a_microphone_that_says_nothing_is_an_error(emulator: Emulator) -> None:
    with emulator.open_device() as device:
        with pytest.raises(DeviceError, match=r"within 0\.2 s, none came; check its microphone"):
            next(device.stream(timeout_s=0.2))
        assert device.self_test() == Failure(0)  # it has stopped streaming


def refusal_of(device: Device, command: int, body: bytes = b"") -> Refusal | None:
    try:
        device.request(command, body, timeout_s=600)
    except RefusedError as error:
        return error.refusal
    return None


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
    assert device.self_test() == Failure(0)  # it discards the window
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
    rng = random.Random(kind)
    while there < len(data):
        offset = 2 * rng.randint(0, there // 2)
        chunk = data[offset : offset + 2 * rng.randint(0, 1022)]
        for _ in range(rng.randint(1, 2)):
            answer = device.request(Command.DATA, u32(offset) + chunk)
            there = max(there, offset + len(chunk))
            assert answer == u32(there)
        if rng.random() < 0.8:  # mostly, continue with the next bytes
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
