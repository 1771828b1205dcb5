"""Evaluates float and quantized embeddings by a classifier, on a dataset's official splits.

The classifier and its training are those of L3-Net (Cramer et al., Look, Listen and Learn More,
ICASSP 2019, and the released training script), which EdgeL3 was evaluated with. Needs the extra
``evaluate``.
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
from edgel3_tflm.audio.resampling import SOXR
from edgel3_tflm.drift.downstream import MLP_LAYERS, RESAMPLES, Interval, bootstrap
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.evaluation.probe import extract_features
from edgel3_tflm.networks.published import PUBLISHED_RESULTS
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import BoolArray, Progress, RealArray

ACCURACY = "accuracy %"
MICRO_AUPRC = "micro-AUPRC"
MACRO_AUPRC = "macro-AUPRC"


@dataclass(frozen=True)
class Protocol:
    """Settings of an evaluation. They are the same for every dataset.

    Layers, learning rate, L2, batch size, epochs and patience are those of L3-Net's released
    training script. So are the standardisation by the windows of the training clips and the score
    of a clip: the mean of the probabilities of its windows. The script's hop is 0.1 s. The default
    of 0.5 s, as for the linear probe, needs a fifth of the embeddings.

    Parameters
    ----------
    hop_s : float
        Seconds between the starts of two windows of 1 s.
    seeds : int
        Number of trainings, with the seeds 0, 1 and so on; figures are their mean.
    layers : tuple of int
        Units of the hidden layers, which have ReLU.
    learning_rate : float
        Learning rate of Adam.
    l2 : float
        Factor of the sum of squared weights that is added to the mean loss of a batch.
    batch_windows : int
        Windows in a batch.
    most_passes, patience : int
        Greatest number of epochs, and the epochs after which training stops if the loss of the
        validation set has not fallen. The weights of the best epoch are used. Without a validation
        set training runs for ``most_passes`` epochs.
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
        """Return the settings as sentences."""
        seeds = "1 training" if self.seeds == 1 else f"mean of {self.seeds} trainings"
        return [
            f"windows of 1 s, one every {self.hop_s:g} s, standardised by those of the training"
            " clips; the score of a clip is the mean over its windows",
            f"MLP {'-'.join(map(str, self.layers))}: Adam {self.learning_rate:g}, L2 {self.l2:g},"
            f" batches of {self.batch_windows}, at most {self.most_passes} epochs; stops when the"
            f" loss of the validation set (the previous fold) has not fallen for {self.patience}"
            f" epochs; {seeds}, seeded",
            f"95 % intervals: {RESAMPLES} resamples of the test clips, the same for both sides",
        ]


@dataclass(frozen=True)
class SplitResult:
    """Scores of one split, in the first measure of the evaluation."""

    name: str
    train_clips: int
    validation_clips: int
    test_clips: int
    float_score: float
    quantized_score: float


@dataclass(frozen=True)
class Measure:
    """A figure over the test clips of all splits; ``change`` is quantized minus float."""

    name: str
    in_float: Interval
    quantized: Interval
    change: Interval


@dataclass(frozen=True)
class PublishedFigure:
    """A published result of a network on the same dataset."""

    title: str
    measure: str
    value: float
    source: str


