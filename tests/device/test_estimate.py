"""Estimates: sizes out of a build, cycles of a model, time and battery by arithmetic."""

import inspect
import json
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgel3_tflm.cli.board.estimate import estimate_command
from edgel3_tflm.device import estimate as estimates
from edgel3_tflm.device import footprint as footprints
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.device.estimate import (
    Battery,
    Range,
    Work,
    estimate_board,
    estimate_work,
    read_bench,
)
from edgel3_tflm.device.firmware import build_node, has_compiler
from edgel3_tflm.device.footprint import (
    Footprint,
    choose_memory,
    measure_footprint,
    plan_footprint,
)
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.runtime.c_library.cycles import modelled_cycles
from edgel3_tflm.runtime.deployment import Deployment

SKETCH = Path(__file__).parents[2] / "micro_app" / "edgel3_node"
PORTENTA = next(board for board in BOARDS if board.name == "portenta_h7_m7")
NUCLEO = next(board for board in BOARDS if board.name == "nucleo_h743zi")
FOOTPRINT = Footprint({"model": 400_000}, {"arena": 229_000}, "made up")
WORK = Work(48_000_000, Range(480e6, 960e6), Range(960e6, 1440e6), "made up")

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="needs cmake and arm-none-eabi-gcc")


def test_time_is_cycles_by_clock() -> None:
    found = estimate_board(PORTENTA, FOOTPRINT, WORK)

    assert PORTENTA.clock_hz == 480_000_000
    assert (found.seconds.low, found.seconds.high) == (1.0, 2.0)
    assert found.frontend_seconds == 0.1
    assert found.windows_per_minute is None


def test_a_microphone_takes_ram() -> None:
    with_one, without = (
        estimate_board(board, FOOTPRINT, WORK).memory.ram_bytes for board in (PORTENTA, NUCLEO)
    )

    assert with_one - without == footprints.MICROPHONE_RING_BYTES
    header = (SKETCH / "edgel3_microphone.h").read_text()
    samples = re.search(r"kMicrophoneRingSamples = (\d+);", header)
    assert samples is not None
    assert 2 * int(samples[1]) == footprints.MICROPHONE_RING_BYTES


def test_what_exceeds_a_budget_does_not_fit() -> None:
    largest = PORTENTA.ram_budget_bytes - footprints.MICROPHONE_RING_BYTES

    assert estimate_board(PORTENTA, Footprint({}, {"arena": largest}, ""), WORK).fits
    assert not estimate_board(PORTENTA, Footprint({}, {"arena": largest + 1}, ""), WORK).fits
    flash = PORTENTA.flash_budget_bytes
    assert not estimate_board(PORTENTA, Footprint({"model": flash + 1}, {}, ""), WORK).fits


def test_the_least_arena_replaces_one_that_does_not_fit() -> None:
    largest = PORTENTA.ram_budget_bytes - footprints.MICROPHONE_RING_BYTES

    for size, arena, ram, seconds in (
        (largest, "fast", PORTENTA.ram_budget_bytes, Range(1.0, 2.0)),
        (largest + 1, "least", PORTENTA.ram_budget_bytes - 99, Range(2.0, 3.0)),
    ):
        found = estimate_board(PORTENTA, Footprint({}, {"arena": size}, "", 100), WORK)
        assert (found.memory.arena, found.memory.ram_bytes, found.fits) == (arena, ram, True)
        assert found.seconds == seconds


@pytest.mark.parametrize(
    ("fast_s", "least_s", "either", "gives_up"),
    [(0.5, 0.8, ["least", "open"], "fast kernels"), (2.5, 4.0, ["fast", "closed"], "ears")],
)
def test_a_board_gives_up_what_hears_less_if_both_do_not_fit(
    fast_s: float, least_s: float, either: list[str], gives_up: str
) -> None:
    fast, spare, ears = 1000, 100, 150
    cycles = {
        "fast": round(fast_s * PORTENTA.clock_hz),
        "least": round(least_s * PORTENTA.clock_hz),
    }
    footprint = Footprint({}, {"arena": fast}, "", spare, ears, cycles)
    for budget, plan, yields in (
        (fast + ears, ["fast", "open"], None),
        (fast + ears - 1, either, gives_up),
        (fast - spare + ears, either, gives_up),
        (fast - spare + ears - 1, ["fast", "closed"], None),
        (fast - 1, ["least", "closed"], None),
        (0, ["least", "closed"], None),
    ):
        ram_bytes = PORTENTA.core_ram_bytes + footprints.MICROPHONE_RING_BYTES + budget
        board = replace(PORTENTA, ram_bytes=ram_bytes, ears_memory=None)
        found = choose_memory(board, footprint)
        assert ([found.arena, found.ears], found.gives_up) == (plan, yields)


def test_ears_in_a_memory_of_their_own_leave_the_arena_its_room() -> None:
    memory = PORTENTA.ears_memory
    assert memory is not None
    arena = PORTENTA.ram_budget_bytes - footprints.MICROPHONE_RING_BYTES
    for ears_bytes, ears in ((memory.budget_bytes, "open"), (memory.budget_bytes + 1, "closed")):
        found = choose_memory(PORTENTA, Footprint({}, {"arena": arena}, "", 0, ears_bytes))
        assert (found.ram_bytes, found.arena, found.ears) == (
            PORTENTA.ram_budget_bytes,
            "fast",
            ears,
        )


