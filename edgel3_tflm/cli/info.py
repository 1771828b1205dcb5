"""The command ``info``, and the description of a deployment for ``convert``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.cli.screen import JsonOption, describe_provenance, new_table, open_screen
from edgel3_tflm.device.boards import BOARDS, fits
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError, install_hint
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.arena import describe_packed, plan_memory
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.flatbuffer import (
    FlatbufferSummary,
    find_packed_model,
    summarize,
)
from edgel3_tflm.runtime.interpreters import measure_arena_bytes
from edgel3_tflm.runtime.packed import PackedModel, read_packed


def info_command(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DEPLOYMENT|FILE",
            help="A deployment, a .tflite file, a packed .edgel3 file or a weight file.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show a model's layers, sparsity, MACs, flash, arena and the boards that it fits."""
    with open_screen(as_json=as_json) as screen:
        if path.is_dir():
            deployment = Deployment.load(path)
            screen.show(dict(deployment.manifest), *describe_deployment(deployment))
        elif path.suffix in (".tflite", ".edgel3"):
            try:
                model = path.read_bytes()
            except OSError as error:
                raise EdgeL3Error(f"{path}: cannot read: {error.strerror}") from error
            try:
                packed = model if path.suffix == ".edgel3" else find_packed_model(model)
                if packed is not None:
                    screen.show(*_describe_packed_file(packed, len(model)))
                else:
                    screen.show(*_describe_flatbuffer(model))
            except EdgeL3Error as error:
                raise EdgeL3Error(f"{path}: {error}") from error
        else:
            from edgel3_tflm.networks.weight_files import inspect_weights  # loads pyfive

            weights = inspect_weights(path)
            screen.show(
                {
                    "variant": weights.variant.name,
                    "weights": asdict(weights.provenance),
                    "sparsity_percent": weights.sparsity_percent,
                },
                Text(f"{weights.variant.name}: {weights.provenance.description}"),
                _weights_table(weights),
            )


def _try_arena(model: bytes) -> int | None:
    """Return the arena of a flatbuffer in bytes, or None if TFLM's host build is missing."""
    try:
        return measure_arena_bytes(model)
    except RuntimeUnavailableError:
        return None


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}"


