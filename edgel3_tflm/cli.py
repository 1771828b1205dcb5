"""The command line: ``edgel3-tflm COMMAND``."""

import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from edgel3_tflm._version import __version__
from edgel3_tflm.app_cli import estimate_command, export_app_command, train_head_command
from edgel3_tflm.boards import BOARDS, fits
from edgel3_tflm.corpus import read_manifest
from edgel3_tflm.deployment import QUANTIZATIONS, Deployment, quantized_model_name
from edgel3_tflm.device_cli import device_app
from edgel3_tflm.drift_cli import compare_command, provenance_lines, report_app
from edgel3_tflm.edgel3_cli import (  # noqa: F401 - edgel3's own callers look for them here
    get_file_list,
    parse_args,
    positive_float,
    positive_int,
    run,
)
from edgel3_tflm.embed_cli import embed_command
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.evaluate_cli import evaluate_command
from edgel3_tflm.finetune_cli import distill_command, finetune_command
from edgel3_tflm.flatbuffer import FlatbufferSummary, find_packed_model, summarize
from edgel3_tflm.frontend import log_mel_statistics
from edgel3_tflm.interpreters import DEFAULT_RUNTIME, RUNTIMES, measure_arena_bytes
from edgel3_tflm.packed import PackedModel, describe_packed, plan_memory, read_packed
from edgel3_tflm.screen import JsonOption, QuietOption, new_table, open_screen
from edgel3_tflm.sensitivity_cli import sensitivity_command
from edgel3_tflm.study_cli import study_command
from edgel3_tflm.variants import (
    CONVOLUTIONS,
    PLANS,
    WIDTHS,
    Plan,
    find_depth,
    find_filters,
    find_variant,
)
from edgel3_tflm.weights import (
    NetworkWeights,
    WeightsWord,
    inspect_weights,
)

app = typer.Typer(
    help="EdgeL3 audio embeddings on microcontrollers: convert, compare, inspect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(device_app, name="device", no_args_is_help=True)
app.add_typer(report_app, name="report", no_args_is_help=True)

_SPARSITIES = ", ".join(plan.label for plan in PLANS)
_DEFAULT_SPARSITY = "95.45"
_WEIGHTS_WORDS = get_args(WeightsWord)


def main() -> None:
    """Entry point of the command ``edgel3-tflm``.

    Files without a command are embedded, as edgel3's own command does.
    """
    arguments = sys.argv[1:]
    known = {each.name for each in app.registered_commands}
    known |= {each.name for each in app.registered_groups}
    if arguments and arguments[0] not in known and os.path.exists(arguments[0]):  # noqa: PTH110
        arguments.insert(0, "embed")
    try:
        app(arguments)
    except SystemExit as end:
        if end.code:
            raise


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgel3-tflm {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the tools underneath say.")
    ] = False,
) -> None:
    del version
    if verbose:
        logging.basicConfig(
            level=logging.DEBUG,
            format="%(message)s",
            handlers=[RichHandler(console=Console(stderr=True))],
        )
        for noisy in ("matplotlib", "urllib3", "h5py"):
            logging.getLogger(noisy).setLevel(logging.WARNING)


