"""Knowledge distillation: a pruned student learns a teacher's embedding.

The second retraining method of Kumari et al. (2019): the squared error between the teacher's
embedding and the student's. Teacher and student may differ in sample rate, input and size: a linear
map joins them in training and is thrown away.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import Clip, read_clip
from edgel3_tflm.audio.framing import cut_windows
from edgel3_tflm.audio.log_mel import is_silent, log_mel, log_mel_statistics
from edgel3_tflm.audio.manifest import LabelledClip, list_folds
from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.keras.generate import draw_weights
from edgel3_tflm.converters.keras.network import build_network, read_network
from edgel3_tflm.converters.pruning.prune import Pruner
from edgel3_tflm.converters.quantization.tflite import to_float
from edgel3_tflm.converters.training.augment import TrainingClip, WindowSource
from edgel3_tflm.converters.training.loop import (
    FIGURES_NAME,
    STUDENT_NAME,
    Judgement,
    Loop,
    claim_directory,
    is_held,
    note_ending,
    precision,
)
from edgel3_tflm.converters.training.recipe import Recipe, Validation
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.files import sha256_hex, write_whole
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weight_files import pack_weights
from edgel3_tflm.networks.weights import NetworkWeights, Provenance
from edgel3_tflm.runtime.deployment import Embedder
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import DEFAULT_RUNTIME
from edgel3_tflm.types import FloatArray, Progress

DENSE_NAME = "dense.h5.gz"
# Batches, numbered from here on, that set the scales of inputs and targets.
_SCALE_BATCHES = range(1_000_000_000, 1_000_000_012)
_STATISTICS_FLOOR_DB = 3.0


@dataclass(frozen=True)
class DistillClip:
    """A clip for training or validation; its class is -1 where none is known."""

    path: Path
    sha256: str
    label: int = -1


@dataclass(frozen=True)
class DistillationFigures:
    """What a student is worth on the validation clips, silent windows left out."""

    step: int
    teacher_cosine: float
    """Mean cosine between teacher and student through the map."""
    mean_cosine: float
    """The same for a student that always answers the teacher's mean embedding."""
    windows: int


@dataclass(frozen=True)
class _Scales:
    """Means and deviations that bring inputs and targets near unit size."""

    decibel_mean: float
    decibel_deviation: float
    teacher_mean: FloatArray
    teacher_deviation: float
    statistics_mean: FloatArray
    statistics_deviation: FloatArray


@dataclass(frozen=True)
class _Batch:
    decibels: FloatArray
    teacher: FloatArray
    statistics: FloatArray
    labels: FloatArray


class _Targets:
    """Log-mel for the student and everything it is to learn, for windows of samples."""

    def __init__(self, student: Variant, teacher: NetworkWeights) -> None:
        self._student = student.frontend
        self._teacher = teacher.variant.frontend
        model = to_float(build_network(teacher))
        self._embedder = Embedder(model, teacher.variant, InputMap.of(teacher), DEFAULT_RUNTIME)

    def compute(self, windows: FloatArray, labels: FloatArray) -> _Batch:
        decibels = log_mel(windows, self._student)
        heard = [
            soxr.resample(window, self._student.sample_rate_hz, self._teacher.sample_rate_hz)
            for window in windows
        ]
        teacher = self._embedder.embed(np.stack(heard))
        return _Batch(decibels, teacher, log_mel_statistics(decibels), labels)


def choose_clips(
    validation: Validation, labelled: Sequence[LabelledClip], unlabelled: Sequence[Path]
) -> tuple[list[DistillClip], list[DistillClip]]:
    """Share out clips for training and for validation.

    With a validation fold, the labelled clips of that fold are kept from training. Without one, a
    share of all files is, chosen by their contents: a file stays where it is when others come.

    Parameters
    ----------
    validation : Validation
    labelled : sequence of LabelledClip
    unlabelled : sequence of pathlib.Path

    Returns
    -------
    training, validation : list of DistillClip

    Raises
    ------
    AudioError
        If a clip cannot be read.
    EdgeL3Error
        If no labelled clip is in the validation fold.
    """
    if validation.fold is not None:
        list_folds(labelled, [validation.fold])
    classes = sorted({clip.label for clip in labelled})
    clips: list[tuple[DistillClip, int | None]] = [
        (DistillClip(clip.path, _digest(clip.path), classes.index(clip.label)), clip.fold)
        for clip in labelled
    ]
    # A directory of clips may hold the labelled ones too, those of the validation fold among them.
    known = {clip.sha256 for clip, _ in clips}
    others = (DistillClip(path, _digest(path)) for path in unlabelled)
    clips += [(clip, None) for clip in others if clip.sha256 not in known]
    training: list[DistillClip] = []
    kept: list[DistillClip] = []
    for clip, fold in clips:
        by_fold = validation.fold is not None
        is_kept = fold == validation.fold if by_fold else is_held(clip.sha256, validation.share)
        (kept if is_kept else training).append(clip)
    return training, kept


