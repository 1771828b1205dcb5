"""The node without a board: run by QEMU, or as a program of its own."""

import socket
import subprocess
import tempfile
import time
from pathlib import Path

from edgel3_tflm.device.firmware import QEMU, find_tool
from edgel3_tflm.device.transports import Closing, DeviceError, SocketTransport

MACHINE = "mps2-an500"
INSTRUCTIONS_PER_TICK = 40
"""QEMU counts instructions, one a nanosecond of its time; the board's timer has 25 MHz."""
_START_TIMEOUT_S = 30.0


class Emulator(Closing):
    """A node's firmware running on QEMU's Cortex-M7.

    Parameters
    ----------
    firmware : pathlib.Path
        What :func:`build_node` gave.
    is_idle_skipped : bool
        Its clock jumps to the next timer's end when the processor sleeps, in place of going on as
        ours does; then what a busy machine is late for does not count.

    Raises
    ------
    ToolError
        If QEMU is not installed.
    DeviceError
        If it does not start.
    """

    def __init__(self, firmware: Path, *, is_idle_skipped: bool = False) -> None:
        # The path of a socket must be short.
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
                [*command, "-kernel", str(firmware)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the host, which ends it
            )

    def connect(self) -> SocketTransport:
        """Connect as the node's host; the last one, if any, must have gone."""
        return SocketTransport(self._connect(self._host), "the emulated board")

    def connect_microphone(self) -> socket.socket:
        """Take the microphone's place: what is sent is samples, int16, little-endian."""
        return self._connect(self._microphone)

    def failure(self) -> str | None:
        """Give what it said if it has ended; None while it runs."""
        if self._process.poll() is None:
            return None
        said = [
            path.read_text(errors="replace").strip()
            for path in (self._console, self._console.with_name("errors"))
            if path.exists()
        ]
        return f"code {self._process.returncode}: {' '.join(filter(None, said))[-1000:]}"

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


class Program(Closing):
    """A node built for this machine, running.

    Parameters
    ----------
    program : pathlib.Path
        What :func:`build_node` gave for the host.
    """

    def __init__(self, program: Path) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - what was just built
                [program],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
            )

    def connect(self) -> SocketTransport:
        """Connect as the node's host; there may be several, one after the other."""
        return SocketTransport(self._ours.dup(), "the node's program")

    def close(self) -> str:
        """End it and give what it wrote to standard error: a sanitizer's findings."""
        self._ours.shutdown(socket.SHUT_RDWR)  # for all hosts
        self._ours.close()
        try:
            _, said = self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, said = self._process.communicate()
        return said.decode(errors="replace")
