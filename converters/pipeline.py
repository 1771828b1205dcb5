"""From weights to a deployment directory."""

import json
import logging
import platform
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.export import c_array
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.export.packed_flatbuffer import wrap_packed
from edgel3_tflm.converters.keras.generate import generate_weights
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pruning.prune import PruningResult, prune
from edgel3_tflm.converters.pruning.reduce import reduce_weights
from edgel3_tflm.converters.quantization.calibrate import (
    Calibration,
)
from edgel3_tflm.converters.quantization.quantizer import (
    AUTO,
    PLAIN,
    QuantizerOptions,
    quantize,
)
from edgel3_tflm.converters.quantization.tflite import to_float, to_quantized
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.files import new_directory, sha256_hex
from edgel3_tflm.networks.sources import Note, WeightsSource, load_given
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.artefacts import (
    FLOAT_MODEL_NAME,
    MANIFEST_NAME,
    PACKED_FLATBUFFER_NAME,
    PACKED_MODEL_NAME,
    QUANTIZATIONS,
    quantized_model_name,
)
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.deployment_manifest import FORMAT
from edgel3_tflm.runtime.flatbuffer import (
    FlatbufferSummary,
    summarize,
    with_description,
)
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import measure_arena_bytes, open_interpreter
from edgel3_tflm.runtime.packed import describe_packed, plan_memory

_log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done and how much there is (0: unknown)."""

_TOOLS = (
    "numpy",
    "soxr",
    "tensorflow",
    "tensorflow-model-optimization",
    "tf_keras",
    "tflite-micro",
)


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert.

    Parameters
    ----------
    variant : Variant
        The network to convert, or to cut.
    weights : pathlib.Path or str
        A weight file, or a word: 'published'; 'bundled', the stand-in; 'auto', the stand-in where
        the published weights cannot be reached; 'generated', untrained ones made on the spot.
    calibration : pathlib.Path, optional
        Directory of clips; the ones that ship with the package if None.
    quantization : {'int8', 'int16x8'}
    quantizer : QuantizerOptions
        For int8; int16x8 is TensorFlow Lite's own.
    depth : int, optional
        Convolutions that are kept; the embedding is the last one's.
    filters : tuple of int, optional
        Filters that are kept, of each convolution.
    """

    variant: Variant
    weights: WeightsSource = "auto"
    calibration: Path | None = None
    quantization: str = "int8"
    quantizer: QuantizerOptions = AUTO
    depth: int | None = None
    filters: tuple[int, ...] | None = None

    @property
    def target(self) -> Variant:
        """The network that is asked for; a weight file may have filters of its own.

        Raises
        ------
        EdgeL3Error
            If there is no network of this depth or with these filters.
        """
        variant = self.variant
        if self.depth is not None:
            variant = variant.with_depth(self.depth)
        return variant if self.filters is None else variant.with_filters(self.filters)


def convert(
    options: ConvertOptions, output: Path, progress: Progress, note: Note = _log.info
) -> Deployment:
    """Prune, quantize and export a network.

    Parameters
    ----------
    options : ConvertOptions
    output : pathlib.Path
        The directory to write. It appears whole or not at all.
    progress : callable
    note : callable
        Told at once when the stand-in takes the place of the published weights.

    Returns
    -------
    Deployment
        The directory, read back and verified.

    Raises
    ------
    EdgeL3Error
        If weights, clips or the output directory cannot be used.
    """
    if options.quantization not in QUANTIZATIONS:
        raise EdgeL3Error(
            f"unknown quantization {options.quantization!r}: expected one of"
            f" {', '.join(QUANTIZATIONS)}"
        )
    if options.quantization != "int8" and options.quantizer not in (AUTO, PLAIN):
        raise EdgeL3Error(
            f"{options.quantization} is quantized by TensorFlow Lite's own converter: expected no"
            " choice of a calibration method or of further steps"
        )
    with new_directory(output, marker=MANIFEST_NAME) as directory:
        _write(options, directory, progress, note)
    return Deployment.load(output)


