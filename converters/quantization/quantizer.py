"""Post-training quantization to int8, with a search for the best steps.

The search decides one step after the other, each with the choices made before:

============== ====================================================================================
bias           subtract each channel's mean error over the calibration windows from its bias
equalization   bring the ranges of the channels of a map closer together (:mod:`.equalization`)
ranges         choose the range of the activations that int8 spans (:mod:`.ranges`)
rounding       learn whether to round each weight up or down (:mod:`.rounding`)
============== ====================================================================================

If the options leave a step open, the search builds a model of each candidate and takes the one with
the highest SQNR (signal-to-quantization-noise ratio) on calibration windows. The models compute the
same integers as on a device.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from edgel3_tflm.audio.log_mel import is_silent
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.quantization.chain import (
    Layer,
    Quantization,
    fold,
    quantize_layer,
)
from edgel3_tflm.converters.quantization.chain_writer import write_chain
from edgel3_tflm.converters.quantization.equalization import equalize
from edgel3_tflm.converters.quantization.ranges import (
    PERCENTILE,
    RANGE_METHODS,
    Activations,
    RangeMethod,
    choose_range,
)
from edgel3_tflm.converters.quantization.refinement import refine, sum_pre_activations
from edgel3_tflm.converters.quantization.rounding import RoundingSettings, choose_positions
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.metrics import cosine_similarity, sqnr_db
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.fastest import choose_runtime
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import (
    EXACT_RUNTIME,
    open_interpreter,
    runs_packed_models,
)
from edgel3_tflm.runtime.tensors import Interpreter
from edgel3_tflm.types import DoubleArray, FloatArray, IntArray, Progress

CalibrationMethod = Literal["auto"] | RangeMethod
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = ("auto", *RANGE_METHODS)

_POWERS = (0.25, 0.4, 0.5)
# Bias correction and rounding compute every layer twice for each window. The dense L3 has 10 GMAC
# a window, and its largest map takes 13 MB.
_REFINE_MACS = 1.5e11
_REFINE_MAX_WINDOWS = 512
# Values of each layer that the choice of a range is based on.
_SAMPLE_VALUES = 2**21


@dataclass(frozen=True)
class QuantizerOptions:
    """Which steps to take.

    Parameters
    ----------
    calibration_method : {'auto', 'minmax', 'percentile', 'mse'}
        How to choose the ranges of the activations. 'auto' searches for the best.
    equalize, bias_correction, adaround : bool, optional
        Whether to take the step. None searches for the better choice.
    """

    calibration_method: CalibrationMethod = "auto"
    equalize: bool | None = None
    bias_correction: bool | None = None
    adaround: bool | None = None

    def __post_init__(self) -> None:
        """Check the calibration method."""
        if self.calibration_method not in CALIBRATION_METHODS:
            raise EdgeL3Error(
                f"unknown calibration method {self.calibration_method!r}: expected one of"
                f" {', '.join(CALIBRATION_METHODS)}"
            )

    @property
    def is_plain(self) -> bool:
        """Whether TensorFlow Lite's own converter takes exactly these steps."""
        steps = (self.equalize, self.bias_correction, self.adaround)
        return self.calibration_method == "minmax" and steps == (False,) * len(steps)


AUTO = QuantizerOptions()
"""Search for the best of every step."""
PLAIN = QuantizerOptions("minmax", equalize=False, bias_correction=False, adaround=False)
"""TensorFlow Lite's own quantization."""


