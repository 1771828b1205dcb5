"""Post-training quantization to int8: steps beyond TensorFlow Lite's, chosen by what they give.

The ladder, each rung on top of what the rungs before it chose:

============== ====================================================================================
bias           each channel's mean error over the calibration windows, taken from its bias
equalization   channels of a map brought closer to one range (:mod:`.equalization`)
ranges         what of the activations int8 spans (:mod:`.ranges`)
rounding       weights rounded up or down, whichever the layer's output wants (:mod:`.rounding`)
============== ====================================================================================

A choice that is left open falls on the candidate whose model has the highest SQNR on calibration
windows, in the integers that a device computes.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.log_mel import is_silent
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.quantization.chain import (
    Layer,
    Quantization,
    QuantizedLayer,
    fold,
    in_batches,
    quantize_layer,
    round_bias,
    write_chain,
)
from edgel3_tflm.converters.quantization.equalization import equalize
from edgel3_tflm.converters.quantization.ranges import (
    PERCENTILE,
    RANGE_METHODS,
    Activations,
    RangeMethod,
    choose_range,
)
from edgel3_tflm.converters.quantization.rounding import (
    RoundingSettings,
    choose_places,
    gather_patches,
    round_adaptively,
)
from edgel3_tflm.errors import EdgeL3Error, ModelFileError, RuntimeUnavailableError
from edgel3_tflm.metrics import cosine_similarity, sqnr_db
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME, open_interpreter
from edgel3_tflm.runtime.tensors import Interpreter
from edgel3_tflm.types import FloatArray, Progress

CalibrationMethod = Literal["auto"] | RangeMethod
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = ("auto", *RANGE_METHODS)

_POWERS = (0.25, 0.4, 0.5)
# Correction and rounding compute every layer twice for all of their windows: the dense L3 has 10
# GMAC a window, and 13 MB in its largest map.
_REFINE_MACS = 1.5e11
_REFINE_MAX_WINDOWS = 512
# Values of each layer that the search for a range looks at.
_SAMPLE_VALUES = 2**21
# The packed model skips zeros: from this share of them it is quicker than the flatbuffer.
_SPARSE_SHARE = 0.5


@dataclass(frozen=True)
class QuantizerOptions:
    """Which steps to take: yes, no, or None for whatever measures better.

    Parameters
    ----------
    calibration_method : {'auto', 'minmax', 'percentile', 'mse'}
        How the activations' ranges are chosen.
    equalize, bias_correction, adaround : bool, optional
    """

    calibration_method: CalibrationMethod = "auto"
    equalize: bool | None = None
    bias_correction: bool | None = None
    adaround: bool | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown method."""
        if self.calibration_method not in CALIBRATION_METHODS:
            raise EdgeL3Error(
                f"unknown calibration method {self.calibration_method!r}: expected one of"
                f" {', '.join(CALIBRATION_METHODS)}"
            )

    @property
    def is_plain(self) -> bool:
        """Whether TensorFlow Lite's own converter does all that is asked for."""
        steps = (self.equalize, self.bias_correction, self.adaround)
        return self.calibration_method == "minmax" and steps == (False,) * len(steps)


AUTO = QuantizerOptions()
"""Whatever measures best."""
PLAIN = QuantizerOptions("minmax", equalize=False, bias_correction=False, adaround=False)
"""TensorFlow Lite's own quantization."""


@dataclass(frozen=True)
class Steps:
    """The steps of one candidate; ``equalization_power`` is 0 for none."""

    calibration_method: RangeMethod = "minmax"
    equalization_power: float = 0.0
    bias_correction: bool = False
    adaround: bool = False

    def __str__(self) -> str:
        """Name the steps, for people."""
        method = self.calibration_method
        words = [f"{method} {PERCENTILE:g}" if method == "percentile" else method]
        if self.equalization_power:
            words.append(f"equalization {self.equalization_power:g}")
        if self.bias_correction:
            words.append("bias correction")
        if self.adaround:
            words.append("AdaRound")
        return ", ".join(words)


@dataclass(frozen=True)
class Rung:
    """What a candidate gave, against the float network, on calibration windows."""

    steps: Steps
    cosine_mean: float
    cosine_p5: float
    sqnr_db: float

    def to_json(self) -> dict[str, Any]:
        """Turn it into plain data; an infinite SQNR (no drift) is None."""
        found = asdict(self)
        found["sqnr_db"] = self.sqnr_db if math.isfinite(self.sqnr_db) else None
        return found