def _shape(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def describe_deployment(deployment: Deployment) -> list[Any]:
    """Return what to print about a deployment: layers, sizes and the boards that fit."""
    manifest = deployment.manifest
    table = new_table(
        "layer",
        "map",
        "weights",
        "plan %",
        "zeros %",
        f"{deployment.quantization}\nzeros %",
        "MMAC\ndense",
        "MMAC\neffective",
    )
    layers = manifest["layers"]
    for layer, known in zip(layers, deployment.variant.layers, strict=True):
        plan = layer["plan_percent"]
        table.add_row(
            layer["name"],
            _shape((known.rows, known.columns, known.in_channels)),
            f"{layer['weights']:,}",
            "-" if plan is None else f"{plan:g}",
            _percent(layer["zeros"], layer["weights"]),
            _percent(layer["quantized_zeros"], layer["weights"]),
            f"{layer['dense_macs'] / 1e6:,.1f}",
            f"{layer['effective_macs'] / 1e6:,.1f}",
        )
    totals = {
        key: sum(layer[key] for layer in layers)
        for key in ("weights", "zeros", "quantized_zeros", "dense_macs", "effective_macs")
    }
    table.add_section()
    plan_total = manifest["variant"]["plan_total_percent"]
    table.add_row(
        "all",
        "",
        f"{totals['weights']:,}",
        "-" if plan_total is None else f"{plan_total:g}",
        _percent(totals["zeros"], totals["weights"]),
        _percent(totals["quantized_zeros"], totals["weights"]),
        f"{totals['dense_macs'] / 1e6:,.1f}",
        f"{totals['effective_macs'] / 1e6:,.1f}",
    )
    size = manifest["artefacts"][quantized_model_name(deployment.quantization)]["bytes"]
    needs: _Needs = {"dense": (size, manifest["arena_bytes"])}
    packed = deployment.read_packed_model()
    return [
        describe_provenance(deployment),
        table,
        Text(
            f"{totals['weights'] - totals['zeros']:,} weights are not zero;"
            f" {manifest['calibration']['windows']} calibration windows"
        ),
        *_packed_lines(packed, manifest.get("packed"), needs),
        *_fit_lines(needs),
    ]


def _describe_flatbuffer(model: bytes) -> tuple[Any, ...]:
    """Return the JSON of a flatbuffer of builtin operators, and what to print about it."""
    summary = summarize(model)
    arena_bytes = _try_arena(model)
    needs: _Needs = {"dense": (summary.size_bytes, arena_bytes)}
    found: dict[str, Any] = {**asdict(summary), "arena_bytes": arena_bytes}
    lines: list[Any] = []
    if summary.input_type == "int8":
        from edgel3_tflm.converters.export.pack import pack

        blob = None
        try:
            blob = pack(model)
            found["packed"] = describe_packed(blob)
        except EdgeL3Error as error:
            found["packed"] = {"refused": str(error)}
        lines = _packed_lines(blob, found["packed"], needs)
    return (
        found,
        Text(summary.description),
        _flatbuffer_table(summary),
        *lines,
        *_fit_lines(needs),
    )


def _describe_packed_file(blob: bytes, file_bytes: int) -> tuple[Any, ...]:
    """Return the JSON of a packed model, and what to print about it.

    The file is the packed model itself or a flatbuffer that contains it.
    """
    model = read_packed(blob)
    described = describe_packed(blob)
    is_bare = len(blob) == file_bytes
    return (
        {
            "size_bytes": file_bytes,
            "input_shape": (1, model.rows, model.columns, 1),
            "output_shape": (1, model.embedding_size),
            "source_sha256_half": model.source_sha256.hex(),
            **described,
        },
        _packed_table(model),
        Text(f"packed from a flatbuffer with SHA-256 {model.source_sha256.hex()}..."),
        _fast_arena_line(blob),
        *_fit_lines({"packed": (file_bytes, described["arena_bytes"])}),
        *(
            []
            if is_bare
            else [Text("TFLM adds the input, the output and its own bookkeeping to the arena")]
        ),
    )


def _packed_lines(
    blob: bytes | None, described: dict[str, Any] | None, needs: "_Needs"
) -> list[Any]:
    """Return a packed model's table, or why there is none; add its sizes to ``needs``."""
    if blob is None:
        refusal = (described or {}).get("refused")
        return [] if refusal is None else [Text(f"not packed: {refusal}", style="yellow")]
    needs["packed"] = (len(blob), plan_memory(blob).arena_bytes)
    return [_packed_table(read_packed(blob)), _fast_arena_line(blob)]


def _fast_arena_line(blob: bytes) -> Text:
    arena_bytes = plan_memory(blob, widen=True).arena_bytes
    return Text(f"arena of the fastest kernels of a Cortex-M7: {arena_bytes:,} bytes")


def _packed_table(model: PackedModel) -> Table:
    table = new_table(
        "layer",
        "packed as",
        "bytes\ndense",
        "bytes\npacked",
        "MMAC\ndense",
        "MMAC\npacked",
    )
    layers = [conv.costs() for conv in model.convolutions]
    keys = ("dense_bytes", "packed_bytes", "dense_macs", "packed_macs")

    def add(name: str, encoding: str, counts: list[int]) -> None:
        sizes = [f"{count:,}" for count in counts[:2]]
        table.add_row(name, encoding, *sizes, *(f"{count / 1e6:,.1f}" for count in counts[2:]))

    for layer in layers:
        add(layer["name"], layer["encoding"], [layer[key] for key in keys])
    table.add_section()
    add("all", "", [sum(layer[key] for layer in layers) for key in keys])
    return table


def _flatbuffer_table(summary: FlatbufferSummary) -> Table:
    table = new_table(
        "layer", "operator", "output", "weights", "zeros %", "MMAC\ndense", "MMAC\neffective"
    )
    for layer in summary.layers:
        counts = ["", "", "", ""]
        if layer.weights:
            counts = [
                f"{layer.weights:,}",
                _percent(layer.zeros, layer.weights),
                f"{layer.dense_macs / 1e6:,.1f}",
                f"{layer.effective_macs / 1e6:,.1f}",
            ]
        table.add_row(layer.name, layer.operator, _shape(layer.output_shape[1:]), *counts)
    table.add_section()
    table.add_row(
        "all",
        summary.input_type,
        "",
        f"{summary.weights:,}",
        _percent(summary.zeros, max(1, summary.weights)),
        f"{summary.dense_macs / 1e6:,.1f}",
        f"{summary.effective_macs / 1e6:,.1f}",
    )
    return table


def _weights_table(weights: NetworkWeights) -> Table:
    table = new_table("layer", "kernel", "weights", "zeros %")
    for layer, conv in zip(weights.variant.layers, weights.convs, strict=True):
        table.add_row(
            layer.name,
            _shape(layer.kernel_shape),
            f"{layer.kernel_size:,}",
            _percent(conv.zeros, layer.kernel_size),
        )
    table.add_section()
    total = sum(layer.kernel_size for layer in weights.variant.layers)
    table.add_row("all", "", f"{total:,}", f"{weights.sparsity_percent:.2f}")
    return table


_Needs = dict[str, tuple[int, int | None]]
"""Flash and arena in bytes of each form of a model; the arena is None if unknown."""


def _fit_lines(needs: _Needs) -> list[Any]:
    lines = []
    for form, (flash_bytes, arena_bytes) in needs.items():
        arena = f"arena {arena_bytes:,} bytes (firmware not counted)"
        if arena_bytes is None:
            arena = f"the arena is unknown; to measure it by TFLM: {install_hint('convert')}"
        lines.append(Text(f"{form}: flash {flash_bytes:,} bytes, {arena}"))
    known = {form: need for form, need in needs.items() if need[1] is not None}
    if not known:
        return lines
    fitting = [f"fits\n{form}" for form in known]
    table = new_table("board", "flash\nKiB", "RAM\nKiB", *fitting, "limits")
    table.columns[0].no_wrap = True
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = False
    for board in BOARDS:
        table.add_row(
            board.title,
            f"{board.flash_bytes // 1024:,}",
            f"{board.ram_bytes // 1024:,}",
            *(
                Text("yes", "green")
                if fits(board, flash_bytes=flash_bytes, ram_bytes=arena_bytes or 0)
                else Text("no", "red")
                for flash_bytes, arena_bytes in known.values()
            ),
            board.note,
        )
    return [*lines, table]


def files_table(deployment: Deployment) -> Table:
    """Return a table of a deployment's files, sizes and digests."""
    table = new_table("file", "bytes", "SHA-256")
    for name, artefact in deployment.manifest["artefacts"].items():
        table.add_row(
            str(deployment.directory / name), f"{artefact['bytes']:,}", artefact["sha256"][:16]
        )
    return table