def _digest(path: Path) -> str:
    try:
        return sha256_hex(path.read_bytes())
    except OSError as error:
        raise AudioError(f"{path}: cannot read the clip: {error.strerror or error}") from error


def distill(
    recipe: Recipe,
    *,
    student: Variant,
    teacher: NetworkWeights,
    training: Sequence[DistillClip],
    validation: Sequence[DistillClip],
    output: Path,
    progress: Progress,
    on_validation: Callable[[DistillationFigures], None],
    initial: NetworkWeights | None = None,
) -> DistillationFigures:
    """Train a student; an interrupted run goes on where it was and ends with the same result.

    Parameters
    ----------
    recipe : Recipe
    student : Variant
    teacher : NetworkWeights
    training, validation : sequence of DistillClip
    output : pathlib.Path
        Directory for ``student.h5.gz``, ``figures.json``, ``dense.h5.gz`` (the student as pruning
        finds it), checkpoints and TensorBoard logs. If it holds a checkpoint of the same recipe,
        weights and clips, training goes on from there.
    progress : callable
    on_validation : callable
    initial : NetworkWeights, optional
        What the student starts from; drawn at random if None.

    Returns
    -------
    DistillationFigures
        Of the student that was kept: the best on the validation clips once it is pruned.

    Raises
    ------
    EdgeL3Error
        If clips cannot be used, what the student starts from has other filters or the directory
        holds another run.
    """
    if not training or not validation:
        raise EdgeL3Error(
            f"expected clips to train and to validate with, found {len(training)} and"
            f" {len(validation)}; give more, or change the recipe's validation.fold or"
            " validation.share"
        )
    if student.plan is not None:
        recipe.find_pruning_steps()
    if recipe.loss.labels > 0 and all(clip.label < 0 for clip in training):
        raise EdgeL3Error(
            "the recipe's loss.labels needs the classes of the training clips; give a manifest, or"
            " set it to 0"
        )
    if initial is not None and initial.variant.filters != student.filters:
        raise EdgeL3Error(
            f"expected weights of {student.name} to start from, these are of"
            f" {initial.variant.name}; give the recipe's student their filters"
        )
    claim_directory(
        output,
        {
            "recipe": asdict(recipe),
            "student": student.name,
            "teacher": teacher.provenance.sha256,
            "initial": initial.provenance.sha256 if initial else None,
            "clips": [
                [clip.path.name, clip.label, clip.sha256] for clip in [*training, *validation]
            ],
        },
    )
    run = _Run(recipe, student, teacher, initial, training, validation, output, progress)
    return run.train(progress, on_validation)


