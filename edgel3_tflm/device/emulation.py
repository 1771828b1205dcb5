"""Runs the node without a board: its firmware in QEMU, or as a program on this machine."""

import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgel3_tflm.device.client import Device
from edgel3_tflm.device.firmware import QEMU, find_tool
from edgel3_tflm.device.transports import Closing, DeviceError, SocketTransport

MACHINE = "mps2-an500"
INSTRUCTIONS_PER_TICK = 40
"""QEMU executes one instruction per nanosecond of emulated time, and the board's timer runs at
25 MHz."""
PATIENCE_S = 900.0
"""Time limit in seconds for an answer of the emulated board. A busy machine runs it slowly, and it
loses no request; the limit ends only a wait for firmware that hangs."""
_START_TIMEOUT_S = 30.0


class Emulator(Closing):
    """A node's firmware running on QEMU's Cortex-M7.

    Parameters
    ----------
    firmware : pathlib.Path
        ELF file from :func:`edgel3_tflm.device.firmware.build_node`.
    is_idle_skipped : bool
        While the processor sleeps, the emulated clock jumps to the end of the next timer instead of
        running with the real clock. Delays of a busy machine then do not matter.
    options : sequence of str
        Further options of QEMU.

    Raises
    ------
    ToolError
        If QEMU is not installed.
    DeviceError
        On connecting, if the firmware does not run.
    """

    def __init__(
        self, firmware: Path, *, is_idle_skipped: bool = False, options: Sequence[str] = ()
    ) -> None:
        # The system limits the length of a socket's path.
        self._directory = tempfile.TemporaryDirectory(prefix="edgel3-")
        directory = Path(self._directory.name)
        self._host, self._microphone = directory / "host", directory / "microphone"
        self._console = directory / "console"
        sleep = "off" if is_idle_skipped else "on"
        command = [find_tool(QEMU), "-M", MACHINE, "-icount", f"shift=0,sleep={sleep}"]
        command += ["-display", "none", "-monitor", "none"]
        for name in ("host", "microphone"):
            command += ["-chardev", f"socket,id={name},path={directory / name},server=on,wait=off"]
            command += ["-serial", f"chardev:{name}"]
        command += ["-chardev", f"file,id=console,path={self._console}"]
        command += ["-semihosting-config", "enable=on,target=native,chardev=console"]
        with (directory / "errors").open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - QEMU, with our own paths
                [*command, *options, "-kernel", str(firmware)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C must reach this process only, which ends QEMU
            )

    def connect(self) -> SocketTransport:
        """Connect as the node's host. The node serves one host at a time."""
        return SocketTransport(self._connect(self._host), "the emulated board")

    def open_device(self) -> Device:
        """Connect a client to the node. It waits for answers as long as a busy machine needs."""
        return Device(self.connect(), timeout_s=PATIENCE_S, compute_timeout_s=PATIENCE_S)

    def play(self, samples: npt.NDArray[np.int16]) -> None:
        """Play samples to the node's microphone, then silence, until the emulation ends.

        The node hears them while it streams, at its sample rate by the emulated clock.
        """
        microphone = self._connect(self._microphone)
        threading.Thread(target=_play, args=(microphone, samples), daemon=True).start()

    def failure(self) -> str | None:
        """Return exit code and output if the emulator has ended, or None while it runs."""
        if self._process.poll() is None:
            return None
        output = [
            path.read_text(errors="replace").strip()
            for path in (self._console, self._console.with_name("errors"))
            if path.exists()
        ]
        return f"code {self._process.returncode}: {' '.join(filter(None, output))[-1000:]}"

    def close(self) -> None:
        """End the emulation."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()

    def _connect(self, path: Path) -> socket.socket:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            if failure := self.failure():
                raise DeviceError(f"expected the emulated board to run, it ended with {failure}")
            connected = socket.socket(socket.AF_UNIX)
            try:
                connected.connect(str(path))
            except OSError as error:
                connected.close()
                if time.monotonic() > deadline:
                    raise DeviceError(
                        f"expected QEMU to open a socket within {_START_TIMEOUT_S:g} s, it did not"
                        f" ({error.strerror})"
                    ) from error
                time.sleep(0.02)
            else:
                return connected


def _play(microphone: socket.socket, samples: npt.NDArray[np.int16]) -> None:
    silence = bytes(4096)
    with microphone, suppress(OSError):  # the emulation has ended
        microphone.sendall(samples.astype("<i2").tobytes())
        while True:
            microphone.sendall(silence)


class Program(Closing):
    """A running node that was built for this machine.

    Parameters
    ----------
    program : pathlib.Path
        Program from :func:`edgel3_tflm.device.firmware.build_node` with the target ``host``.
    """

    def __init__(self, program: Path) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - the program that the caller built
                [program],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
            )

    def connect(self) -> SocketTransport:
        """Connect as the node's host. Several hosts may connect, one after the other."""
        return SocketTransport(self._ours.dup(), "the node's program")

    def close(self) -> str:
        """End the program and return its standard error, where sanitizers report."""
        self._ours.shutdown(socket.SHUT_RDWR)  # closes the connections of all hosts
        self._ours.close()
        try:
            _, errors = self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, errors = self._process.communicate()
        return errors.decode(errors="replace")
