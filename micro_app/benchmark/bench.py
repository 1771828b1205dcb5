"""`make bench`: instructions and modelled cycles of the engine and of CMSIS-NN on a Cortex-M7.

Both run the same networks on the same windows in the same run of the emulator, and both must give
the same bytes as TensorFlow Lite's reference kernels. The script prints figures and limits. If
EDGEL3_TFLM_INCLUDE and EDGEL3_TFLM_LIB name a build of TFLM (tflm_node.py), it also prints those of
a node in TFLM.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import typer
from emulator import Answer, EmulatorError, Firmware, Jobs, build, describe_tools, plan_dense, run
from tflm_node import describe_node, find_tflm, measure_node

from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.cli.screen import open_screen
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.pipeline import ConvertOptions, convert
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.device.estimate import TIMED_CLIPS, read_timed_windows
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import make_directory, sha256_hex, write_whole
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import WeightsSource
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.packed import PackedModel, Pooling, read_packed

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED_SEA = ROOT.parent / "shared" / "weights" / "edgel3_sea_ust_audio_emb_64.h5.gz"
CLOCK_HZ = 480e6


@dataclass(frozen=True)
class Limit:
    """An upper limit of a figure, or a lower limit if ``at_least``."""

    figure: str
    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Network:
    """A network to convert and to measure, and the limits of its figures."""

    options: ConvertOptions
    limits: Sequence[Limit] = field(default_factory=tuple)


def networks() -> list[Network]:
    """Return the networks of the benchmark."""
    sea: WeightsSource = PUBLISHED_SEA if PUBLISHED_SEA.exists() else "generated"
    return [
        Network(
            ConvertOptions(find_variant(sparsity="95.45"), "bundled"),
            (
                Limit("arena_bytes", 300_000),
                Limit("model_bytes", 450_000),
                Limit("instructions_max", 1.6e9),
                Limit("cycles_max", 1.25e9),
                Limit("times_fewer_instructions", 8, at_least=True),
            ),
        ),
        Network(
            ConvertOptions(find_variant(sparsity="99"), "bundled"),
            (Limit("instructions_max", 0.6e9), Limit("cycles_max", 0.45e9)),
        ),
        Network(
            ConvertOptions(find_variant("sea", embedding_size=64), sea),
            (
                Limit("arena_bytes", 48_000),
                Limit("instructions_max", 175e6),
                Limit("cycles_max", 130e6),
            ),
        ),
    ]


def make_windows(
    deployment: Deployment, clips: Sequence[str] = TIMED_CLIPS
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Return inputs from calibration clips, and the reference kernels' embeddings of them.

    Returns
    -------
    windows : numpy.ndarray, shape (clips, rows, columns), int8
    embeddings : numpy.ndarray, shape (clips, values), int8
    """
    spec = deployment.variant.frontend
    interpreter = open_interpreter(deployment.read_model("int8"), "reference")
    inputs = deployment.input_map.apply(
        log_mel(read_timed_windows(spec, clips), spec), interpreter.input
    )
    return inputs[..., 0], interpreter.run(inputs)


def check_bytes(name: str, answer: Answer, expected: npt.NDArray[np.int8]) -> None:
    """Raise an error if an answer differs from the reference kernels' embeddings.

    Raises
    ------
    EmulatorError
        If a byte differs.
    """
    differing = int((answer.outputs() != expected).sum())
    if differing:
        raise EmulatorError(
            f"{name}: expected the reference kernels' bytes, {differing} of {expected.size} differ"
        )


def check_engine(name: str, answer: Answer, model: PackedModel) -> None:
    """Raise an error if the engine wrote where it must not, or did not compute all rows.

    Raises
    ------
    EmulatorError
        If bytes around the arena or in the model changed, or rows of a layer were not counted.
    """
    changed = answer.summary["guard_bytes_changed"]
    if changed:
        raise EmulatorError(
            f"{name}: expected unchanged bytes around the arena, {changed} bytes before or after it"
            " changed"
        )
    if answer.summary["model"] != "ok":
        raise EmulatorError(
            f"{name}: expected an unchanged model, it changed: {answer.summary['model']}"
        )
    # A 2x2 pool does not need the last row if the number of rows is odd.
    rows = [
        conv.rows // 2 * 2 if conv.pooling == Pooling.MAX_2X2 else conv.rows
        for conv in model.convolutions
    ]
    for window in answer.windows:
        if window["rows"] != rows:
            raise EmulatorError(
                f"{name}: expected {rows} rows by layer, the engine computed {window['rows']}"
            )


