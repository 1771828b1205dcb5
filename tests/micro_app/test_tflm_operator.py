"""The engine as TFLM's custom operator: compiled with its headers, run by its interpreter."""

import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import emulator
import numpy as np
import pytest
from helpers.boards.tflm import (
    BUILTIN_ENGINE,
    COMPILERS,
    NODE_ENGINE,
    OPERATOR,
    ROOT,
    SOURCES,
    STATIC_MEMORY,
    STRICT,
    Interpreter,
    compile_to,
    find_tflm_for_the_cortex_m7,
    find_tool,
    run_engine,
)
from helpers.networks.engine_networks import changed, clip_windows, draw_network, draw_windows, seal
from helpers.networks.int8_network import build

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.export.packed_flatbuffer import wrap_packed
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.c_library.engine import arena_bytes
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter

ENGINE_FILES_M7 = [
    "edgel3_engine.c",
    "edgel3_kernels.c",
    "edgel3_kernels_m7.c",
    "edgel3_pairs_m7.c",
    "edgel3_loops_m7.S",
    "edgel3_pair_loops_m7.S",
    "edgel3_words_m7.c",
    "edgel3_word_lists_m7.S",
    "edgel3_word_loops_m7.S",
    "edgel3_packed.c",
]


BOARD = ROOT / "micro_app" / "boards" / "mps2_an500"


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("g++", ["-std=c++17"]),
        ("clang++", ["-std=c++14"]),
        ("cortex-m7", ["-std=c++17"]),
        ("cortex-m7", ["-std=c++17", "-DTF_LITE_STRIP_ERROR_STRINGS"]),
    ],
)
def test_the_operator_compiles_without_a_warning(
    upstream_headers: Path, tmp_path: Path, compiler: str, options: list[str]
) -> None:
    output = tmp_path / "operator.o"
    includes = ("-isystem", upstream_headers)
    command = [*COMPILERS[compiler], *options, *STRICT, STATIC_MEMORY, *includes, "-c", OPERATOR]
    compile_to(output, command)
    says = "-DTF_LITE_STRIP_ERROR_STRINGS" not in options
    assert (b"convert again" in output.read_bytes()) == says
    if compiler == "cortex-m7":
        assert_needs_only_tflm_and_engine(output)


def assert_needs_only_tflm_and_engine(output: Path) -> None:
    """Check that an object needs neither the heap nor the C++ runtime."""
    done = subprocess.run(
        [find_tool("arm-none-eabi-nm"), "--undefined-only", output],
        capture_output=True,
        text=True,
        check=True,
    )
    needed = [line.split()[-1] for line in done.stdout.splitlines()]
    tflm = [name for name in needed if "tflite" in name or "MicroPrintf" in name]
    engine = [name for name in needed if name.startswith("edgel3_")]
    assert {"edgel3_open", "edgel3_run"} < set(engine)
    assert sorted(tflm + engine) == sorted(needed)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_without_tflm_s_headers_there_is_nothing(tmp_path: Path, compiler: str) -> None:
    output = tmp_path / "operator.i"
    for source in (OPERATOR, NODE_ENGINE, BUILTIN_ENGINE):
        compile_to(output, [*COMPILERS[compiler], "-std=c++11", *STRICT, "-E", "-P", source])
        assert output.read_text().strip() == ""
    # A sketch can test for the operator with EDGEL3_HAS_TFLM.
    asking = tmp_path / "asking.cc"
    asking.write_text(
        '#include "edgel3_tflm.h"\n#ifdef EDGEL3_HAS_TFLM\n#error there are headers\n#endif\n'
    )
    compile_to(output, [*COMPILERS[compiler], "-std=c++11", f"-I{SOURCES}", "-E", asking])


def test_only_the_operator_and_what_runs_it_know_tflm() -> None:
    files = [path for path in SOURCES.iterdir() if "tensorflow/" in path.read_text()]
    assert {path.name for path in files} == {
        OPERATOR.name,
        "edgel3_tflm.h",
        "edgel3_node_tflm_network.h",
        BUILTIN_ENGINE.name,
    }


