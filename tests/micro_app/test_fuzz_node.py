"""What a node receives and hears, under libFuzzer, AddressSanitizer and UBSan."""

import struct
from pathlib import Path

import pytest
from helpers.boards.fuzzing import change_source, fuzz

from edgel3_tflm.device.wire import Command


def entry(content: bytes, kind: int = 0) -> bytes:
    """Write an entry as fuzz_node.c has it."""
    return struct.pack("<H", len(content) | kind) + content


def request(command: int, body: bytes = b"") -> bytes:
    return entry(bytes([command, 7]) + body)


def sound(samples: int) -> bytes:
    return entry(b"\1\2" * samples, 0x4000)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A window of either kind, one that is heard, the rest; a node whose model is refused."""
    questions = [Command.INFO, Command.SCORES, Command.STATISTICS, Command.SELF_TEST]
    pcm = request(Command.BEGIN, b"\0") + request(Command.DATA, bytes(4 + 80))
    log_mel = request(Command.BEGIN, b"\1") + request(Command.DATA, bytes(4 + 40))
    embedded = request(Command.EMBED) + request(Command.LOG_MEL, struct.pack("<II", 30, 10))
    on, off = request(Command.STREAM, b"\1"), request(Command.STREAM, b"\0")
    missed = entry(b"", 0x2000)
    inputs = [
        pcm + embedded + b"".join(map(request, questions)),
        log_mel + embedded + b"".join(map(request, questions)),
        on + sound(25) + sound(100) + missed + sound(39) + request(Command.INFO) + off,
        entry(b"\3\1\2\0\0\x05abcd\0", 0x8000) + pcm,
    ]
    heard = on + sound(25) + sound(100) + sound(39) + missed + sound(80) + off
    directory = tmp_path / "corpus"
    directory.mkdir()
    # As it is, with a refused model, and with open ears that hear 1 or 20 samples a row.
    settings = (0, 1, 2 | 1 << 2, 2 | 20 << 2, 2 | 20 << 2 | 1 << 7)
    for number, content in enumerate([*inputs, heard]):
        for setting in settings:
            (directory / f"{number}-{setting}").write_bytes(bytes([setting]) + content)
    return directory


def test_whatever_comes_a_node_keeps_to_the_rules_and_to_its_memory(corpus: Path) -> None:
    result = fuzz("fuzz_node", corpus, max_bytes=8192)
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.parametrize(
    ("check", "without", "finding"),
    [
        ("          count > window_values(node) - offset) {", "          0) {", "AddressSanitizer"),
        ("length > expected - offset", "0", "AddressSanitizer"),
        ("node->requests += 1u;", "if (status == 6) continue;", "ERROR: libFuzzer"),
    ],
)
def test_the_fuzzer_finds_what_is_missing(
    corpus: Path, tmp_path: Path, check: str, without: str, finding: str
) -> None:
    changed = change_source(tmp_path, "edgel3_node.c", check, without)
    result = fuzz("fuzz_node", corpus, max_bytes=8192, changed=changed)
    assert result.returncode != 0
    assert finding in result.stderr
