"""Frontends and windows of samples that the tests of the C frontend share."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.pcm import to_int16
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.runtime.c_library.device_frontend import DeviceFrontend
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.tensors import TensorSpec

Int16Array = npt.NDArray[np.int16]
SOURCES = Path(__file__).parents[3] / "micro_app" / "lib" / "edgel3" / "src"
FRONTEND_FILES = ("edgel3_fft.c", "edgel3_fft_cmsis.c", "edgel3_frontend.c")
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
L3 = find_variant().frontend
SEA = find_variant("sea", embedding_size=64).frontend
SPECS = (L3, SEA)
# Unit roundoff of float32.
ROUNDOFF = 2.0**-24


def fft_error(samples: int) -> float:
    """Return a bound of the relative error of an FFT in float32, in the 2-norm.

    Higham, Accuracy and Stability of Numerical Algorithms, theorem 24.2: log2(n) (mu + gamma_4
    (sqrt 2 + mu)) for twiddle factors with an error of mu. A radix-4 step replaces two radix-2
    steps and has a smaller error.
    """
    return float(np.log2(samples) * (1 + 4 * np.sqrt(2)) * ROUNDOFF * (1 + 1e-6))


def make_frontend(spec: FrontendSpec) -> DeviceFrontend:
    """Return a frontend whose int8 range is -80 to 0 dB."""
    tensor = TensorSpec((1, spec.mels, spec.frames, 1), np.dtype(np.int8), 80 / 255, 127)
    return DeviceFrontend(spec, InputMap(1.0, 0.0), tensor)


def deployed_frontend(deployment: Deployment) -> DeviceFrontend:
    """Return the frontend of a deployment's int8 model."""
    tensor = open_interpreter(deployment.read_model("int8")).input
    return DeviceFrontend(deployment.variant.frontend, deployment.input_map, tensor)


def draw_samples(spec: FrontendSpec, seed: int = 0) -> Int16Array:
    """Return a window of noise that becomes louder and then quieter."""
    rng = np.random.default_rng(seed)
    swell = 3000 * np.sin(np.linspace(0, np.pi, spec.window_samples)) ** 4
    return np.round(rng.normal(0, 1, spec.window_samples) * swell).astype(np.int16)


def read_clips(clips: list[Path], spec: FrontendSpec, windows: int) -> list[Int16Array]:
    """Return the first windows of each clip as 16-bit samples."""
    batches = read_windows(
        clips, sample_rate_hz=spec.sample_rate_hz, window_samples=spec.window_samples, hop_s=1.0
    )
    return [to_int16(batch[:windows]) for _, batch in batches]


def full_scale_square(spec: FrontendSpec) -> Int16Array:
    half_periods = np.arange(spec.window_samples) * 2000 // spec.sample_rate_hz
    return np.where(half_periods % 2, -32768, 32767).astype(np.int16)


def least_noise(spec: FrontendSpec) -> Int16Array:
    return np.random.default_rng(1).integers(-1, 2, spec.window_samples).astype(np.int16)
