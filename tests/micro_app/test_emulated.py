"""The engine on an emulated Cortex-M7: the reference kernels' bytes, nothing beside its arena.

All small networks run in one start of the emulator. Without the toolchain these tests fail.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench
import emulator
import numpy as np
import numpy.typing as npt
import pytest
from emulator import Answer, EmulatorError, Firmware, Jobs, run
from helpers.networks.int8_network import (
    Conv,
    Int8Network,
    Quantization,
    build,
    random_conv,
    random_network,
    with_layer,
)

from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.device.estimate import TIMED_CLIPS, estimate_work
from edgel3_tflm.device.firmware import ToolError
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.runtime.arena import Kernels, plan_memory
from edgel3_tflm.runtime.c_library.cycles import count_cycles, describe_work, modelled_cycles
from edgel3_tflm.runtime.c_library.engine import Engine
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.packed import Encoding, read_packed

Int8Array = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Case:
    packed: bytes
    windows: Int8Array
    expected: Int8Array


def make_case(network: Int8Network, seed: int = 0) -> Case:
    """Windows of noise, of extremes, of zeros, of noise between rows of zeros, of the greatest."""
    rng = np.random.default_rng(seed)
    shape = (network.rows, network.columns)
    noise = rng.integers(-128, 127, shape, np.int8, endpoint=True)
    zero = np.full(shape, network.input.zero_point, np.int8)
    sparse = np.where(np.arange(network.rows)[:, np.newaxis] % 5 == 2, noise, zero)
    extremes = rng.choice(np.array([-128, 127], np.int8), shape)
    windows = np.stack([noise, extremes, zero, sparse, np.full(shape, 127, np.int8)])
    flatbuffer = build(network)
    expected = open_interpreter(flatbuffer, "reference").run(windows[..., np.newaxis])
    return Case(pack(flatbuffer), windows, expected)


def with_dead_channels(network: Int8Network) -> Int8Network:
    """Every third channel of each layer but the last puts out nothing but its lower clamp."""
    for position, conv in enumerate(network.layers[:-1]):
        assert conv.bias is not None
        dead = np.arange(len(conv.bias)) % 3 == 0
        network = with_layer(network, position, bias=np.where(dead, -(2**20), conv.bias))
    return network


def spread_out(rng: np.random.Generator, channels: int, source: Quantization) -> Conv:
    """A last layer by which all its inputs, not their maxima alone, reach the embedding."""
    return random_conv(
        rng,
        channels,
        40,
        sparsity=0.5,
        input_quantization=source,
        output=Quantization(0.1, -20),
        activation="none",
        pool="global",
    )


def saturated(weight: int, activation: str, spacing: int = 1) -> Int8Network:
    """Of 30 channels all inputs at their greatest, in some places: sums of 270 * 255 * weight.

    The M7 kernels take 2^23 less one, with the bias: 121 is within, 122 beyond. From 61 on, the
    kernels for lists count from the middle of the range. With ``spacing``, channels of zeros are
    between the 30, so that the weights are a list.
    """
    rng = np.random.default_rng(weight)
    filters = 30 * spacing
    bright = Conv(
        np.ones((filters, 3, 3, 1), np.int8),
        np.full(filters, -1100, np.int32),
        np.full(filters, 0.9, np.float32),
        Quantization(0.1, -128),
        "relu",
    )
    kernel = np.full((6, 3, 3, filters), weight, np.int8)
    kernel[1] = -weight
    kernel[2:4, :, :, ::2] = -weight
    kernel[4, 0] = 0
    kernel[5] = rng.choice(np.array([-weight, 0, weight], np.int8), kernel[5].shape)
    kernel[..., np.arange(filters) % spacing > 0] = 0
    # The greatest sum is 100 steps of output, or 7: of the one the kernel's scale is the exponent.
    steps = np.array([100, 100, 100, 7, 7, 100])
    scales = (steps / (270 * 255 * weight)).astype(np.float32)
    bias = np.array([1, -1, 77, 0, 1000, 0], np.int32)
    output = Quantization(0.1, -128 if activation == "relu" else 5)
    extreme = Conv(kernel, bias, scales, output, activation)
    layers = (bright, extreme, spread_out(rng, len(kernel), output))
    return Int8Network(8, 11, Quantization(0.1, -128), layers)


def shifted(least: int, greatest: int, activation: str) -> Int8Network:
    """A channel for each shift to the right; accumulators grow with it, to 20 bits."""
    rng = np.random.default_rng(greatest)
    shifts = np.arange(least, greatest + 1)
    bounds = 2 ** shifts.clip(max=7)[:, np.newaxis, np.newaxis, np.newaxis]
    kernel = rng.integers(-bounds, bounds, (len(shifts), 3, 3, 1)).astype(np.int8)
    bias = rng.integers(-(2 ** (shifts.clip(max=13) + 7)), 2 ** (shifts.clip(max=13) + 7))
    scales = (rng.uniform(0.5, 1, len(shifts)) * 2.0**-shifts).astype(np.float32)
    output = Quantization(0.1, -128 if activation == "relu" else -7)
    first = Conv(kernel, bias.astype(np.int32), scales, output, activation)
    layers = (first, spread_out(rng, len(shifts), output))
    return Int8Network(7, 9, Quantization(0.1, -128), layers)


def make_networks() -> dict[str, Int8Network]:
    rng = np.random.default_rng(20)
    networks = {}
    shapes: dict[str, dict[str, Any]] = {
        "odd": {
            "rows": 11,
            "columns": 27,
            "filters": [3, 7, 5, 9],
            "pools": ["none", "2x2", "none", "global"],
        },
        "even": {
            "rows": 16,
            "columns": 40,
            "filters": [16, 32, 24, 48],
            "pools": ["2x2", "none", "2x2", "global"],
        },
        "one pixel": {"rows": 1, "columns": 1, "filters": [13, 8], "pools": ["none", "global"]},
    }
    for sparsity in (0, 0.15, 0.5, 0.85, 0.98, 1):
        for name, shape in shapes.items():
            networks[f"sparsity {sparsity}, {name}"] = random_network(
                rng, **shape, sparsity=sparsity
            )
    for columns in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 63, 64, 65, 199, 206, 207):
        networks[f"{columns} columns"] = random_network(
            rng, rows=3, columns=columns, filters=[5, 4], pools=["none", "global"], sparsity=0.6
        )
    for columns in (1, 2, 3, 4, 5, 6, 7, 9, 10):
        networks[f"dense, {columns} columns"] = random_network(
            rng, rows=3, columns=columns, filters=[5, 4], pools=["none", "global"], sparsity=0
        )
    for rows, columns in ((2, 2), (3, 3), (5, 2), (4, 9)):
        networks[f"pooled {rows} x {columns}"] = random_network(
            rng, rows=rows, columns=columns, filters=[6, 11], pools=["2x2", "global"], sparsity=0.3
        )
    for activation in ("none", "relu", "relu6"):
        networks[f"activation {activation}"] = random_network(
            rng,
            rows=7,
            columns=18,
            filters=[8, 12, 10],
            pools=["none", "none", "global"],
            activations=[activation] * 3,
        )
    networks["many taps"] = random_network(
        rng, rows=5, columns=6, filters=[300, 40], pools=["none", "global"], sparsity=[0, 0.9]
    )
    networks["eight layers"] = random_network(
        rng,
        rows=17,
        columns=23,
        filters=[8, 8, 16, 16, 16, 32, 32, 20],
        pools=["none", "2x2", "none", "2x2", "none", "2x2", "none", "global"],
        sparsity=[0, 0.85, 0.85, 0.85, 0.75, 0.95, 0.98, 0.98],
    )
    for name in ("sparsity 0.85, odd", "sparsity 0.85, even", "eight layers"):
        networks[f"{name}, dead channels"] = with_dead_channels(networks[name])
    for least, greatest in ((-128, -128), (127, 127), (-128, 127)):
        network = networks["sparsity 0.5, odd"]
        layers = []
        for conv in network.layers:
            drawn = rng.choice(np.array([least, greatest, 0], np.int8), conv.kernel.shape)
            layers.append(replace(conv, kernel=drawn))
        networks[f"weights {least} and {greatest}"] = replace(network, layers=tuple(layers))
    for activation in ("none", "relu"):
        for weight in (60, 61, 121, 122, 127):
            networks[f"sums of {weight}, {activation}"] = saturated(weight, activation)
            networks[f"list, sums of {weight}, {activation}"] = saturated(weight, activation, 8)
        for least, greatest in ((0, 4), (1, 22), (1, 25), (16, 31)):
            name = f"shifts {least} to {greatest}, {activation}"
            networks[name] = shifted(least, greatest, activation)
    return networks


NETWORKS = make_networks()
# Largest relative error of the formula of edgel3_tflm.runtime.c_library.cycles. Its fit is within
# 1.1 % of the cycles of every network, and llvm-mca's cycles depend on where the linker places a
# loop.
FORMULA = 0.03
KINDS = ("best kernels", "least arena", "portable kernels", "CMSIS-NN")


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    return emulator.build(tmp_path_factory.mktemp("firmware"))


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {name: make_case(network, seed) for seed, (name, network) in enumerate(NETWORKS.items())}


@pytest.fixture(scope="module")
def answers(
    firmware: Firmware, cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Answer]:
    jobs = Jobs()
    for case in cases.values():
        jobs.add_engine(case.packed, case.windows)
        jobs.add_engine(case.packed, case.windows, least_arena=True)
        jobs.add_engine(case.packed, case.windows, portable=True)
        jobs.add_dense(case.packed, case.windows)
    found = run(firmware, jobs, tmp_path_factory.mktemp("sweep"), timeout_s=600)
    names = [(name, kind) for name in cases for kind in KINDS]
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_are_the_reference_s(
    name: str, kind: str, cases: dict[str, Case], answers: dict[tuple[str, str], Answer]
) -> None:
    np.testing.assert_array_equal(answers[name, kind].outputs(), cases[name].expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_engine_keeps_to_its_arena(
    name: str, cases: dict[str, Case], answers: dict[tuple[str, str], Answer]
) -> None:
    packed = cases[name].packed
    for kind in KINDS[:3]:
        answer = answers[name, kind]
        bench.check_engine(name, answer, read_packed(packed))
        arena_bytes = answer.summary["arena_bytes"]
        plan = plan_memory(packed, widen=kind == "best kernels")
        assert arena_bytes == plan.arena_bytes
        if kind != "portable kernels":
            assert answer.windows[0]["kernels"] == [each.value for each in plan.kernels]
        # The last of its parts, filled up to 16 bytes, holds the maxima.
        assert arena_bytes - 16 < answer.summary["arena_touched_bytes"] <= arena_bytes
        assert 0 < answer.summary["stack_bytes"] <= 2048


def test_the_cases_are_not_trivial(cases: dict[str, Case]) -> None:
    values = [np.unique(case.expected).size for case in cases.values()]
    assert np.median(values) >= 12


def test_most_cases_run_on_the_m7_kernels(
    cases: dict[str, Case], answers: dict[tuple[str, str], Answer]
) -> None:
    """Which choose the portable ones for what they do not compute."""
    shares = [
        sum(answers[name, "best kernels"].instructions())
        / sum(answers[name, "portable kernels"].instructions())
        for name in cases
    ]
    assert np.median(shares) < 0.7


def test_layers_share_out_the_whole_count(answers: dict[tuple[str, str], Answer]) -> None:
    for (name, kind), answer in answers.items():
        for window in answer.windows:
            if kind == "CMSIS-NN":
                # Reading the clock takes a few instructions of each part.
                assert 0 <= window["instructions"] - sum(window["parts"]) < 3000, name
            else:
                assert sum(window["layers"]) == window["instructions"], name


def test_sea_64_and_the_benchmark(
    sea_generated: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([str(sea_generated.directory), "-o", str(tmp_path)]) == 0
    assert "median, M instructions" in capsys.readouterr().out
    report = json.loads((tmp_path / "bench.json").read_bytes())
    assert "not cycles" in report["method"]
    assert "llvm-mca" in report["cycle_model"]
    assert "-O3" in report["flags"]
    (figures,) = report["networks"]
    assert figures["weights"] == sea_generated.manifest["weights"]["description"]
    (sea,) = (each for each in bench.networks() if each.options.variant.model_type == "sea")
    assert len(sea.limits) == 3
    assert all(target["met"] for target in bench.judge(figures, sea.limits))
    # BakeNN, which runs the same kernels, takes 248.9 M instructions and an arena of 209 kB.
    assert figures["cmsis_nn"]["instructions"] == pytest.approx(248.9e6, rel=0.01)
    assert figures["cmsis_nn"]["arena_bytes"] == 209_408
    # Another build of the same kernels gave 228 M: the model depends on the layout of the code.
    assert figures["cmsis_nn"]["cycles"] == pytest.approx(228e6, rel=0.04)
    estimated, cycles = estimate_work(sea_generated).engine, figures["edgel3"]["cycles"]
    assert (estimated.low, estimated.high) == pytest.approx((min(cycles), max(cycles)), rel=FORMULA)


def test_the_best_kernels_take_less_than_half_of_the_portable_ones_instructions(
    firmware: Firmware, sea_generated: Deployment, tmp_path: Path
) -> None:
    windows, expected = bench.make_windows(sea_generated, TIMED_CLIPS[:1])
    packed = pack(sea_generated.read_model("int8"))
    jobs = Jobs()
    jobs.add_engine(packed, np.repeat(windows, 2, axis=0))
    jobs.add_engine(packed, windows, portable=True)
    best, portable = run(firmware, jobs, tmp_path)
    bench.check_bytes("portable kernels", portable, expected)
    first, again = best.instructions()
    assert abs(first - again) <= 40  # a tick
    assert first < portable.instructions()[0] / 2


def test_the_95_45_network_meets_its_limits(
    firmware: Firmware, standin: Deployment, tmp_path: Path
) -> None:
    figures = bench.measure(firmware, standin, tmp_path, clips=TIMED_CLIPS[:1], dense=False)
    limits = [
        limit
        for network in bench.networks()
        if network.options.variant == standin.variant
        for limit in network.limits
        if not limit.figure.startswith("times_fewer")  # needs the dense network: make bench
    ]
    assert len(limits) == 4
    assert all(target["met"] for target in bench.judge(figures, limits))
    packed = pack(standin.read_model("int8"))
    ((window,), _) = bench.make_windows(standin, TIMED_CLIPS[:1])
    estimated = sum(modelled_cycles(packed, Engine(packed).trace(window)).values())
    assert estimated == pytest.approx(figures["edgel3"]["cycles"][0], rel=FORMULA)


def test_the_cycle_model_counts_the_instructions_of_each_window(
    firmware: Firmware, cases: dict[str, Case], tmp_path: Path
) -> None:
    case = cases["activation relu"]
    jobs = Jobs()
    jobs.add_engine(case.packed, case.windows)
    jobs.add_dense(case.packed, case.windows[:1])
    for answer in run(firmware, jobs, tmp_path, model_cycles=True):
        counted = [each.instructions for each in answer.costs]
        # QEMU enters a block again if it reads the clock, which is done for each row of a layer.
        assert np.subtract(counted, answer.instructions()) == pytest.approx(0, abs=2000)
        assert min(answer.instructions()) > 100_000
        for each in answer.costs:
            assert each.instructions / 2 < each.cycles < each.instructions * 2


def test_the_formula_gives_the_cycles_of_all_kernels(firmware: Firmware, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    jobs, works = Jobs(), []
    for columns, sparsity in ((94, [0, 0.75, 0.75, 0.75]), (29, [0.5, 0.9, 0.75, 0.6])):
        network = random_network(
            rng,
            rows=10,
            columns=columns,
            filters=[32, 48, 64, 40],
            pools=["none", "2x2", "none", "global"],
            sparsity=sparsity,
        )
        # Small enough for the kernels for lists.
        for position, conv in enumerate(network.layers):
            network = with_layer(network, position, kernel=conv.kernel.clip(-60, 60))
        case = make_case(network)
        window, maps = case.windows[:1], Engine(case.packed).trace(case.windows[0])
        for options in ({}, {"least_arena": True}, {"portable": True}):
            jobs.add_engine(case.packed, window, **options)
            works.append((case.packed, maps))
    answers = run(firmware, jobs, tmp_path, model_cycles=True)
    seen = set()
    for (packed, maps), answer in zip(works, answers, strict=True):
        kernels = [Kernels(name) for name in answer.windows[0]["kernels"]]
        convolutions = read_packed(packed).convolutions
        works_of_layers = map(describe_work, convolutions, kernels, maps)
        estimated = sum(count_cycles(work) for work in works_of_layers)
        assert estimated == pytest.approx(answer.costs[0].cycles, rel=FORMULA), kernels
        seen |= {
            (kernel, conv.encoding) for kernel, conv in zip(kernels, convolutions, strict=True)
        }
    assert {kernel for kernel, _ in seen} == set(Kernels)
    assert {encoding for kernel, encoding in seen if kernel is Kernels.WORDS} == {
        Encoding.GAP12,
        Encoding.GAP16,
    }


# ---- what must be noticed ----


@pytest.fixture(scope="module")
def small(cases: dict[str, Case]) -> Case:
    return cases["pooled 4 x 9"]


def run_one(firmware: Firmware, directory: Path, add: Callable[[Jobs], None]) -> Answer:
    jobs = Jobs()
    add(jobs)
    (answer,) = run(firmware, jobs, directory, timeout_s=600)
    return answer


def test_one_other_byte_is_noticed(firmware: Firmware, small: Case, tmp_path: Path) -> None:
    answer = run_one(firmware, tmp_path, lambda jobs: jobs.add_engine(small.packed, small.windows))
    bench.check_bytes("small", answer, small.expected)
    other = small.expected.copy()
    other[1, -1] ^= 1
    with pytest.raises(EmulatorError, match=r"small: .* 1 of 55 differ"):
        bench.check_bytes("small", answer, other)


@pytest.mark.parametrize("where", ["behind", "far behind", "in front"])
def test_a_byte_written_beside_the_arena_is_noticed(
    firmware: Firmware, small: Case, tmp_path: Path, where: str
) -> None:
    in_front = -plan_memory(small.packed).arena_bytes - 1
    damage = {"behind": 0, "far behind": 60_000, "in front": in_front}[where]
    answer = run_one(
        firmware, tmp_path, lambda jobs: jobs.add_engine(small.packed, small.windows, damage=damage)
    )
    with pytest.raises(EmulatorError, match="1 bytes before or after it changed"):
        bench.check_engine("small", answer, read_packed(small.packed))


def test_a_row_that_is_not_counted_is_noticed(
    small: Case, answers: dict[tuple[str, str], Answer]
) -> None:
    answer = answers["eight layers", "best kernels"]
    with pytest.raises(EmulatorError, match="rows"):
        bench.check_engine("small", answer, read_packed(small.packed))


def test_a_refused_model_is_an_error(firmware: Firmware, small: Case, tmp_path: Path) -> None:
    # Where the jobs lie there is no model.
    with pytest.raises(EmulatorError, match="job 0: the bytes are not a packed model"):
        run_one(
            firmware,
            tmp_path,
            lambda jobs: jobs.add_engine(small.packed, small.windows, model_address=0x60000000),
        )


def test_a_fault_is_reported(firmware: Firmware, small: Case, tmp_path: Path) -> None:
    nowhere = 0x80000000
    with pytest.raises(ToolError, match=r"code 70: \s*fault: exception 0x00000003 .*80000000"):
        run_one(
            firmware,
            tmp_path,
            lambda jobs: jobs.add_engine(small.packed, small.windows, model_address=nowhere),
        )


def test_a_stack_overflow_is_a_fault(firmware: Firmware, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"(?s)code 70: .*fault: exception .* no stack at"):
        run_one(firmware, tmp_path, lambda jobs: jobs.add_overflow())


def test_a_program_that_does_not_end_is_an_error(
    firmware: Firmware, small: Case, tmp_path: Path
) -> None:
    jobs = Jobs()
    jobs.add_engine(small.packed, np.repeat(small.windows, 10_000, axis=0))
    with pytest.raises(ToolError, match=r"did not end within 0\.5 s"):
        run(firmware, jobs, tmp_path, timeout_s=0.5)


def test_jobs_beyond_the_board_s_memory_are_refused(small: Case) -> None:
    jobs = Jobs()
    jobs.add_engine(small.packed, np.zeros((500_000, *small.windows.shape[1:]), np.int8))
    with pytest.raises(EmulatorError, match="expected jobs of"):
        jobs.image()


def test_a_missing_toolchain_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="gcc-arm-none-eabi"):
        emulator.build(tmp_path)


@pytest.mark.parametrize("limit", [bench.Limit("arena_bytes", 1), bench.Limit("arena_bytes", 1e6)])
def test_a_missed_target_fails_the_command(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    sea_generated: Deployment,
    capsys: pytest.CaptureFixture[str],
    limit: bench.Limit,
) -> None:
    def networks() -> Sequence[bench.Network]:
        return [bench.Network(ConvertOptions(sea_generated.variant), (limit,))]

    monkeypatch.setattr(bench, "networks", networks)
    (tmp_path / sea_generated.variant.name).symlink_to(sea_generated.directory)
    is_met = limit.limit > 1
    assert bench.main(["-o", str(tmp_path)]) == (0 if is_met else 1)
    assert ("pass: arena_bytes" if is_met else "FAIL: arena_bytes") in capsys.readouterr().out
    (target,) = json.loads((tmp_path / "bench.json").read_bytes())["targets"]
    assert target["met"] is is_met


def test_the_benchmark_measures_what_the_readme_names() -> None:
    names = [network.options.variant for network in bench.networks()]
    assert names == [
        find_variant(sparsity="95.45"),
        find_variant(sparsity="99"),
        find_variant("sea", embedding_size=64),
    ]