def test_coverage_is_the_part_of_the_time_in_which_a_board_hears() -> None:
    footprint = Footprint({}, {}, "", ears_bytes=0, cycles={"fast": 2 * PORTENTA.clock_hz})

    assert choose_memory(PORTENTA, footprint).coverage == 0.5
    closed = choose_memory(PORTENTA, replace(footprint, ears_bytes=None))
    assert closed.coverage == pytest.approx(1 / 3)
    assert choose_memory(PORTENTA, replace(footprint, cycles={"fast": 1000})).coverage == 1
    assert choose_memory(NUCLEO, footprint).coverage is None


def test_a_battery_allows_what_its_mean_power_leaves() -> None:
    # 7200 mWh over 10 days are 30 mW; 20 of them above sleep, of 400 awake: a twentieth.
    battery = Battery(7200, 10, active_mw=410, sleep_mw=10)

    assert battery.windows_per_minute(1.5) == pytest.approx(2)
    found = estimate_board(PORTENTA, FOOTPRINT, WORK, battery=battery)
    # One second of listening, and one or two of the network.
    assert found.windows_per_minute is not None
    assert found.windows_per_minute.low == pytest.approx(1)
    assert found.windows_per_minute.high == pytest.approx(1.5)


def test_a_measured_awake_time_replaces_the_second_of_listening() -> None:
    battery = Battery(7200, 10, active_mw=410, sleep_mw=10)

    found = estimate_board(PORTENTA, FOOTPRINT, WORK, battery=battery, awake_s=1.5)

    # A twentieth of a minute is 3 s: two windows.
    assert found.windows_per_minute == Range(pytest.approx(2), pytest.approx(2))
    large = Battery(1e9, 1)
    found = estimate_board(PORTENTA, FOOTPRINT, WORK, battery=large, awake_s=0.5)
    # The board listens for a second, and the network takes one or two.
    assert found.windows_per_minute == Range(20, 30)
    with pytest.raises(EdgeL3Error, match="expected an awake time above 0 s"):
        estimate_board(PORTENTA, FOOTPRINT, WORK, battery=battery, awake_s=0)


def test_a_board_that_does_not_sleep_has_no_rate() -> None:
    teensy = next(board for board in BOARDS if not board.can_sleep)

    found = estimate_board(teensy, FOOTPRINT, WORK, battery=Battery(7200, 10))

    assert found.windows_per_minute is None


def test_no_battery_allows_more_than_the_whole_time() -> None:
    assert Battery(1e9, 1).windows_per_minute(2.0) == 30


@pytest.mark.parametrize(
    ("battery", "reason"),
    [
        (Battery(100, 100), "of sleep alone"),
        (Battery(0, 1), "positive energy"),
        (Battery(1, float("inf")), "positive days"),
        (Battery(1000, 1, active_mw=5, sleep_mw=10), "less power asleep"),
    ],
)
def test_batteries_that_make_no_sense_are_refused(battery: Battery, reason: str) -> None:
    with pytest.raises(EdgeL3Error, match=reason):
        battery.windows_per_minute(1)


def test_planned_parts_are_the_converters(standin: Deployment) -> None:
    footprint = plan_footprint(standin)

    assert footprint.flash["model"] == standin.manifest["packed"]["bytes"]
    planned = standin.manifest["packed"]
    assert footprint.ram["arena"] == planned["fast_arena_bytes"]
    assert footprint.spare_arena_bytes == planned["fast_arena_bytes"] - planned["arena_bytes"]
    assert footprint.ram["window"] == 256 * 199
    assert "assumed" in footprint.source


@needs_compiler
def test_parts_of_a_build_are_those_planned_and_add_up(standin: Deployment, tmp_path: Path) -> None:
    firmware = build_node(standin.directory, tmp_path)
    built, planned = measure_footprint(firmware, standin), plan_footprint(standin)

    for part in ("model", "frontend tables"):
        assert built.flash[part] == planned.flash[part]
    for part in ("arena", "window"):
        assert built.ram[part] == planned.ram[part]
    assert built.ram["node"] <= footprints.ASSUMED_NODE_BYTES
    assert built.flash["code"] <= footprints.ASSUMED_CODE_BYTES
    printed = subprocess.run(
        ["arm-none-eabi-size", str(firmware)], capture_output=True, text=True, check=True
    ).stdout
    text, data, bss = map(int, printed.splitlines()[1].split()[:3])
    assert sum(built.flash.values()) == text + data
    # The budget leaves room for the board's stack. That of the emulated board, 16 KiB, is no part.
    # The ears are closed, and take four bytes.
    assert sum(built.ram.values()) + 4 == data + bss - 16 * 1024


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="needs arm-none-eabi-gcc")
def test_other_firmware_and_damaged_files_are_refused(standin: Deployment, tmp_path: Path) -> None:
    source, other = tmp_path / "other.c", tmp_path / "other.o"
    source.write_text("int number = 1;\n")
    subprocess.run(["arm-none-eabi-gcc", "-c", str(source), "-o", str(other)], check=True)
    whole = other.read_bytes()

    with pytest.raises(ModelFileError, match="edgel3_packed_model"):
        measure_footprint(other, standin)
    other.write_bytes(whole[:100])
    with pytest.raises(ModelFileError, match="expected a whole 32-bit ELF file"):
        measure_footprint(other, standin)
    other.write_bytes(b"no" + whole)
    with pytest.raises(ModelFileError, match="expected a whole 32-bit ELF file"):
        measure_footprint(other, standin)
    # A symbol table whose strings lie beyond the end.
    (table,) = struct.unpack_from("<I", whole, 32)
    other.write_bytes(whole[: table + 16] + b"\xff" * (len(whole) - table - 16))
    with pytest.raises(ModelFileError):
        measure_footprint(other, standin)


