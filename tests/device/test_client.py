"""The client over bad lines, closed connections and ports; building and starting a node."""

import os
import pty
import random
import socket
import subprocess
import tty
from pathlib import Path

import numpy as np
import pytest
from helpers.boards.nodes import Expected, Int16Array
from helpers.boards.ports import pump

from edgel3_tflm.device.client import Device
from edgel3_tflm.device.emulation import Emulator, Program
from edgel3_tflm.device.firmware import ToolError, build_node, find_sources
from edgel3_tflm.device.transports import (
    DeviceError,
    Transport,
    open_transport,
)
from edgel3_tflm.device.wire import Failure


class BadLine:
    """A transport that loses, damages and delays bytes in both directions."""

    def __init__(self, inner: Transport, seed: int) -> None:
        self._inner = inner
        self._rng = random.Random(seed)
        self._late = b""

    def write(self, data: bytes) -> None:
        self._inner.write(self._spoil(data))

    def read(self, timeout_s: float) -> bytes:
        data = self._spoil(self._inner.read(timeout_s))
        if self._rng.random() < 0.05:  # after the next
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


@pytest.mark.parametrize(("budget", "compiles"), [(20_000, True), (15_000, False)])
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