@dataclass(frozen=True)
class QuantizerResult:
    """An int8 flatbuffer and how it came to be.

    ``ladder`` has what was measured, in that order, and is empty if nothing was left open.
    ``windows`` are those of the measurement and of correction and rounding.
    """

    model: bytes
    steps: Steps
    ladder: tuple[Rung, ...]
    windows: int

    def to_json(self) -> dict[str, Any]:
        """Turn all but the flatbuffer into plain data, for the manifest."""
        parameters: dict[str, Any] = {}
        if self.steps.calibration_method == "percentile":
            parameters["percentile"] = PERCENTILE
        if self.steps.adaround:
            parameters["adaround"] = asdict(RoundingSettings())
        return {
            "name": "edgel3-tflm",
            "steps": asdict(self.steps),
            "parameters": parameters,
            "windows": self.windows,
            "chosen_by": "sqnr_db" if self.ladder else None,
            "ladder": [rung.to_json() for rung in self.ladder],
        }


def quantize(
    weights: NetworkWeights,
    decibels: FloatArray,
    options: QuantizerOptions,
    progress: Progress,
) -> QuantizerResult:
    """Quantize a network to int8.

    Parameters
    ----------
    weights : NetworkWeights
    decibels : numpy.ndarray, shape (n, mels, frames), float32
        The calibration windows' log-mel.
    options : QuantizerOptions
    progress : callable
    """
    quantizer = _Quantizer(weights, decibels, progress)
    steps = quantizer.climb(options)
    return QuantizerResult(
        quantizer.build(steps), steps, tuple(quantizer.ladder), len(quantizer.windows)
    )


