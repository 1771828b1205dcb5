"""Downstream evaluation: a classifier on float and on quantized embeddings, with official splits.

The classifier and its training are L3-Net's (Cramer et al., Look, Listen and Learn More, ICASSP
2019, and the training script its authors released), which EdgeL3 was judged by. Needs the extra
``evaluate``; without scikit-learn :mod:`edgel3_tflm.evaluation.probe` says so.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.datasets import Dataset, Split
from edgel3_tflm.audio.framing import hop_in_samples
from edgel3_tflm.audio.manifest import HOP_S, note_unlearned_classes, split_labels
from edgel3_tflm.drift.downstream import MLP_LAYERS, RESAMPLES, Interval, bootstrap
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.evaluation.probe import extract_features
from edgel3_tflm.networks.published import PUBLISHED_RESULTS
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME
from edgel3_tflm.types import BoolArray, Progress, RealArray

ACCURACY = "accuracy %"
MICRO_AUPRC = "micro-AUPRC"
MACRO_AUPRC = "macro-AUPRC"


@dataclass(frozen=True)
class Protocol:
    """Every choice of an evaluation. None is fitted to a dataset.

    Layers, learning rate, L2, batch, passes and patience are those of L3-Net's released training
    script, and so are standardisation by the training clips' windows and a clip's score, the mean
    of its windows' probabilities. Their hop is 0.1 s; 0.5 s, the linear probe's, embeds a fifth.

    Parameters
    ----------
    hop_s : float
        Seconds from one window of 1 s to the next.
    seeds : int
        Trainings, seeded from 0; figures are their mean.
    layers : tuple of int
        Hidden ones, with ReLU.
    learning_rate, l2, batch_windows
        Of Adam; factor of the sum of squared weights beside a batch's mean loss.
    most_passes, patience : int
        Training ends when the validation clips' loss has not fallen for ``patience`` passes, and
        the best pass is kept. Without validation clips all passes are made.
    """

    hop_s: float = HOP_S
    seeds: int = 1
    layers: tuple[int, ...] = MLP_LAYERS
    learning_rate: float = 1e-4
    l2: float = 1e-5
    batch_windows: int = 64
    most_passes: int = 150
    patience: int = 20

    def describe(self) -> list[str]:
        """Say it in sentences."""
        seeds = "1 training" if self.seeds == 1 else f"mean of {self.seeds} trainings"
        return [
            f"whole windows of 1 s, one every {self.hop_s:g} s, standardised by the training"
            " clips'; a clip's score is the mean over its windows",
            f"MLP {'-'.join(map(str, self.layers))}: Adam {self.learning_rate:g}, L2 {self.l2:g},"
            f" batches of {self.batch_windows}, at most {self.most_passes} passes, stopped when the"
            f" loss of the clips held out (the fold before) has not fallen for {self.patience};"
            f" {seeds}, seeded",
            f"intervals of 95 %: {RESAMPLES} resamples of the clips judged, in pairs",
        ]


@dataclass(frozen=True)
class SplitResult:
    """Score of one split, in the first of the evaluation's measures."""

    name: str
    train_clips: int
    validation_clips: int
    test_clips: int
    float_score: float
    quantized_score: float


@dataclass(frozen=True)
class Measure:
    """A figure over the test clips of all splits; ``change`` is quantized less float."""

    name: str
    in_float: Interval
    quantized: Interval
    change: Interval


@dataclass(frozen=True)
class PublishedFigure:
    """What was published of a network on the same dataset."""

    title: str
    measure: str
    value: float
    source: str


