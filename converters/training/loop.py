"""The training loop: steps, validation, checkpoints, TensorBoard logs and early stopping."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.training.recipe import Training
from edgel3_tflm.converters.training.run_directory import Ending
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import new_file
from edgel3_tflm.types import Progress

_log = logging.getLogger(__name__)

# Batches that are prepared while the network trains.
_BATCHES_AHEAD = 4
# Share of the peak learning rate that is left at the end.
_FINAL_LEARNING_RATE = 0.02


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Keras layers that are built in this context compute in a precision; weights stay float32."""
    mixed = load_backend().keras.mixed_precision
    before = mixed.global_policy()
    mixed.set_global_policy(policy)
    try:
        yield
    finally:
        mixed.set_global_policy(before)


@dataclass(frozen=True)
class ValidationScore:
    """The result of one validation.

    Parameters
    ----------
    score : float, optional
        A larger score is better. None if this network may not be selected, because it is not
        pruned yet.
    log : mapping
        Scalars for TensorBoard.
    """

    score: float | None
    log: Mapping[str, float]


class TrainingTask(Protocol):
    """The model that a loop trains, with its batches and its validation."""

    selection_rule: str
    """The rule that selects the best validated network, in words."""

    def batch(self, number: int) -> Any:
        """Make the batch of a step; the same number gives the same batch."""

    def take_step(self, step: int, batch: Any) -> Mapping[str, float]:
        """Take one step of the optimizer; returns the terms of the loss."""

    def validate(self, step: int) -> ValidationScore:
        """Validate the network after ``step`` steps."""

    def write_best(self) -> None:
        """Write the network that was validated last and its figures; it is the best so far."""


