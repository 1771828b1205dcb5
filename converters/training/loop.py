"""What training runs share: a directory that says what it holds, checkpoints, one loop."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.training.recipe import Training
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import new_file, write_whole
from edgel3_tflm.types import Progress

_log = logging.getLogger(__name__)

STUDENT_NAME = "student.h5.gz"
FIGURES_NAME = "figures.json"
_RECIPE_NAME = "recipe.json"
# TensorFlow writes it beside each checkpoint.
_CHECKPOINT_STATE = "checkpoint"
_AHEAD = 4
_FINAL_LEARNING_RATE = 0.02


def claim_directory(output: Path, identity: Mapping[str, Any]) -> None:
    """Write down what a directory's run is made of, or check that it is the same.

    A run that has no checkpoint yet gives way to another.

    Parameters
    ----------
    output : pathlib.Path
        Made if it is not there.
    identity : mapping
        Everything the result depends on, as JSON takes it.

    Raises
    ------
    EdgeL3Error
        If the directory holds another run.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeL3Error(f"cannot write {output}: {error.strerror or error}") from error
    path = output / _RECIPE_NAME
    text = json.dumps(identity, indent=1).encode()
    has_begun = any(output.rglob(_CHECKPOINT_STATE))
    if has_begun and path.exists() and path.read_bytes() != text:
        raise EdgeL3Error(
            f"{output}: expected a new directory or one of the same {', '.join(identity)}; it"
            " holds another run; choose another directory or remove it"
        )
    write_whole(path, text)


def is_held(sha256: str, share: float) -> bool:
    """Whether a file is kept from training: by its contents, so that it stays when others come."""
    return int(sha256[:8], 16) < share * 16**8


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build Keras layers that compute in a precision; their weights stay float32."""
    mixed = load_backend().keras.mixed_precision
    before = mixed.global_policy()
    mixed.set_global_policy(policy)
    try:
        yield
    finally:
        mixed.set_global_policy(before)


@dataclass(frozen=True)
class Judgement:
    """What a validation found.

    Parameters
    ----------
    score : float, optional
        The more, the better; None where the network is not yet what is to be kept.
    log : mapping
        Scalars for TensorBoard.
    """

    score: float | None
    log: Mapping[str, float]


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Parameters
    ----------
    steps_taken, steps : int
        Those of the run, and those of its recipe.
    reason : str
        Why it took no more.
    kept_by : str
        The rule that chose the network that was kept, among those that were validated.
    """

    steps_taken: int
    steps: int
    reason: str
    kept_by: str


