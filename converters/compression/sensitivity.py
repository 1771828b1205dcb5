"""Sensitivity curves: the error from pruning one layer alone, over a range of sparsities.

Kumari et al. (2019) chose their plans by such curves, after Han et al., "Learning both Weights and
Connections for Efficient Neural Networks" (NIPS 2015). They measured the accuracy of audio-visual
correspondence. This module compares the embeddings of the pruned network with those of the given
network. Nothing is retrained.

Some clips are the validation set: the curves do not use their windows, and a plan is evaluated on
them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import is_silent, log_mel
from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.converters.keras.generate import generate_weights
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.converters.quantization.calibrate import Calibration
from edgel3_tflm.converters.quantization.chain import Layer, fold
from edgel3_tflm.drift.windows import spread_evenly
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.metrics import METRICS
from edgel3_tflm.networks.sources import WeightsSource, load_given
from edgel3_tflm.networks.variants import FrontendSpec, Plan, Variant
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.types import BoolArray, FloatArray, IntArray, Progress

DEFAULT_WINDOWS = 64
_HOP_S = 0.5
# The inputs of all layers for one window of L3 take 30 MB.
_BATCH_WINDOWS = 8
# Of clips without labels, every fourth is in the validation set.
_VALIDATION_EVERY = 4


@dataclass(frozen=True)
class SampledClip:
    """A clip that windows were taken from. The fields are keys of ``sensitivity.json``.

    Parameters
    ----------
    file, sha256 : str
    label : str or None
    fold : int or None
    is_kept : bool
        True if the clip is in the validation set.
    """

    file: str
    sha256: str
    label: str | None
    fold: int | None
    is_kept: bool


@dataclass(frozen=True, eq=False)
class Sample:
    """The windows that networks are measured on.

    Parameters
    ----------
    clips : tuple of SampledClip
    decibels : numpy.ndarray, shape (n, mels, frames), float32
    clip : numpy.ndarray, shape (n,), int64
        Position in ``clips`` of each window's clip.
    """

    clips: tuple[SampledClip, ...]
    decibels: FloatArray
    clip: IntArray

    @property
    def in_validation(self) -> BoolArray:
        """Whether each window is of a clip in the validation set, shape (n,)."""
        return np.array([clip.is_kept for clip in self.clips])[self.clip]


@dataclass(frozen=True)
class Score:
    """Difference between the embeddings of a network and those of the given network.

    The first three fields are metrics of :data:`edgel3_tflm.metrics.METRICS`. ``probe_percent`` is
    the accuracy of a linear probe on the network's embeddings; None if the clips have no labels.
    """

    mean_squared_error: float
    cosine_mean: float
    centred_cosine_mean: float
    probe_percent: float | None = None


@dataclass(frozen=True)
class Point:
    """A point of a curve: zeros in the layer's kernel, as number and in percent, and the score."""

    zeros: int
    percent: float
    score: Score


@dataclass(frozen=True)
class LayerCurve:
    """Scores of a layer that is pruned alone, from its given zeros to the highest sparsity.

    ``weights`` is the number of weights in the layer's kernel.
    """

    name: str
    weights: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Sensitivity:
    """The curves, and the ``inputs`` of the measurement (see :func:`describe_inputs`)."""

    layers: tuple[LayerCurve, ...]
    inputs: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Sensitivity":
        """Read the data of :meth:`to_json`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the data has another structure.
        """
        return cls(
            tuple(
                LayerCurve(
                    layer["name"],
                    layer["weights"],
                    tuple(
                        Point(**{**point, "score": Score(**point["score"])})
                        for point in layer["points"]
                    ),
                )
                for layer in found["layers"]
            ),
            found["inputs"],
        )


def load_network(variant: Variant, source: WeightsSource, progress: Progress) -> NetworkWeights:
    """Load weights, or generate them if ``source`` is 'generated'.

    Raises
    ------
    WeightsError
        If the weights cannot be loaded.
    """
    given = load_given(variant, source)
    if given is not None:
        return given
    calibration = Calibration(bundled_clips_directory(), variant.frontend)
    return generate_weights(
        variant,
        np.concatenate(list(calibration.spectrograms())),
        lambda done, total: progress("generate weights", done, total),
    )


