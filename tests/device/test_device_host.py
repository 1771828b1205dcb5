"""The host's side of the wire, with a node that answers by a script; no test waits."""

import json
import os
import pty
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.boards.scripted_node import (
    ATTEMPTS,
    COMPUTE_TIMEOUT_S,
    TIMEOUT_S,
    Clock,
    Item,
    Reply,
    ScriptedNode,
    answer,
    open_scripted,
    stay_silent,
    write_info,
)
from typer.testing import CliRunner, Result

from edgel3_tflm.cli.board.device import device_app
from edgel3_tflm.device.client import Device, RefusedError
from edgel3_tflm.device.transports import DeviceError, open_transport
from edgel3_tflm.device.wire import (
    Command,
    Failure,
    Packet,
    Refusal,
    WireError,
    encode,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.install(monkeypatch)


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def test_a_request_without_an_answer_is_sent_again_as_it_was(clock: Clock) -> None:
    node, device = open_scripted(clock, stay_silent, stay_silent, answer(bytes(40)))
    assert device.statistics().requests == 0
    *_, first, second, third = node.requests
    assert first == second == third
    assert device.resent == 2


def test_a_node_that_stays_silent_is_an_error_in_bounded_time(clock: Clock) -> None:
    with pytest.raises(
        DeviceError, match="none came in 3 attempts; check that the firmware is on the"
    ):
        Device(ScriptedNode(clock), timeout_s=2, attempts=3)
    assert clock.now == 6


def test_a_node_that_says_nonsense_without_end_is_an_error_in_bounded_time(clock: Clock) -> None:
    class Babbling(ScriptedNode):
        def read(self, timeout_s: float) -> bytes:
            clock.now += min(0.25, timeout_s)
            return os.urandom(50)

    with pytest.raises(DeviceError, match="none came in 3 attempts"):
        Device(Babbling(clock), timeout_s=2, attempts=3)
    assert clock.now == 6


def test_answers_to_other_requests_are_dropped(clock: Clock) -> None:
    right = u32(1, 2, 3, 4, 5, 6, 7, 0, 8, 0)
    stale = u32(*[9] * 10)

    def reply(request: Packet) -> list[Item]:
        return [
            *answer(stale, later=-1)(request),
            *answer(stale, command=Command.INFO)(request),
            b"\1\2\3\0",
            encode(Packet(request.command, request.sequence, 0, stale)),  # an echo: no answer
            *answer(right)(request),
        ]

    _, device = open_scripted(clock, reply)
    assert device.statistics().requests == 1
    assert device.resent == 0


def test_sequence_numbers_go_round_without_the_one_of_live_events(clock: Clock) -> None:
    node, device = open_scripted(clock, *[answer(bytes(40))] * 600)
    for _ in range(600):
        device.statistics()
    numbers = [request.sequence for request in node.requests]
    assert set(numbers) == set(range(1, 256))
    assert all(after == before % 255 + 1 for before, after in pairwise(numbers))


@pytest.mark.parametrize(
    ("call", "replies", "message"),
    [
        (Device.statistics, [b"\0" * 39], "statistics of 40 bytes, got 39"),
        (Device.self_test, [b"\0"], "an answer of 4 bytes, got 1"),
        (Device.log_mel, [b"\0" * 5], "2048 log-mel values, got 5"),
        (Device.scores, [b"\0"], "0 scores, got 1 bytes"),
        (
            lambda device: device.embed_log_mel(np.zeros((64, 50), np.int8)),
            [u32(3201)],
            "window has 3200 bytes, got 3201",
        ),
        (
            lambda device: device.embed_log_mel(np.zeros((64, 50), np.int8)),
            [u32(3200), u32(7)],
            "to have 2044 bytes, it has 7",
        ),
        (
            lambda device: device.embed_log_mel(np.zeros((64, 50), np.int8)),
            [u32(3200), u32(2044), u32(3200), b"\0" * 63],
            "an embedding of 64 values, got 63",
        ),
    ],
)
def test_an_answer_that_is_not_what_was_asked_is_an_error(
    clock: Clock, call: Callable[[Device], object], replies: list[bytes], message: str
) -> None:
    _, device = open_scripted(clock, *map(answer, replies))
    with pytest.raises(WireError, match=message):
        call(device)


def test_an_error_that_this_version_does_not_know_is_told(clock: Clock) -> None:
    _, device = open_scripted(clock, answer(status=99))
    with pytest.raises(RefusedError, match="refuses STATISTICS: status 99, which this version"):
        device.statistics()


def test_windows_of_another_shape_are_refused(clock: Clock) -> None:
    _, device = open_scripted(clock)
    with pytest.raises(
        ValueError, match=r"expected int8 of shape \(64, 50\), got int8 of \(50, 64\)"
    ):
        device.embed_log_mel(np.zeros((50, 64), np.int8))
    with pytest.raises(ValueError, match=r"expected int16 of shape \(8000,\), got float32"):
        device.embed_pcm(np.zeros(8000, np.float32))  # type: ignore[arg-type]


# ---- streaming ----


def live(number: int) -> Packet:
    body = u32(number, 1000 * number) + bytes(20) + bytes(64)
    return Packet(Command.LIVE, 0, 0, body, is_answer=True)


def listen(*items: Item) -> Callable[[Packet], list[Item]]:
    """Accept STREAM, then give what is heard."""
    return lambda request: [*answer()(request), *items]


def test_a_stream_stops_when_it_is_closed(clock: Clock) -> None:
    node, device = open_scripted(clock, listen(live(1), live(2)), answer(), answer(bytes(40)))
    stream = device.stream()
    assert [next(stream).number, next(stream).number] == [1, 2]
    stream.close()
    assert [request.body for request in node.requests[2:]] == [b"\1", b"\0"]
    device.statistics()
    assert clock.now == 0


@pytest.mark.parametrize(
    "error", [DeviceError("the cable is out"), WireError("nonsense"), KeyboardInterrupt()]
)
def test_an_error_ends_a_stream_at_once(clock: Clock, error: BaseException) -> None:
    node, device = open_scripted(clock, listen(live(1), error))
    stream = device.stream()
    next(stream)
    with pytest.raises(type(error)) as caught:
        next(stream)
    assert caught.value is error
    # One attempt to stop a node that has fallen silent, of the time for a short answer.
    assert [request.body for request in node.requests[2:]] == [b"\1", b"\0"]
    assert clock.now == TIMEOUT_S


def test_a_node_that_hears_nothing_is_an_error_after_one_time_limit(clock: Clock) -> None:
    node, device = open_scripted(clock, listen())
    with pytest.raises(DeviceError, match=r"within 60 s, none came; check its microphone"):
        next(device.stream())
    assert clock.now == COMPUTE_TIMEOUT_S + TIMEOUT_S
    assert len(node.requests) == 4


def test_an_error_of_the_listener_ends_a_stream_at_once(clock: Clock) -> None:
    _, device = open_scripted(clock, listen(live(1)))
    stream = device.stream()
    next(stream)
    stream.close()  # as a with statement does when its body raises
    assert clock.now == TIMEOUT_S


def test_a_node_that_computes_while_it_is_stopped_is_waited_for_by_the_next_request(
    clock: Clock,
) -> None:
    slow = [stay_silent, answer(), answer(u32(0))]
    node, device = open_scripted(clock, listen(live(1)), *slow)
    stream = device.stream()
    next(stream)
    stream.close()
    assert device.self_test() == 0
    stop, again, test = node.requests[-3:]
    assert (stop.command, stop.body) == (again.command, again.body) == (Command.STREAM, b"\0")
    assert test.command == Command.SELF_TEST


def test_a_request_during_a_stream_does_not_end_it(clock: Clock) -> None:
    busy = answer(status=Refusal.BUSY)
    node, device = open_scripted(clock, listen(live(1), live(2)), busy, answer())
    stream = device.stream()
    next(stream)
    with pytest.raises(RefusedError, match="it is streaming"):
        device.embed_pcm(np.zeros(8000, np.int16))
    assert next(stream).number == 2
    stream.close()
    assert [request.body for request in node.requests[2:]] == [b"\1", b"\0", b"\0"]


def test_a_stream_whose_start_is_not_confirmed_is_stopped(clock: Clock) -> None:
    node, device = open_scripted(clock, *[stay_silent] * ATTEMPTS, answer())
    with pytest.raises(DeviceError, match="within 2 s, none came in 3 attempts"):
        next(device.stream())
    assert node.requests[-1].body == b"\0"


def test_a_node_that_no_longer_answers_after_a_stream_is_an_error(clock: Clock) -> None:
    _, device = open_scripted(clock, listen(live(1)))
    stream = device.stream()
    next(stream)
    stream.close()
    with pytest.raises(DeviceError, match=f"within 60 s, none came in {ATTEMPTS} attempts"):
        device.embed_pcm(np.zeros(8000, np.int16))


def test_a_serial_port_is_for_one_host_at_a_time() -> None:
    ours, theirs = pty.openpty()
    port = os.ttyname(theirs)
    first = open_transport(port)
    with pytest.raises(DeviceError, match="that no other program uses it"):
        open_transport(port)
    first.close()
    open_transport(port).close()
    os.close(ours)
    os.close(theirs)


# ---- the commands ----


@pytest.fixture
def command(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command on a node that was not streaming, and answers by a script from there on."""

    def run(words: list[str], *script: Reply) -> Result:
        opening = (answer(write_info()), answer(status=Refusal.ABSENT))
        node = ScriptedNode(clock, *opening, *script)
        monkeypatch.setattr("edgel3_tflm.device.transports.open_transport", lambda _: node)
        return CliRunner().invoke(device_app, [*words, "--port", "scripted"])

    return run


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0, []),
        (0b101, ["MODEL_REFUSED", "OTHER_EMBEDDING"]),
        (0b1001, ["MODEL_REFUSED", "UNKNOWN_BIT_3"]),
        (1 << 31, ["UNKNOWN_BIT_31"]),
    ],
)
def test_a_self_test_names_all_that_fails(
    command: Callable[..., Result], bits: int, names: list[str]
) -> None:
    assert Failure(bits).names == names
    replies = answer(bytes(40)), answer(u32(bits))
    done = command(["info", "--json"], *replies)
    assert done.exit_code == bool(names)
    assert json.loads(done.stdout)["self_test_failures"] == names
    done = command(["info"], *replies)
    assert done.exit_code == bool(names)
    assert ("passed" in done.stdout) == (not names)
    assert all(name in done.stdout and name in done.stderr for name in names)


def test_ctrl_c_ends_the_monitor_of_a_node_that_has_fallen_silent(
    command: Callable[..., Result], clock: Clock, tmp_path: Path
) -> None:
    record = tmp_path / "live.csv"
    done = command(
        ["monitor", "--record", str(record)], listen(live(1), live(2), KeyboardInterrupt())
    )
    assert done.exit_code == 0, done.stderr
    assert "2 windows" in done.stdout
    assert len(record.read_text().splitlines()) == 3
    assert clock.now < COMPUTE_TIMEOUT_S
