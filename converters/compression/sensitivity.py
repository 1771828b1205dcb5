"""How much each layer's pruning costs: one layer at a time over a range of sparsities.

Kumari et al. (2019) chose their plans by such curves, after Han et al., "Learning both Weights and
Connections for Efficient Neural Networks" (NIPS 2015); they judged by audio-visual correspondence,
here the embedding of the network as it was given is what a pruned one is measured against. Nothing
is retrained.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.audio.framing import read_windows
from edgel3_tflm.audio.log_mel import is_silent, log_mel
from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.converters.keras.generate import generate_weights
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.converters.quantization.calibrate import (
    Calibration,
)
from edgel3_tflm.converters.quantization.chain import Layer, fold
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.metrics import METRICS
from edgel3_tflm.networks.sources import WeightsSource, load_given
from edgel3_tflm.networks.variants import FrontendSpec, Plan, Variant
from edgel3_tflm.networks.weights import NetworkWeights
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.types import FloatArray, Progress

DEFAULT_WINDOWS = 64
_HOP_S = 0.5
# The inputs of all layers for one window of L3 take 30 MB; the suffixes start from them.
_BATCH_WINDOWS = 8
_KEPT_EVERY = 4


@dataclass(frozen=True)
class SampledClip:
    """A clip that windows were taken from; ``is_kept`` from the curves, for judging a plan."""

    file: str
    sha256: str
    label: str | None
    fold: int | None
    is_kept: bool


@dataclass(frozen=True, eq=False)
class Sample:
    """Windows that a network is measured on.

    Parameters
    ----------
    clips : tuple of SampledClip
    decibels : numpy.ndarray, shape (n, mels, frames), float32
    clip : numpy.ndarray, shape (n,), int64
        Which clip a window is of.
    """

    clips: tuple[SampledClip, ...]
    decibels: FloatArray
    clip: npt.NDArray[np.int64]

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Windows of the clips that the curves do not see, shape (n,)."""
        return np.array([clip.is_kept for clip in self.clips])[self.clip]


@dataclass(frozen=True)
class Score:
    """How far a network's embeddings lie from those of the network as it was given.

    The first three are those of :data:`edgel3_tflm.metrics.METRICS`; ``probe_percent`` is the share
    of clips that a linear probe gets right, None where the clips have no labels.
    """

    mean_squared_error: float
    cosine_mean: float
    centred_cosine_mean: float
    probe_percent: float | None = None


@dataclass(frozen=True)
class Point:
    """A layer with ``zeros`` of its kernel weights zero, ``percent`` of them."""

    zeros: int
    percent: float
    score: Score


@dataclass(frozen=True)
class LayerCurve:
    """Scores of a layer pruned alone: first as it was given, then ever sparser."""

    name: str
    weights: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Sensitivity:
    """The curves, and ``inputs``: plain data that says what they were measured on."""

    layers: tuple[LayerCurve, ...]
    inputs: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Turn it into plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Sensitivity":
        """Undo :meth:`to_json`; a KeyError, TypeError or ValueError if it was something else."""
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
    """Load or generate the weights that are asked for; errors as ``sources.load_given``."""
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
    """Take the loudest windows of clips spread evenly over all there are.

    Of labelled clips the last fold is kept for judging a plan, of others every fourth clip.

    Parameters
    ----------
    clips : sequence of pathlib.Path or LabelledClip
    spec : FrontendSpec
    windows : int, optional
        How many; 64 if None, or one of each labelled clip.
    progress : callable

    Raises
    ------
    AudioError
        For the first clip that cannot be used.
    EdgeL3Error
        If ``windows`` is not positive.
    """
    labelled = isinstance(clips[0], LabelledClip)
    if windows is None:
        windows = len(clips) if labelled else DEFAULT_WINDOWS
    if windows < 1:
        raise EdgeL3Error(f"expected at least one window, got {windows}")
    spread = np.linspace(0, len(clips) - 1, min(windows, len(clips))).round().astype(int)
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
        is_kept = its_fold == max(folds) if folds else number % _KEPT_EVERY == _KEPT_EVERY - 1
        digest = sha256_hex(path.read_bytes())
        sampled.append(SampledClip(path.name, digest, label, its_fold, is_kept))
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
                "expected clips of at least two classes outside each fold, to probe with; outside"
                f" fold {tested} there are {len(classes)} among {len(sample.clips)} clips;"
                " take more --windows, or --clips in place of --manifest"
            )