def sample_clips(
    clips: Sequence[Path | LabelledClip],
    spec: FrontendSpec,
    windows: int | None,
    progress: Progress,
) -> Sample:
    """Choose evenly spread clips and take the loudest windows of each.

    The validation set is the last fold of labelled clips, or every fourth of clips without labels.

    Parameters
    ----------
    clips : sequence of pathlib.Path or LabelledClip
    spec : FrontendSpec
    windows : int, optional
        Number of windows. None takes one window of each labelled clip, or 64 windows of clips
        without labels.
    progress : callable

    Raises
    ------
    AudioError
        If a clip cannot be used; the message contains the first such clip.
    EdgeL3Error
        If ``windows`` is not positive, or a fold has fewer than two classes outside of it.
    """
    labelled = isinstance(clips[0], LabelledClip)
    if windows is None:
        windows = len(clips) if labelled else DEFAULT_WINDOWS
    if windows < 1:
        raise EdgeL3Error(f"expected at least one window, got {windows}")
    spread = spread_evenly(len(clips), windows)
    chosen = [clips[index] for index in spread]
    paths = [each.path if isinstance(each, LabelledClip) else each for each in chosen]
    folds = [each.fold for each in chosen if isinstance(each, LabelledClip)]
    shares = np.diff(np.linspace(0, windows, len(chosen) + 1).round().astype(int))
    sampled, decibels, clip = [], [], []
    read = read_windows(
        paths,
        sample_rate_hz=spec.sample_rate_hz,
        window_samples=spec.window_samples,
        hop_s=_HOP_S,
    )
    for number, (path, found) in enumerate(read):
        level = np.square(found, dtype=np.float64).mean(axis=1)
        loudest = np.sort(np.argsort(-level, kind="stable")[: shares[number]])
        decibels.append(log_mel(found[loudest], spec))
        clip.append(np.full(len(loudest), number))
        each = chosen[number]
        label, its_fold = (each.label, each.fold) if isinstance(each, LabelledClip) else (None,) * 2
        if folds:
            is_validation = its_fold == max(folds)
        else:
            is_validation = number % _VALIDATION_EVERY == _VALIDATION_EVERY - 1
        digest = sha256_hex(path.read_bytes())
        sampled.append(SampledClip(path.name, digest, label, its_fold, is_validation))
        progress("log-mel", number + 1, len(chosen))
    sample = Sample(tuple(sampled), np.concatenate(decibels), np.concatenate(clip))
    if labelled:
        _check_probe(sample)
    return sample


def _check_probe(sample: Sample) -> None:
    for tested in {clip.fold for clip in sample.clips}:
        classes = {clip.label for clip in sample.clips if clip.fold != tested}
        if len(classes) < 2:
            raise EdgeL3Error(
                "the linear probe expected clips of at least two classes outside each fold, got"
                f" {len(classes)} outside fold {tested} among {len(sample.clips)} clips; increase"
                " --windows, or give --clips in place of --manifest"
            )


def describe_inputs(
    weights: NetworkWeights, sample: Sample, sparsities: Sequence[float], layers: Sequence[str]
) -> dict[str, Any]:
    """Return everything that a measurement depends on, as plain data.

    Raises
    ------
    EdgeL3Error
        If a sparsity is not between 0 and 100, or the network does not have a layer.
    """
    for percent in sparsities:
        if not 0 < percent < 100:
            raise EdgeL3Error(f"expected sparsities between 0 and 100 (percent), got {percent:g}")
    known = [layer.name for layer in weights.variant.layers]
    for name in layers:
        if name not in known:
            raise EdgeL3Error(f"unknown layer {name!r}: expected some of {', '.join(known)}")
    return {
        "generator": f"edgel3-tflm {__version__}",
        "variant": weights.variant.name,
        "weights": asdict(weights.provenance),
        "sparsities": sorted(set(map(float, sparsities))),
        "layers": [name for name in known if name in layers],
        "windows": len(sample.clip),
        "windows_kept": int(sample.in_validation.sum()),
        "clips": [asdict(clip) for clip in sample.clips],
    }


