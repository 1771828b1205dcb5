"""The FFT of the C library, portable and on CMSIS-DSP, against NumPy's."""

import ctypes
import subprocess
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from helpers.sounds.frontend_windows import SOURCES, STRICT, fft_error

# A slow implementation of the functions of CMSIS-DSP.
STAND_IN = """
#include <math.h>
#include <stdint.h>
#include <string.h>
typedef struct { uint16_t fftLen; } arm_cfft_instance_f32;
static const arm_cfft_instance_f32 arm_cfft_sR_f32_len512 = {512};
static const arm_cfft_instance_f32 arm_cfft_sR_f32_len1024 = {1024};
static void arm_cfft_f32(const arm_cfft_instance_f32 *S, float *p, uint8_t inverse,
                         uint8_t bit_reverse) {
  static float out[2048];
  if (inverse || !bit_reverse) return;
  for (int k = 0; k < S->fftLen; ++k) {
    double re = 0, im = 0;
    for (int n = 0; n < S->fftLen; ++n) {
      const double angle = -2 * 3.14159265358979323846 * ((double)k * n) / S->fftLen;
      re += p[2 * n] * cos(angle) - p[2 * n + 1] * sin(angle);
      im += p[2 * n] * sin(angle) + p[2 * n + 1] * cos(angle);
    }
    out[2 * k] = (float)re;
    out[2 * k + 1] = (float)im;
  }
  memcpy(p, out, 2 * sizeof *p * S->fftLen);
}
"""
Transform = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.complex64]]


@pytest.fixture(scope="module", params=["portable", "cmsis"])
def transform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Transform:
    """The function edgel3_fft_real: samples and a table of cosines to a spectrum."""
    folder = tmp_path_factory.mktemp("fft")
    (folder / "arm_math.h").write_text(STAND_IN)
    (folder / "arm_const_structs.h").touch()
    flags = [f"-isystem{folder}", "-DEDGEL3_USE_CMSIS_DSP"] if request.param == "cmsis" else []
    sources = [SOURCES / name for name in ("edgel3_fft.c", "edgel3_fft_cmsis.c")]
    path = folder / "fft.so"
    command = ["gcc", "-std=c99", "-O2", "-shared", "-fPIC", *STRICT, *flags, *sources, "-lm"]
    subprocess.run([*command, "-o", path], check=True)
    function = ctypes.CDLL(str(path)).edgel3_fft_real
    function.restype = None
    pointer = ctypes.POINTER(ctypes.c_float)
    function.argtypes = [pointer, ctypes.c_uint32, pointer]

    def run(
        samples: npt.NDArray[np.float32], cosines: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.complex64]:
        data = np.concatenate([samples, np.full(2, np.nan, np.float32)])
        function(data.ctypes.data_as(pointer), len(samples), cosines.ctypes.data_as(pointer))
        return data.view(np.complex64)

    return run


def relative_error(found: npt.NDArray[np.complex64], samples: npt.NDArray[np.float32]) -> float:
    expected = np.fft.rfft(samples.astype(np.float64))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def quarter_of_a_cosine(samples: int) -> npt.NDArray[np.float32]:
    return np.cos(2 * np.pi * np.arange(samples // 4 + 1) / samples).astype(np.float32)


@pytest.mark.parametrize("samples", [2**power for power in range(3, 15)])
def test_spectra_equal_numpy_s_within_float32_s_error(transform: Transform, samples: int) -> None:
    rng = np.random.default_rng(samples)
    cosines = quarter_of_a_cosine(samples)
    impulses = np.eye(samples, dtype=np.float32)[rng.integers(0, samples, 4)]
    tones = [np.cos(2 * np.pi * f / samples * np.arange(samples)) for f in (0, 1, samples // 2)]
    for signal in (*rng.normal(0, 1, (4, samples)), *impulses, *tones):
        values = signal.astype(np.float32)
        assert relative_error(transform(values, cosines), values) <= fft_error(samples)


def test_a_factor_that_is_off_by_little_is_noticed(transform: Transform) -> None:
    values = np.random.default_rng(0).normal(0, 1, 2048).astype(np.float32)
    cosines = quarter_of_a_cosine(2048)
    cosines[300] += np.float32(1e-3)
    assert relative_error(transform(values, cosines), values) > fft_error(2048)