def note_ending(path: Path, ending: Ending) -> dict[str, Any]:
    """Add to the figures of a run, which :meth:`TrainingTask.keep` wrote, how it ended.

    Returns
    -------
    dict
        The figures.

    Raises
    ------
    EdgeL3Error
        If the file is gone or damaged.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        figures = {**found, "run": asdict(ending)}
    except (OSError, ValueError, TypeError) as error:
        raise EdgeL3Error(
            f"{path}: expected the figures of this run, they are gone or damaged ({error}); remove"
            f" {path.parent} and train again"
        ) from error
    write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())
    return figures


class TrainingTask(Protocol):
    """What a loop trains."""

    kept_by: str
    """The rule of what is kept, in words."""

    def batch(self, number: int) -> Any:
        """Make the batch of a step; the same number gives the same batch."""

    def learn(self, step: int, batch: Any) -> Mapping[str, float]:
        """Take one step of the optimizer; returns the terms of the loss."""

    def judge(self, step: int) -> Judgement:
        """Validate the network as it is after so many steps."""

    def keep(self) -> None:
        """Write the network that was judged last, and its figures; it is the best so far."""


class Loop:
    """Adam over the steps of a run, with early stopping; it goes on from its last checkpoint.

    Parameters
    ----------
    output : pathlib.Path
        Holds ``checkpoints`` and ``log``, TensorBoard's.
    model : tf_keras.Model
    settings : Training
    **more : trackable
        What a checkpoint holds beside model, optimizer and the loop's own place.
    """

    def __init__(self, output: Path, model: Any, settings: Training, **more: Any) -> None:
        tf, keras, _ = load_backend()
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
        """Train from the last checkpoint, or the start, to the end.

        Parameters
        ----------
        task : TrainingTask
        name : str
            What ``progress`` calls it.
        progress : callable
        on_validation : callable
            Called after each validation, once its checkpoint is written.
        workers : int
            Threads that make batches ahead.

        Returns
        -------
        Ending

        Raises
        ------
        EdgeL3Error
            If the last checkpoint is damaged, the disk refuses a write, or no validation gave a
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
                terms = task.learn(step, batch)
                with writer.as_default(step=step):
                    for term, value in terms.items():
                        tf.summary.scalar(f"loss/{term}", value)
                    tf.summary.scalar("learning_rate", rate)
                self._step.assign(step + 1)
                progress(name, step + 1, settings.steps)
                if (step + 1) % settings.validate_every_steps == 0 or step + 1 == settings.steps:
                    judgement = task.judge(step + 1)
                    with writer.as_default(step=step):
                        for scalar, value in judgement.log.items():
                            tf.summary.scalar(f"validation/{scalar}", value)
                    if judgement.score is not None:
                        self._note(judgement.score, task)
                    with _writing(self._output):
                        writer.flush()
                        self._checkpoints.save()
                    on_validation()
        finally:
            writer.close()
        if not np.isfinite(float(self._best)):
            raise EdgeL3Error(
                f"{name}: expected a network to keep, no validation gave a finite score; lower"
                " training.learning_rate"
            )
        return self._describe_ending(task)

    def _restore(self) -> None:
        latest = self._checkpoints.latest_checkpoint
        if not latest:
            return
        try:
            self._checkpoints.checkpoint.restore(latest).assert_consumed()
        except Exception as error:  # TensorFlow raises errors of many kinds, IndexError among them
            raise EdgeL3Error(
                f"{latest}: expected a whole checkpoint of this run, it is damaged or of another"
                f" version ({type(error).__name__}); remove {self._output} and train again"
            ) from error
        _log.info("going on from step %d", int(self._step))

    def _describe_ending(self, task: TrainingTask) -> Ending:
        step, steps = int(self._step), self._settings.steps
        reason = f"all {steps} steps were taken"
        if step < steps:
            reason = (
                f"stopped early, after step {step} of {steps}: none of the last {int(self._stale)}"
                " validations was better than the best before"
                f" (patience_validations = {self._settings.patience_validations})"
            )
        return Ending(step, steps, reason, task.kept_by)

    def _note(self, score: float, task: TrainingTask) -> None:
        if not score > float(self._best):  # nor what is no number
            self._stale.assign_add(1)
            return
        self._stale.assign(0)
        self._best.assign(score)
        task.keep()

    def _batches(self, task: TrainingTask, workers: int) -> Iterator[tuple[int, Any]]:
        steps = self._settings.steps
        with ThreadPoolExecutor(workers) as pool:
            waiting: list[Future[Any]] = []
            try:
                for step in range(int(self._step), steps):
                    while len(waiting) < max(_AHEAD, 2 * workers) and step + len(waiting) < steps:
                        waiting.append(pool.submit(task.batch, step + len(waiting)))
                    yield step, waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what TensorFlow makes of a disk that refuses a write into one line."""
    try:
        yield
    except load_backend().tf.errors.OpError as error:
        # TensorFlow names its own operation before and after what the system said.
        reason = re.sub(r"^\{\{.*?\}\} | \[Op:.*", "", error.message.splitlines()[0])
        raise EdgeL3Error(
            f"cannot write {path}: {reason}; once it can be written, the"
            " same command goes on from the last checkpoint"
        ) from error


def _cut_log(directory: Path, step: int) -> None:
    """Remove what TensorBoard's files have of a step and later ones, which will be taken again."""
    tf = load_backend().tf
    for path in sorted(directory.glob("events.out.tfevents.*")):
        kept: list[bytes] = []
        changed = False
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                if event.HasField("file_version") or event.step < step:
                    kept.append(record)
                else:
                    changed = True
        except tf.errors.DataLossError:  # a run that was killed leaves half a record at the end
            changed = True
        if not changed:
            continue
        with new_file(path) as new, tf.io.TFRecordWriter(str(new)) as writer:
            for record in kept:
                writer.write(record)


def _learning_rate(settings: Training, step: int) -> float:
    """Linear warm-up, then a half cosine down to 2 % of the peak."""
    cosine = 0.5 * (1 + np.cos(np.pi * step / settings.steps))
    fade = _FINAL_LEARNING_RATE + (1 - _FINAL_LEARNING_RATE) * cosine
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return float(settings.learning_rate * warm * fade)