def measure_sensitivity(
    weights: NetworkWeights,
    sample: Sample,
    inputs: dict[str, Any],
    progress: Progress,
    *,
    known: Sequence[LayerCurve] = (),
    on_layer: Callable[[Sensitivity], None] = lambda _: None,
) -> Sensitivity:
    """Prune each layer alone, to each sparsity, and score the embeddings.

    Sparsities that a layer has already are left out: its curve starts at its given zeros.

    Parameters
    ----------
    weights : NetworkWeights
    sample : Sample
        The three metrics use the windows outside the validation set. The probe uses all windows.
    inputs : dict
        The result of :func:`describe_inputs`.
    progress : callable
    known : sequence of LayerCurve
        Curves that were measured on the same inputs. They are not measured again.
    on_layer : callable
        Called after each layer with all curves measured so far.
    """
    curves = {curve.name: curve for curve in known}

    def collect() -> Sensitivity:
        return Sensitivity(
            tuple(curves[name] for name in inputs["layers"] if name in curves), inputs
        )

    missing = [name for name in inputs["layers"] if name not in curves]
    if not missing:
        return collect()
    layers = fold(weights)
    maps = InputMap.of(weights).normalise(sample.decibels)
    batches = [
        maps[start : start + _BATCH_WINDOWS] for start in range(0, len(maps), _BATCH_WINDOWS)
    ]
    total, done = len(maps) * (1 + len(missing)), 0

    def count(windows: int) -> None:
        nonlocal done
        done += windows
        progress("embed", done, total)

    reference: list[FloatArray] = []
    for batch in batches:
        reference.append(_run(layers, batch))
        count(len(batch))
    scorer = _Scorer(sample, _flatten(reference))
    given = scorer.score(scorer.reference)
    for position, (layer, conv) in enumerate(zip(layers, weights.convs, strict=True)):
        if layer.name not in missing:
            continue
        zeros, trials = [], []
        for percent in inputs["sparsities"]:
            pruned = prune_alone(weights, position, percent)
            if pruned is not weights:
                zeros.append(pruned.convs[position].zeros)
                trials.append([fold(pruned)[position], *layers[position + 1 :]])
        found: list[list[FloatArray]] = [[] for _ in trials]
        for batch in batches:
            source = _run(layers[:position], batch)  # once for all sparsities of the layer
            for parts, trial in zip(found, trials, strict=True):
                parts.append(_run(trial, source))
            count(len(batch))
        size = conv.kernel.size
        points = [_point(conv.zeros, size, given)]
        for count_of_zeros, parts in zip(zeros, found, strict=True):
            points.append(_point(count_of_zeros, size, scorer.score(_flatten(parts))))
        curves[layer.name] = LayerCurve(layer.name, size, tuple(points))
        on_layer(collect())
    return collect()


def prune_alone(weights: NetworkWeights, position: int, percent: float) -> NetworkWeights:
    """Prune one layer, counted from 0. Return the same object if it has these zeros already."""
    percents = [0.0] * len(weights.convs)
    percents[position] = percent
    result = prune(weights, Plan(math.nan, tuple(percents)))
    return result.weights if result.pruned_layers else weights


def score_network(
    weights: NetworkWeights, reference: NetworkWeights, sample: Sample, *, validation: bool
) -> Score:
    """Score the embeddings of a network against those of a reference network.

    Parameters
    ----------
    weights, reference : NetworkWeights
    sample : Sample
    validation : bool
        Use the windows of the validation set if true, and the other windows if false.
    """
    maps = InputMap.of(reference).normalise(sample.decibels)
    expected, found = (_embed(fold(each), maps) for each in (reference, weights))
    return Score(**_compute_metrics(expected, found, sample, validation=validation))


class _Scorer:
    """Scores embeddings of a sample against the embeddings of the given network."""

    def __init__(self, sample: Sample, reference: FloatArray) -> None:
        self.reference = reference
        self._sample = sample
        self._silent = is_silent(sample.decibels)

    def score(self, embeddings: FloatArray) -> Score:
        metrics = _compute_metrics(self.reference, embeddings, self._sample, validation=False)
        score = Score(**metrics)
        if self._sample.clips[0].label is None:
            return score
        return replace(score, probe_percent=self._probe(embeddings))

    def _probe(self, embeddings: FloatArray) -> float:
        from edgel3_tflm.evaluation.probe import Features, probe

        clips = [
            LabelledClip(Path(clip.file), clip.label or "", clip.fold or 0)
            for clip in self._sample.clips
        ]
        where = self._sample.clip
        position = np.arange(len(where)) - np.searchsorted(where, where)
        results = probe(clips, Features(embeddings, where, position, self._silent))
        right, count = sum(each.right for each in results), sum(each.clips for each in results)
        return 100 * right / count


def _compute_metrics(
    reference: FloatArray, embeddings: FloatArray, sample: Sample, *, validation: bool
) -> dict[str, float]:
    """Compute the metrics of a score on the validation set, or on the other windows."""
    # The centred cosine uses the same mean in both cases: few windows give no reliable mean.
    mean = reference[~sample.in_validation].mean(axis=0, dtype=np.float64)
    chosen = sample.in_validation == validation
    return {
        metric.name: metric.compute(reference[chosen], embeddings[chosen], mean)
        for metric in METRICS
        if metric.name in Score.__dataclass_fields__
    }


def _point(zeros: int, weights: int, score: Score) -> Point:
    return Point(zeros, 100 * zeros / weights, score)


def _run(layers: Sequence[Layer], maps: FloatArray) -> FloatArray:
    for layer in layers:
        maps = layer.run(maps)
    return maps


def _embed(layers: Sequence[Layer], maps: FloatArray) -> FloatArray:
    return _flatten(
        [
            _run(layers, maps[start : start + _BATCH_WINDOWS])
            for start in range(0, len(maps), _BATCH_WINDOWS)
        ]
    )


def _flatten(parts: Sequence[FloatArray]) -> FloatArray:
    """Concatenate batches of the last maps, (n, 1, 1, d), into embeddings (n, d)."""
    maps = np.concatenate(parts)
    return maps.reshape(len(maps), -1)