class _Run:
    kept_by = (
        "the greatest mean cosine to the teacher on the validation clips, once all zeros are there"
    )

    def __init__(
        self,
        recipe: Recipe,
        student: Variant,
        teacher: NetworkWeights,
        initial: NetworkWeights | None,
        training: Sequence[DistillClip],
        validation: Sequence[DistillClip],
        output: Path,
        progress: Progress,
    ) -> None:
        self._recipe = recipe
        self._student = student
        self._teacher = teacher.provenance
        self._output = output
        progress("load TensorFlow", 0, 0)
        self._tf, self._keras, self._tfmot = load_backend()
        self._targets = _Targets(student, teacher)
        rate_hz = student.frontend.sample_rate_hz
        classes = 1 + max(clip.label for clip in training)
        loaded = []
        for done, clip in enumerate(training, start=1):
            loaded.append(TrainingClip(read_clip(clip.path, rate_hz).samples, clip.label))
            progress("read clips", done, len(training))
        self._source = WindowSource(
            loaded,
            window_samples=student.frontend.window_samples,
            classes=classes,
            augmentation=recipe.augmentation,
            seed=recipe.training.seed,
        )
        progress("prepare targets", 0, 0)
        self._scales = self._measure_scales()
        self._validation = self._prepare_validation(validation, rate_hz)
        self._build(initial, teacher.variant.embedding_size, classes)

    def batch(self, number: int) -> _Batch:
        windows, labels = self._source.batch(number, self._recipe.training.batch_windows)
        return self._targets.compute(windows, labels)

    def _measure_scales(self) -> _Scales:
        batches = [self.batch(number) for number in _SCALE_BATCHES]
        decibels = np.concatenate([batch.decibels for batch in batches])
        teacher = np.concatenate([batch.teacher for batch in batches])
        statistics = np.concatenate([batch.statistics for batch in batches])
        if is_silent(decibels).all():
            raise EdgeL3Error("expected sound in the training clips, they are silent")
        return _Scales(
            float(decibels.mean(dtype=np.float64)),
            float(decibels.std(dtype=np.float64)),
            teacher.mean(axis=0),
            float(np.sqrt(teacher.var(axis=0).mean())),
            statistics.mean(axis=0),
            statistics.std(axis=0) + np.float32(_STATISTICS_FLOOR_DB),
        )

    def _prepare_validation(self, clips: Sequence[DistillClip], rate_hz: int) -> _Batch:
        length = self._student.frontend.window_samples
        parts = []
        for clip in clips:
            windows = cut_windows(
                Clip(read_clip(clip.path, rate_hz).samples, rate_hz),
                window_samples=length,
                hop_samples=length,
            )
            parts.append(self._targets.compute(windows, np.zeros((len(windows), 0), np.float32)))
        decibels = np.concatenate([part.decibels for part in parts])
        heard = ~is_silent(decibels)
        if not heard.any():
            raise EdgeL3Error("expected sound in the validation clips, they are silent")
        teacher = np.concatenate([part.teacher for part in parts])
        nothing = np.empty((0, 0), np.float32)
        return _Batch(decibels[heard], teacher[heard], nothing, nothing)

    def _build(self, given: NetworkWeights | None, teacher_size: int, classes: int) -> None:
        tf, keras = self._tf, self._keras
        training = self._recipe.training
        one = np.ones(1, np.float32)
        initial = given or draw_weights(
            self._student,
            mean=one * np.float32(self._scales.decibel_mean),
            variance=one * np.float32(self._scales.decibel_deviation) ** 2,
            seed=training.seed,
        )
        self._initial, self._input_map = initial, InputMap.of(initial)
        with precision(training.precision):
            self._network = build_network(initial, batch_size=None)

        # Thrown away after training: what the terms of the loss read from the embedding.
        def linear(size: int, name: str) -> Any:
            initializer = keras.initializers.GlorotUniform(seed=training.seed)
            return keras.layers.Dense(size, kernel_initializer=initializer, name=name)

        embedding = keras.layers.Activation("linear", dtype="float32")(self._network.output)
        statistics = 2 * self._student.frontend.mels
        self._model = keras.Model(
            self._network.input,
            [
                linear(teacher_size, "to_teacher")(embedding),
                linear(statistics, "to_statistics")(embedding),
                linear(classes + 1, "to_labels")(embedding),
            ],
        )
        self._pruner = Pruner(self._schedules())
        masks = [wrapper.pruning_vars for wrapper in self._pruner.wrappers]
        self._loop = Loop(self._output, self._model, training, masks=masks)
        self._train_step = tf.function(self._compute_step)

    def _schedules(self) -> dict[Any, Any]:
        """TF-MOT schedule of every convolution the plan gives zeros."""
        plan, pruning = self._student.plan, self._recipe.pruning
        if plan is None:
            return {}
        begin, end = self._recipe.find_pruning_steps()
        schedules = {}
        for layer, percent in zip(self._student.layers, plan.layers, strict=True):
            if percent == 0:
                continue
            if pruning.schedule == "one-shot":
                schedule = self._tfmot.ConstantSparsity(
                    percent / 100, begin_step=begin, end_step=begin, frequency=1
                )
            else:
                schedule = self._tfmot.PolynomialDecay(
                    0.0, percent / 100, begin, end, power=3, frequency=pruning.every_steps
                )
            schedules[self._network.get_layer(layer.name)] = schedule
        return schedules

    def _compute_step(self, decibels: Any, teacher: Any, statistics: Any, labels: Any) -> Any:
        tf, weights = self._tf, self._recipe.loss
        with tf.GradientTape() as tape:
            to_teacher, to_statistics, to_labels = self._model(decibels, training=True)
            entropy = tf.nn.softmax_cross_entropy_with_logits(labels, to_labels)
            terms = tf.stack(
                [
                    tf.reduce_mean((to_teacher - teacher) ** 2),
                    tf.reduce_mean((to_statistics - statistics) ** 2),
                    # A guess costs the logarithm of the number of classes.
                    tf.reduce_mean(entropy) / np.log(max(2, labels.shape[1])),
                ]
            )
            loss = tf.reduce_sum(terms * [weights.teacher, weights.statistics, weights.labels])
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, variables)
        self._loop.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return terms

    def train(
        self, progress: Progress, on_validation: Callable[[DistillationFigures], None]
    ) -> DistillationFigures:
        """Train from the last checkpoint, or the start, to the end."""
        ending = self._loop.run(self, "distill", progress, lambda: on_validation(self._figures))
        figures = note_ending(self._output / FIGURES_NAME, ending)
        return DistillationFigures(**figures["validation"])

    def learn(self, step: int, batch: _Batch) -> Mapping[str, float]:
        """Take one step of the optimizer, and prune."""
        scales = self._scales
        terms = self._train_step(
            self._input_map.normalise(batch.decibels),
            (batch.teacher - scales.teacher_mean) / scales.teacher_deviation,
            (batch.statistics - scales.statistics_mean) / scales.statistics_deviation,
            batch.labels,
        ).numpy()
        if self._student.plan is not None and step == self._recipe.find_pruning_steps()[0]:
            dense = self._read_student("before it was pruned")
            write_whole(self._output / DENSE_NAME, pack_weights(dense))
        self._pruner.apply(step)
        return dict(zip(("teacher", "statistics", "labels"), terms, strict=True))

    def judge(self, step: int) -> Judgement:
        """Compare with the teacher on the validation clips; a dense student does not count."""
        scales, data = self._scales, self._validation
        answers = []
        size = self._recipe.training.batch_windows
        for start in range(0, len(data.decibels), size):
            inputs = self._input_map.normalise(data.decibels[start : start + size])
            answers.append(self._model(inputs, training=False)[0].numpy())
        answer = np.concatenate(answers) * scales.teacher_deviation + scales.teacher_mean
        mean = np.broadcast_to(scales.teacher_mean, answer.shape)
        self._figures = DistillationFigures(
            step,
            float(cosine_similarity(data.teacher, answer).mean()),
            float(cosine_similarity(data.teacher, mean).mean()),
            len(answer),
        )
        cosine = self._figures.teacher_cosine
        is_pruned = self._student.plan is None or step > self._recipe.find_pruning_steps()[1]
        return Judgement(cosine if is_pruned else None, {"teacher_cosine": cosine})

    def keep(self) -> None:
        """Write the student and its figures."""
        weights = self._read_student(f"step {self._figures.step}")
        packed = pack_weights(weights)
        write_whole(self._output / STUDENT_NAME, packed)
        figures = {
            "validation": asdict(self._figures),
            "student": {
                "kind": weights.provenance.kind,
                "sha256": sha256_hex(packed),
                "network": weights.variant.name,
                "description": weights.provenance.description,
            },
            "from": asdict(self._initial.provenance),
            "teacher": asdict(self._teacher),
            "sparsity_percent": weights.sparsity_percent,
        }
        write_whole(self._output / FIGURES_NAME, (json.dumps(figures, indent=1) + "\n").encode())

    def _read_student(self, state: str) -> NetworkWeights:
        """Take the student out of the network that is trained; ``state`` says which it is."""
        provenance = Provenance(
            "distilled",
            STUDENT_NAME,
            "",
            f"distilled by edgel3-tflm {__version__}, {state}; teacher:"
            f" {self._teacher.description}; started from: {self._initial.provenance.description}",
        )
        return replace(read_network(self._network, self._initial), provenance=provenance)