def test_sea_64_gives_the_engine_s_bytes(
    interpreter: Interpreter, sea_generated: Deployment, sounds: Path
) -> None:
    windows = clip_windows(sea_generated, find_clips([sounds / "chirp", sounds / "tone"]), 40)
    packed = (sea_generated.directory / "int8_packed.tflite").read_bytes()
    blob = sea_generated.read_model("int8", "engine")
    (found,) = interpreter.run(windows, packed)
    assert len(np.unique(found, axis=0)) > 30
    np.testing.assert_array_equal(found, run_engine(blob, windows))


def test_the_dense_network_runs_beside_it_as_before(
    interpreter: Interpreter, tiny_int8: Deployment
) -> None:
    """The operator does not affect TFLM's own kernels in the same process."""
    windows = np.random.default_rng(0).integers(-128, 128, (3, 64, 50, 1)).astype(np.int8)
    packed = (tiny_int8.directory / "int8_packed.tflite").read_bytes()
    dense = tiny_int8.read_model("int8")
    found, expected = interpreter.run(windows, packed, dense)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(open_interpreter(dense, "tflm").run(windows), expected)


def test_the_95_45_network_gives_the_engine_s_bytes(
    interpreter: Interpreter, standin: Deployment, sounds: Path
) -> None:
    windows = clip_windows(standin, find_clips([sounds / "tone"])[:1], 1)
    packed = (standin.directory / "int8_packed.tflite").read_bytes()
    (found,) = interpreter.run(windows, packed)
    expected = run_engine(standin.read_model("int8", "engine"), windows)
    np.testing.assert_array_equal(found, expected)


def test_generated_networks_give_the_engine_s_bytes_by_turns(interpreter: Interpreter) -> None:
    """Interpreters that run interleaved do not affect each other."""
    rng = np.random.default_rng(0)
    network = draw_network(
        rng, rows=9, columns=33, filters=[8, 15, 11], pools=["none", "2x2", "global"]
    )
    blobs = []
    for sparsity in (0, 0.5, 0.85, 0.98):
        drawn = draw_network(
            rng,
            rows=9,
            columns=33,
            filters=[8, 15, 11],
            pools=["none", "2x2", "global"],
            sparsity=sparsity,
        )
        blobs.append(pack(build(replace(drawn, input=network.input))))
    windows = draw_windows(rng, network)
    outputs = interpreter.run(windows, *(wrap_packed(blob, "a test") for blob in blobs))
    for blob, found in zip(blobs, outputs, strict=True):
        np.testing.assert_array_equal(found, run_engine(blob, windows))
    assert len({found.tobytes() for found in outputs}) == len(blobs)


def test_the_comparison_fails_when_it_should(interpreter: Interpreter, blob: bytes) -> None:
    """One bias differs from that of the engine's model."""
    offset = struct.unpack_from("<I", blob, 64 + 12)[0]
    other = seal(changed(blob, offset + 2, blob[offset + 2] ^ 1))
    windows = np.random.default_rng(1).integers(-128, 128, (4, 13, 11, 1)).astype(np.int8)
    (found,) = interpreter.run(windows, wrap_packed(other, "a test"))
    assert (found != run_engine(blob, windows)).any()


def test_the_arena_holds_the_engine_and_little_else(
    interpreter: Interpreter, tiny_int8: Deployment
) -> None:
    packed = (tiny_int8.directory / "int8_packed.tflite").read_bytes()
    done = interpreter.start(np.zeros((1, 64, 50, 1), np.int8), [packed])
    assert done.returncode == 0, done.stderr
    total = re.search(r"Arena allocation total (\d+) bytes", done.stderr)
    assert total is not None, done.stderr
    window_and_embedding = 64 * 50 + 4
    engine = arena_bytes(tiny_int8.read_model("int8", "engine"))
    # The rest are TFLM's records of three tensors and a node.
    assert 0 <= int(total[1]) - engine - window_and_embedding <= 1024


