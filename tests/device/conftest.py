"""Nodes on the emulated Cortex-M7, and as a program of this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.boards.nodes import Expected, Int16Array, read_pcm

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.device.client import Device
from edgel3_tflm.device.emulation import PATIENCE_S, Emulator, Program
from edgel3_tflm.device.firmware import build_node
from edgel3_tflm.device.transports import SocketTransport
from edgel3_tflm.runtime.deployment import Deployment


@pytest.fixture(scope="session")
def sea(tiny_int8: Deployment) -> Expected:
    return Expected(tiny_int8)


@pytest.fixture(scope="session")
def clips(sounds: Path) -> list[Path]:
    found = find_clips([sounds])
    return [found[index] for index in (0, len(found) // 3, len(found) // 2, len(found) - 1)]


@pytest.fixture(scope="session")
def pcm(clips: list[Path], sea: Expected) -> list[Int16Array]:
    return read_pcm(clips, sea.deployment)


@pytest.fixture(scope="session")
def firmware(sea: Expected, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_node(sea.deployment.directory, tmp_path_factory.mktemp("firmware"))


@pytest.fixture(scope="module")
def emulator(firmware: Path) -> Iterator[Emulator]:
    with Emulator(firmware) as running:
        yield running


@pytest.fixture(scope="session")
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
    with Device(connect(), timeout_s=PATIENCE_S, compute_timeout_s=PATIENCE_S) as found:
        yield found
