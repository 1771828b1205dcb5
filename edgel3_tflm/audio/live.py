"""Sound in real time: the microphone of this computer, or a file at its own pace."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgel3_tflm.audio.clips import read_blocks
from edgel3_tflm.errors import AudioError, RuntimeUnavailableError, install_hint
from edgel3_tflm.types import FloatArray

_BLOCK_S = 0.1


def play_blocks(
    path: Path,
    sample_rate_hz: int,
    speed: float = 1,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[FloatArray]:
    """Read a file in blocks of 0.1 s, each at the time at which a microphone would deliver it.

    Parameters
    ----------
    path : pathlib.Path
    sample_rate_hz : int
    speed : float
        How many times faster than real time; 0: without waiting.
    clock, sleep : callable
        Return the time in seconds, and wait for seconds.

    Yields
    ------
    numpy.ndarray, shape (n,), float32
        Mono, full scale 1.

    Raises
    ------
    AudioError
        If the file cannot be read, or the speed is negative.
    """
    if not 0 <= speed < float("inf"):
        raise AudioError(f"expected a speed of 0 or more, got {speed:g}")
    size = round(_BLOCK_S * sample_rate_hz)
    started_s, played = clock(), 0
    for block in read_blocks(path, sample_rate_hz):
        for first in range(0, len(block), size):
            part = block[first : first + size]
            played += len(part)
            if speed and (early_s := started_s + played / sample_rate_hz / speed - clock()) > 0:
                sleep(early_s)
            yield part


class Microphone:
    """The microphone of this computer. Needs the extra ``microphone``, which is sounddevice.

    Parameters
    ----------
    device : str, optional
        Number or part of the name of an input, as ``python -m sounddevice`` lists them; by default
        the system's.

    Raises
    ------
    RuntimeUnavailableError
        If sounddevice or the library PortAudio is missing.
    AudioError
        If there is no such input.
    """

    def __init__(self, device: str | None = None) -> None:
        try:
            import sounddevice
        except (ImportError, OSError) as error:  # OSError: PortAudio is missing
            raise RuntimeUnavailableError(
                f"the microphone needs the package sounddevice with PortAudio ({error});"
                f" {install_hint('microphone')}, and on Debian apt install libportaudio2"
            ) from error
        self._sounddevice: Any = sounddevice
        self._device: str | int | None = int(device) if device and device.isdigit() else device
        try:
            found = sounddevice.query_devices(self._device, "input")
        except (ValueError, sounddevice.PortAudioError) as error:
            raise AudioError(
                f"expected a microphone, found none: {error}; `python -m sounddevice` lists them"
            ) from error
        self.name = str(found["name"])
        self.sample_rate_hz = round(found["default_samplerate"])

    def blocks(self) -> Iterator[FloatArray]:
        """Listen without end.

        Yields
        ------
        numpy.ndarray, shape (n, 1), float32
            0.1 s of samples at ``sample_rate_hz``, full scale 1.

        Raises
        ------
        AudioError
            If the microphone cannot be opened or is lost.
        """
        size = round(_BLOCK_S * self.sample_rate_hz)
        try:
            with self._sounddevice.InputStream(
                self.sample_rate_hz, channels=1, device=self._device, dtype="float32"
            ) as stream:
                while True:
                    yield stream.read(size)[0]
        except self._sounddevice.PortAudioError as error:
            raise AudioError(
                f"{self.name}: {error}; `python -m sounddevice` lists inputs"
            ) from error