class _Quantizer:
    def __init__(self, weights: NetworkWeights, decibels: FloatArray, progress: Progress) -> None:
        self._progress = progress
        self._spec = weights.variant.frontend
        self._input_map = InputMap.of(weights)
        self._layers = fold(weights)
        self._is_sparse = weights.sparsity_percent >= 100 * _SPARSE_SHARE
        inputs = self._input_map.normalise(decibels)
        self._input = Quantization.of_range(float(inputs.min()), float(inputs.max()))
        self._activations, embeddings = self._observe(inputs)
        macs = sum(each.rows * each.columns * each.kernel_size for each in weights.variant.layers)
        chosen = _choose_windows(decibels, min(_REFINE_MAX_WINDOWS, int(_REFINE_MACS // macs)))
        self.windows = decibels[chosen]
        self._inputs = inputs[chosen]
        self._embeddings = embeddings[chosen]
        self._models: dict[Steps, bytes] = {}
        self.ladder: list[Rung] = []

    def climb(self, options: QuantizerOptions) -> Steps:
        """Decide each step in turn; what is left open, by measuring."""

        def allowed(wanted: bool | None, without: Any, *others: Any) -> list[Any]:
            return [without, *others] if wanted is None else list(others) if wanted else [without]

        method = options.calibration_method
        rungs: dict[str, Sequence[Any]] = {
            # First, for what it mends hides how well the others do.
            "bias_correction": allowed(options.bias_correction, False, True),
            "equalization_power": allowed(options.equalize, 0.0, *_POWERS),
            "calibration_method": RANGE_METHODS if method == "auto" else [method],
            "adaround": allowed(options.adaround, False, True),
        }
        best = Steps()
        for field, values in rungs.items():
            candidates = [Steps(**{**asdict(best), field: value}) for value in values]
            best = max(candidates, key=self._score) if len(candidates) > 1 else candidates[0]
        return best

    def _score(self, steps: Steps) -> float:
        """SQNR of a candidate's model, which becomes a rung of the ladder."""
        known = {rung.steps: rung for rung in self.ladder}
        if steps not in known:
            self.ladder.append(self._measure(steps))
        return known.get(steps, self.ladder[-1]).sqnr_db

    def _measure(self, steps: Steps) -> Rung:
        interpreter = self._open(self.build(steps))
        codes = interpreter.run(self._input_map.apply(self.windows, interpreter.input))
        found = interpreter.output.dequantize(codes)
        cosine = cosine_similarity(self._embeddings, found)
        return Rung(
            steps,
            float(cosine.mean()),
            float(np.percentile(cosine, 5)),
            sqnr_db(self._embeddings, found),
        )

    def _open(self, model: bytes) -> Interpreter:
        """Open a model where it gives the device's integers soonest."""
        if self._is_sparse:
            try:
                return open_interpreter(pack(model), "engine")
            except (ModelFileError, RuntimeUnavailableError):
                pass
        return open_interpreter(model, DEFAULT_RUNTIME)

    def build(self, steps: Steps) -> bytes:
        """Make the flatbuffer of a candidate."""
        if steps not in self._models:
            layers, activations = equalize(
                self._layers, self._activations, steps.equalization_power
            )
            outputs = [choose_range(each, steps.calibration_method) for each in activations]
            # A window whose embedding is clamped loses most: the embedding keeps its full range.
            outputs[-1] = activations[-1].full_range
            quantizations = [self._input, *(Quantization.of_range(*each) for each in outputs)]
            chain = tuple(map(quantize_layer, layers, quantizations[:-1], quantizations[1:]))
            if steps.bias_correction or steps.adaround:
                chain = self._refine(chain, steps)
            self._models[steps] = write_chain(chain, self._spec.mels, self._spec.frames)
        return self._models[steps]

    def _observe(self, inputs: FloatArray) -> tuple[tuple[Activations, ...], FloatArray]:
        """Run the float network: its activations, and the embeddings, shape (n, d)."""
        count = len(self._layers)
        rng = np.random.default_rng(0)
        minima: list[list[FloatArray]] = [[] for _ in self._layers]
        maxima: list[list[FloatArray]] = [[] for _ in self._layers]
        samples: list[list[FloatArray]] = [[] for _ in self._layers]
        embeddings = []
        for position, window in enumerate(inputs):
            maps = window[np.newaxis]
            for number, layer in enumerate(self._layers):
                maps = layer.finish(layer.convolve(maps)).numpy()
                values = maps.reshape(-1, maps.shape[-1])
                total = _SAMPLE_VALUES // len(inputs) // values.shape[1]
                places = choose_places(1, len(values), total, rng)[0]
                minima[number].append(values.min(axis=0))
                maxima[number].append(values.max(axis=0))
                samples[number].append(values[places])
            embeddings.append(maps.ravel())
            self._progress("int8: activations of the float network", position + 1, len(inputs))
        activations = tuple(
            Activations(
                np.min(minima[number], axis=0),
                np.max(maxima[number], axis=0),
                np.concatenate(samples[number]),
            )
            for number in range(count)
        )
        return activations, np.stack(embeddings)

    def _refine(self, chain: Sequence[QuantizedLayer], steps: Steps) -> tuple[QuantizedLayer, ...]:
        """Round and correct layer after layer, each behind the ones that are done."""
        quantization = chain[0].input
        reals = self._inputs
        codes = np.rint(reals / quantization.scale) + quantization.zero_point
        codes = codes.clip(-128, 127).astype(np.int8)
        found = []
        for number, each in enumerate(chain):
            self._progress(f"int8: {steps}", number, len(chain))
            if steps.adaround:
                each = _adaround(each, reals, codes, number)
            pre_activations = in_batches(lambda maps, each=each: _convolve(each, maps), codes)
            if steps.bias_correction:
                each, pre_activations = _correct(each, reals, pre_activations)
            codes = in_batches(each.finish, pre_activations)
            reals = in_batches(lambda maps, layer=each.layer: _run(layer, maps), reals)
            found.append(each)
        self._progress(f"int8: {steps}", len(chain), len(chain))
        return tuple(found)


def _choose_windows(decibels: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Spread some windows over all there are; silence, which devices hear often, is among them."""
    chosen = np.linspace(0, len(decibels) - 1, min(max(count, 1), len(decibels))).astype(np.int64)
    silent = np.flatnonzero(is_silent(decibels))[:1]
    return np.union1d(chosen, silent)


def _run(layer: Layer, maps: FloatArray) -> FloatArray:
    found: FloatArray = layer.finish(layer.convolve(maps)).numpy()
    return found


def _convolve(quantized: QuantizedLayer, codes: npt.NDArray[np.int8]) -> FloatArray:
    """Pre-activations of a quantized layer, in real units."""
    bias = quantized.bias * quantized.bias_scales
    real = replace(quantized.layer, kernel=quantized.real_kernel, bias=bias.astype(np.float32))
    found: FloatArray = real.convolve(quantized.real_input(codes)).numpy()
    return found


def _adaround(
    quantized: QuantizedLayer, reals: FloatArray, codes: npt.NDArray[np.int8], number: int
) -> QuantizedLayer:
    settings = RoundingSettings()
    rng = np.random.default_rng(number)
    rows, columns = reals.shape[1:3]
    chosen = choose_places(len(reals), rows * columns, settings.places, rng)
    kernel = quantized.layer.kernel.reshape(-1, quantized.layer.kernel.shape[-1])
    patches, targets = [], []
    for real, code, places in zip(reals, codes, chosen, strict=True):
        patches.append(gather_patches(quantized.real_input(code), places))
        targets.append(gather_patches(real, places) @ kernel + quantized.layer.bias)
    return round_adaptively(
        quantized, np.concatenate(patches), np.concatenate(targets), settings, seed=number
    )


def _correct(
    quantized: QuantizedLayer, reals: FloatArray, pre_activations: FloatArray
) -> tuple[QuantizedLayer, FloatArray]:
    """Take each channel's mean error from its bias, and from the pre-activations."""
    wanted = in_batches(
        lambda maps: quantized.layer.convolve(maps).numpy().sum((1, 2), dtype=np.float64), reals
    )
    found = pre_activations.sum((1, 2), dtype=np.float64)
    places = pre_activations.shape[0] * pre_activations.shape[1] * pre_activations.shape[2]
    error = (found - wanted).sum(axis=0) / places
    scales = quantized.bias_scales
    bias = round_bias(quantized.bias * scales.astype(np.float64) - error, scales)
    moved = (bias.astype(np.float64) - quantized.bias) * scales
    return replace(quantized, bias=bias), pre_activations + moved.astype(np.float32)