def measure(
    firmware: Firmware,
    deployment: Deployment,
    directory: Path,
    *,
    clips: Sequence[str] = TIMED_CLIPS,
    dense: bool = True,
) -> dict[str, Any]:
    """Run a deployment's int8 network on the emulated board, check the results, return figures.

    CMSIS-NN runs the first window only: its number of instructions does not depend on the window.

    Raises
    ------
    EmulatorError
        If a check fails.
    """
    flatbuffer = deployment.read_model("int8")
    packed = pack(flatbuffer)
    model = read_packed(packed)
    windows, expected = make_windows(deployment, clips)
    jobs = Jobs()
    jobs.add_engine(packed, windows)
    if dense:
        jobs.add_dense(packed, windows[:1])
    answers = run(firmware, jobs, directory, timeout_s=3600, model_cycles=True)

    name = deployment.variant.name
    engine = answers[0]
    check_bytes(f"{name}, edgel3", engine, expected)
    check_engine(f"{name}, edgel3", engine, model)
    counts = engine.instructions()
    cycles = [each.cycles for each in engine.costs]
    figures: dict[str, Any] = {
        "network": name,
        "weights": deployment.manifest["weights"]["description"],
        "flatbuffer_sha256": sha256_hex(flatbuffer),
        "clips": list(clips),
        "edgel3": {
            "instructions": counts,
            "instructions_median": statistics.median(counts),
            "instructions_max": max(counts),
            "cycles": cycles,
            "cycles_median": statistics.median(cycles),
            "cycles_max": max(cycles),
            "unaligned_loads": [each.unaligned_loads for each in engine.costs],
            "open_instructions": engine.summary["open_instructions"],
            "arena_bytes": engine.summary["arena_bytes"],
            "arena_touched_bytes": engine.summary["arena_touched_bytes"],
            "stack_bytes": engine.summary["stack_bytes"],
            "model_bytes": len(packed),
            "code_bytes": firmware.code_bytes["edgel3"],
        },
        "layers": [
            {
                "name": conv.name,
                "macs": conv.dense_macs,
                "taps_macs": conv.packed_macs,
                "edgel3_instructions": [window["layers"][i] for window in engine.windows],
            }
            for i, conv in enumerate(model.convolutions)
        ],
    }
    if dense:
        answer, plan = answers[1], plan_dense(packed)
        check_bytes(f"{name}, CMSIS-NN", answer, expected[:1])
        (window,) = answer.windows
        figures["cmsis_nn"] = {
            "instructions": window["instructions"],
            "cycles": answer.costs[0].cycles,
            "arena_bytes": plan.arena_bytes,
            "stack_bytes": window["stack_bytes"],
            "model_bytes": plan.model_bytes,
            "code_bytes": firmware.code_bytes["cmsis_nn"],
        }
        for i, layer in enumerate(figures["layers"]):
            layer["cmsis_nn_instructions"] = sum(window["parts"][2 * i : 2 * i + 2])
        # Compared with the window that takes the engine longest.
        figures["edgel3"]["times_fewer_instructions"] = window["instructions"] / max(counts)
        figures["edgel3"]["times_fewer_cycles"] = answer.costs[0].cycles / max(cycles)
    return figures


def judge(figures: dict[str, Any], limits: Sequence[Limit]) -> list[dict[str, Any]]:
    """Return each limit with the engine's figure, and whether the figure is within it."""
    return [
        {
            "network": figures["network"],
            "figure": each.figure,
            "value": figures["edgel3"][each.figure],
            "limit": each.limit,
            "at_least": each.at_least,
            "met": each.met(figures["edgel3"][each.figure]),
        }
        for each in limits
    ]


