"""The conversion of weights into a deployment directory."""

import json
import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.export.artefacts import export_model
from edgel3_tflm.converters.keras.generate import generate_weights
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pruning.prune import PruningResult, prune
from edgel3_tflm.converters.pruning.reduce import reduce_weights
from edgel3_tflm.converters.quantization.calibrate import Calibration
from edgel3_tflm.converters.quantization.quantizer import (
    AUTO,
    PLAIN,
    QuantizerOptions,
    quantize,
)
from edgel3_tflm.converters.quantization.tflite import to_float, to_quantized
from edgel3_tflm.errors import EdgeL3Error, RuntimeUnavailableError
from edgel3_tflm.files import new_directory, sha256_hex
from edgel3_tflm.networks.sources import Note, WeightsSource, load_given
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.artefacts import (
    FLOAT_MODEL_NAME,
    MANIFEST_NAME,
    QUANTIZATIONS,
)
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.deployment_manifest import FORMAT
from edgel3_tflm.runtime.flatbuffer import (
    FlatbufferSummary,
    summarize,
    with_description,
)
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import measure_arena_bytes
from edgel3_tflm.types import FloatArray, Progress

_log = logging.getLogger(__name__)

_TOOLS = (
    "ai-edge-litert",
    "numpy",
    "soxr",
    "tensorflow",
    "tensorflow-model-optimization",
    "tf_keras",
    "tflite-micro",
)


