"""Audio-visual correspondence: fine-tune a pruned audio network to decide if a sound fits a frame.

The task, the video subnetwork and the fusion layers are those of Arandjelovic and Zisserman, "Look,
Listen and Learn" (ICCV 2017). This is the first retraining method of Kumari et al. (2019): the
audio subnetwork is pruned, the video subnetwork is frozen. The published audio embedding is taken
before its BatchNorm and ReLU. One BatchNorm over both embeddings therefore gives them one scale.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgel3_tflm._version import __version__
from edgel3_tflm.converters.backend import load_backend, load_pruning
from edgel3_tflm.converters.keras.network import MOMENTUM, build_network, read_network
from edgel3_tflm.converters.pruning.prune import Pruner, prune
from edgel3_tflm.converters.training.loop import Loop, ValidationScore, precision
from edgel3_tflm.converters.training.pairs import PairBatch, PairBatches
from edgel3_tflm.converters.training.recipe import FinetuneRecipe, Training
from edgel3_tflm.converters.training.run_directory import (
    STUDENT_NAME,
    add_ending,
    claim_directory,
    write_figures,
)
from edgel3_tflm.converters.training.split import choose_videos
from edgel3_tflm.converters.training.video_network import (
    VIDEO_NAME,
    VideoWeights,
    build_video,
    draw_video_weights,
    load_video_weights,
    read_video_weights,
)
from edgel3_tflm.converters.training.videos import OnDamaged, Video
from edgel3_tflm.files import sha256_hex, write_whole
from edgel3_tflm.networks.weight_files import pack_convolutions, pack_weights
from edgel3_tflm.networks.weights import NetworkWeights, Provenance
from edgel3_tflm.types import Progress

FIRST_STAGE_NAME = "first_stage"
_MAX_WORKERS = 8


@dataclass(frozen=True)
class CorrespondenceFigures:
    """How well a network decides, on the validation set, whether a frame and a sound match."""

    step: int
    accuracy: float
    chance: float
    """Accuracy of a constant decision for all pairs."""
    loss: float
    """Cross-entropy in nats; log(2), 0.69, for probabilities of one half."""
    pairs: int


def finetune(
    recipe: FinetuneRecipe,
    *,
    initial: NetworkWeights,
    video: VideoWeights | None,
    videos: Sequence[Video],
    output: Path,
    progress: Progress,
    on_validation: Callable[[str, CorrespondenceFigures], None],
    on_damaged: OnDamaged | None = None,
) -> CorrespondenceFigures:
    """Fine-tune an audio network; an interrupted run continues and ends with the same result.

    If no video weights are given, a first stage trains a random video network together with the
    audio network, whose zeros may change in this stage. The second stage starts from the audio
    weights that were given. It trains the audio network alone: the masks of TF-MOT preserve its
    zeros, and the video network is frozen.

    Parameters
    ----------
    recipe : FinetuneRecipe
    initial : NetworkWeights
        Weights of the audio network. Layers that are not pruned to the plan are pruned first.
    video : VideoWeights, optional
    videos : sequence of Video
    output : pathlib.Path
        Directory for ``student.h5.gz``, ``figures.json``, checkpoints, TensorBoard logs and, with
        a first stage, ``video.h5.gz``.
    progress : callable
    on_validation : callable
        Called with the name of the stage, ``video`` or ``audio``, and the figures of a validation.
    on_damaged : callable, optional
        As for :class:`~edgel3_tflm.converters.training.pairs.PairSource`.

    Returns
    -------
    CorrespondenceFigures
        Of the network that was selected: the one with the lowest loss on the validation set.

    Raises
    ------
    EdgeL3Error
        If there are too few videos, a video is damaged, or the directory contains another run.
    """
    training, validation = choose_videos(recipe.validation.share, videos)
    pairs = PairBatches(recipe, initial, training, validation, on_damaged)
    claim_directory(
        output,
        {
            "recipe": asdict(recipe),
            "student": initial.variant.name,
            "weights": initial.provenance.sha256,
            "video weights": video.provenance.sha256 if video else None,
            "videos": [[each.path.name, each.sha256] for each in videos],
        },
    )
    progress("load TensorFlow", 0, 0)
    load_backend()
    if video is None:
        drawn = draw_video_weights(recipe.video, recipe.video_training.seed)
        stage = _Stage("video", recipe, recipe.video_training, initial, drawn, pairs, output)
        stage.train(progress, on_validation)
        video = load_video_weights(recipe.video, output / VIDEO_NAME)
        trained = replace(
            video.provenance,
            kind="trained",
            description="trained here, in the first stage, together with the audio network",
        )
        video = replace(video, provenance=trained)
    stage = _Stage("audio", recipe, recipe.training, _prune(initial), video, pairs, output)
    return stage.train(progress, on_validation)


def _prune(weights: NetworkWeights) -> NetworkWeights:
    """Prune the layers that are not pruned to the plan, and note it in the provenance."""
    if weights.variant.plan is None:
        return weights
    result = prune(weights, weights.variant.plan)
    provenance = replace(weights.provenance, description=result.description)
    return replace(result.weights, provenance=provenance)


class _Stage:
    """The training of both networks, or of the audio network with a frozen video network.

    A :class:`~edgel3_tflm.converters.training.loop.TrainingTask`.
    """

    selection_rule = "the lowest loss on the pairs of the validation set"

    def __init__(
        self,
        name: Literal["video", "audio"],
        recipe: FinetuneRecipe,
        settings: Training,
        audio: NetworkWeights,
        video: VideoWeights,
        pairs: PairBatches,
        output: Path,
    ) -> None:
        (tf, keras), tfmot = load_backend(), load_pruning()
        self._name, self._settings, self._pairs = name, settings, pairs
        self._audio, self._video = audio, video
        self._student_path = output / STUDENT_NAME
        self._video_path = output / VIDEO_NAME
        self._directory = output / FIRST_STAGE_NAME if name == "video" else output
        self._directory.mkdir(exist_ok=True)
        with precision(settings.precision):
            self._network = build_network(audio, batch_size=None)
            self._video_network = build_video(recipe.video, video.convs)
        self._video_network.trainable = name == "video"

        def dense(units: int, activation: str | None) -> Any:
            initializer = keras.initializers.GlorotUniform(seed=settings.seed)
            return keras.layers.Dense(units, activation, kernel_initializer=initializer)

        both = [self._video_network.output, self._network.output]
        x = keras.layers.Concatenate(dtype="float32")(both)
        x = keras.layers.BatchNormalization(momentum=MOMENTUM, name="fusion_norm")(x)
        x = dense(recipe.fusion.units, "relu")(x)
        self._model = keras.Model(
            [self._video_network.input, self._network.input], dense(2, None)(x)
        )
        schedules = {}
        if name == "audio":
            for layer, conv in zip(audio.variant.layers, audio.convs, strict=True):
                if conv.zeros:
                    schedules[self._network.get_layer(layer.name)] = tfmot.ConstantSparsity(
                        conv.zeros / conv.kernel.size, begin_step=0, end_step=0, frequency=1
                    )
        self._pruner = Pruner(schedules)
        self._pruner.apply(0)  # the masks cover the zeros of the initial weights
        masks = [wrapper.pruning_vars for wrapper in self._pruner.wrappers]
        self._loop = Loop(self._directory, self._model, settings, masks=masks)
        self._learn = tf.function(self._compute_step)
        self._predict = tf.function(self._compute_logits)

    def train(
        self, progress: Progress, on_validation: Callable[[str, CorrespondenceFigures], None]
    ) -> CorrespondenceFigures:
        """Train to the end, from the last checkpoint if there is one."""
        progress("draw validation pairs", 0, 0)
        self._validation = self._pairs.validation(self._settings.seed)
        workers = min(_MAX_WORKERS, os.cpu_count() or 1)
        ending = self._loop.run(
            self,
            f"train {self._name} network",
            progress,
            lambda: on_validation(self._name, self._figures),
            workers,
        )
        figures = add_ending(self._directory, ending)
        return CorrespondenceFigures(**figures["validation"])

    def batch(self, number: int) -> PairBatch:
        """Make the batch of a step."""
        return self._pairs.training(self._settings.seed, number, self._settings.batch_windows)

    def take_step(self, step: int, batch: PairBatch) -> Mapping[str, float]:
        """Take one step of the optimizer; zeros stay zeros."""
        loss = float(self._learn(batch.frames, batch.log_mel, batch.labels))
        self._pruner.apply(step + 1)  # step 0 would compute new masks, from changed weights
        return {"correspondence": loss}

    def validate(self, step: int) -> ValidationScore:
        """Classify the pairs of the validation set."""
        pairs, size = self._validation, self._settings.batch_windows
        parts = [
            self._predict(pairs.frames[start : start + size], pairs.log_mel[start : start + size])
            for start in range(0, len(pairs.labels), size)
        ]
        logits = np.concatenate(parts).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -float(np.take_along_axis(log_probabilities, pairs.labels[:, None], axis=1).mean())
        matching = float(pairs.labels.mean())
        self._figures = CorrespondenceFigures(
            step,
            accuracy=float((logits.argmax(axis=1) == pairs.labels).mean()),
            chance=max(matching, 1 - matching),
            loss=loss,
            pairs=len(pairs.labels),
        )
        return ValidationScore(-loss, {"accuracy": self._figures.accuracy, "loss": loss})

    def write_best(self) -> None:
        """Write the trained network and its figures."""
        result: dict[str, Any] = {"validation": asdict(self._figures)}
        if self._name == "video":
            convs = read_video_weights(self._video_network, self._video.convs)
            write_whole(self._video_path, pack_convolutions(convs))
        else:
            provenance = Provenance(
                "fine-tuned",
                STUDENT_NAME,
                "",
                f"fine-tuned by edgel3-tflm {__version__} by audio-visual correspondence from:"
                f" {self._audio.provenance.description}",
            )
            trained = replace(read_network(self._network, self._audio), provenance=provenance)
            packed = pack_weights(trained)
            write_whole(self._student_path, packed)
            result |= {
                "student": {
                    "kind": provenance.kind,
                    "sha256": sha256_hex(packed),
                    "network": trained.variant.name,
                    "description": provenance.description,
                },
                "from": asdict(self._audio.provenance),
                "video": asdict(self._video.provenance),
                "sparsity_percent": trained.sparsity_percent,
                "layers": [
                    {
                        "name": layer.name,
                        "weights": layer.kernel_size,
                        "zeros_before": before.zeros,
                        # Counted in float16, the type of the file: small weights become zero.
                        "zeros": int((after.kernel.astype(np.float16) == 0).sum()),
                    }
                    for layer, before, after in zip(
                        trained.variant.layers, self._audio.convs, trained.convs, strict=True
                    )
                ],
            }
        write_figures(self._directory, result)

    def _compute_logits(self, frames: Any, log_mel: Any, training: bool = False) -> Any:
        tf = load_backend().tf
        scaled = tf.cast(frames, tf.float32) / 127.5 - 1
        return self._model([scaled, log_mel], training=training)

    def _compute_step(self, frames: Any, log_mel: Any, labels: Any) -> Any:
        tf = load_backend().tf
        with tf.GradientTape() as tape:
            logits = self._compute_logits(frames, log_mel, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, variables)
        self._loop.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss
