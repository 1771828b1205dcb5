"""Byte streams to a node: serial ports and sockets."""

import select
import socket
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self

from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError, install_hint

_OPEN_TIMEOUT_S = 5.0


class DeviceError(EdgeL3Error):
    """A node cannot be reached, does not answer, or has another model."""


class Closing:
    """Base of classes that a ``with`` statement closes."""

    def close(self) -> object:
        """Release all resources."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Transport(Protocol):
    """A stream of bytes to and from a node."""

    def write(self, data: bytes) -> None:
        """Send bytes; raises TimeoutError if the other end does not accept them in time."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """Wait for bytes and return them; returns no bytes after the timeout."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class SocketTransport:
    """A connected stream socket: TCP, or the emulator's.

    Parameters
    ----------
    connected : socket.socket
    name : str
        Name of the connection in error messages.
    """

    def __init__(self, connected: socket.socket, name: str) -> None:
        self._socket = connected
        self._name = name
        connected.settimeout(_OPEN_TIMEOUT_S)

    def write(self, data: bytes) -> None:
        """Send bytes; raises TimeoutError if the other end does not accept them in time."""
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._lost(str(error.strerror)) from error

    def read(self, timeout_s: float) -> bytes:
        """Wait for bytes and return them; returns no bytes after the timeout."""
        try:
            if not select.select([self._socket], [], [], max(0.0, timeout_s))[0]:
                return b""
            data = self._socket.recv(1 << 16)
        except (OSError, ValueError) as error:
            raise self._lost(str(error)) from error
        if not data:
            raise self._lost("the other end closed it")
        return data

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _lost(self, reason: str) -> DeviceError:
        return DeviceError(f"{self._name}: lost the connection ({reason}); connect again")


class SerialTransport:
    """A serial port.

    Parameters
    ----------
    port : str
        Its name, ``/dev/ttyACM0`` or ``COM3`` for example, or a URL of pyserial.
    baud : int
        Rate in bits per second. USB ports ignore it.

    Raises
    ------
    RuntimeUnavailableError
        If pyserial is not installed.
    DeviceError
        If the port cannot be opened.
    """

    def __init__(self, port: str, baud: int = 115200) -> None:
        try:
            import serial
        except ImportError as error:
            raise RuntimeUnavailableError(
                "serial ports need the package pyserial, which is not installed;"
                f" {install_hint('device')}"
            ) from error
        self._name = port
        self._error = serial.SerialException
        self._timeout_error = serial.SerialTimeoutException
        try:
            self._serial: Any = serial.serial_for_url(
                port, baud, timeout=0, write_timeout=_OPEN_TIMEOUT_S, exclusive=True
            )
        except (serial.SerialException, OSError, ValueError) as error:
            raise DeviceError(
                f"{port}: expected a serial port, or tcp:HOST:PORT; it cannot be opened ({error});"
                " check that the board is plugged in, that you have permission to use the port, and"
                " that no other program uses it"
            ) from error

    def write(self, data: bytes) -> None:
        """Send bytes; raises TimeoutError if the other end does not accept them in time."""
        try:
            self._serial.write(data)
        except self._timeout_error as error:
            raise TimeoutError from error
        except (self._error, OSError) as error:
            raise self._lost(error) from error

    def read(self, timeout_s: float) -> bytes:
        """Wait for bytes and return them; returns no bytes after the timeout."""
        try:
            self._serial.timeout = max(0.0, timeout_s)
            first: bytes = self._serial.read(1)
            rest: bytes = self._serial.read(self._serial.in_waiting) if first else b""
        except (self._error, OSError) as error:
            raise self._lost(error) from error
        return first + rest

    def close(self) -> None:
        """Close the port."""
        self._serial.close()

    def _lost(self, error: Exception) -> DeviceError:
        return DeviceError(f"{self._name}: lost the port ({error}); plug the board in again")


def open_transport(port: str) -> Transport:
    """Open ``tcp:HOST:PORT``, or a serial port by its name.

    Raises
    ------
    DeviceError
        If it cannot be opened.
    """
    if not port.startswith("tcp:"):
        return SerialTransport(port)
    host, _, number = port.removeprefix("tcp:").rpartition(":")
    if not host or not number.isdecimal() or not 0 < int(number) < 65536:
        raise DeviceError(f"expected tcp:HOST:PORT (example: tcp:127.0.0.1:5555), got {port}")
    try:
        connected = socket.create_connection((host.strip("[]"), int(number)), _OPEN_TIMEOUT_S)
    except OSError as error:
        raise DeviceError(
            f"{port}: expected a node that listens there, cannot connect"
            f" ({error.strerror or error}); start the node, or check host and port"
        ) from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return SocketTransport(connected, port)