class Loop:
    """Training with Adam and early stopping; an interrupted run continues from its checkpoint.

    Parameters
    ----------
    output : pathlib.Path
        Directory for ``checkpoints`` and ``log``, the logs of TensorBoard.
    model : tf_keras.Model
    settings : Training
    **more : trackable
        Further objects for the checkpoint, which always contains the model, the optimizer and the
        state of the loop.
    """

    def __init__(self, output: Path, model: Any, settings: Training, **more: Any) -> None:
        tf, keras = load_backend()
        self._output = output
        self._settings = settings
        self.optimizer = keras.optimizers.Adam(settings.learning_rate)
        self.optimizer.build(model.trainable_variables)
        self._step = tf.Variable(0, dtype=tf.int64)
        self._best = tf.Variable(-np.inf, dtype=tf.float64)
        self._stale = tf.Variable(0, dtype=tf.int64)
        checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=self.optimizer,
            step=self._step,
            best=self._best,
            stale=self._stale,
            **more,
        )
        with _writing(output):
            self._checkpoints = tf.train.CheckpointManager(
                checkpoint, str(output / "checkpoints"), max_to_keep=1
            )

    def run(
        self,
        task: TrainingTask,
        name: str,
        progress: Progress,
        on_validation: Callable[[], None],
        workers: int = 1,
    ) -> Ending:
        """Train to the end, from the last checkpoint if there is one.

        Parameters
        ----------
        task : TrainingTask
        name : str
            Name of the training for ``progress``.
        progress : callable
        on_validation : callable
            Called after each validation, when its checkpoint has been written.
        workers : int
            Number of threads that make batches in advance.

        Returns
        -------
        Ending

        Raises
        ------
        EdgeL3Error
            If the last checkpoint is damaged, a file cannot be written, or no validation gave a
            finite score.
        """
        tf, settings = load_backend().tf, self._settings
        self._restore()
        log = self._output / "log"
        _cut_log(log, int(self._step))
        with _writing(log):
            writer = tf.summary.create_file_writer(str(log))
        try:
            for step, batch in self._batches(task, workers):
                if int(self._stale) >= settings.patience_validations:
                    break
                rate = _learning_rate(settings, step)
                self.optimizer.learning_rate.assign(rate)
                terms = task.take_step(step, batch)
                with writer.as_default(step=step):
                    for term, value in terms.items():
                        tf.summary.scalar(f"loss/{term}", value)
                    tf.summary.scalar("learning_rate", rate)
                self._step.assign(step + 1)
                progress(name, step + 1, settings.steps)
                if (step + 1) % settings.validate_every_steps == 0 or step + 1 == settings.steps:
                    validation = task.validate(step + 1)
                    with writer.as_default(step=step):
                        for scalar, value in validation.log.items():
                            tf.summary.scalar(f"validation/{scalar}", value)
                    if validation.score is not None:
                        self._compare_with_best(validation.score, task)
                    with _writing(self._output):
                        writer.flush()
                        self._checkpoints.save()
                    on_validation()
        finally:
            writer.close()
        if not np.isfinite(float(self._best)):
            raise EdgeL3Error(
                f"{name}: expected a finite score from a validation, there was none; lower"
                " training.learning_rate"
            )
        return self._describe_ending(task)

    def _restore(self) -> None:
        latest = self._checkpoints.latest_checkpoint
        if not latest:
            return
        try:
            self._checkpoints.checkpoint.restore(latest).assert_consumed()
        except Exception as error:  # TensorFlow raises errors of many types, even IndexError
            raise EdgeL3Error(
                f"{latest}: expected a whole checkpoint of this run, it is damaged or of another"
                f" version ({type(error).__name__}); remove {self._output} and train again"
            ) from error
        _log.info("continuing from step %d", int(self._step))

    def _describe_ending(self, task: TrainingTask) -> Ending:
        step, steps = int(self._step), self._settings.steps
        reason = f"all {steps} steps were taken"
        if step < steps:
            reason = (
                f"stopped early, after step {step} of {steps}: none of the last {int(self._stale)}"
                " validations was better than the best before"
                f" (patience_validations = {self._settings.patience_validations})"
            )
        return Ending(step, steps, reason, task.selection_rule)

    def _compare_with_best(self, score: float, task: TrainingTask) -> None:
        if not score > float(self._best):  # NaN is not greater either
            self._stale.assign_add(1)
            return
        self._stale.assign(0)
        self._best.assign(score)
        task.write_best()

    def _batches(self, task: TrainingTask, workers: int) -> Iterator[tuple[int, Any]]:
        steps = self._settings.steps
        with ThreadPoolExecutor(workers) as pool:
            waiting: list[Future[Any]] = []
            try:
                ahead = max(_BATCHES_AHEAD, 2 * workers)
                for step in range(int(self._step), steps):
                    while len(waiting) < ahead and step + len(waiting) < steps:
                        waiting.append(pool.submit(task.batch, step + len(waiting)))
                    yield step, waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn TensorFlow's error for a file that cannot be written into one line."""
    try:
        yield
    except load_backend().tf.errors.OpError as error:
        # TensorFlow adds the name of its operation before and after the system's message.
        reason = re.sub(r"^\{\{.*?\}\} | \[Op:.*", "", error.message.splitlines()[0])
        raise EdgeL3Error(
            f"cannot write {path}: {reason}; correct this and run the same command again: it"
            " continues from the last checkpoint"
        ) from error


def _cut_log(directory: Path, step: int) -> None:
    """Remove TensorBoard's records of a step and of later steps, which will be taken again."""
    tf = load_backend().tf
    for path in sorted(directory.glob("events.out.tfevents.*")):
        earlier: list[bytes] = []
        changed = False
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                if event.HasField("file_version") or event.step < step:
                    earlier.append(record)
                else:
                    changed = True
        except tf.errors.DataLossError:  # a killed run leaves half a record at the end
            changed = True
        if not changed:
            continue
        with new_file(path) as new, tf.io.TFRecordWriter(str(new)) as writer:
            for record in earlier:
                writer.write(record)


def _learning_rate(settings: Training, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then a half cosine to 2 % of the peak."""
    cosine = 0.5 * (1 + np.cos(np.pi * step / settings.steps))
    fade = _FINAL_LEARNING_RATE + (1 - _FINAL_LEARNING_RATE) * cosine
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return float(settings.learning_rate * warm * fade)