@dataclass(frozen=True)
class Steps:
    """The steps of one candidate. The manifest contains them by these names.

    Parameters
    ----------
    calibration_method : {'minmax', 'percentile', 'mse'}
    equalization_power : float
        0 for no equalization.
    bias_correction, adaround : bool
    """

    calibration_method: RangeMethod = "minmax"
    equalization_power: float = 0.0
    bias_correction: bool = False
    adaround: bool = False

    def __str__(self) -> str:
        """List the steps in words."""
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
class Candidate:
    """The steps of a candidate, and its drift from the float network on calibration windows.

    Parameters
    ----------
    steps : Steps
    cosine_mean, cosine_p5 : float
        Mean and 5th percentile of the cosine similarity.
    sqnr_db : float
        Infinite if there is no drift.
    """

    steps: Steps
    cosine_mean: float
    cosine_p5: float
    sqnr_db: float

    def to_json(self) -> dict[str, Any]:
        """Return plain data, in which an infinite SQNR is None."""
        found = asdict(self)
        found["sqnr_db"] = self.sqnr_db if math.isfinite(self.sqnr_db) else None
        return found


@dataclass(frozen=True)
class QuantizerResult:
    """An int8 flatbuffer, and how it was quantized.

    Parameters
    ----------
    model : bytes
    steps : Steps
    candidates : tuple of Candidate
        In the order of the search. Empty if the options left no step open.
    windows : int
        Number of calibration windows of the search, of bias correction and of rounding.
    """

    model: bytes
    steps: Steps
    candidates: tuple[Candidate, ...]
    windows: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the manifest: everything but the flatbuffer."""
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
            "chosen_by": "sqnr_db" if self.candidates else None,
            "ladder": [each.to_json() for each in self.candidates],
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
        Log-mel of the calibration windows.
    options : QuantizerOptions
    progress : callable
    """
    quantizer = _Quantizer(weights, decibels, progress)
    steps = quantizer.search(options)
    return QuantizerResult(
        quantizer.build(steps), steps, tuple(quantizer.measured.values()), len(quantizer.windows)
    )