def _write(options: ConvertOptions, directory: Path, progress: Progress, note: Note) -> None:
    variant, quantization = options.target, options.quantization
    calibration = Calibration(options.calibration or bundled_clips_directory(), variant.frontend)
    clip_digests = calibration.digests()
    # Weights are the likelier mistake: they are looked at before the slow import of TensorFlow.
    given = load_given(options.variant, options.weights, note)
    network_of_weights = variant.name
    if given is not None:
        network_of_weights = given.variant.name
        given = reduce_weights(given, options.depth, options.filters)
        variant = given.variant  # with the file's own filters, where it has any

    progress("load TensorFlow", 0, 0)
    load_backend()
    if given is None:
        given = generate_weights(
            variant,
            np.concatenate(list(_spectrograms(calibration, progress, "log-mel"))),
            lambda done, total: progress("generate weights", done, total),
        )
    progress("prune", 0, 0)
    pruned = PruningResult(given, ())
    if variant.plan is not None:
        pruned = prune(given, variant.plan)
    weights, pruned_layers = pruned.weights, pruned.pruned_layers
    description = f"edgel3-tflm {__version__}, {variant.name}, {pruned.description}"

    input_map = InputMap.of(weights)
    network = build_network(weights)
    progress("float flatbuffer", 0, 0)
    float_model = with_description(to_float(network), description)

    if quantization == "int8" and not options.quantizer.is_plain:
        decibels = np.concatenate(list(_spectrograms(calibration, progress, "log-mel")))
        windows = len(decibels)
        chosen = quantize(weights, decibels, options.quantizer, progress)
        model, quantizer, steps = chosen.model, chosen.to_json(), str(chosen.steps)
    else:
        model, windows = _quantize_plainly(network, input_map, quantization, calibration, progress)
        quantizer, steps = {"name": "TensorFlow Lite"}, "minmax"
    model_description = f"{description}; {quantization}: {steps}"
    model = with_description(model, model_description)

    progress("measure arena", 0, 0)
    arena_bytes = measure_arena_bytes(model)
    interpreter = open_interpreter(model)
    progress("write files", 0, 0)
    banner = c_array.write_banner(model, variant, model_description)
    constants = c_array.write_constants(variant, input_map, interpreter.input, interpreter.output)
    header = c_array.write_header(
        banner, constants, model_bytes=len(model), arena_bytes=arena_bytes
    )
    artefacts = {
        FLOAT_MODEL_NAME: float_model,
        quantized_model_name(quantization): model,
        c_array.SOURCE_NAME: c_array.write_source(model, banner).encode(),
        c_array.HEADER_NAME: header.encode(),
    }
    packed: dict[str, Any] | None = None
    if quantization == "int8":
        artefacts |= {
            c_array.FRONTEND_SOURCE_NAME: c_array.write_frontend_source(
                variant.frontend, input_map, interpreter.input, banner
            ).encode(),
            c_array.FRONTEND_HEADER_NAME: c_array.write_frontend_header(
                variant.frontend, banner
            ).encode(),
        }
        try:
            blob = pack(model)
        except ModelFileError as error:
            # Some weights only TFLite computes; the dense files are as good as ever.
            packed = {"refused": str(error)}
        else:
            packed = describe_packed(blob)
            progress("self-test of the device", 0, 0)
            crc = self_test_crc32(model)
            artefacts |= _write_packed(blob, variant, model_description, constants, crc)
    manifest = {
        "format": FORMAT.name,
        "format_version": FORMAT.version,
        "generator": f"edgel3-tflm {__version__}",
        "variant": {
            "name": variant.name,
            "model_type": variant.model_type,
            "embedding_size": variant.embedding_size,
            "filters": variant.filters,
            "plan_total_percent": variant.plan.total if variant.plan else None,
        },
        "quantization": quantization,
        "quantizer": quantizer,
        "weights": {
            **asdict(weights.provenance),
            "network": network_of_weights,
            "description": description,
            "pruned_layers": pruned_layers,
        },
        "frontend": asdict(variant.frontend),
        "input": {"slope_per_db": input_map.slope, "offset": input_map.offset},
        "layers": _describe_layers(given, weights, summarize(model)),
        "arena_bytes": arena_bytes,
        **({"packed": packed} if packed is not None else {}),
        "calibration": {
            "clips": clip_digests,
            "windows": windows,
            "bundled": options.calibration is None,
        },
        "tools": {"python": platform.python_version(), **{name: version(name) for name in _TOOLS}},
        "artefacts": {
            name: {"bytes": len(data), "sha256": sha256_hex(data)}
            for name, data in artefacts.items()
        },
    }
    artefacts[MANIFEST_NAME] = (json.dumps(manifest, indent=2) + "\n").encode()
    for name, data in artefacts.items():
        (directory / name).write_bytes(data)


