"""The log-mel frontend of the C library ``edgel3``, built for this machine."""

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.log_mel import DYNAMIC_RANGE_DB, FrontendTables
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.runtime.c_library.library import ffi, lib, pointer
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.types import FloatArray, Int8Array


class DeviceFrontend:
    """Computes log-mel spectrograms from 16-bit samples, with the C code that devices run.

    It computes in float32 with the portable FFT. Only one thread at a time may use it.

    Parameters
    ----------
    spec : FrontendSpec
    input_map : InputMap
    input_spec : TensorSpec
        The int8 input of the network, for :meth:`quantize`.

    Raises
    ------
    EdgeL3Error
        If the C library does not support ``spec``.
    """

    def __init__(self, spec: FrontendSpec, input_map: InputMap, input_spec: TensorSpec) -> None:
        self._spec = spec
        tables = FrontendTables.of(spec)
        factor, offset = input_map.steps(input_spec)
        # The configuration keeps pointers to these arrays: the references keep them alive.
        self._tables = {
            "window": ffi.from_buffer("float[]", tables.window),
            "cosines": ffi.from_buffer("float[]", tables.cosines),
            "mel_first": ffi.from_buffer("uint16_t[]", tables.mel_first),
            "mel_count": ffi.from_buffer("uint16_t[]", tables.mel_count),
            "mel_weights": ffi.from_buffer("float[]", tables.mel_weights),
        }
        self._config = ffi.new(
            "edgel3_frontend_config *",
            {
                "sample_rate_hz": spec.sample_rate_hz,
                "window_samples": spec.window_samples,
                "dft_samples": spec.dft_samples,
                "hop_samples": spec.hop_samples,
                "mels": spec.mels,
                "frames": spec.frames,
                "dynamic_range_db": DYNAMIC_RANGE_DB,
                "input_factor": factor,
                "input_offset": offset,
                **self._tables,
            },
        )
        self._levels = np.empty((spec.mels, spec.frames), np.int16)
        self._ring = np.empty(spec.dft_samples, np.int16)
        self._spectrum = np.empty(spec.dft_samples + 2, np.float32)
        self._frontend = ffi.new("edgel3_frontend *")
        memory = map(ffi.from_buffer, (self._levels, self._ring, self._spectrum))
        if lib.edgel3_frontend_open(self._frontend, self._config, *memory) != lib.EDGEL3_OK:
            raise EdgeL3Error(
                f"the frontend refuses {spec}: expected frames of a power of two samples, from 8"
                " to 16384, and one frame for each hop that begins in the window"
            )

    def begin(self) -> None:
        """Begin a window. Samples that were pushed before are discarded."""
        lib.edgel3_frontend_begin(self._frontend)

    def push(self, samples: npt.NDArray[np.int16]) -> int:
        """Push samples of the window.

        Parameters
        ----------
        samples : numpy.ndarray, shape (n,), int16

        Returns
        -------
        int
            Number of samples that were taken; fewer than n if the window is complete.

        Raises
        ------
        ValueError
            If the type or the number of dimensions is another one.
        """
        if samples.ndim != 1 or samples.dtype != np.int16:
            raise ValueError(f"expected int16 of shape (n,), got {samples.dtype}, {samples.shape}")
        data = ffi.from_buffer("int16_t[]", np.ascontiguousarray(samples))
        return int(lib.edgel3_frontend_push(self._frontend, data, len(samples)))

    def finish(self) -> FloatArray:
        """Return the log-mel spectrogram of the window, shape (mels, frames), float32, in dB.

        The largest value is 0 dB, the smallest possible is -80 dB. The values are whole multiples
        of 1/512 dB.

        Raises
        ------
        EdgeL3Error
            If samples are missing.
        """
        if lib.edgel3_frontend_finish(self._frontend) != lib.EDGEL3_OK:
            raise EdgeL3Error(
                f"the window is not full: push {self._spec.window_samples} samples, then finish"
            )
        levels = self._levels - np.float32(self._frontend.maximum)
        decibels: FloatArray = np.maximum(
            levels / lib.EDGEL3_FRONTEND_LEVELS_PER_DB, -DYNAMIC_RANGE_DB
        )
        return decibels

    def quantize(self) -> Int8Array:
        """Return the network input of the finished window, shape (mels, frames), int8."""
        window = np.empty((self._spec.mels, self._spec.frames), np.int8)
        lib.edgel3_frontend_quantize(self._frontend, pointer(window))
        return window

    def log_mel(self, samples: npt.NDArray[np.int16]) -> FloatArray:
        """Return the log-mel spectrogram of a whole window.

        Parameters
        ----------
        samples : numpy.ndarray, shape (spec.window_samples,), int16

        Returns
        -------
        numpy.ndarray, shape (mels, frames), float32
            Decibels in [-80, 0].

        Raises
        ------
        ValueError
            If the number of samples is another one.
        """
        if len(samples) != self._spec.window_samples:
            raise ValueError(
                f"expected a window of {self._spec.window_samples} samples, got {len(samples)}"
            )
        self.begin()
        self.push(samples)
        return self.finish()
