"""Audio-visual correspondence: fine-tune a reduced audio network by whether a sound fits a frame.

Arandjelovic and Zisserman, "Look, Listen and Learn" (ICCV 2017), for the task, the video
subnetwork and the fusion layers; Kumari et al. (2019), whose first retraining method it is: the
audio subnetwork pruned, the video subnetwork frozen. The published embedding lies in front of its
BatchNorm and ReLU: a BatchNorm over both embeddings brings them to one scale.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.keras.generate import draw_layer
from edgel3_tflm.converters.keras.network import (
    MOMENTUM,
    build_network,
    read_convolutions,
    read_network,
    set_convolutions,
)
from edgel3_tflm.converters.pruning.prune import Pruner, prune
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
from edgel3_tflm.converters.training.recipe import (
    FinetuneRecipe,
    Training,
    VideoChoice,
)
from edgel3_tflm.converters.training.videos import OnDamaged, Pairs, PairSource, Video
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import sha256_hex, write_whole
from edgel3_tflm.networks.variants import (
    BATCH_NORM_EPSILON,
    KERNEL_SIZE,
    POOL_AFTER,
    ConvLayer,
)
from edgel3_tflm.networks.weight_files import (
    load_convolutions,
    pack_convolutions,
    pack_weights,
)
from edgel3_tflm.networks.weights import ConvWeights, NetworkWeights, Provenance
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.types import FloatArray, Progress

VIDEO_NAME = "video.h5.gz"
FIRST_STAGE_NAME = "first_stage"
# In the authors' code L3's second video convolution has its BatchNorm behind its ReLU.
_RELU_FIRST = 2
_MAX_WORKERS = 8
_PREFIX = "video_"
"""Of the video subnetwork's layers."""


@dataclass(frozen=True)
class VideoWeights:
    """Weights of the video subnetwork, and where they come from."""

    convs: tuple[ConvWeights, ...]
    provenance: Provenance


@dataclass(frozen=True)
class CorrespondenceFigures:
    """How well frames and sounds are told to match, on pairs of held videos."""

    step: int
    accuracy: float
    chance: float
    """Accuracy of the same answer for every pair."""
    loss: float
    """Cross-entropy in nats; log(2), 0.69, for one who knows nothing."""
    pairs: int


def video_layers(choice: VideoChoice) -> tuple[ConvLayer, ...]:
    """List the convolutions of the video subnetwork, over red, green and blue from -1 to 1."""
    side, channels, layers = choice.frame_pixels, 3, []
    for number, filters in enumerate(choice.filters, start=1):
        layers.append(
            ConvLayer(f"{_PREFIX}conv{number}", side, side, channels, filters, batch_norm=True)
        )
        channels = filters
        if number in POOL_AFTER:
            side //= 2
    return tuple(layers)


def load_video_weights(choice: VideoChoice, path: Path) -> VideoWeights:
    """Load weights of the video subnetwork by array name and shape.

    Raises
    ------
    WeightsError
        If the file is damaged or of another shape.
    """
    return VideoWeights(*load_convolutions(path, video_layers(choice)))


def choose_videos(share: float, videos: Sequence[Video]) -> tuple[list[Video], list[Video]]:
    """Share out videos for training and for validation, by their contents.

    A file stays where it is when others come.
    """
    training: list[Video] = []
    kept: list[Video] = []
    for video in videos:
        (kept if is_held(video.sha256, share) else training).append(video)
    return training, kept


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
    """Fine-tune an audio network; an interrupted run goes on and ends with the same result.

    Without video weights a first stage makes them: the audio network, with no zeros kept, learns
    together with a video network drawn at random. Then, or at once, the audio network starts from
    what was given, its zeros kept by TF-MOT's masks, and the video network no longer moves.

    Parameters
    ----------
    recipe : FinetuneRecipe
    initial : NetworkWeights
        Of the audio network. Layers that lack zeros of its plan are pruned first.
    video : VideoWeights, optional
    videos : sequence of Video
    output : pathlib.Path
        Directory for ``student.h5.gz``, ``figures.json``, checkpoints, TensorBoard logs and, with
        a first stage, ``video.h5.gz``.
    progress : callable
    on_validation : callable
        Called with what is trained and its figures.
    on_damaged : callable, optional
        As for :class:`~edgel3_tflm.converters.training.videos.PairSource`.

    Returns
    -------
    CorrespondenceFigures
        Of the network that was kept: the one with the least loss on held pairs.

    Raises
    ------
    EdgeL3Error
        If there are too few videos, one is damaged, or the directory holds another run.
    """
    training, held = choose_videos(recipe.validation.share, videos)
    pairs = _PairMaker(recipe, initial, training, held, on_damaged)
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
        drawn = _draw_video(recipe)
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
    """Prune layers that lack zeros of the plan, and say so."""
    if weights.variant.plan is None:
        return weights
    result = prune(weights, weights.variant.plan)
    provenance = replace(weights.provenance, description=result.description)
    return replace(result.weights, provenance=provenance)