def _tool_versions() -> dict[str, str]:
    """Return the versions of the tools that are installed; tflite-micro may be missing."""
    found = {}
    for name in _TOOLS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and how.

    Parameters
    ----------
    variant : Variant
        The network, before ``depth`` and ``filters`` cut it.
    weights : pathlib.Path, str or NetworkWeights
        A weight file, or a word: 'published'; 'bundled', the stand-in; 'auto', the published
        weights, or the stand-in if they cannot be fetched; 'generated', untrained weights. Or the
        weights of ``variant`` themselves.
    calibration : pathlib.Path, optional
        Directory of calibration clips. None takes the clips that ship with the package.
    quantization : {'int8', 'int16x8'}
    quantizer : QuantizerOptions
        For int8. TensorFlow Lite quantizes to int16x8 in one way only.
    depth : int, optional
        Number of convolutions to keep. The embedding is the maximum over the last one's map.
    filters : tuple of int, optional
        Number of filters to keep in each convolution.
    """

    variant: Variant
    weights: WeightsSource | NetworkWeights = "auto"
    calibration: Path | None = None
    quantization: str = "int8"
    quantizer: QuantizerOptions = AUTO
    depth: int | None = None
    filters: tuple[int, ...] | None = None

    @property
    def target(self) -> Variant:
        """The network after the cut. A weight file may contain a network with other filters.

        Raises
        ------
        EdgeL3Error
            If no network has this depth or these filters.
        """
        variant = self.variant
        if self.depth is not None:
            variant = variant.with_depth(self.depth)
        return variant if self.filters is None else variant.with_filters(self.filters)


def convert(
    options: ConvertOptions,
    output: Path,
    progress: Progress,
    note: Note = _log.info,
    entries: Mapping[str, Any] | None = None,
) -> Deployment:
    """Prune, quantize and export a network.

    Parameters
    ----------
    options : ConvertOptions
    output : pathlib.Path
        The directory to write. After an error it does not exist, or is as it was.
    progress : callable
    note : callable
        Called at once with one line if the stand-in is used in place of the published weights.
    entries : mapping, optional
        Further entries of the manifest, as plain data for JSON.

    Returns
    -------
    Deployment
        The directory, read back and verified.

    Raises
    ------
    EdgeL3Error
        If the weights, the clips or the output directory cannot be used.
    """
    if options.quantization not in QUANTIZATIONS:
        raise EdgeL3Error(
            f"unknown quantization {options.quantization!r}: expected one of"
            f" {', '.join(QUANTIZATIONS)}"
        )
    if options.quantization != "int8" and options.quantizer not in (AUTO, PLAIN):
        raise EdgeL3Error(
            f"{options.quantization} is quantized by TensorFlow Lite's own converter: expected no"
            " options for ranges, equalization, bias correction or rounding; leave them out, or"
            " quantize to int8"
        )
    with new_directory(output, marker=MANIFEST_NAME) as directory:
        _write(options, directory, progress, note, entries or {})
    return Deployment.load(output)


@dataclass(frozen=True)
class _Network:
    """A network with its weights before and after pruning.

    Parameters
    ----------
    given : NetworkWeights
        The weights after the cut, before pruning.
    pruned : PruningResult
    source_network : str
        Name of the network that the weight source contains, before the cut.
    """

    given: NetworkWeights
    pruned: PruningResult
    source_network: str

    @property
    def variant(self) -> Variant:
        return self.given.variant

    @property
    def weights(self) -> NetworkWeights:
        return self.pruned.weights

    @property
    def description(self) -> str:
        """What the float flatbuffer and the manifest say of the network."""
        return f"edgel3-tflm {__version__}, {self.variant.name}, {self.pruned.description}"


@dataclass(frozen=True)
class _QuantizedModel:
    """A quantized flatbuffer, and how it was quantized.

    Parameters
    ----------
    model : bytes
    description : str
        What the flatbuffer and the C files say of the model.
    quantizer : dict
        Plain data for the manifest.
    windows : int
        Number of calibration windows.
    """

    model: bytes
    description: str
    quantizer: dict[str, Any]
    windows: int


def _write(
    options: ConvertOptions,
    directory: Path,
    progress: Progress,
    note: Note,
    entries: Mapping[str, Any],
) -> None:
    """Write the files of a deployment into an empty directory."""
    target = options.target
    calibration = Calibration(options.calibration or bundled_clips_directory(), target.frontend)
    clip_digests = calibration.digests()
    network = _prepare_network(options, calibration, progress, note)
    keras_network = build_network(network.weights)
    progress("float flatbuffer", 0, 0)
    float_model = with_description(to_float(keras_network), network.description)
    quantized = _quantize(options, network, keras_network, calibration, progress)
    progress("measure arena", 0, 0)
    arena_bytes = _try_arena(quantized.model, note)
    exported, packed = export_model(
        quantized.model,
        network.variant,
        InputMap.of(network.weights),
        quantization=options.quantization,
        description=quantized.description,
        arena_bytes=arena_bytes,
        progress=progress,
    )
    artefacts = {FLOAT_MODEL_NAME: float_model, **exported}
    manifest = {
        **_describe_network(options.quantization, network, quantized, arena_bytes),
        **({"packed": packed} if packed is not None else {}),
        "calibration": {
            "clips": clip_digests,
            "windows": quantized.windows,
            "bundled": options.calibration is None,
        },
        "tools": {"python": platform.python_version(), **_tool_versions()},
        "artefacts": {
            name: {"bytes": len(data), "sha256": sha256_hex(data)}
            for name, data in artefacts.items()
        },
        **entries,
    }
    artefacts[MANIFEST_NAME] = (json.dumps(manifest, indent=2) + "\n").encode()
    for name, data in artefacts.items():
        (directory / name).write_bytes(data)


def _try_arena(model: bytes, note: Note) -> int | None:
    """Return the arena of a flatbuffer in bytes, or None where tflite-micro has no wheels."""
    try:
        return measure_arena_bytes(model)
    except RuntimeUnavailableError as error:
        note(f"TFLM's arena of the flatbuffer was not measured: {error}")
        return None


def _prepare_network(
    options: ConvertOptions, calibration: Calibration, progress: Progress, note: Note
) -> _Network:
    """Load or generate the weights, cut the network, and prune it to its plan."""
    variant = options.target
    # Errors in weights are more likely than in TensorFlow, whose import is slow: weights go first.
    if isinstance(options.weights, NetworkWeights):
        given: NetworkWeights | None = options.weights
    else:
        given = load_given(options.variant, options.weights, note)
    source_network = variant.name if given is None else given.variant.name
    if given is not None:
        given = reduce_weights(given, options.depth, options.filters)
    progress("load TensorFlow", 0, 0)
    load_backend()
    if given is None:
        given = generate_weights(
            variant,
            _read_spectrograms(calibration, progress),
            lambda done, total: progress("generate weights", done, total),
        )
    progress("prune", 0, 0)
    # A weight file may contain a network with filters of its own, so the plan is of its variant.
    plan = given.variant.plan
    pruned = PruningResult(given, ()) if plan is None else prune(given, plan)
    return _Network(given, pruned, source_network)


def _quantize(
    options: ConvertOptions,
    network: _Network,
    keras_network: Any,
    calibration: Calibration,
    progress: Progress,
) -> _QuantizedModel:
    """Quantize by this project's quantizer, or by TensorFlow Lite if it takes the same steps."""
    quantization = options.quantization
    if quantization == "int8" and not options.quantizer.is_plain:
        decibels = _read_spectrograms(calibration, progress)
        result = quantize(network.weights, decibels, options.quantizer, progress)
        model, windows = result.model, len(decibels)
        quantizer, steps = result.to_json(), str(result.steps)
    else:
        input_map = InputMap.of(network.weights)
        model, windows = _quantize_plainly(
            keras_network, input_map, quantization, calibration, progress
        )
        quantizer, steps = {"name": "TensorFlow Lite"}, "minmax"
    description = f"{network.description}; {quantization}: {steps}"
    return _QuantizedModel(with_description(model, description), description, quantizer, windows)


