"""Drift of each layer: the quantization error of its activations, weights and bias.

A layer is a convolution with the activation and the pooling after it. The float and the quantized
flatbuffer run on the same windows in LiteRT, which can keep every tensor. If channels were
equalized before quantization, the factors are estimated and undone before the comparison.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.cores import available_cores
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.metrics import sqnr_db
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.flatbuffer import builtin_operator, damage_reported
from edgel3_tflm.runtime.interpreters import EXACT_RUNTIME
from edgel3_tflm.runtime.native import native_stderr
from edgel3_tflm.types import FloatArray, JsonFloat

INPUT = "input"


@dataclass(frozen=True)
class LayerDrift:
    """Quantization error after a layer, and of the layer's own tensors.

    Parameters
    ----------
    name : str
        ``conv1`` and so on; ``input`` is the network's input.
    sqnr_db : float
        SQNR of the layer's output over all windows, in dB.
    cost : float
        Change of the noise share ``N / (S + N)`` from the layer's input to its output, with
        ``N = sum (a - b)^2`` and ``S = sum a^2``. The costs of all layers add up to the noise share
        of the embedding, which is near ``N / S`` if small. The cost is negative for a layer that
        removes more noise than signal. The share is at most 1. So a layer whose noise is as strong
        as its signal contributes more error than all later layers together.
    saturation : float
        Share of the float values that are more than half a quantization step outside the quantized
        range.
    range_use : float
        Range of the quantized values that occurred, divided by the range of their type; NaN if the
        tensor is not quantized.
    weights_sqnr_db, bias_sqnr_db : float
        SQNR of the weight tensor and of the bias, in dB; NaN if the layer has none.
    """

    name: str
    sqnr_db: JsonFloat
    cost: JsonFloat
    saturation: JsonFloat
    range_use: JsonFloat
    weights_sqnr_db: JsonFloat
    bias_sqnr_db: JsonFloat


LAYER_FIGURES = {
    "cost": False,
    "sqnr_db": True,
    "saturation": False,
    "range_use": True,
    "weights_sqnr_db": True,
    "bias_sqnr_db": True,
}
"""Figures of :class:`LayerDrift`, each with whether a higher value is better."""


@dataclass(frozen=True)
class LayerReport:
    """Drift of all layers, from the input to the embedding, over ``windows`` windows.

    ``runtime`` is the one that the layers were measured in, whatever runtimes are compared.
    """

    windows: int
    layers: tuple[LayerDrift, ...]
    runtime: str = EXACT_RUNTIME

    @property
    def costliest(self) -> LayerDrift:
        """The layer that adds the most noise."""
        return max(self.layers, key=lambda layer: layer.cost)


@dataclass(frozen=True)
class _Layer:
    """Indices of a layer's tensors in a flatbuffer; None if it has no such tensor."""

    output: int
    kernel: int | None = None
    bias: int | None = None


def _find_layers(model: bytes) -> list[_Layer]:
    import tflite  # loads a module for each operator

    with damage_reported(model):
        root = tflite.Model.GetRootAsModel(model, 0)
        graph = root.Subgraphs(0)
        layers = [_Layer(graph.Inputs(0))]
        for position in range(graph.OperatorsLength()):
            operation = graph.Operators(position)
            builtin = builtin_operator(root, operation)
            inputs, output = operation.InputsAsNumpy().tolist(), operation.Outputs(0)
            if builtin == tflite.BuiltinOperator.CONV_2D:
                layers.append(_Layer(output, *inputs[1:3]))
            elif builtin == tflite.BuiltinOperator.MAX_POOL_2D:
                last = layers.pop()
                layers.append(_Layer(output, last.kernel, last.bias))
            elif builtin != tflite.BuiltinOperator.RESHAPE:
                raise ModelFileError(
                    "expected convolutions, pools and reshapes to compare layer by layer, found"
                    f" {tflite.opcode2name(builtin)}"
                )
    return layers


