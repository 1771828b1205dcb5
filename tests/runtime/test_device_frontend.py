"""The frontend of the C library: the host's log-mel as far as float32 goes, on every processor."""

import ctypes
import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from emulator import COMPILER, FLAGS, MACHINE, QEMU

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import (
    FrontendTables,
    dft_window,
    log_mel,
    mel_filterbank,
)
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.device_frontend import DeviceFrontend
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.tensors import TensorSpec

Int16Array = npt.NDArray[np.int16]

SOURCES = Path(__file__).parents[2] / "micro_app" / "lib" / "edgel3" / "src"
BOARD = Path(__file__).parents[2] / "micro_app" / "boards" / "mps2_an500"
FRONTEND_FILES = ("edgel3_fft.c", "edgel3_fft_cmsis.c", "edgel3_frontend.c")
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror")

L3 = find_variant().frontend
SEA = find_variant("sea", embedding_size=64).frontend
SPECS = (L3, SEA)

# Unit roundoff of float32.
ROUNDOFF = 2.0**-24


def fft_error(samples: int) -> float:
    """Bound of an FFT's error as a part of its spectrum, both in the 2-norm.

    Higham, Accuracy and Stability of Numerical Algorithms, theorem 24.2: log2(n) (mu + gamma_4
    (sqrt 2 + mu)), with factors that are off by mu. A radix-4 step is two of radix 2, done more
    exactly.
    """
    return float(np.log2(samples) * (1 + 4 * np.sqrt(2)) * ROUNDOFF * (1 + 1e-6))


def make_frontend(spec: FrontendSpec) -> DeviceFrontend:
    """A frontend for a network that takes all of -80 to 0 dB."""
    tensor = TensorSpec((1, spec.mels, spec.frames, 1), np.dtype(np.int8), 80 / 255, 127)
    return DeviceFrontend(spec, InputMap(1.0, 0.0), tensor)


def deployed_frontend(deployment: Deployment) -> DeviceFrontend:
    tensor = open_interpreter(deployment.read_model("int8")).input
    return DeviceFrontend(deployment.variant.frontend, deployment.input_map, tensor)


def draw_samples(spec: FrontendSpec, seed: int = 0) -> Int16Array:
    """Noise that grows and fades."""
    rng = np.random.default_rng(seed)
    swell = 3000 * np.sin(np.linspace(0, np.pi, spec.window_samples)) ** 4
    return np.round(rng.normal(0, 1, spec.window_samples) * swell).astype(np.int16)


def read_clips(clips: list[Path], spec: FrontendSpec, windows: int) -> list[Int16Array]:
    """The first windows of each clip, as a microphone's driver hands them over."""
    batches = read_windows(
        clips, sample_rate_hz=spec.sample_rate_hz, window_samples=spec.window_samples, hop_s=1.0
    )
    return [
        np.clip(np.round(batch[:windows] * 32768), -32768, 32767).astype(np.int16)
        for _, batch in batches
    ]


# Clips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["standin", "tiny_int8"])
def test_clips_give_the_host_s_cells_and_embeddings(
    fixture: str, request: pytest.FixtureRequest, sounds: Path
) -> None:
    deployment: Deployment = request.getfixturevalue(fixture)
    spec = deployment.variant.frontend
    rng = np.random.default_rng(9)
    engine = open_interpreter(deployment.read_model("int8", "engine"), "engine")
    frontend = deployed_frontend(deployment)
    moved = cells = 0
    least_cosine = 1.0
    for clip in read_clips(find_clips([sounds]), spec, 2):
        # A microphone's own noise, 70 dB below full scale. Without it, cells 70 dB below a pure
        # sound hold little but the rounding of float32, here, and of float64, there: two steps.
        noise = rng.normal(0, 10, clip.shape)
        samples = np.clip(np.round(clip + noise), -32768, 32767).astype(np.int16)
        expected = deployment.input_map.apply(log_mel(samples / 32768, spec), engine.input)
        found = np.empty_like(expected)
        for window, out in zip(samples, found, strict=True):
            frontend.log_mel(window)
            out[..., 0] = frontend.quantize()
        steps = abs(found.astype(int) - expected)
        assert steps.max() <= 1
        moved += steps.sum()
        cells += steps.size
        ours, theirs = (
            engine.output.dequantize(engine.run(windows)).astype(np.float64)
            for windows in (found, expected)
        )
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        least_cosine = min(least_cosine, float(((ours * theirs).sum(axis=1) / norms).min()))
    assert moved <= 0.01 * cells
    assert least_cosine >= 0.999