def _draw_video(recipe: FinetuneRecipe) -> VideoWeights:
    generator = np.random.default_rng(recipe.video_training.seed)
    convs = tuple(draw_layer(layer, generator) for layer in video_layers(recipe.video))
    return VideoWeights(convs, Provenance("generated", VIDEO_NAME, "", "drawn at random"))


@dataclass(frozen=True)
class _Batch:
    frames: npt.NDArray[np.uint8]
    log_mel: FloatArray
    """Behind the input BatchNorm."""
    labels: npt.NDArray[np.int64]
    """1 where they match."""


class _PairMaker:
    """Pairs as the networks take them."""

    def __init__(
        self,
        recipe: FinetuneRecipe,
        weights: NetworkWeights,
        training: Sequence[Video],
        held: Sequence[Video],
        on_damaged: OnDamaged | None,
    ) -> None:
        self._spec = weights.variant.frontend
        self._input_map = InputMap.of(weights)
        for videos, use in ((training, "training"), (held, "validation")):
            if len(videos) < 2:
                raise EdgeL3Error(
                    "expected two videos or more for training and for validation each, so that"
                    f" sounds can be exchanged; {use} has {len(videos)} of"
                    f" {len(training) + len(held)}; give more, or change validation.share"
                )
        choice: dict[str, Any] = {
            "sample_rate_hz": self._spec.sample_rate_hz,
            "frame_pixels": recipe.video.frame_pixels,
            "on_damaged": on_damaged,
        }
        self._training = PairSource(training, varied=True, **choice)
        self._held = PairSource(held, varied=False, **choice)
        self._held_pairs = recipe.validation.pairs

    def batch(self, seed: int, number: int, pairs: int) -> _Batch:
        """Make a batch to train with."""
        return self._prepare(self._training.batch(seed, number, pairs))

    def held(self, seed: int) -> _Batch:
        """Make the pairs of held videos, always the same."""
        return self._prepare(self._held.batch(seed, 0, self._held_pairs))

    def _prepare(self, pairs: Pairs) -> _Batch:
        decibels = log_mel(pairs.windows, self._spec)
        return _Batch(
            pairs.frames, self._input_map.normalise(decibels), pairs.matching.astype(np.int64)
        )