class _Tracer:
    """A flatbuffer that keeps the tensors of its layers."""

    def __init__(self, model: bytes) -> None:
        self.layers = _find_layers(model)
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        with native_stderr():
            self._interpreter = Interpreter(
                model_content=model,
                num_threads=min(4, available_cores()),
                # The kernels of EXACT_RUNTIME. XNNPACK would also drop the tensors between layers.
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
            )
            self._interpreter.allocate_tensors()
        self._details = {each["index"]: each for each in self._interpreter.get_tensor_details()}

    def run(self, values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Run one window of the input's type; yield each layer's output as stored."""
        self._interpreter.set_tensor(self.layers[0].output, values)
        self._interpreter.invoke()
        for layer in self.layers:
            yield self._interpreter.get_tensor(layer.output)

    def limits(self, tensor: int) -> tuple[int, int] | None:
        """Least and greatest value of a tensor's type; None for floats."""
        dtype = np.dtype(self._details[tensor]["dtype"])
        if dtype.kind == "f":
            return None
        return np.iinfo(dtype).min, np.iinfo(dtype).max

    def dequantize(self, tensor: int, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Real values of a tensor, whatever its type."""
        quantization = self._details[tensor]["quantization_parameters"]
        scales = np.asarray(quantization["scales"], np.float64)
        zero_points = np.asarray(quantization["zero_points"], np.float64)
        if len(scales) == 0:
            return values.astype(np.float64)
        shape = [1] * values.ndim
        if len(scales) > 1:
            shape[quantization["quantized_dimension"]] = -1
        scales, zero_points = scales.reshape(shape), zero_points.reshape(shape)
        return scales * (values.astype(np.float64) - zero_points)

    def constant(self, tensor: int) -> npt.NDArray[np.float64]:
        """Real values of a weight tensor."""
        return self.dequantize(tensor, self._interpreter.get_tensor(tensor))


@dataclass
class _Sums:
    """Sums over the windows, for one layer."""

    signal: float = 0.0
    noise: float = 0.0
    values: int = 0
    outside: int = 0
    least: float = math.inf
    greatest: float = -math.inf

    @property
    def share(self) -> float:
        return 0.0 if self.noise == 0 else self.noise / (self.signal + self.noise)

    @property
    def ratio(self) -> float:
        if self.noise == 0:
            return 0.0
        return self.noise / self.signal if self.signal > 0 else math.inf


@dataclass(frozen=True)
class _Pair:
    """The float and the quantized flatbuffer of a deployment, with the factors of its layers."""

    deployment: Deployment
    in_float: _Tracer
    quantized: _Tracer
    factors: list[npt.NDArray[np.float64]]

    @classmethod
    def open(cls, deployment: Deployment) -> "_Pair":
        in_float = _Tracer(deployment.read_model("float"))
        quantized = _Tracer(deployment.read_model(deployment.quantization))
        if len(in_float.layers) != len(quantized.layers):
            raise ModelFileError(
                "expected the same layers in both flatbuffers, found"
                f" {len(in_float.layers) - 1} and {len(quantized.layers) - 1} convolutions"
            )
        factors = _find_factors(deployment, in_float, quantized)
        return cls(deployment, in_float, quantized, factors)

    def run(self, window: FloatArray) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Run a log-mel window; yield each layer's outputs, the quantized one as stored."""
        spec = self.deployment.embedder(self.deployment.quantization, EXACT_RUNTIME).input
        stored = self.deployment.input_map.apply(window[np.newaxis], spec)
        real = self.deployment.input_map.normalise(window[np.newaxis])
        for a, q in zip(self.in_float.run(real), self.quantized.run(stored), strict=True):
            if a.shape != q.shape:
                raise ModelFileError(
                    f"expected the same layers in both flatbuffers, found {a.shape} and {q.shape}"
                )
            yield a, q


def _name(position: int) -> str:
    return f"conv{position}" if position else INPUT


def analyse_layers(deployment: Deployment, decibels: FloatArray) -> LayerReport:
    """Compare the float and the quantized flatbuffer layer by layer.

    Parameters
    ----------
    deployment : Deployment
    decibels : numpy.ndarray, shape (n, mels, frames), float32
        Log-mel spectrograms.

    Raises
    ------
    ModelFileError
        If the flatbuffers do not have the same layers.
    """
    pair = _Pair.open(deployment)
    in_float, quantized, factors = pair.in_float, pair.quantized, pair.factors
    sums = [_Sums() for _ in quantized.layers]
    for window in decibels:
        for layer, found, factor, (a, q) in zip(
            quantized.layers, sums, factors, pair.run(window), strict=True
        ):
            _add(found, quantized, layer.output, factor, a, q)
    shares = [0.0, *(each.share for each in sums)]
    return LayerReport(
        len(decibels),
        tuple(
            LayerDrift(
                name=_name(position),
                sqnr_db=math.inf
                if found.ratio == 0
                else -10 * math.log10(found.ratio)
                if math.isfinite(found.ratio)
                else -math.inf,
                cost=found.share - shares[position],
                saturation=found.outside / max(1, found.values),
                range_use=_range_use(found, quantized.limits(layer.output)),
                weights_sqnr_db=_kernel_sqnr(in_float, ours, quantized, layer, entering, leaving),
                bias_sqnr_db=_bias_sqnr(in_float, ours, quantized, layer, leaving),
            )
            for position, (ours, layer, found, entering, leaving) in enumerate(
                zip(
                    in_float.layers,
                    quantized.layers,
                    sums,
                    [np.ones(1), *factors[:-1]],
                    factors,
                    strict=True,
                )
            )
        ),
    )


def trace_layers(
    deployment: Deployment, decibels: FloatArray
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return the float and the quantized output of each layer, as real numbers.

    Factors of equalized channels are undone.

    Parameters
    ----------
    deployment : Deployment
    decibels : numpy.ndarray, shape (n, mels, frames), float32

    Returns
    -------
    dict of str to two numpy.ndarray, shape (n, rows, columns, channels), float32

    Raises
    ------
    ModelFileError
        If the flatbuffers do not have the same layers.
    """
    pair = _Pair.open(deployment)
    runs = [
        [
            (a.astype(np.float32), (factor * pair.quantized.dequantize(layer.output, q)))
            for layer, factor, (a, q) in zip(
                pair.quantized.layers, pair.factors, pair.run(window), strict=True
            )
        ]
        for window in decibels
    ]
    return {
        _name(position): (
            np.concatenate([a for a, _ in outputs]),
            np.concatenate([q for _, q in outputs]).astype(np.float32),
        )
        for position, outputs in enumerate(zip(*runs, strict=True))
    }


def _find_factors(
    deployment: Deployment, in_float: _Tracer, quantized: _Tracer
) -> list[npt.NDArray[np.float64]]:
    """Estimate the equalization factors of each layer's output channels; ones if not equalized.

    Equalization multiplies the weights from input channel i to output channel o by the factor of i
    and divides them by the factor of o. The estimate compares the quantized weights with the float
    ones. The factors of a layer have the geometric mean 1. So a scale that is wrong for a whole
    layer does not count as equalization and stays in the figures.
    """
    factors = [np.ones(1)]
    steps = deployment.manifest.get("quantizer", {}).get("steps", {})
    is_equalized = bool(steps.get("equalization_power"))
    for position, (ours, layer) in enumerate(zip(in_float.layers, quantized.layers, strict=True)):
        if ours.kernel is None or layer.kernel is None:
            continue
        if not is_equalized or position == len(quantized.layers) - 1:  # the embedding is not
            factors.append(np.ones(1))
            continue
        entered = in_float.constant(ours.kernel) * factors[-1]
        left = quantized.constant(layer.kernel)
        power = (entered**2).sum(axis=(1, 2, 3))
        gains = np.divide(
            (entered * left).sum(axis=(1, 2, 3)), power, out=np.ones(len(power)), where=power > 0
        )
        gains = np.where(gains > 0, gains, 1.0)
        factors.append(np.exp(np.log(gains).mean()) / gains)
    return factors


def _add(
    sums: _Sums,
    tracer: _Tracer,
    tensor: int,
    factors: npt.NDArray[np.float64],
    a: npt.NDArray[Any],
    q: npt.NDArray[Any],
) -> None:
    sums.signal += float(np.vdot(a, a))
    difference = a - factors * tracer.dequantize(tensor, q)
    sums.noise += float(np.vdot(difference, difference))
    sums.values += a.size
    sums.least, sums.greatest = min(sums.least, float(q.min())), max(sums.greatest, float(q.max()))
    if (limits := tracer.limits(tensor)) is not None:
        low, high = (float(tracer.dequantize(tensor, np.array(limit))) for limit in limits)
        half = (high - low) / (limits[1] - limits[0]) / 2
        equalized = a / factors
        outside = (equalized < low - half) | (equalized > high + half)
        sums.outside += int(np.count_nonzero(outside))


def _range_use(sums: _Sums, limits: tuple[int, int] | None) -> float:
    if limits is None or sums.values == 0:
        return math.nan
    return (sums.greatest - sums.least) / (limits[1] - limits[0])


def _kernel_sqnr(
    in_float: _Tracer,
    ours: _Layer,
    quantized: _Tracer,
    layer: _Layer,
    entering: npt.NDArray[np.float64],
    leaving: npt.NDArray[np.float64],
) -> float:
    if ours.kernel is None or layer.kernel is None:
        return math.nan
    undone = quantized.constant(layer.kernel) * leaving.reshape(-1, 1, 1, 1) / entering
    return sqnr_db(in_float.constant(ours.kernel), undone)


def _bias_sqnr(
    in_float: _Tracer,
    ours: _Layer,
    quantized: _Tracer,
    layer: _Layer,
    leaving: npt.NDArray[np.float64],
) -> float:
    if ours.bias is None or layer.bias is None:
        return math.nan
    return sqnr_db(in_float.constant(ours.bias), quantized.constant(layer.bias) * leaving)
