"""The options that choose a device, and its connection."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgel3_tflm.cli.options import HEAD_HELP
from edgel3_tflm.cli.screen import Steps
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.deployment import Deployment

# cobs and pyserial are loaded only when a command runs.
if TYPE_CHECKING:
    from edgel3_tflm.device.client import Device
    from edgel3_tflm.device.emulation import Emulator

PortOption = Annotated[
    str | None,
    typer.Option("--port", metavar="PORT", help="/dev/ttyACM0, COM3, or tcp:HOST:PORT."),
]
EmulateOption = Annotated[
    Path | None,
    typer.Option(
        "--emulate",
        metavar="DEPLOYMENT",
        help="Instead of a board: build the node with this deployment, and run it on the"
        " Cortex-M7 that QEMU emulates.",
    ),
]
HeadOption = Annotated[
    Path | None,
    typer.Option("--head", metavar="FILE|DIR", help=f"With --emulate: {HEAD_HELP}"),
]

UNCHANGED = "the device is unchanged"
"""What a device command leaves after an interruption."""


@contextmanager
def open_device(
    port: str | None, emulate: Path | None, head: Path | None, progress: Steps
) -> Iterator[tuple["Device", "Emulator | None"]]:
    """Open the device that the options choose; the emulator is None for a board.

    Raises
    ------
    EdgeL3Error
        If the options exclude each other, the build fails or the device does not respond.
    """
    if (port is None) == (emulate is None):
        raise EdgeL3Error("expected one of --port PORT and --emulate DEPLOYMENT")
    if head is not None and emulate is None:
        raise EdgeL3Error(
            "expected --emulate with --head, got --port: a board has the classifier that it was"
            " built with"
        )
    from edgel3_tflm.device.client import Device
    from edgel3_tflm.device.transports import DeviceError, open_transport

    if port is not None:
        with Device(open_transport(port)) as device:
            yield device, None
        return
    from edgel3_tflm.converters.export.head import find_head
    from edgel3_tflm.device.emulation import Emulator
    from edgel3_tflm.device.firmware import build_node

    assert emulate is not None  # noqa: S101 - narrows for the type checker
    deployment = Deployment.load(emulate)
    deployment.read_model("int8", "engine")  # raises if there is no packed model
    trained = find_head(head, deployment)
    with tempfile.TemporaryDirectory(prefix="edgel3-build-") as build:
        head_sources = None
        if trained is not None:
            head_sources = Path(build) / "head"
            trained.write(head_sources)
        progress("build the emulated board's firmware", 0, 0)
        firmware = build_node(emulate, Path(build) / "node", head=head_sources)
        with Emulator(firmware) as emulator:
            try:
                with emulator.open_device() as device:
                    progress.finish()
                    yield device, emulator
            except DeviceError as error:
                if failure := emulator.failure():
                    raise DeviceError(f"the emulated board ended with {failure}") from error
                raise
