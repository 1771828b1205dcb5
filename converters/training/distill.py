"""Knowledge distillation: a pruned student learns a teacher's embedding.

This is the second retraining method of Kumari et al. (2019). The loss is the squared error between
the teacher's embedding and a linear map of the student's. The linear map allows teacher and student
to differ in sample rate, input and embedding size; it is discarded after training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.clips import read_clip
from edgel3_tflm.converters.backend import load_backend, load_pruning
from edgel3_tflm.converters.keras.generate import draw_weights
from edgel3_tflm.converters.keras.network import build_network, read_network
from edgel3_tflm.converters.pruning.prune import Pruner
from edgel3_tflm.converters.training.augment import TrainingClip, WindowSource
from edgel3_tflm.converters.training.loop import Loop, ValidationScore, precision
from edgel3_tflm.converters.training.recipe import Recipe
from edgel3_tflm.converters.training.run_directory import (
    STUDENT_NAME,
    add_ending,
    claim_directory,
    write_figures,
)
from edgel3_tflm.converters.training.split import DistillClip
from edgel3_tflm.converters.training.targets import Scales, TargetBatch, TargetSource
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import sha256_hex, write_whole
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.networks.weight_files import pack_weights
from edgel3_tflm.networks.weights import NetworkWeights, Provenance
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.types import FloatArray, Progress

DENSE_NAME = "dense.h5.gz"
# Numbers of the batches that set the scales of inputs and targets. No step has such a number.
_SCALE_BATCHES = range(1_000_000_000, 1_000_000_012)
# Embeddings that are all equal do not divide by zero.
_SMALLEST_VARIANCE = 1e-12
# Terms of the loss, by their names in a recipe. The last is computed only if it has a weight.
_TERMS = ("teacher", "statistics", "labels", "microphone")


@dataclass(frozen=True)
class DistillationFigures:
    """How well a student reproduces the teacher on the validation set, without silent windows."""

    step: int
    teacher_cosine: float
    """Mean cosine similarity of the teacher's embedding and the linear map of the student's."""
    mean_cosine: float
    """The same for a student that always returns the teacher's mean embedding."""
    sixteen_bit_cosine: float
    """Mean cosine similarity of the student's embeddings before and after rounding to 16 bits."""
    windows: int


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
    """Train a student; an interrupted run continues and ends with the same result.

    Parameters
    ----------
    recipe : Recipe
    student : Variant
    teacher : NetworkWeights
    training, validation : sequence of DistillClip
    output : pathlib.Path
        Directory for ``student.h5.gz``, ``figures.json``, ``dense.h5.gz`` (the student before
        pruning), checkpoints and TensorBoard logs. If it contains a checkpoint of the same recipe,
        weights and clips, training continues from there.
    progress : callable
    on_validation : callable
        Called with the figures of each validation.
    initial : NetworkWeights, optional
        Weights that the student starts from; drawn at random if None.

    Returns
    -------
    DistillationFigures
        Of the student that was selected: the best on the validation set after pruning.

    Raises
    ------
    EdgeL3Error
        If clips cannot be used, the initial weights have other filters than the student, or the
        directory contains another run.
    """
    if not training or not validation:
        raise EdgeL3Error(
            f"expected clips to train with and clips to validate with, found {len(training)} and"
            f" {len(validation)}; give more clips, or change the recipe's validation.fold or"
            " validation.share"
        )
    if student.plan is not None:
        recipe.find_pruning_steps()
    if recipe.loss.labels > 0 and all(clip.label < 0 for clip in training):
        raise EdgeL3Error(
            "expected classes of the training clips for the recipe's loss.labels, found none; give"
            " a manifest, or set loss.labels to 0"
        )
    if initial is not None and initial.variant.filters != student.filters:
        raise EdgeL3Error(
            f"expected weights of {student.name} to start from, these are of"
            f" {initial.variant.name}; give the recipe's student the filters of these weights"
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
    run = _DistillRun(recipe, student, teacher, initial, training, validation, output, progress)
    return run.train(progress, on_validation)


class _DistillRun:
    """A student in training; a :class:`~edgel3_tflm.converters.training.loop.TrainingTask`."""

    selection_rule = "the largest mean cosine to the teacher on the validation set, after pruning"

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
        self._tf, self._keras = load_backend()
        self._tfmot = load_pruning()
        self._targets = TargetSource(student, teacher)
        classes = 1 + max(clip.label for clip in training)
        loaded = []
        for done, clip in enumerate(training, start=1):
            samples = read_clip(clip.path, student.frontend.sample_rate_hz).samples
            loaded.append(TrainingClip(samples, clip.label))
            progress("read clips", done, len(training))
        self._source = WindowSource(
            loaded,
            window_samples=student.frontend.window_samples,
            sample_rate_hz=student.frontend.sample_rate_hz,
            classes=classes,
            augmentation=recipe.augmentation,
            microphone=recipe.microphone,
            seed=recipe.training.seed,
        )
        progress("prepare targets", 0, 0)
        self._scales = Scales.measure([self.batch(number) for number in _SCALE_BATCHES])
        self._validation = self._targets.compute_validation([clip.path for clip in validation])
        self._build(initial, teacher.variant.embedding_size, classes)

    def batch(self, number: int) -> TargetBatch:
        """Make the batch of a step."""
        windows = self._source.batch(number, self._recipe.training.batch_windows)
        return self._targets.compute(windows)

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

        # The terms of the loss read these maps of the embedding. They are discarded after training.
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
                embedding,
            ],
        )
        self._pruner = Pruner(self._schedules())
        masks = [wrapper.pruning_vars for wrapper in self._pruner.wrappers]
        self._loop = Loop(self._output, self._model, training, masks=masks)
        self._train_step = tf.function(self._compute_step)
        network = {variable.ref() for variable in self._network.trainable_variables}
        self._is_map = [each.ref() not in network for each in self._model.trainable_variables]

    def _schedules(self) -> dict[Any, Any]:
        """Return the TF-MOT schedule of each convolution that the plan prunes."""
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

    def _compute_step(
        self,
        decibels: Any,
        sound: Any,
        teacher: Any,
        statistics: Any,
        labels: Any,
        *,
        maps_only: bool,
    ) -> Any:
        tf, weights = self._tf, self._recipe.loss
        views = [decibels, sound] if weights.microphone > 0 else [decibels]
        teacher, statistics, labels = (
            tf.concat([each] * len(views), axis=0) for each in (teacher, statistics, labels)
        )
        with tf.GradientTape() as tape:
            to_teacher, to_statistics, to_labels, embedding = self._model(
                tf.concat(views, axis=0), training=True
            )
            entropy = tf.nn.softmax_cross_entropy_with_logits(labels, to_labels)
            terms = [
                tf.reduce_mean((to_teacher - teacher) ** 2),
                tf.reduce_mean((to_statistics - statistics) ** 2),
                # The entropy of a uniform guess is the logarithm of the number of classes.
                tf.reduce_mean(entropy) / np.log(max(2, labels.shape[1])),
            ]
            if len(views) == 2:
                terms.append(self._find_loss_by_microphone(*tf.split(embedding, 2)))
            named = dict(zip(_TERMS, terms, strict=False))
            loss = tf.add_n([getattr(weights, name) * term for name, term in named.items()])
        variables = self._model.trainable_variables
        if maps_only:
            maps = [each for each, is_map in zip(variables, self._is_map, strict=True) if is_map]
            found = iter(tape.gradient(loss, maps))
            # Adam does not move a weight whose gradient was always zero.
            gradients = [
                next(found) if is_map else tf.zeros_like(each)
                for each, is_map in zip(variables, self._is_map, strict=True)
            ]
        else:
            gradients = tape.gradient(loss, variables)
        self._loop.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return named

    def _find_loss_by_microphone(self, heard: Any, unheard: Any) -> Any:
        """Return the squared error of the embedding by the microphone, divided by its variance."""
        tf = self._tf
        variance = tf.reduce_mean(tf.math.reduce_variance(unheard, axis=0)) + _SMALLEST_VARIANCE
        # The gradient must not enlarge the variance.
        return tf.reduce_mean((heard - unheard) ** 2) / tf.stop_gradient(variance)

    def train(
        self, progress: Progress, on_validation: Callable[[DistillationFigures], None]
    ) -> DistillationFigures:
        """Train to the end, from the last checkpoint if there is one."""
        ending = self._loop.run(self, "distill", progress, lambda: on_validation(self._figures))
        figures = add_ending(self._output, ending)
        return DistillationFigures(**figures["validation"])

    def take_step(self, step: int, batch: TargetBatch) -> Mapping[str, float]:
        """Take one step of the optimizer, and prune."""
        terms = self._train_step(
            self._input_map.normalise(batch.decibels),
            self._input_map.normalise(batch.sound_decibels),
            self._scales.standardize_teacher(batch.teacher),
            self._scales.standardize_statistics(batch.statistics),
            batch.labels,
            maps_only=step < self._recipe.loss.maps_steps,
        )
        if self._student.plan is not None and step == self._recipe.find_pruning_steps()[0]:
            dense = self._read_student("before it was pruned")
            write_whole(self._output / DENSE_NAME, pack_weights(dense))
        self._pruner.apply(step)
        return {name: float(term) for name, term in terms.items()}

    def validate(self, step: int) -> ValidationScore:
        """Compare with the teacher on the validation set; only a pruned student gets a score."""
        data = self._validation
        predicted, unrounded = self._predict(data.sound_decibels)
        rounded = self._predict(data.decibels)[1]
        embeddings = self._scales.restore_teacher(predicted)
        constant = np.broadcast_to(self._scales.teacher_mean, embeddings.shape)
        self._figures = DistillationFigures(
            step,
            float(cosine_similarity(data.teacher, embeddings).mean()),
            float(cosine_similarity(data.teacher, constant).mean()),
            float(cosine_similarity(unrounded, rounded).mean()),
            len(embeddings),
        )
        cosine = self._figures.teacher_cosine
        is_pruned = self._student.plan is None or step > self._recipe.find_pruning_steps()[1]
        return ValidationScore(
            cosine if is_pruned else None,
            {"teacher_cosine": cosine, "sixteen_bit_cosine": self._figures.sixteen_bit_cosine},
        )

    def _predict(self, decibels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the linear map of the student's embedding, standardized, and the embedding."""
        size = self._recipe.training.batch_windows
        parts = []
        for start in range(0, len(decibels), size):
            inputs = self._input_map.normalise(decibels[start : start + size])
            outputs = self._model(inputs, training=False)
            parts.append((outputs[0].numpy(), outputs[3].numpy()))
        teacher, embeddings = zip(*parts, strict=True)
        return np.concatenate(teacher), np.concatenate(embeddings)

    def write_best(self) -> None:
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
        write_figures(self._output, figures)

    def _read_student(self, state: str) -> NetworkWeights:
        """Return the student's weights; ``state`` says at which point of the run."""
        provenance = Provenance(
            "distilled",
            STUDENT_NAME,
            "",
            f"distilled by edgel3-tflm {__version__}, {state}; teacher:"
            f" {self._teacher.description}; started from: {self._initial.provenance.description}",
        )
        return replace(read_network(self._network, self._initial), provenance=provenance)