@app.command("convert")
def convert_command(
    sparsity: Annotated[
        str | None,
        typer.Option(
            help=f"Percent of zeros: {_SPARSITIES}. For --model-type sparse.",
            show_default=_DEFAULT_SPARSITY,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Instead of --sparsity: percent of zeros, layer by layer (TOML)."
        ),
    ] = None,
    embedding_layer: Annotated[
        str | None,
        typer.Option(
            metavar="conv1..conv8",
            help="Cut the network behind this convolution and take the embedding from it.",
        ),
    ] = None,
    filters: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...|NAME",
            help="Filters to keep in each convolution, those with the largest absolute kernel"
            f" weights; or a published list: {', '.join(WIDTHS)}.",
        ),
    ] = None,
    retrain_type: Annotated[
        str, typer.Option(help="Fine-tuned (ft) or distilled (kd). For --model-type sparse.")
    ] = "ft",
    model_type: Annotated[str, typer.Option(help="sparse (EdgeL3), sea or dense (L3).")] = "sparse",
    emb_dim: Annotated[
        int, typer.Option(help="Embedding size: 512, 256, 128, 64. For --model-type sea.")
    ] = 128,
    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto|published|bundled|generated",
            help="An .h5 or .h5.gz file; the authors' file (cache, installed edgel3, download);"
            " this package's stand-in; untrained weights made on the spot; or auto: the authors',"
            " and the stand-in where they cannot be reached.",
        ),
    ] = "auto",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Clips to calibrate with; those of the package if none."),
    ] = None,
    quantization: Annotated[str, typer.Option(help=" or ".join(QUANTIZATIONS) + ".")] = "int8",
    calibration_method: Annotated[
        str,
        typer.Option(
            metavar="auto|minmax|percentile|mse",
            help="Ranges of int8 activations. auto, like the three steps below where they are left"
            " out, is what measures best on the calibration clips.",
        ),
    ] = "auto",
    equalize: Annotated[
        bool | None,
        typer.Option("--equalize/--no-equalize", help="Bring the channels of a map to one range."),
    ] = None,
    bias_correction: Annotated[
        bool | None,
        typer.Option(
            "--bias-correction/--no-bias-correction", help="Take mean errors from the biases."
        ),
    ] = None,
    adaround: Annotated[
        bool | None,
        typer.Option("--adaround/--no-adaround", help="Learn which way to round each weight."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Directory to write."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prune, quantize and export a network: flatbuffers, packed model, C arrays, manifest."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        if sparsity is not None and plan is not None:
            raise EdgeL3Error("expected one of --sparsity and --plan FILE, got both")
        variant = find_variant(
            model_type,
            sparsity=_DEFAULT_SPARSITY if sparsity is None else sparsity,
            retrain_type=retrain_type,
            embedding_size=emb_dim,
        )
        from edgel3_tflm.converters.pipeline import ConvertOptions, convert
        from edgel3_tflm.converters.plan_file import read_plan
        from edgel3_tflm.converters.quantizer import CalibrationMethod, QuantizerOptions

        depth = None if embedding_layer is None else find_depth(embedding_layer)
        if plan is not None:
            percents = read_plan(plan).layers
            if len(percents) == depth:  # what is cut away needs no percents
                percents += (0,) * (CONVOLUTIONS - depth)
            variant = variant.with_plan(Plan(0, percents))
        options = ConvertOptions(
            variant,
            weights=cast(WeightsWord, weights) if weights in _WEIGHTS_WORDS else Path(weights),
            calibration=calibration,
            quantization=quantization,
            quantizer=QuantizerOptions(
                cast(CalibrationMethod, calibration_method), equalize, bias_correction, adaround
            ),
            depth=depth,
            filters=None if filters is None else find_filters(filters),
        )
        directory = output or Path(f"{options.target.name}-{quantization}")
        with screen.progress() as progress:
            deployment = convert(options, directory, progress)
        manifest = deployment.manifest
        screen.show(
            {"directory": str(directory), **manifest},
            *_describe_deployment(deployment),
            _files_table(deployment),
        )


app.command("compare")(compare_command)
app.command("embed")(embed_command)


@app.command("info")
def info_command(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE", help="A deployment, a .tflite, a packed .edgel3 or a weight file."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what is inside: layers, sparsity, MACs, flash, arena and the boards it fits."""
    with open_screen(as_json=as_json) as screen:
        if path.is_dir():
            deployment = Deployment.load(path)
            screen.show(dict(deployment.manifest), *_describe_deployment(deployment))
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


@app.command("probe")
def probe_command(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="Tab-separated: columns file, label and fold."),
    ],
    directory: Annotated[
        Path | None,
        typer.Option("--model", metavar="DIR", help="What convert wrote."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float, or quantized as the directory is.")
    ] = "quantized",
    statistics: Annotated[
        str | None,
        typer.Option(
            metavar="sparse|sea",
            help="Instead of a model: mean and deviation of this family's log-mel.",
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of a model: an .npz file with the arrays clip, (n,) names as in the"
            " manifest, and embedding, (n, d) floats; several rows of a clip are its windows.",
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help=f"Runtime of the model: {', '.join(RUNTIMES)}.")
    ] = DEFAULT_RUNTIME,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also: mean cosine of a linear map, fitted on the other folds, to the float"
            " embeddings of this deployment.",
        ),
    ] = None,
    fold: Annotated[
        list[int] | None, typer.Option(help="Folds to judge; all if none is named.")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge embeddings by a linear classifier over the folds of a labelled corpus."""
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.probe import extract_features, map_cosine, probe, read_embeddings

        clips = read_manifest(manifest)
        subject: dict[str, Any]
        if sum(source is not None for source in (directory, statistics, embeddings)) != 1:
            raise EdgeL3Error(
                "expected one of --model DIR, --statistics sparse|sea and --embeddings FILE"
            )
        if embeddings is not None and teacher is not None:
            raise EdgeL3Error(
                "--teacher needs to know where windows lie: expected it with --model or"
                " --statistics, got --embeddings"
            )
        if directory is not None:
            deployment = Deployment.load(directory)
            if precision not in ("float", "quantized"):
                raise EdgeL3Error(f"unknown precision {precision!r}: expected float or quantized")
            which = "float" if precision == "float" else deployment.quantization
            spec = deployment.variant.frontend
            features = deployment.embedder(which, runtime).embed_log_mel
            subject = {
                "model": deployment.variant.name,
                "precision": which,
                "weights": deployment.manifest["weights"]["description"],
            }
        elif statistics is not None:
            spec = find_variant(statistics).frontend
            features = log_mel_statistics
            subject = {"model": f"log-mel statistics ({statistics})"}
        else:
            subject = {"model": f"embeddings of {embeddings}"}
        if teacher is not None:
            teacher_model = Deployment.load(teacher)
        with screen.progress() as progress:
            if embeddings is not None:
                extracted = read_embeddings(embeddings, manifest, clips)
            else:
                extracted = extract_features(clips, spec, features, progress)
            progress("fit and judge", 0, 0)
            results = probe(clips, extracted, fold)
            if teacher is not None:
                subject["teacher"] = teacher_model.variant.name
                teacher_spec = teacher_model.variant.frontend
                embed = teacher_model.embedder("float").embed_log_mel
                theirs = extract_features(clips, teacher_spec, embed, progress)
                subject["map_cosine"] = map_cosine(clips, extracted, theirs, fold)
        right, count = sum(each.right for each in results), sum(each.clips for each in results)
        table = new_table("fold", "clips", "right", "accuracy %")
        for each in results:
            table.add_row(
                str(each.fold), str(each.clips), str(each.right), _percent(each.right, each.clips)
            )
        table.add_section()
        table.add_row("all", str(count), str(right), _percent(right, count))
        screen.show(
            {
                **subject,
                "windows": len(extracted.values),
                "folds": [asdict(each) for each in results],
                "accuracy_percent": 100 * right / count,
            },
            *(Text(f"{key}: {value}") for key, value in subject.items()),
            table,
        )


app.command("distill")(distill_command)
app.command("finetune")(finetune_command)
app.command("evaluate")(evaluate_command)
app.command("train-head")(train_head_command)
app.command("export-app")(export_app_command)
app.command("estimate")(estimate_command)
app.command("study")(study_command)
app.command("sensitivity")(sensitivity_command)


def _try_arena(model: bytes) -> int | None:
    """Arena of a flatbuffer, or None where TFLM's host build is not installed."""
    try:
        return measure_arena_bytes(model)
    except RuntimeUnavailableError:
        return None


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}"


def _shape(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _describe_deployment(deployment: Deployment) -> list[Any]:
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
        *provenance_lines(deployment),
        table,
        Text(
            f"{totals['weights'] - totals['zeros']:,} weights are not zero;"
            f" {manifest['calibration']['windows']} calibration windows"
        ),
        *_packed_lines(packed, manifest.get("packed"), needs),
        *_fit_lines(needs),
    ]


def _describe_flatbuffer(model: bytes) -> tuple[Any, ...]:
    """JSON of a flatbuffer of builtin operators, and what is to be printed."""
    summary = summarize(model)
    arena_bytes = _try_arena(model)
    needs: _Needs = {"dense": (summary.size_bytes, arena_bytes)}
    found: dict[str, Any] = {**asdict(summary), "arena_bytes": arena_bytes}
    lines: list[Any] = []
    if summary.input_type == "int8":
        from edgel3_tflm.converters.pack import pack

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
    """JSON of a packed model, and what is to be printed; its file may be a flatbuffer around it."""
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
        *_fit_lines({"packed": (file_bytes, described["arena_bytes"])}),
        *([] if is_bare else [Text("in TFLM, its input, output and bookkeeping come on top")]),
    )


def _packed_lines(
    blob: bytes | None, described: dict[str, Any] | None, needs: "_Needs"
) -> list[Any]:
    """Print a packed model beside a dense one: its table, or why there is none; adds its needs."""
    if blob is None:
        refusal = (described or {}).get("refused")
        return [] if refusal is None else [Text(f"not packed: {refusal}", style="yellow")]
    needs["packed"] = (len(blob), plan_memory(blob).arena_bytes)
    return [_packed_table(read_packed(blob))]


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
"""Flash and arena of each form of a model, in bytes; None for an arena that is not known."""


def _fit_lines(needs: _Needs) -> list[Any]:
    lines = []
    for form, (flash_bytes, arena_bytes) in needs.items():
        arena = f"arena {arena_bytes:,} bytes (firmware not counted)"
        if arena_bytes is None:
            arena = "the arena is measured by TFLM: pip install 'edgel3-tflm[convert]'"
        lines.append(Text(f"{form}: flash {flash_bytes:,} bytes, {arena}"))
    known = {form: need for form, need in needs.items() if need[1] is not None}
    if not known:
        return lines
    fitting = [f"fits\n{form}" for form in known]
    table = new_table("board", "flash\nKiB", "RAM\nKiB", *fitting, "measured against")
    table.columns[-1].justify = "left"
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


def _files_table(deployment: Deployment) -> Table:
    table = new_table("file", "bytes", "SHA-256")
    for name, artefact in deployment.manifest["artefacts"].items():
        table.add_row(
            str(deployment.directory / name), f"{artefact['bytes']:,}", artefact["sha256"][:16]
        )
    return table
