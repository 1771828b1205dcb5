"""The frontend of the C library gives the host's log-mel within the error of float32."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from helpers.sounds.frontend_windows import (
    ROUNDOFF,
    SEA,
    SPECS,
    Int16Array,
    deployed_frontend,
    draw_samples,
    fft_error,
    full_scale_square,
    least_noise,
    make_frontend,
    read_clips,
)

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.log_mel import FrontendTables, dft_window, log_mel, mel_filterbank
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.variants import FrontendSpec
from edgel3_tflm.runtime.c_library.device_frontend import DeviceFrontend
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.tensors import TensorSpec


@pytest.mark.parametrize("fixture", ["standin", "tiny_int8"])
def test_clips_give_the_host_s_cells_and_embeddings(
    fixture: str, request: pytest.FixtureRequest, sounds: Path
) -> None:
    deployment: Deployment = request.getfixturevalue(fixture)
    spec = deployment.variant.frontend
    rng = np.random.default_rng(9)
    engine = open_interpreter(deployment.read_model("int8", "engine"), "engine")
    frontend = deployed_frontend(deployment)
    exact = deployment.embedder("float")
    moved = cells = 0
    errors: list[list[float]] = [[], []]
    for clip in read_clips(find_clips([sounds]), spec, 2):
        # Add the noise of a microphone, 70 dB below full scale. Without it, cells 70 dB below a
        # pure tone contain mainly rounding errors, which differ by two quantized values.
        noise = rng.normal(0, 10, clip.shape)
        samples = np.clip(np.round(clip + noise), -32768, 32767).astype(np.int16)
        decibels = log_mel(samples / 32768, spec)
        expected = deployment.input_map.apply(decibels, engine.input)
        found = np.empty_like(expected)
        for window, out in zip(samples, found, strict=True):
            frontend.log_mel(window)
            out[..., 0] = frontend.quantize()
        steps = abs(found.astype(int) - expected)
        assert steps.max() <= 1
        moved += steps.sum()
        cells += steps.size
        right = exact.embed_log_mel(decibels).astype(np.float64)
        for windows, error in zip((found, expected), errors, strict=True):
            embeddings = engine.output.dequantize(engine.run(windows)).astype(np.float64)
            norms = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(right, axis=1)
            error += list(1 - (embeddings * right).sum(axis=1) / norms)
    assert moved <= 0.01 * cells
    # A cell that moves changes the rounding errors inside the network, so that both embeddings
    # differ as they do from the float network's. The mean error over the windows is the same but
    # for chance, which is below 2 % of it.
    ours, theirs = np.mean(errors, axis=1)
    assert ours <= 1.05 * theirs


@pytest.mark.parametrize("rate_hz", [47_991, 48_780.5])
def test_a_microphone_s_true_rate_matters_less_than_when_a_window_begins(
    rate_hz: float, standin: Deployment, sounds: Path
) -> None:
    """Rates of the drivers of Portenta, and of Giga and Nicla, for a nominal 48 kHz."""
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


def bound_log_mel(
    samples: Int16Array, spec: FrontendSpec
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the least and the greatest log-mel values that errors of float32 can cause.

    The error of a frame's spectrum, in the 2-norm, is the error of its FFT plus the rounding of the
    window and of a product. The error of the root of a band is at most that, times the root of the
    band's greatest weight.
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
    # A power is a product and a sum; a band is a product and a sum for each of its bins. 10 log10
    # of the root changes by 2.2 dB times their relative error. A level of up to 100 dB is a product
    # and a sum with rounded constants, and two levels are subtracted.
    roundings = 4 + (filters > 0).sum(axis=0).max()
    rounding = (2.2 * roundings + 2 * 3 * 100) * ROUNDOFF
    # Both levels are rounded to whole multiples of 1/512 dB.
    rounding += 2 * 0.5 / 512
    least, greatest = lower - upper.max() - rounding, upper - lower.max() + rounding
    return np.clip(least, -80, 0).T, np.clip(greatest, -80, 0).T


def click(position: int) -> Callable[[FrontendSpec], Int16Array]:
    def make(spec: FrontendSpec) -> Int16Array:
        samples = np.zeros(spec.window_samples, np.int16)
        samples[position] = -32768
        return samples

    return make


def constant(value: int) -> Callable[[FrontendSpec], Int16Array]:
    return lambda spec: np.full(spec.window_samples, value, np.int16)


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
    # Above -30 dB the bounds are closer than one quantized value.
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
        frontend.log_mel(draw_samples(spec))  # must not affect the next window


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.dft_samples))
def test_cells_are_the_integers_of_the_host_for_the_same_decibels(spec: FrontendSpec) -> None:
    tensor = TensorSpec((1, spec.mels, spec.frames, 1), np.dtype(np.int8), 0.0213, -7)
    # Values at both ends of the range are clamped.
    input_map = InputMap(0.0913, 3.3)
    frontend = DeviceFrontend(spec, input_map, tensor)
    decibels = frontend.log_mel(full_scale_square(spec) // 3)
    found = frontend.quantize()
    np.testing.assert_array_equal(found, input_map.apply(decibels[np.newaxis], tensor)[0, ..., 0])
    assert {-128, 127} <= set(found.ravel().tolist())
    assert len(np.unique(found)) > 90


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