class _Quantizer:
    """Builds and measures candidates.

    Attributes
    ----------
    windows : numpy.ndarray, shape (n, mels, frames), float32
        Log-mel of the calibration windows that candidates are refined and measured on.
    measured : dict
        The candidates by their steps, in the order in which they were measured.
    """

    def __init__(self, weights: NetworkWeights, decibels: FloatArray, progress: Progress) -> None:
        self._progress = progress
        self._spec = weights.variant.frontend
        self._input_map = InputMap.of(weights)
        self._layers = fold(weights)
        inputs = self._input_map.normalise(decibels)
        self._input = Quantization.of_range(float(inputs.min()), float(inputs.max()))
        self._activations, embeddings = self._observe(inputs)
        macs = sum(each.rows * each.columns * each.kernel_size for each in weights.variant.layers)
        chosen = _choose_windows(decibels, min(_REFINE_MAX_WINDOWS, int(_REFINE_MACS // macs)))
        self.windows = decibels[chosen]
        self._inputs = inputs[chosen]
        self._embeddings = embeddings[chosen]
        self._models: dict[Steps, bytes] = {}
        self._runtime: str | None = None
        self._sums: dict[float, tuple[DoubleArray, ...]] = {}
        self.measured: dict[Steps, Candidate] = {}

    def search(self, options: QuantizerOptions) -> Steps:
        """Decide one step after the other; measure candidates where the options leave a choice."""

        def allowed(wanted: bool | None, without: Any, *others: Any) -> list[Any]:
            return [without, *others] if wanted is None else list(others) if wanted else [without]

        method = options.calibration_method
        choices: dict[str, Sequence[Any]] = {
            # Bias correction comes first, because the mean errors that it removes would hide the
            # differences between the candidates of the other steps.
            "bias_correction": allowed(options.bias_correction, False, True),
            "equalization_power": allowed(options.equalize, 0.0, *_POWERS),
            "calibration_method": RANGE_METHODS if method == "auto" else [method],
            "adaround": allowed(options.adaround, False, True),
        }
        best = Steps()
        for field, values in choices.items():
            candidates = [Steps(**{**asdict(best), field: value}) for value in values]
            best = max(candidates, key=self._score) if len(candidates) > 1 else candidates[0]
        return best

    def _score(self, steps: Steps) -> float:
        """Return the SQNR of a candidate, which is measured once."""
        if steps not in self.measured:
            self.measured[steps] = self._measure(steps)
        return self.measured[steps].sqnr_db

    def _measure(self, steps: Steps) -> Candidate:
        interpreter = self._open(self.build(steps))
        quantized = interpreter.run(self._input_map.apply(self.windows, interpreter.input))
        found = interpreter.output.dequantize(quantized)
        cosine = cosine_similarity(self._embeddings, found)
        return Candidate(
            steps,
            float(cosine.mean()),
            float(np.percentile(cosine, 5)),
            sqnr_db(self._embeddings, found),
        )

    def _open(self, model: bytes) -> Interpreter:
        """Open a model in the fastest runtime that computes the same integers as a device."""
        if self._runtime is None:
            models = {EXACT_RUNTIME: model}
            with suppress(ModelFileError):
                models = {"engine": pack(model), **models}
            self._runtime = choose_runtime(models)
        return open_interpreter(
            pack(model) if runs_packed_models(self._runtime) else model, self._runtime
        )

    def build(self, steps: Steps) -> bytes:
        """Return the flatbuffer of a candidate, which is made once."""
        if steps not in self._models:
            layers, activations = equalize(
                self._layers, self._activations, steps.equalization_power
            )
            outputs = [choose_range(each, steps.calibration_method) for each in activations]
            # The embedding keeps its full range, because a window whose embedding is clamped has
            # the largest error.
            outputs[-1] = activations[-1].full_range
            quantizations = [self._input, *(Quantization.of_range(*each) for each in outputs)]
            chain = tuple(map(quantize_layer, layers, quantizations[:-1], quantizations[1:]))
            if steps.bias_correction or steps.adaround:
                chain = refine(
                    chain,
                    self._inputs,
                    adaround=steps.adaround,
                    expected=self._sum(steps.equalization_power, layers)
                    if steps.bias_correction
                    else None,
                    on_layer=lambda done, total: self._progress(f"int8: {steps}", done, total),
                )
            self._models[steps] = write_chain(chain, self._spec.mels, self._spec.frames)
        return self._models[steps]

    def _sum(self, power: float, layers: Sequence[Layer]) -> tuple[DoubleArray, ...]:
        """Return the sums that bias correction needs, which are computed once for each power."""
        if power not in self._sums:
            self._sums[power] = sum_pre_activations(layers, self._inputs)
        return self._sums[power]

    def _observe(self, inputs: FloatArray) -> tuple[tuple[Activations, ...], FloatArray]:
        """Run the float network; return its activations, and the embeddings of shape (n, d)."""
        count = len(self._layers)
        rng = np.random.default_rng(0)
        minima: list[list[FloatArray]] = [[] for _ in self._layers]
        maxima: list[list[FloatArray]] = [[] for _ in self._layers]
        samples: list[list[FloatArray]] = [[] for _ in self._layers]
        embeddings = []
        for position, window in enumerate(inputs):
            maps = window[np.newaxis]
            for number, layer in enumerate(self._layers):
                maps = layer.run(maps)
                values = maps.reshape(-1, maps.shape[-1])
                total = _SAMPLE_VALUES // len(inputs) // values.shape[1]
                positions = choose_positions(1, len(values), total, rng)[0]
                minima[number].append(values.min(axis=0))
                maxima[number].append(values.max(axis=0))
                samples[number].append(values[positions])
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


def _choose_windows(decibels: FloatArray, count: int) -> IntArray:
    """Choose evenly spread windows, and a silent one, because devices often record silence."""
    chosen = np.linspace(0, len(decibels) - 1, min(max(count, 1), len(decibels))).astype(np.int64)
    silent = np.flatnonzero(is_silent(decibels))[:1]
    return np.union1d(chosen, silent)