def test_work_is_that_of_the_package_s_clips(standin: Deployment) -> None:
    work = estimate_work(standin)

    blob = standin.read_packed_model()
    assert blob is not None
    for found, widen in ((work.engine, True), (work.engine_least, False)):
        most = sum(modelled_cycles(blob, widen=widen).values())
        # Some rows of activations are zero in every sound, and never most of them.
        assert most / 2 < found.low < found.high < most
    assert work.engine.high < work.engine_least.low
    # Costed by llvm-mca for the code that QEMU executed: 41.2 M.
    assert work.frontend == pytest.approx(41.2e6, rel=0.01)


def test_a_benchmarks_cycles_are_taken_for_the_same_model_only(
    standin: Deployment, tmp_path: Path
) -> None:
    digest = standin.manifest["artefacts"]["int8.tflite"]["sha256"]
    network = {"flatbuffer_sha256": digest, "edgel3": {"cycles": [3, 1, 2]}}
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"networks": [network]}))

    work, estimated = read_bench(path, standin), estimate_work(standin)

    assert work.engine == Range(1, 3)
    assert (work.frontend, work.engine_least) == (estimated.frontend, estimated.engine_least)
    for damaged, reason in (
        ({"networks": [{**network, "flatbuffer_sha256": "0"}]}, "found none"),
        ({"networks": [{}]}, "bench.json of `make bench`"),
        ([], "bench.json of `make bench`"),
        *(
            (
                {"networks": [{**network, "edgel3": {"cycles": counts}}]},
                "bench.json of `make bench`",
            )
            for counts in ([], [-5], [0], ["3"], [float("nan")], [float("inf")], 5)
        ),
    ):
        path.write_text(json.dumps(damaged))
        with pytest.raises(EdgeL3Error, match=reason):
            read_bench(path, standin)
    with pytest.raises(EdgeL3Error, match="cannot read"):
        read_bench(tmp_path / "none.json", standin)


def test_the_command_line_has_the_modules_assumptions() -> None:
    parameters = inspect.signature(estimate_command).parameters

    assert parameters["active_mw"].default == estimates.ACTIVE_MW
    assert parameters["sleep_mw"].default == estimates.SLEEP_MW


def test_the_command_prints_every_board_and_every_assumption(standin: Deployment) -> None:
    command = [str(Path(sys.executable).with_name("edgel3-tflm")), "estimate"]
    command += [str(standin.directory), "--no-build", "--battery-mwh", "74000", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    result = json.loads(done.stdout)
    assert [each["board"] for each in result["boards"]] == [board.name for board in BOARDS]
    assert all(each["fits"] for each in result["boards"])
    rated = [each["board"] for each in result["boards"] if each["windows_per_minute"]]
    assert rated == [board.name for board in BOARDS if board.can_sleep]
    assert sum("assum" in line for line in result["assumptions"]) == 2
    seconds = result["boards"][0]["engine_seconds"]
    assert result["cycles"]["engine"] == pytest.approx([480e6 * each for each in seconds])


_WITHOUT_DEVICE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"cobs", "serial"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def run_without_device(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter that lacks what the extra ``device`` installs."""
    command = [sys.executable, "-c", _WITHOUT_DEVICE + script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_estimate_needs_no_extra(tiny_int8: Deployment) -> None:
    script = "from edgel3_tflm.cli.commands import main\nmain()"

    done = run_without_device(script, "estimate", tiny_int8.directory, "--no-build", "--json")

    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["boards"]) == len(BOARDS)


_STUDY = """
from pathlib import Path
from edgel3_tflm.converters.compression.study import STUDY, has_emulator, study
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.networks.catalogue import find_variant
variant = find_variant("sea", embedding_size=64).with_filters((4,) * 8)
options = ConvertOptions(variant, "generated", Path(sys.argv[1]), quantizer=PLAIN)
row = study(STUDY[0], options, emulate=has_emulator(), progress=lambda *_: None)
print(row.instructions, row.flash_bytes > 0)
"""


def test_study_needs_no_extra(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hiss.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    done = run_without_device(_STUDY, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "True"]