@pytest.mark.parametrize("rate_hz", [47_991, 48_780.5])
def test_a_microphone_s_true_rate_matters_less_than_when_a_window_begins(
    rate_hz: float, standin: Deployment, sounds: Path
) -> None:
    """What Portenta's, and Giga's and Nicla's drivers give when asked for 48 kHz."""
    spec = standin.variant.frontend
    clips = find_clips([sounds])
    engine = open_interpreter(standin.read_model("int8", "engine"), "engine")

    def embed(rate_hz: float, later_s: float = 0) -> npt.NDArray[np.float64]:
        windows = []
        for clip in clips[:: len(clips) // 12][:12]:
            samples, clip_hz = soundfile.read(clip, dtype="float64", always_2d=True)
            heard = soxr.resample(samples[: 2 * clip_hz].mean(axis=1), clip_hz, rate_hz)
            begin = round(later_s * rate_hz)
            windows.append(heard[begin : begin + spec.window_samples])
        inputs = standin.input_map.apply(log_mel(np.stack(windows), spec), engine.input)
        return engine.output.dequantize(engine.run(inputs)).astype(np.float64)

    expected = embed(48_000)
    moved = cosine_similarity(expected, embed(rate_hz))
    later = cosine_similarity(expected, embed(48_000, later_s=0.05))
    assert moved.mean() > later.mean()
    assert cosine_similarity(expected, embed(44_100)).mean() < later.mean()


# Constructed windows ---------------------------------------------------------------------------


def bound_log_mel(
    samples: Int16Array, spec: FrontendSpec
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What float32 may make of the log-mel values: from where to where.

    A frame's spectrum is off by the error of its FFT, and by the window's and a product's rounding,
    in the 2-norm; a band's root by that times the root of its greatest weight at most.
    """
    padding = (spec.frames - 1) * spec.hop_samples + spec.dft_samples - spec.window_samples
    padded = np.pad(samples / 32768, (padding // 2, padding - padding // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.dft_samples)
    frames = frames[:: spec.hop_samples] * dft_window(spec)
    filters = mel_filterbank(spec)
    mel = np.sqrt(abs(np.fft.rfft(frames)) ** 2 @ filters)
    error = (fft_error(spec.dft_samples) + 2 * ROUNDOFF) * np.sqrt(spec.dft_samples)
    shift = error * np.linalg.norm(frames, axis=1, keepdims=True) * np.sqrt(filters.max(axis=0))
    lower, upper = (10 * np.log10(np.maximum(mel + s, 1e-10)) for s in (-shift, shift))
    # A power is a product and a sum, a band a product and as many sums as it has bins: 10 log10 of
    # the root is moved by 2.2 dB times what they are off. Levels of up to 100 dB come from a
    # product and a sum with rounded constants; two are subtracted.
    roundings = 4 + (filters > 0).sum(axis=0).max()
    rounding = (2.2 * roundings + 2 * 3 * 100) * ROUNDOFF
    least, greatest = lower - upper.max() - rounding, upper - lower.max() + rounding
    return np.clip(least, -80, 0).T, np.clip(greatest, -80, 0).T


def full_scale_square(spec: FrontendSpec) -> Int16Array:
    half_periods = np.arange(spec.window_samples) * 2000 // spec.sample_rate_hz
    return np.where(half_periods % 2, -32768, 32767).astype(np.int16)


def click(position: int) -> Callable[[FrontendSpec], Int16Array]:
    def make(spec: FrontendSpec) -> Int16Array:
        samples = np.zeros(spec.window_samples, np.int16)
        samples[position] = -32768
        return samples

    return make


def constant(value: int) -> Callable[[FrontendSpec], Int16Array]:
    return lambda spec: np.full(spec.window_samples, value, np.int16)


def least_noise(spec: FrontendSpec) -> Int16Array:
    return np.random.default_rng(1).integers(-1, 2, spec.window_samples).astype(np.int16)


def single_step(spec: FrontendSpec) -> Int16Array:
    samples = np.zeros(spec.window_samples, np.int16)
    samples[spec.window_samples // 2] = 1
    return samples


def tone(spec: FrontendSpec) -> Int16Array:
    phase = 2 * np.pi * 440 / spec.sample_rate_hz * np.arange(spec.window_samples)
    return np.round(32767 * np.sin(phase)).astype(np.int16)


CONSTRUCTED = {
    "square wave": full_scale_square,
    "first sample": click(0),
    "last sample": click(-1),
    "constant": constant(20000),
    "constant of one step": constant(1),
    "noise of one step": least_noise,
    "one sample of one step": single_step,
    "tone": tone,
    "swelling noise": draw_samples,
}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.dft_samples))
@pytest.mark.parametrize("name", CONSTRUCTED)
def test_constructed_windows_stay_within_float32_s_error(name: str, spec: FrontendSpec) -> None:
    samples = CONSTRUCTED[name](spec)
    least, greatest = bound_log_mel(samples, spec)
    found = make_frontend(spec).log_mel(samples)
    assert found.max() == 0
    assert found.min() >= -80
    assert (found >= least).all()
    assert (found <= greatest).all()
    # The bound is narrower than a step of int8 where sound is.
    expected = log_mel(samples[np.newaxis] / 32768, spec)[0]
    assert (greatest - least)[expected > -30].max() < 80 / 255


def test_the_bound_is_crossed_by_frames_one_sample_off() -> None:
    samples = draw_samples(SEA)
    least, greatest = bound_log_mel(samples, SEA)
    other = make_frontend(SEA).log_mel(np.roll(samples, 1))
    assert ((other < least) | (other > greatest)).mean() > 0.5


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.dft_samples))
def test_silence_is_all_zeros(spec: FrontendSpec) -> None:
    frontend = make_frontend(spec)
    for _ in range(2):
        assert not frontend.log_mel(np.zeros(spec.window_samples, np.int16)).any()
        assert (frontend.quantize() == 127).all()
        frontend.log_mel(draw_samples(spec))  # leaves nothing behind


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.dft_samples))
def test_cells_are_the_integers_of_the_host_for_the_same_decibels(spec: FrontendSpec) -> None:
    tensor = TensorSpec((1, spec.mels, spec.frames, 1), np.dtype(np.int8), 0.0213, -7)
    # Both ends are clamped.
    input_map = InputMap(0.0913, 3.3)
    frontend = DeviceFrontend(spec, input_map, tensor)
    decibels = frontend.log_mel(full_scale_square(spec) // 3)
    found = frontend.quantize()
    np.testing.assert_array_equal(found, input_map.apply(decibels[np.newaxis], tensor)[0, ..., 0])
    assert {-128, 127} <= set(found.ravel().tolist())
    assert len(np.unique(found)) > 100


# A window's samples ----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.dft_samples))
def test_samples_may_come_in_pieces_of_any_size(spec: FrontendSpec) -> None:
    samples = draw_samples(spec)
    frontend = make_frontend(spec)
    expected = frontend.log_mel(samples)
    rng = np.random.default_rng(2)
    sizes = [1, 7, spec.hop_samples - 1, spec.hop_samples, spec.dft_samples, spec.dft_samples + 1]
    for size in (*sizes, None):
        frontend.begin()
        rest = samples
        while len(rest):
            piece = rest[: size or rng.integers(0, 3000)]
            assert frontend.push(piece) == len(piece)
            rest = rest[len(piece) :]
        np.testing.assert_array_equal(frontend.finish(), expected)


def test_samples_behind_the_window_are_not_taken() -> None:
    samples = draw_samples(SEA)
    frontend = make_frontend(SEA)
    expected = frontend.log_mel(samples)
    frontend.begin()
    assert frontend.push(samples[:-100]) == len(samples) - 100
    assert frontend.push(np.concatenate([samples[-100:], samples])) == 100
    assert frontend.push(samples) == 0
    np.testing.assert_array_equal(frontend.finish(), expected)
    assert frontend.push(samples) == 0
    np.testing.assert_array_equal(frontend.finish(), expected)


def test_a_window_that_is_not_full_is_refused_until_it_is() -> None:
    samples = draw_samples(SEA)
    frontend = make_frontend(SEA)
    expected = frontend.log_mel(samples)
    frontend.begin()
    for piece in (samples[:0], samples[:-1]):
        frontend.push(piece)
        with pytest.raises(EdgeL3Error, match="not full: push 8000 samples, then finish"):
            frontend.finish()
    frontend.push(samples[-1:])
    np.testing.assert_array_equal(frontend.finish(), expected)


def test_beginning_forgets_what_was_pushed() -> None:
    frontend = make_frontend(SEA)
    expected = frontend.log_mel(draw_samples(SEA))
    frontend.begin()
    frontend.push(full_scale_square(SEA)[:5000])
    np.testing.assert_array_equal(frontend.log_mel(draw_samples(SEA)), expected)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(8000, np.float32), np.zeros(8000, np.uint16), np.zeros((1, 8000), np.int16)],
)
def test_samples_of_another_type_or_shape_are_refused(samples: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"expected int16 of shape \(n,\)"):
        make_frontend(SEA).push(samples)


def test_windows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a window of 8000 samples, got 7999"):
        make_frontend(SEA).log_mel(np.zeros(7999, np.int16))


@pytest.mark.parametrize(
    "change",
    [
        {"dft_samples": 1000},
        {"dft_samples": 4},
        {"dft_samples": 32768},
        {"dft_samples": 64},  # frames would leave samples out
        {"frames": 49},
        {"frames": 51},
        {"hop_samples": 164},
        {"sample_rate_hz": 8160},
        {"sample_rate_hz": 70_000, "frames": 438},
    ],
)
def test_inputs_that_the_library_does_not_know_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(EdgeL3Error, match=r"^the frontend refuses FrontendSpec"):
        make_frontend(replace(SEA, **change))


@pytest.mark.parametrize(
    "spec",
    [
        FrontendSpec(sample_rate_hz=1000, dft_samples=8, hop_samples=8, frames=125, mels=3),
        FrontendSpec(sample_rate_hz=1001, dft_samples=16, hop_samples=10, frames=101, mels=1),
        FrontendSpec(sample_rate_hz=999, dft_samples=2048, hop_samples=1, frames=999, mels=7),
        FrontendSpec(sample_rate_hz=300, dft_samples=512, hop_samples=300, frames=1, mels=9),
        FrontendSpec(
            sample_rate_hz=16_000, dft_samples=16_384, hop_samples=4000, frames=4, mels=64
        ),
    ],
    ids=str,
)
def test_other_inputs_are_computed_as_the_host_does(spec: FrontendSpec) -> None:
    samples = draw_samples(spec)
    found = make_frontend(spec).log_mel(samples)
    least, greatest = bound_log_mel(samples, spec)
    assert (found >= least).all()
    assert (found <= greatest).all()


def test_memory_is_one_frame_and_its_samples() -> None:
    assert make_frontend(L3).work_bytes == 4 * (2048 + 2) + 2 * 2048
    assert make_frontend(SEA).work_bytes == 4 * (1024 + 2) + 2 * 1024


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.dft_samples))
def test_tables_are_the_definition_s_rounded_once(spec: FrontendSpec) -> None:
    tables = FrontendTables.of(spec)
    filters = np.zeros((spec.dft_samples // 2 + 1, spec.mels), np.float32)
    weights = tables.mel_weights
    for mel, (first, count) in enumerate(zip(tables.mel_first, tables.mel_count, strict=True)):
        filters[first : int(first) + count, mel] = weights[:count]
        weights = weights[count:]
    assert len(weights) == 0
    np.testing.assert_array_equal(filters, mel_filterbank(spec).astype(np.float32))
    np.testing.assert_array_equal(tables.window, dft_window(spec).astype(np.float32))
    angles = 2 * np.pi * np.arange(spec.dft_samples // 4 + 1) / spec.dft_samples
    np.testing.assert_allclose(tables.cosines, np.cos(angles), rtol=0, atol=ROUNDOFF)


# The transform alone ---------------------------------------------------------------------------

# What CMSIS-DSP promises, slowly.
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
    """edgel3_fft_real of samples and a table of cosines."""
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


# What convert writes, compiled -----------------------------------------------------------------

HOST_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "edgel3_model_frontend.h"
int main(void) {
  const edgel3_frontend_config *config = &edgel3_model_frontend;
  const size_t cells = EDGEL3_MODEL_FRONTEND_LOG_MEL_BYTES / sizeof(float);
  /* Blocks of the exact size, so that a sanitizer sees the first byte beyond. */
  float *log_mel = (float *)malloc(EDGEL3_MODEL_FRONTEND_LOG_MEL_BYTES);
  void *work = malloc(EDGEL3_MODEL_FRONTEND_WORK_BYTES);
  int16_t *samples = (int16_t *)malloc(config->window_samples * sizeof(int16_t));
  int8_t *window = (int8_t *)malloc(cells);
  edgel3_frontend frontend;
  if (log_mel == NULL || work == NULL || samples == NULL || window == NULL) return 1;
  if (edgel3_frontend_log_mel_bytes(config) != EDGEL3_MODEL_FRONTEND_LOG_MEL_BYTES) return 2;
  if (edgel3_frontend_work_bytes(config) != EDGEL3_MODEL_FRONTEND_WORK_BYTES) return 3;
  if (edgel3_frontend_open(&frontend, NULL, log_mel, work) != EDGEL3_ERROR_ARGUMENT) return 4;
  if (edgel3_frontend_open(&frontend, config, NULL, work) != EDGEL3_ERROR_ARGUMENT) return 5;
  if (edgel3_frontend_open(&frontend, config, (char *)log_mel + 2, work) !=
      EDGEL3_ERROR_ARGUMENT) return 6;
  if (edgel3_frontend_open(&frontend, config, log_mel, work) != EDGEL3_OK) return 7;
  while (fread(samples, sizeof *samples, config->window_samples, stdin) ==
         config->window_samples) {
    edgel3_frontend_begin(&frontend);
    edgel3_frontend_push(&frontend, samples, config->window_samples);
    if (edgel3_frontend_finish(&frontend) != EDGEL3_OK) return 8;
    edgel3_frontend_quantize(&frontend, window);
    fwrite(window, 1, cells, stdout);
    /* In place, too. */
    edgel3_frontend_quantize(&frontend, (int8_t *)log_mel);
    fwrite(log_mel, 1, cells, stdout);
  }
  free(log_mel);
  free(work);
  free(samples);
  free(window);
  return 0;
}
"""


@pytest.mark.parametrize("fixture", ["standin", "tiny_int8"])
@pytest.mark.parametrize("compiler", [["gcc", "-std=c99"], ["g++", "-xc++", "-std=c++11"]])
def test_written_tables_give_the_same_bytes_and_sanitizers_find_nothing(
    compiler: list[str], fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    deployment: Deployment = request.getfixturevalue(fixture)
    (tmp_path / "main.c").write_text(HOST_MAIN)
    program = tmp_path / "main"
    subprocess.run(
        [
            *(*compiler, "-O1", "-g", "-pedantic", *STRICT, "-fsanitize=address,undefined"),
            *("-fno-sanitize-recover=all", f"-I{SOURCES}", f"-I{deployment.directory}"),
            *(tmp_path / "main.c", deployment.directory / "edgel3_model_frontend.c"),
            *(*(SOURCES / name for name in FRONTEND_FILES), "-o", program),
        ],
        check=True,
    )
    spec = deployment.variant.frontend
    windows = [draw_samples(spec), full_scale_square(spec), least_noise(spec)]
    done = subprocess.run(
        [program], input=np.stack(windows).astype("<i2").tobytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    found = np.frombuffer(done.stdout, np.int8).reshape(len(windows), 2, spec.mels, spec.frames)
    frontend = deployed_frontend(deployment)
    for window, cells in zip(windows, found, strict=True):
        frontend.log_mel(window)
        for each in cells:
            np.testing.assert_array_equal(each, frontend.quantize())


def test_int16_deployments_have_no_frontend_of_a_device(tiny_int16x8: Deployment) -> None:
    assert not [name for name in tiny_int16x8.manifest["artefacts"] if "frontend" in name]


# The emulated Cortex-M7 ------------------------------------------------------------------------


def count_fused(source: Path, output: Path, *compiler: str) -> int:
    """Fused multiplications and additions in what a compiler makes of a source for a Cortex-M7."""
    processor = [flag for flag in FLAGS if flag.startswith("-m")]
    command = [*compiler, *processor, *STRICT, f"-I{SOURCES}", "-S", source, "-o", output]
    subprocess.run(command, check=True)
    # vmla and its like are one instruction, and round twice.
    return len(re.findall(r"\bvfn?m[as]\b", output.read_text()))


C_DIALECTS = ["-std=gnu11"], ["-xc++", "-std=gnu++14"]


@pytest.mark.parametrize("dialect", C_DIALECTS, ids=["c", "c++"])
@pytest.mark.parametrize("level", ["-O3", "-Os"])
def test_no_product_and_sum_are_fused_whatever_the_dialect(
    dialect: list[str], level: str, tmp_path: Path
) -> None:
    output = tmp_path / "frontend.s"
    gcc = [COMPILER, *dialect, level, "-ffp-contract=fast"]
    # Asked for fast, clang disregards the pragma; of its own accord it contracts within statements.
    searched = subprocess.run(
        [COMPILER, "-xc", "-E", "-v", "/dev/null"], check=True, capture_output=True, text=True
    ).stderr
    folders = [Path(line.strip()).resolve() for line in searched.splitlines() if line[:2] == " /"]
    newlib = [f"-isystem{folder}" for folder in folders if "gcc" not in folder.parts]
    clang = ["clang", "--target=arm-none-eabi", *dialect, level, *newlib]
    for name in ("edgel3_fft.c", "edgel3_frontend.c"):
        for compiler in (gcc, clang):
            assert count_fused(SOURCES / name, output, *compiler) == 0
            # Without what forbids it both do.
            allowed = tmp_path / name
            source = (SOURCES / name).read_text()
            allowed.write_text(source.replace('#include "edgel3_contraction.h"\n', ""))
            assert count_fused(allowed, output, *compiler) > 0


@pytest.mark.parametrize(("fixture", "most"), [("standin", 40e6), ("tiny_int8", 4.6e6)])
def test_a_cortex_m7_computes_the_same_bytes(
    fixture: str,
    most: float,
    request: pytest.FixtureRequest,
    sounds: Path,
    tmp_path: Path,
) -> None:
    """Byte for byte what the same C gives here, in about as many instructions as it takes today."""
    for program in (COMPILER, QEMU):
        assert shutil.which(program), f"needs {program}"
    deployment: Deployment = request.getfixturevalue(fixture)
    spec = deployment.variant.frontend
    sources = [
        Path(__file__).parents[1] / "native" / "device_frontend_main.c",
        BOARD / "board.c",
        deployment.directory / "edgel3_model_frontend.c",
        *(SOURCES / name for name in FRONTEND_FILES),
    ]
    elf = tmp_path / "frontend.elf"
    includes = [f"-I{path}" for path in (SOURCES, BOARD, deployment.directory)]
    linking = ["-nostartfiles", "--specs=nosys.specs", "-Wl,--gc-sections"]
    linking += ["-T", str(BOARD / "mps2_an500.ld")]
    # As Arduino compiles: a dialect that contracts into fused operations.
    dialect = ["-std=gnu11", "-ffp-contract=fast"]
    objects = []
    for source in sources:
        objects.append(tmp_path / f"{source.name}.o")
        subprocess.run(
            [COMPILER, *FLAGS, *dialect, *STRICT, *includes, "-c", source, "-o", objects[-1]],
            check=True,
        )
    subprocess.run([COMPILER, *FLAGS, *linking, *objects, "-o", elf], check=True)

    samples = read_clips(find_clips([sounds])[:1], spec, 1)[0][0]
    windows = np.stack([samples, full_scale_square(spec)])
    image = tmp_path / "windows.bin"
    image.write_bytes(struct.pack("<I", len(windows)) + windows.astype("<i2").tobytes())
    done = subprocess.run(
        [
            *(QEMU, "-M", MACHINE, "-icount", "shift=0", "-display", "none", "-monitor", "none"),
            *("-serial", "none", "-chardev", "stdio,id=console"),
            *("-semihosting-config", "enable=on,target=native,chardev=console"),
            *("-device", f"loader,file={image},addr=0x60000000,force-raw=on", "-kernel", elf),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(windows)
    frontend = deployed_frontend(deployment)
    tensor = open_interpreter(deployment.read_model("int8")).input
    for window, answer in zip(windows, answers, strict=True):
        cells = np.frombuffer(bytes.fromhex(answer["cells"]), np.int8)
        found = cells.reshape(spec.mels, spec.frames)
        frontend.log_mel(window)
        np.testing.assert_array_equal(found, frontend.quantize())
    expected = deployment.input_map.apply(log_mel(samples[np.newaxis] / 32768, spec), tensor)
    cells = np.frombuffer(bytes.fromhex(answers[0]["cells"]), np.int8)
    steps = abs(cells.astype(int) - expected.ravel())
    assert steps.max() <= 1
    assert steps.mean() <= 0.01
    instructions = sum(answers[0][part] for part in ("push", "finish", "quantize"))
    assert instructions < most
