"""The engine's interface: what it accepts, what it refuses, and its memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.networks.engine_networks import changed, draw_windows, seal
from helpers.networks.engine_sweep import KERNELS, aligned_memory, sweep
from helpers.networks.int8_network import Int8Network, build

from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.runtime.c_library import engine as engine_module
from edgel3_tflm.runtime.c_library.engine import (
    Engine,
    EngineInterpreter,
    Kernels,
    arena_bytes,
    describe,
    supported_kernels,
)
from edgel3_tflm.runtime.c_library.library import ffi, lib
from edgel3_tflm.runtime.packed import read_packed


def test_a_model_is_described(small: Int8Network, blob: bytes) -> None:
    info = describe(blob)
    model = read_packed(blob)
    assert (info.rows, info.columns, info.embedding_size) == (13, 11, 10)
    assert info.input_scale == small.input.scale == model.input_scale
    assert info.input_zero_point == small.input.zero_point
    assert info.output_scale == small.layers[-1].output.scale
    assert info.output_zero_point == small.layers[-1].output.zero_point
    assert info.convolutions == 4
    assert info.source_sha256 == model.source_sha256


def test_a_batch_in_threads_gives_what_single_runs_give(
    blob: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "available_cores", lambda: 5)
    windows = np.random.default_rng(3).integers(-128, 128, (64, 13, 11, 1)).astype(np.int8)
    alone = Engine(blob)
    expected = np.stack([alone.run(window[:, :, 0]) for window in windows])
    assert len(np.unique(expected, axis=0)) == 64
    interpreter = EngineInterpreter(blob)
    for count in (0, 1, 2, 3, 64):
        found = interpreter.run(windows[:count])
        assert found.shape == (count, 10)
        np.testing.assert_array_equal(found, expected[:count])
    # Several threads may also share an interpreter.
    with ThreadPoolExecutor(4) as executor:
        for found in executor.map(interpreter.run, [windows] * 8):
            np.testing.assert_array_equal(found, expected)


def test_rows_may_be_pushed_as_they_come(blob: bytes) -> None:
    window = np.random.default_rng(4).integers(-128, 128, (13, 11)).astype(np.int8)
    pushed = Engine(blob)
    for row in window[:6]:
        pushed.push_row(-row)
    pushed.begin()  # discards them
    for row in window:
        pushed.push_row(row)
    expected = Engine(blob).run(window)
    np.testing.assert_array_equal(pushed.finish(), expected)
    np.testing.assert_array_equal(pushed.finish(), expected)


def test_a_program_may_work_after_every_row_of_a_convolution(blob: bytes) -> None:
    engine = Engine(blob)
    window = np.random.default_rng(4).integers(-128, 128, (13, 11)).astype(np.int8)
    expected = engine.run(window)
    rows = sum(conv.rows for conv in read_packed(blob).convolutions)
    calls: list[int] = []

    @ffi.callback("void(void *)")
    def work(context: object) -> None:
        calls.append(int(ffi.cast("uintptr_t", context)))

    lib.edgel3_set_between_rows(engine._engine, work, ffi.cast("void *", 7))
    found = engine.run(window)
    lib.edgel3_set_between_rows(engine._engine, ffi.NULL, ffi.NULL)
    engine.run(window)

    assert calls == [7] * rows
    np.testing.assert_array_equal(found, expected)


def test_rows_behind_the_last_and_early_embeddings_are_refused(blob: bytes) -> None:
    engine = Engine(blob)
    row = np.zeros(11, np.int8)
    with pytest.raises(EdgeL3Error, match="the embedding read before it; begin a window"):
        engine.finish()
    for _ in range(13):
        engine.push_row(row)
    expected = engine.finish()
    with pytest.raises(EdgeL3Error, match="a row after the last one"):
        engine.push_row(row)
    np.testing.assert_array_equal(engine.finish(), expected)


def test_windows_may_lie_in_any_order_in_memory(blob: bytes) -> None:
    windows = np.random.default_rng(5).integers(-128, 128, (2, 13, 11, 1)).astype(np.int8)
    expected = EngineInterpreter(blob).run(windows)
    turned = np.asfortranarray(windows)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(EngineInterpreter(blob).run(turned), expected)


@pytest.mark.parametrize(
    "windows",
    [
        np.zeros((2, 13, 11, 1), np.uint8),
        np.zeros((2, 13, 11, 1), np.float32),
        np.zeros((2, 13, 10, 1), np.int8),
        np.zeros((2, 13, 11), np.int8),
    ],
)
def test_windows_of_another_type_or_shape_are_refused(
    blob: bytes, windows: npt.NDArray[Any]
) -> None:
    with pytest.raises(ValueError, match=r"expected int8 of shape \(2, 13, 11, 1\)"):
        EngineInterpreter(blob).run(windows)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda blob: blob[:0], "truncated.*; convert again"),
        (lambda blob: blob[:4], "truncated.*; convert again"),
        (lambda blob: blob[:63], "truncated.*; convert again"),
        (lambda blob: blob[:64], "truncated.*; convert again"),
        (lambda blob: blob[:-1], "truncated.*; convert again"),
        (lambda blob: b"TFL3" + blob[4:], r"not a packed model; give it the packed\.edgel3"),
        (lambda blob: bytes(len(blob)), r"not a packed model; give it the packed\.edgel3"),
        (
            lambda blob: changed(blob, 4, 2),
            "another version .*; convert again, with this version",
        ),
        (
            lambda blob: changed(blob, len(blob) - 5, blob[-5] ^ 1),
            "its checksum differs; convert",
        ),
        (lambda blob: changed(blob, 70, blob[70] ^ 1), "its checksum differs; convert"),
        # The number of convolutions, the columns, and bytes that must be zero.
        (lambda blob: seal(changed(blob, 6, 3)), "inconsistent or out of range; convert again"),
        (lambda blob: changed(blob, 6, 0), "inconsistent or out of range; convert again"),
        (lambda blob: changed(blob, 6, 9), "inconsistent or out of range; convert again"),
        (lambda blob: seal(changed(blob, 20, 11)), "inconsistent or out of range; convert again"),
        (lambda blob: seal(changed(blob, 56, 1)), "inconsistent or out of range; convert again"),
        # The first record: its output channels and its encoding.
        (lambda blob: seal(changed(blob, 66, 13)), "inconsistent or out of range; convert again"),
        (lambda blob: seal(changed(blob, 73, 3)), "inconsistent or out of range; convert again"),
    ],
)
def test_a_damaged_model_is_refused_with_a_remedy(
    blob: bytes, damage: Callable[[bytes], bytes], message: str
) -> None:
    model = damage(blob)
    for refuse in (describe, arena_bytes, Engine, EngineInterpreter):
        with pytest.raises(ModelFileError, match=rf"^the engine refuses[^\n]*{message}"):
            refuse(model)


def test_bytes_behind_a_model_do_not_matter(blob: bytes) -> None:
    assert describe(blob + b"more") == describe(blob)


INSTRUCTIONS: dict[Kernels, set[str]] = {
    "avx512": {"avx2", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
    "avxvnni": {"avx2", "avx_vnni"},
    "avx2": {"avx2"},
    "neon": {"asimd"},
    "portable": set(),
}
"""What Linux calls the instructions of each set of kernels, the fastest first."""


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux's /proc/cpuinfo")
def test_the_extension_has_the_kernels_for_this_processor(blob: bytes) -> None:
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert supported_kernels() == tuple(
        name for name, needed in INSTRUCTIONS.items() if needed <= words
    )
    # All but the portable kernels keep expanded weights in the arena.
    for kernels in supported_kernels()[:-1]:
        assert arena_bytes(blob, kernels) > arena_bytes(blob, "portable")


def test_a_variable_chooses_the_kernels(blob: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest = arena_bytes(blob)
    for kernels in supported_kernels():
        monkeypatch.setenv("EDGEL3_KERNELS", kernels)
        assert arena_bytes(blob) == arena_bytes(blob, kernels)
        Engine(blob, arena=aligned_memory(arena_bytes(blob, kernels)))
    # A name in a call has precedence.
    assert arena_bytes(blob, supported_kernels()[0]) == fastest
    monkeypatch.setenv("EDGEL3_KERNELS", "")
    assert arena_bytes(blob) == fastest


def test_kernels_that_this_processor_lacks_are_refused(
    blob: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = "avx2" if "neon" in supported_kernels() else "neon"
    known = ", ".join(("best", *supported_kernels()))
    for name in (lacking, "fast"):
        message = f"'{name}': on this processor the engine has the kernels {known}; choose one"
        unknown: Any = name
        for refuse in (arena_bytes, Engine, EngineInterpreter):
            with pytest.raises(EdgeL3Error, match=f"^kernels is {message}"):
                refuse(blob, unknown)
    monkeypatch.setenv("EDGEL3_KERNELS", "fast")
    for refuse in (arena_bytes, Engine, EngineInterpreter):
        with pytest.raises(EdgeL3Error, match=f"^EDGEL3_KERNELS is {message}"):
            refuse(blob)
    assert arena_bytes(blob, "portable") > 0


@pytest.mark.parametrize("kernels", KERNELS)
def test_an_arena_that_is_too_small_or_misaligned_is_refused(blob: bytes, kernels: Kernels) -> None:
    needed = arena_bytes(blob, kernels)
    memory = aligned_memory(needed + 16)
    Engine(blob, kernels, arena=memory[:needed])
    Engine(blob, kernels, arena=memory[16:])
    for size in (0, 100, 2048, needed - 1):
        with pytest.raises(EdgeL3Error, match="too small; give it as many bytes as arena_bytes"):
            Engine(blob, kernels, arena=memory[:size])
    for start in (1, 4, 8):
        with pytest.raises(EdgeL3Error, match="align the arena to 16 bytes"):
            Engine(blob, kernels, arena=memory[start : start + needed])


@pytest.mark.parametrize("kernels", KERNELS)
def test_bytes_around_the_arena_stay_as_they_are(kernels: Kernels) -> None:
    guard = 4096
    for sparsity in (0, 0.85, 0.98):
        for rng, network in sweep(sparsity, (7, 64, 65, 129)):
            blob = pack(build(network))
            size = arena_bytes(blob, kernels)
            memory = aligned_memory(size + 2 * guard)
            memory[:] = rng.integers(0, 256, len(memory))
            before = memory.copy()
            engine = Engine(blob, kernels, arena=memory[guard : guard + size])
            for window in draw_windows(rng, network):
                engine.run(window[:, :, 0])
            np.testing.assert_array_equal(memory[:guard], before[:guard])
            np.testing.assert_array_equal(memory[guard + size :], before[guard + size :])
            assert (memory != before).any()


def test_engines_do_not_change_their_model(blob: bytes) -> None:
    copy = bytes(bytearray(blob))
    Engine(blob).run(np.ones((13, 11), np.int8))
    assert blob == copy