def write_table(figures: dict[str, Any], targets: Sequence[dict[str, Any]]) -> None:
    """Print a network's figures."""
    ours, dense = figures["edgel3"], figures["cmsis_nn"]

    def row(name: str, left: float, right: float, digits: int = 0) -> None:
        ratio = right / left
        print(f"  {name:<34}{left:>14,.{digits}f}{right:>18,.{digits}f}{ratio:>9.2f}")

    print(f"\n{figures['network']}: {figures['weights']}")
    print(f"  {'':<34}{'edgel3':>14}{'dense CMSIS-NN':>18}{'times':>9}")
    for layer in figures["layers"]:
        median = statistics.median(layer["edgel3_instructions"])
        name = f"{layer['name']}, M instructions"
        row(name, median / 1e6, layer["cmsis_nn_instructions"] / 1e6, 1)
    for unit in ("instructions", "cycles"):
        for name, count in (
            ("least", min(ours[unit])),
            ("median", ours[f"{unit}_median"]),
            ("most", ours[f"{unit}_max"]),
        ):
            row(f"a window, {name}, M {unit}", count / 1e6, dense[unit] / 1e6, 1)
    row("arena, bytes", ours["arena_bytes"], dense["arena_bytes"])
    row("stack, bytes", ours["stack_bytes"], dense["stack_bytes"])
    row("model in flash, bytes", ours["model_bytes"], dense["model_bytes"])
    row("code in flash, bytes", ours["code_bytes"], dense["code_bytes"])
    row(
        "both in flash, bytes",
        *(each["model_bytes"] + each["code_bytes"] for each in (ours, dense)),
    )
    print(f"  bytes written in the arena: {ours['arena_touched_bytes']:,}; none outside of it")
    print(
        f"  modelled cycles at {CLOCK_HZ / 1e6:.0f} MHz, without waits for memory:"
        f" {ours['cycles_median'] / CLOCK_HZ:.2f} s per window"
    )
    for target in targets:
        sign = ">=" if target["at_least"] else "<="
        value, limit = f"{target['value']:,.4g}", f"{target['limit']:,.4g}"
        if float(target["value"]).is_integer():
            value, limit = f"{target['value']:,.0f}", f"{target['limit']:,.0f}"
        verdict = "pass" if target["met"] else "FAIL"
        print(f"  {verdict}: {target['figure']} {value} {sign} {limit}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print figures and write them as JSON; returns 0 if all figures are within limits."""
    parser = argparse.ArgumentParser(description="edgel3 beside dense CMSIS-NN on a Cortex-M7")
    parser.add_argument(
        "deployments", nargs="*", type=Path, help="int8 deployments; default: the benchmark's own"
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args(arguments)
    try:
        with open_screen(interrupted="no figures were written"):
            return _run(options.deployments, options.output)
    except typer.Exit as end:
        return end.exit_code


def _run(deployments: Sequence[Path], directory: Path) -> int:
    make_directory(directory)
    chosen: list[tuple[Deployment, Sequence[Limit]]] = [
        (load_int8(path), ()) for path in deployments
    ]
    firmware = build(directory / "firmware")
    tflm = find_tflm()
    report: dict[str, Any] = {**describe_tools(), "networks": [], "targets": []}
    for name in describe_tools():
        lines = report[name] if isinstance(report[name], list) else [report[name]]
        print("\n".join(f"{name}: {line}" for line in lines))
    if not chosen:
        chosen = [(convert_network(each, directory), each.limits) for each in networks()]
    for deployment, limits in chosen:
        figures = measure(firmware, deployment, directory)
        targets = judge(figures, limits)
        write_table(figures, targets)
        if tflm is not None:
            figures["tflm"] = measure_node(deployment, directory, *make_windows(deployment), tflm)
            print(describe_node(figures["tflm"]))
        report["networks"].append(figures)
        report["targets"] += targets
    path = directory / "bench.json"
    write_whole(path, (json.dumps(report, indent=2) + "\n").encode())
    print(f"\n{path}")
    return 0 if all(target["met"] for target in report["targets"]) else 1


def load_int8(path: Path) -> Deployment:
    """Load a deployment.

    Raises
    ------
    EdgeL3Error
        If it is not an int8 deployment.
    """
    deployment = Deployment.load(path)
    if deployment.quantization != "int8":
        raise EdgeL3Error(
            f"{path}: expected an int8 deployment, got {deployment.quantization}; convert with"
            " --quantization int8"
        )
    return deployment


def convert_network(network: Network, directory: Path) -> Deployment:
    """Return the deployment of a network, which is converted unless an earlier run did so."""
    path = directory / network.options.variant.name
    if path.exists():
        return Deployment.load(path)
    print(f"converting {network.options.variant.name}", flush=True)
    # The search for the best quantization takes long and does not change which weights are zero.
    return convert(replace(network.options, quantizer=PLAIN), path, lambda *_: None)


if __name__ == "__main__":
    sys.exit(main())