def _quantize_plainly(
    network: Any,
    input_map: InputMap,
    quantization: str,
    calibration: Calibration,
    progress: Progress,
) -> tuple[bytes, int]:
    """Quantize by TensorFlow Lite; the flatbuffer, and how many windows calibrated it."""
    windows = 0

    def inputs() -> Iterator[FloatArray]:
        nonlocal windows
        windows = 0
        for batch in _spectrograms(calibration, progress, f"{quantization} flatbuffer: calibrate"):
            for window in input_map.normalise(batch):
                yield window[np.newaxis]
                windows += 1
        progress(f"{quantization} flatbuffer: quantize", 0, 0)

    return to_quantized(network, quantization, inputs), windows


def _write_packed(
    blob: bytes, variant: Variant, description: str, constants: str, crc: int
) -> dict[str, bytes]:
    """Files of a packed model: itself, in a flatbuffer of one custom operator, and as C."""
    banner = c_array.write_banner(blob, variant, description)
    header = c_array.write_packed_header(
        banner,
        constants,
        blob_bytes=len(blob),
        arena_bytes=plan_memory(blob).arena_bytes,
        self_test_crc32=crc,
    )
    return {
        PACKED_MODEL_NAME: blob,
        PACKED_FLATBUFFER_NAME: wrap_packed(blob, description),
        c_array.PACKED_SOURCE_NAME: c_array.write_packed_source(blob, banner).encode(),
        c_array.PACKED_HEADER_NAME: header.encode(),
    }


def self_test_crc32(model: bytes) -> int:
    """CRC-32 of the reference's embedding of the window that a node's self-test runs.

    ``edgel3_node_self_test_value`` says what it holds.
    """
    interpreter = open_interpreter(model, "reference")
    shape = interpreter.input.shape
    numbers = np.arange(np.prod(shape), dtype=np.uint32)
    values = (numbers * np.uint32(2654435761) >> np.uint32(24)).astype(np.uint8).view(np.int8)
    return zlib.crc32(interpreter.run(values.reshape(shape)).tobytes())


def _spectrograms(calibration: Calibration, progress: Progress, step: str) -> Iterator[FloatArray]:
    total = len(calibration.clips) + 1  # the click comes first
    for done, batch in enumerate(calibration.spectrograms(), start=1):
        yield batch
        progress(step, done, total)


def _describe_layers(
    given: NetworkWeights, weights: NetworkWeights, quantized: FlatbufferSummary
) -> list[dict[str, Any]]:
    """Zeros of every convolution: as given, behind pruning, behind quantization, and planned."""
    variant = weights.variant
    plan = variant.plan.layers if variant.plan else [None] * len(variant.layers)
    convolutions = [layer for layer in quantized.layers if layer.weights]
    return [
        {
            "name": layer.name,
            "weights": layer.kernel_size,
            "plan_percent": percent,
            "given_zeros": before.zeros,
            "zeros": after.zeros,
            "quantized_zeros": summary.zeros,
            "dense_macs": summary.dense_macs,
            "effective_macs": summary.effective_macs,
        }
        for layer, percent, before, after, summary in zip(
            variant.layers, plan, given.convs, weights.convs, convolutions, strict=True
        )
    ]