class _Stage:
    """One training: of both networks, or of the audio network beside a frozen video network."""

    kept_by = "the least loss on the pairs of held videos"

    def __init__(
        self,
        name: Literal["video", "audio"],
        recipe: FinetuneRecipe,
        settings: Training,
        audio: NetworkWeights,
        video: VideoWeights,
        pairs: _PairMaker,
        output: Path,
    ) -> None:
        tf, keras, tfmot = load_backend()
        self._name, self._settings, self._pairs = name, settings, pairs
        self._audio, self._video = audio, video
        self._student_path = output / STUDENT_NAME
        self._video_path = output / VIDEO_NAME
        self._directory = output / FIRST_STAGE_NAME if name == "video" else output
        self._directory.mkdir(exist_ok=True)
        with precision(settings.precision):
            self._network = build_network(audio, batch_size=None)
            self._video_network = _build_video(recipe.video, video.convs)
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
        self._pruner.apply(0)  # masks: the zeros that are there
        masks = [wrapper.pruning_vars for wrapper in self._pruner.wrappers]
        self._loop = Loop(self._directory, self._model, settings, masks=masks)
        self._learn = tf.function(self._compute_step)
        self._answer = tf.function(self._compute_answer)

    def train(
        self, progress: Progress, on_validation: Callable[[str, CorrespondenceFigures], None]
    ) -> CorrespondenceFigures:
        """Train from the last checkpoint, or the start, to the end."""
        progress("draw held pairs", 0, 0)
        self._held = self._pairs.held(self._settings.seed)
        workers = min(_MAX_WORKERS, os.cpu_count() or 1)
        ending = self._loop.run(
            self,
            f"train {self._name} network",
            progress,
            lambda: on_validation(self._name, self._figures),
            workers,
        )
        figures = note_ending(self._directory / FIGURES_NAME, ending)
        return CorrespondenceFigures(**figures["validation"])

    def batch(self, number: int) -> _Batch:
        """Make the batch of a step."""
        return self._pairs.batch(self._settings.seed, number, self._settings.batch_windows)

    def learn(self, step: int, batch: _Batch) -> Mapping[str, float]:
        """Take one step of the optimizer; zeros stay zeros."""
        loss = float(self._learn(batch.frames, batch.log_mel, batch.labels))
        self._pruner.apply(step + 1)  # at 0 the masks would be made anew, of moved weights
        return {"correspondence": loss}

    def judge(self, step: int) -> Judgement:
        """Judge the held pairs."""
        held, size = self._held, self._settings.batch_windows
        answers = [
            self._answer(held.frames[start : start + size], held.log_mel[start : start + size])
            for start in range(0, len(held.labels), size)
        ]
        logits = np.concatenate(answers).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -float(np.take_along_axis(log_probabilities, held.labels[:, None], axis=1).mean())
        matching = float(held.labels.mean())
        self._figures = CorrespondenceFigures(
            step,
            accuracy=float((logits.argmax(axis=1) == held.labels).mean()),
            chance=max(matching, 1 - matching),
            loss=loss,
            pairs=len(held.labels),
        )
        return Judgement(-loss, {"accuracy": self._figures.accuracy, "loss": loss})

    def keep(self) -> None:
        """Write the network that was trained, and its figures."""
        result: dict[str, Any] = {"validation": asdict(self._figures)}
        if self._name == "video":
            convs = read_convolutions(self._video_network, self._video.convs, prefix=_PREFIX)
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
                        # As float16, which the file has.
                        "zeros": int((after.kernel.astype(np.float16) == 0).sum()),
                    }
                    for layer, before, after in zip(
                        trained.variant.layers, self._audio.convs, trained.convs, strict=True
                    )
                ],
            }
        write_whole(self._directory / FIGURES_NAME, (json.dumps(result, indent=1) + "\n").encode())

    def _compute_answer(self, frames: Any, log_mel: Any, training: bool = False) -> Any:
        tf = load_backend().tf
        scaled = tf.cast(frames, tf.float32) / 127.5 - 1
        return self._model([scaled, log_mel], training=training)

    def _compute_step(self, frames: Any, log_mel: Any, labels: Any) -> Any:
        tf = load_backend().tf
        with tf.GradientTape() as tape:
            logits = self._compute_answer(frames, log_mel, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, variables)
        self._loop.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss


def _build_video(choice: VideoChoice, convs: Sequence[ConvWeights]) -> Any:
    """Build the video subnetwork: (batch, pixels, pixels, 3) to (batch, embedding)."""
    keras = load_backend().keras
    x = inputs = keras.Input((choice.frame_pixels, choice.frame_pixels, 3), name="frame")
    for number, (layer, conv) in enumerate(zip(video_layers(choice), convs, strict=True), start=1):
        x = keras.layers.Conv2D(layer.out_channels, KERNEL_SIZE, padding="same", name=layer.name)(x)
        if conv.batch_norm is not None:
            behind = [
                keras.layers.BatchNormalization(
                    epsilon=BATCH_NORM_EPSILON,
                    momentum=MOMENTUM,
                    name=f"{_PREFIX}batch_norm{number}",
                ),
                keras.layers.ReLU(),
            ]
            for each in reversed(behind) if number == _RELU_FIRST else behind:
                x = each(x)
        if number in POOL_AFTER:
            x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.GlobalMaxPooling2D(dtype="float32")(x)
    network = keras.Model(inputs, x)
    set_convolutions(network, convs, prefix=_PREFIX)
    return network