def _quantize_plainly(
    keras_network: Any,
    input_map: InputMap,
    quantization: str,
    calibration: Calibration,
    progress: Progress,
) -> tuple[bytes, int]:
    """Quantize by TensorFlow Lite; return the flatbuffer and the number of calibration windows."""
    windows = 0

    def inputs() -> Iterator[FloatArray]:
        nonlocal windows
        windows = 0
        for batch in _spectrograms(calibration, progress, f"{quantization} flatbuffer: calibrate"):
            for window in input_map.normalise(batch):
                yield window[np.newaxis]
                windows += 1
        progress(f"{quantization} flatbuffer: quantize", 0, 0)

    return to_quantized(keras_network, quantization, inputs), windows


def _read_spectrograms(calibration: Calibration, progress: Progress) -> FloatArray:
    """Compute all calibration windows' log-mel, shape (n, mels, frames)."""
    return np.concatenate(list(_spectrograms(calibration, progress, "log-mel")))


def _spectrograms(calibration: Calibration, progress: Progress, step: str) -> Iterator[FloatArray]:
    """Compute log-mel spectrograms clip by clip, and report progress."""
    total = len(calibration.clips) + 1  # the click comes first
    for done, batch in enumerate(calibration.spectrograms(), start=1):
        yield batch
        progress(step, done, total)


def _describe_network(
    quantization: str, network: _Network, quantized: _QuantizedModel, arena_bytes: int | None
) -> dict[str, Any]:
    """Describe a network and its quantized model, as plain data for the manifest."""
    variant, weights = network.variant, network.weights
    input_map = InputMap.of(weights)
    return {
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
        "quantizer": quantized.quantizer,
        "weights": {
            **asdict(weights.provenance),
            "network": network.source_network,
            "description": network.description,
            "pruned_layers": network.pruned.pruned_layers,
        },
        "frontend": asdict(variant.frontend),
        "input": {"slope_per_db": input_map.slope, "offset": input_map.offset},
        "layers": _describe_layers(network.given, weights, summarize(quantized.model)),
        "arena_bytes": arena_bytes,
    }


def _describe_layers(
    given: NetworkWeights, weights: NetworkWeights, quantized: FlatbufferSummary
) -> list[dict[str, Any]]:
    """Count the zeros of every convolution: planned, before and after pruning, and quantized."""
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