def run_on_an_emulated_cortex_m7(
    folder: Path, program: str, data: str, headers: Sequence[str | Path], *libraries: str
) -> str:
    """Return what a C++ program with operator, engine and data (in assembly) writes."""
    (folder / "data.S").write_text(f".section .rodata\n.balign 16\n{data}")
    c = (*emulator.FLAGS, f"-I{SOURCES}", f"-I{BOARD}")
    vendor = [word for header in headers for word in ("-isystem", header)]
    options = [*COMPILERS["cortex-m7"][1:], "-std=c++17", *STRICT, STATIC_MEMORY, *vendor]
    sources = {BOARD / "board.c": c, folder / "data.S": c}
    sources |= {SOURCES / name: c for name in ENGINE_FILES_M7}
    objects = []
    for source, flags in sources.items():
        objects.append(folder / f"{source.name}.o")
        compile_to(objects[-1], ["arm-none-eabi-gcc", *flags, "-c", source])
    for source in (OPERATOR, Path(__file__).parents[1] / "native" / program):
        objects.append(folder / f"{source.name}.o")
        compile_to(objects[-1], ["arm-none-eabi-g++", *c, *options, "-c", source])
    elf = folder / "test.elf"
    script = ("-nostartfiles", "--specs=nosys.specs", "-T", BOARD / "mps2_an500.ld")
    linking = (*script, "-Wl,--gc-sections", "-Wl,--defsym=end=board_bss_end")
    compile_to(elf, ["arm-none-eabi-g++", *emulator.FLAGS, *linking, *objects, *libraries])
    done = subprocess.run(
        [
            *(find_tool(emulator.QEMU), "-M", emulator.MACHINE, "-icount", "shift=0"),
            *("-display", "none", "-monitor", "none", "-serial", "none"),
            *("-chardev", "stdio,id=console", "-semihosting-config"),
            *("enable=on,target=native,chardev=console", "-kernel", elf),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done
    return done.stdout


def test_on_an_emulated_cortex_m7_it_gives_the_engine_s_bytes(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    """Needs TFLM's headers and library for the Cortex-M7, from environment variables."""
    includes, tflm = find_tflm_for_the_cortex_m7()
    packed = tiny_int8.directory / "int8_packed.tflite"
    windows = np.random.default_rng(4).integers(-128, 128, (3, 64, 50, 1)).astype(np.int8)
    (tmp_path / "windows").write_bytes(windows.tobytes())
    data = (
        ".global test_model, test_windows, test_windows_end\n"
        f'test_model: .incbin "{packed}"\n'
        f'test_windows: .incbin "{tmp_path / "windows"}"\n'
        "test_windows_end:\n"
    )
    output = run_on_an_emulated_cortex_m7(tmp_path, "tflm_main_m7.cc", data, includes, tflm)
    *embeddings, arena = output.split()
    blob = tiny_int8.read_model("int8", "engine")
    assert embeddings == [values.tobytes().hex() for values in run_engine(blob, windows)]
    # The arena contains the engine, window and embedding; the rest are TFLM's records.
    assert 0 <= int(arena) - plan_memory(blob).arena_bytes - 64 * 50 - 4 <= 1024


def test_the_operator_takes_the_fast_arena_where_the_limit_has_room(
    upstream_headers: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(6)
    network = draw_network(
        rng,
        rows=9,
        columns=33,
        filters=[16, 24, 24, 11],
        pools=["none", "none", "2x2", "global"],
        sparsity=[0, 0.95, 0.95, 0.98],
    )
    blob = pack(build(network))
    window = rng.integers(-128, 128, (1, 9, 33, 1)).astype(np.int8)
    least, fast = (plan_memory(blob, widen=widen) for widen in (False, True))
    assert least.arena_bytes < fast.arena_bytes
    limits = [0, fast.arena_bytes - 1, fast.arena_bytes, 2 * fast.arena_bytes]
    (tmp_path / "model").write_bytes(blob)
    (tmp_path / "window").write_bytes(window.tobytes())
    data = (
        ".global test_model, test_model_bytes, test_window, test_limits, test_limits_end\n"
        f'test_model: .incbin "{tmp_path / "model"}"\n'
        f'test_window: .incbin "{tmp_path / "window"}"\n'
        f".balign 4\ntest_model_bytes: .word {len(blob)}\n"
        f"test_limits: .word {', '.join(map(str, limits))}\ntest_limits_end:\n"
    )

    output = run_on_an_emulated_cortex_m7(
        tmp_path, "tflm_arena_main_m7.cc", data, [upstream_headers]
    )

    expected = run_engine(blob, window)[0].tobytes().hex()
    rows = [line.split() for line in output.splitlines()]
    arenas = [least.arena_bytes, least.arena_bytes, fast.arena_bytes, fast.arena_bytes]
    assert [int(row[0]) for row in rows] == arenas
    assert [row[1] for row in rows] == [expected] * 4