@dataclass(frozen=True)
class Evaluation:
    """Results of the classifiers on float and on quantized embeddings.

    ``models_sha256`` has the digests of the deployment's files that were run. ``notes`` contains
    sentences about the clips that a reader needs to judge the figures.
    """

    dataset: str
    model: str
    quantization: str
    weights: str
    models_sha256: Mapping[str, str]
    runtime: str
    resampler: str
    clips: int
    windows: int
    labels: tuple[str, ...]
    protocol: Protocol
    splits: tuple[SplitResult, ...]
    measures: tuple[Measure, ...]
    published: tuple[PublishedFigure, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the results as plain data."""
        return {"generator": f"edgel3-tflm {__version__}", **asdict(self)}


def evaluate(
    deployment: Deployment,
    dataset: Dataset,
    progress: Progress,
    *,
    protocol: Protocol = Protocol(),
    runtime: str | None = None,
) -> Evaluation:
    """Train and test classifiers on the float and quantized embeddings of a deployment.

    All embeddings are held in memory, float32, one for each window and precision.

    Parameters
    ----------
    deployment : Deployment
    dataset : Dataset
    progress : callable
    protocol : Protocol
    runtime : str, optional
        Runtime of the quantized model; by default, and for the float model, the fastest with the
        exact result.

    Returns
    -------
    Evaluation

    Raises
    ------
    EdgeL3Error
        If a clip cannot be read, a runtime is not available, or a setting is out of its range.
    """
    spec = deployment.variant.frontend
    hop_in_samples(protocol.hop_s, spec.sample_rate_hz)  # raises if the hop is not positive
    if protocol.seeds < 1:
        raise EdgeL3Error(f"expected at least one training, got {protocol.seeds}")
    float_runtime = deployment.fastest_runtime("float")
    runtime = runtime or deployment.fastest_runtime(deployment.quantization)
    models = (
        deployment.embedder("float", float_runtime),
        deployment.embedder(deployment.quantization, runtime),
    )

    def embed(decibels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.concatenate([model.embed_log_mel(decibels) for model in models], axis=1)

    names = (
        deployment.model_name("float", float_runtime),
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
        resampler=SOXR,
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
    """Return the published results of all networks on the same dataset."""
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
    """Train and test a classifier for each split, seed and precision.

    Parameters
    ----------
    dataset : Dataset
    clip : numpy.ndarray, shape (n,)
        Index of each window's clip.
    in_float, quantized : numpy.ndarray, shape (n, d)
        Embeddings of the windows.
    protocol : Protocol
    progress : callable

    Returns
    -------
    tuple of SplitResult
    tuple of Measure
        Accuracy in percent if every clip has one label, otherwise the area under the
        precision-recall curve (AUPRC); over the test clips of all splits.
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
                progress("train and test classifiers", done, trainings)
                scores[side, seed, split.test] = score_clips(
                    embeddings, clip, targets, split, dataset.multi_label, protocol, seed
                )
                done += 1
    progress("train and test classifiers", done, trainings)

    def figures(clips: npt.NDArray[np.int64]) -> list[float]:
        """Return all measures of float, then of quantized, then the differences."""
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
    """Train on the training clips of a split and score its test clips.

    Returns
    -------
    numpy.ndarray, shape (test clips, labels)
        Mean probability over the windows of a clip.
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
    """Train an MLPClassifier and give it the weights of its best epoch."""
    from sklearn.neural_network import MLPClassifier

    values, wanted = training
    network = MLPClassifier(
        protocol.layers,
        learning_rate_init=protocol.learning_rate,
        # scikit-learn adds alpha / (2 batch) times the sum of squares to a batch's mean loss.
        alpha=2 * protocol.batch_windows * protocol.l2,
        batch_size=min(protocol.batch_windows, len(values)),
        # With a number as the seed, partial_fit would shuffle every epoch alike.
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
    # scikit-learn's log_loss clips float32 probabilities at 1.2e-7, which hides how wrong the worst
    # windows are.
    tiny = np.finfo(np.float64).tiny
    wide = probabilities.astype(np.float64)
    logs = np.where(wanted, np.log(np.maximum(wide, tiny)), 0)
    if multi_label:
        logs += np.where(wanted, 0, np.log(np.maximum(1 - wide, tiny)))
    return -float(logs.sum(axis=1).mean())


def _measure_accuracy(scores: RealArray, targets: BoolArray) -> tuple[float]:
    return (100 * float(np.mean(scores.argmax(axis=1) == targets.argmax(axis=1))),)


def _measure_auprc(scores: RealArray, targets: BoolArray) -> tuple[float, float]:
    """Micro- and macro-averaged area under the precision-recall curve.

    The area is computed by trapezoids as in DCASE 2019 and 2020, Task 5. The micro average takes
    all pairs of clip and label together; the macro average is the mean over the labels that at
    least one clip has.
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