def describe_inputs(
    weights: NetworkWeights, sample: Sample, sparsities: Sequence[float], layers: Sequence[str]
) -> dict[str, Any]:
    """Say, as plain data, what a measurement depends on.

    Raises
    ------
    EdgeL3Error
        If a sparsity is no percentage between 0 and 100, or the network has no such layer.
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
        "windows_kept": int(sample.kept.sum()),
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
    """Prune each layer alone and score the embeddings.

    A layer that has its share of zeros already is not pruned: its curve starts at what it has. The
    layers in front of the pruned one are computed once a layer.

    Parameters
    ----------
    weights : NetworkWeights
    sample : Sample
        The three distances are of the windows that are not kept, the probe is of all.
    inputs : dict
        Of :func:`describe_inputs`.
    progress : callable
    known : sequence of LayerCurve
        Curves of the same inputs, which are not measured again.
    on_layer : callable
        Called after each layer with the curves that there are by then.
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
    judge = _Judge(sample, _flatten(reference))
    given = judge.score(judge.reference)
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
            source = _run(layers[:position], batch)
            for parts, trial in zip(found, trials, strict=True):
                parts.append(_run(trial, source))
            count(len(batch))
        size = conv.kernel.size
        points = [_point(conv.zeros, size, given)]
        for count_of_zeros, parts in zip(zeros, found, strict=True):
            points.append(_point(count_of_zeros, size, judge.score(_flatten(parts))))
        curves[layer.name] = LayerCurve(layer.name, size, tuple(points))
        on_layer(collect())
    return collect()


def prune_alone(weights: NetworkWeights, position: int, percent: float) -> NetworkWeights:
    """Prune one layer, counted from 0; the same object if it has its share of zeros already."""
    percents = [0.0] * len(weights.convs)
    percents[position] = percent
    result = prune(weights, Plan(math.nan, tuple(percents)))
    return result.weights if result.pruned_layers else weights


def score_network(
    weights: NetworkWeights, reference: NetworkWeights, sample: Sample, *, kept: bool
) -> Score:
    """Score a network's embeddings against another's, of the same input.

    Parameters
    ----------
    weights, reference : NetworkWeights
    sample : Sample
    kept : bool
        On the windows that were kept from the curves, or on the others.
    """
    maps = InputMap.of(reference).normalise(sample.decibels)
    wanted, found = (_embed(fold(each), maps) for each in (reference, weights))
    return Score(**_distances(wanted, found, sample, kept=kept))


class _Judge:
    """Scores embeddings of a sample against those of the network as it was given."""

    def __init__(self, sample: Sample, reference: FloatArray) -> None:
        self.reference = reference
        self._sample = sample
        self._silent = is_silent(sample.decibels)

    def score(self, embeddings: FloatArray) -> Score:
        distances = _distances(self.reference, embeddings, self._sample, kept=False)
        score = Score(**distances)
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


def _distances(
    reference: FloatArray, embeddings: FloatArray, sample: Sample, *, kept: bool
) -> dict[str, float]:
    """Distances on the windows that are kept or on the others, of all windows' embeddings."""
    # One mean for both, for a few kept windows have none to speak of.
    mean = reference[~sample.kept].mean(axis=0, dtype=np.float64)
    chosen = sample.kept == kept
    return {
        metric.name: metric.compute(reference[chosen], embeddings[chosen], mean)
        for metric in METRICS
        if metric.name in Score.__dataclass_fields__
    }


def _point(zeros: int, weights: int, score: Score) -> Point:
    return Point(zeros, 100 * zeros / weights, score)


def _run(layers: Sequence[Layer], maps: FloatArray) -> FloatArray:
    for layer in layers:
        maps = layer.finish(layer.convolve(maps)).numpy()
    return maps


def _embed(layers: Sequence[Layer], maps: FloatArray) -> FloatArray:
    return _flatten(
        [
            _run(layers, maps[start : start + _BATCH_WINDOWS])
            for start in range(0, len(maps), _BATCH_WINDOWS)
        ]
    )


def _flatten(parts: Sequence[FloatArray]) -> FloatArray:
    """Join batches of the last maps, (n, 1, 1, d), to embeddings (n, d)."""
    maps = np.concatenate(parts)
    return maps.reshape(len(maps), -1)