@dataclass(frozen=True)
class Evaluation:
    """Classifiers on float and quantized embeddings, side by side.

    ``models_sha256`` are of the deployment's files that were run. ``notes`` says what of the clips
    a reader of the figures must know.
    """

    dataset: str
    model: str
    quantization: str
    weights: str
    models_sha256: Mapping[str, str]
    runtime: str
    clips: int
    windows: int
    labels: tuple[str, ...]
    protocol: Protocol
    splits: tuple[SplitResult, ...]
    measures: tuple[Measure, ...]
    published: tuple[PublishedFigure, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Turn it into plain data."""
        return {"generator": f"edgel3-tflm {__version__}", **asdict(self)}


def evaluate(
    deployment: Deployment,
    dataset: Dataset,
    progress: Progress,
    *,
    protocol: Protocol = Protocol(),
    runtime: str = DEFAULT_RUNTIME,
) -> Evaluation:
    """Train and judge classifiers on a deployment's float and quantized embeddings.

    Embeddings are kept in memory, float32, one for each window and precision; audio is not.

    Parameters
    ----------
    deployment : Deployment
    dataset : Dataset
    progress : callable
        Called with the name of the step, clips or trainings done and how many in all.
    protocol : Protocol
    runtime : str
        Of the quantized model; the float one runs in the default runtime.

    Raises
    ------
    EdgeL3Error
        If a clip cannot be read, a runtime is missing or a choice is out of its range.
    """
    spec = deployment.variant.frontend
    hop_in_samples(protocol.hop_s, spec.sample_rate_hz)  # refuses a hop that goes nowhere
    if protocol.seeds < 1:
        raise EdgeL3Error(f"expected at least one training, got {protocol.seeds}")
    models = (
        deployment.embedder("float", DEFAULT_RUNTIME),
        deployment.embedder(deployment.quantization, runtime),
    )

    def embed(decibels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.concatenate([model.embed_log_mel(decibels) for model in models], axis=1)

    names = (
        deployment.model_name("float", DEFAULT_RUNTIME),
        deployment.model_name(deployment.quantization, runtime),
    )
    features = extract_features(dataset.clips, spec, embed, progress, protocol.hop_s)
    in_float, quantized = np.split(features.values, 2, axis=1)
    splits, measures = judge(dataset, features.clip, in_float, quantized, protocol, progress)
    return Evaluation(
        dataset=dataset.name,
        model=deployment.variant.name,
        quantization=deployment.quantization,
        weights=deployment.manifest["weights"]["description"],
        models_sha256={name: deployment.manifest["artefacts"][name]["sha256"] for name in names},
        runtime=runtime,
        clips=len(dataset.clips),
        windows=len(features.values),
        labels=dataset.labels,
        protocol=protocol,
        splits=splits,
        measures=measures,
        published=find_published(dataset),
        notes=(
            *note_unlearned_classes(
                [split_labels(clip.label) for clip in dataset.clips],
                [(split.name, split.train, split.test) for split in dataset.splits],
            ),
            *features.notes,
        ),
    )


def find_published(dataset: Dataset) -> tuple[PublishedFigure, ...]:
    """List what was published of any of these networks on the same dataset."""
    if dataset.task is None:
        return ()
    scores = [(result, result.score(dataset.task)) for result in PUBLISHED_RESULTS]
    return tuple(
        PublishedFigure(result.title, score.measure, score.value, result.source)
        for result, score in scores
        if score is not None
    )


def judge(
    dataset: Dataset,
    clip: npt.NDArray[np.int64],
    in_float: RealArray,
    quantized: RealArray,
    protocol: Protocol,
    progress: Progress,
) -> tuple[tuple[SplitResult, ...], tuple[Measure, ...]]:
    """Train and judge a classifier for every split, seed and precision.

    Parameters
    ----------
    dataset : Dataset
    clip : numpy.ndarray, shape (n,)
        The index of each window's clip.
    in_float, quantized : numpy.ndarray, shape (n, d)
        Embeddings of the windows.
    protocol : Protocol
    progress : callable

    Returns
    -------
    tuple of SplitResult
    tuple of Measure
        Accuracy in percent where a clip has one label, else AUPRC; over the test clips of all
        splits.
    """
    targets = dataset.targets
    names = (MICRO_AUPRC, MACRO_AUPRC) if dataset.multi_label else (ACCURACY,)
    measure = _measure_auprc if dataset.multi_label else _measure_accuracy
    sides = (in_float, quantized)
    scores = np.zeros((len(sides), protocol.seeds, *targets.shape))
    trainings = len(dataset.splits) * scores.shape[0] * scores.shape[1]
    done = 0
    for split in dataset.splits:
        for side, embeddings in enumerate(sides):
            for seed in range(protocol.seeds):
                progress("train and judge classifiers", done, trainings)
                scores[side, seed, split.test] = score_clips(
                    embeddings, clip, targets, split, dataset.multi_label, protocol, seed
                )
                done += 1
    progress("train and judge classifiers", done, trainings)

    def figures(clips: npt.NDArray[np.int64]) -> list[float]:
        """Of float and quantized, and their difference, each in every measure."""
        means = np.array(
            [
                np.mean([measure(each[clips], targets[clips]) for each in side], axis=0)
                for side in scores
            ]
        )
        return [*means[0].tolist(), *means[1].tolist(), *(means[1] - means[0]).tolist()]

    results = []
    for split in dataset.splits:
        found = figures(split.test)
        results.append(
            SplitResult(
                split.name,
                len(split.train),
                len(split.validate),
                len(split.test),
                found[0],
                found[len(names)],
            )
        )
    tested = np.concatenate([split.test for split in dataset.splits])
    progress("resample", 0, 0)
    intervals = bootstrap(lambda rows: figures(tested[rows]), len(tested))
    count = len(names)
    measures = tuple(
        Measure(name, *intervals[position::count]) for position, name in enumerate(names)
    )
    return tuple(results), measures


def score_clips(
    embeddings: RealArray,
    clip: npt.NDArray[np.int64],
    targets: BoolArray,
    split: Split,
    multi_label: bool,
    protocol: Protocol,
    seed: int,
) -> RealArray:
    """Train on a split's training clips and score its test clips.

    Returns
    -------
    numpy.ndarray, shape (test clips, labels)
        Mean probability over a clip's windows.
    """
    from sklearn.preprocessing import StandardScaler

    train, validate, test = (
        np.isin(clip, part) for part in (split.train, split.validate, split.test)
    )
    scaler = StandardScaler().fit(embeddings[train])
    wanted = targets[clip]
    network = _train(
        (scaler.transform(embeddings[train]), wanted[train]),
        (scaler.transform(embeddings[validate]), wanted[validate]) if validate.any() else None,
        multi_label,
        protocol,
        seed,
    )
    probabilities = network.predict_proba(scaler.transform(embeddings[test]))
    sums = np.zeros(targets.shape)
    np.add.at(sums, clip[test], probabilities)
    windows = np.bincount(clip[test], minlength=len(targets))
    scores: RealArray = sums[split.test] / windows[split.test, None]
    return scores


def _train(
    training: tuple[RealArray, BoolArray],
    validation: tuple[RealArray, BoolArray] | None,
    multi_label: bool,
    protocol: Protocol,
    seed: int,
) -> Any:
    """Train an MLPClassifier, and give it the weights of its best pass."""
    from sklearn.neural_network import MLPClassifier

    values, wanted = training
    network = MLPClassifier(
        protocol.layers,
        learning_rate_init=protocol.learning_rate,
        # scikit-learn adds alpha / (2 batch) times the sum of squares to a batch's mean loss.
        alpha=2 * protocol.batch_windows * protocol.l2,
        batch_size=min(protocol.batch_windows, len(values)),
        # A bare number would shuffle every pass alike.
        random_state=np.random.RandomState(seed),
    )
    goal = wanted.astype(np.int64) if multi_label else wanted.argmax(axis=1)
    labels = np.arange(wanted.shape[1])
    best, least, since = None, np.inf, 0
    for _ in range(protocol.most_passes):
        network.partial_fit(values, goal, classes=labels)
        if validation is None:
            continue
        loss = _loss(network.predict_proba(validation[0]), validation[1], multi_label)
        since += 1
        if loss < least:
            least, since = loss, 0
            best = [[each.copy() for each in part] for part in _parameters(network)]
        if since >= protocol.patience:
            break
    if best is not None:
        network.coefs_, network.intercepts_ = best
    return network


def _parameters(network: Any) -> tuple[list[RealArray], list[RealArray]]:
    return network.coefs_, network.intercepts_


def _loss(probabilities: RealArray, wanted: BoolArray, multi_label: bool) -> float:
    """Mean cross-entropy of the windows: categorical, or binary and summed over the labels."""
    tiny = np.finfo(np.float64).tiny
    wide = probabilities.astype(np.float64)
    logs = np.where(wanted, np.log(np.maximum(wide, tiny)), 0)
    if multi_label:
        logs += np.where(wanted, 0, np.log(np.maximum(1 - wide, tiny)))
    return -float(logs.sum(axis=1).mean())


def _measure_accuracy(scores: RealArray, targets: BoolArray) -> tuple[float]:
    return (100 * float(np.mean(scores.argmax(axis=1) == targets.argmax(axis=1))),)


def _measure_auprc(scores: RealArray, targets: BoolArray) -> tuple[float, float]:
    """Area under the precision-recall curve, by trapezoids, as DCASE 2019 and 2020 Task 5 have it.

    Micro: of all decisions about a clip and a label together; macro: mean over the labels, without
    those that no clip has.
    """
    known = np.flatnonzero(targets.any(axis=0))
    if len(known) == 0:
        return float("nan"), float("nan")
    each = [_area(scores[:, label], targets[:, label]) for label in known]
    return _area(scores.ravel(), targets.ravel()), float(np.mean(each))


def _area(scores: RealArray, targets: BoolArray) -> float:
    from sklearn.metrics import auc, precision_recall_curve

    precision, recall, _ = precision_recall_curve(targets, scores)
    return float(auc(recall, precision))
