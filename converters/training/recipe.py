"""Recipes: all settings of a training run, in one TOML file."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, AliasChoices, Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import VARIANTS, find_depth, find_variant
from edgel3_tflm.networks.variants import CONVOLUTIONS, MAX_FILTERS, Variant
from edgel3_tflm.schema import OWN, parse_toml, read_file


def _check_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected the lower bound first, found {bounds[0]:g} and {bounds[1]:g}")
    return bounds


Share = Annotated[float, Field(ge=0, le=1)]
# The training set and the validation set both need files.
ValidationShare = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
# 120 dB up or down turn a window of full scale into clipping or silence.
Level = Annotated[float, Field(ge=-120, le=120)]
FrequencyRange = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1e6)], Annotated[float, Field(gt=0, le=1e6)]],
    AfterValidator(_check_order),
]
LevelRange = Annotated[tuple[Level, Level], AfterValidator(_check_order)]
Filters = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MAX_FILTERS)], ...],
    Field(max_length=CONVOLUTIONS),
]
AllFilters = Annotated[Filters, Field(min_length=CONVOLUTIONS)]


@dataclass(frozen=True, config=OWN)
class NetworkChoice:
    """A network, chosen by the values of the command line's options."""

    model_type: Literal["sparse", "sea", "dense"]
    sparsity: str = "95.45"
    retrain_type: Literal["ft", "kd"] = "kd"
    # Recipes of earlier versions call it emb_dim.
    embedding_size: Annotated[
        int, Field(validation_alias=AliasChoices("embedding_size", "emb_dim"))
    ] = 128

    @property
    def variant(self) -> Variant:
        """The network that is chosen.

        Raises
        ------
        EdgeL3Error
            If the network does not exist.
        """
        return find_variant(
            self.model_type,
            sparsity=self.sparsity,
            retrain_type=self.retrain_type,
            embedding_size=self.embedding_size,
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            _ = self.variant
        except EdgeL3Error as error:
            raise ValueError(str(error)) from error
        return self


@dataclass(frozen=True, config=OWN)
class StudentChoice(NetworkChoice):
    """A network to train, chosen in the same way.

    Parameters
    ----------
    embedding_layer : str, optional
        The convolution that gives the embedding, ``conv1`` to ``conv8``. Later convolutions are
        left out.
    filters : tuple of int, optional
        Number of filters of each convolution, instead of the network's own. The last is the
        embedding size.
    """

    embedding_layer: str | None = None
    filters: Filters | None = None

    @property
    def depth(self) -> int | None:
        """Number of convolutions, if the recipe sets it."""
        return None if self.embedding_layer is None else find_depth(self.embedding_layer)

    @property
    def uncut(self) -> Variant:
        """The network that is chosen, before it is cut."""
        return super().variant

    @property
    def variant(self) -> Variant:
        """The network that is chosen, cut in depth and width."""
        variant = self.uncut
        if self.depth is not None:
            variant = variant.with_depth(self.depth)
        return variant if self.filters is None else variant.with_filters(self.filters)


@dataclass(frozen=True, config=OWN)
class Validation:
    """Which clips are the validation set: a fold of the manifest, or a share of the files."""

    fold: int | None = None
    share: ValidationShare = 0.1


@dataclass(frozen=True, config=OWN)
class Augmentation:
    """Random changes of training windows; levels in dB, relative to the level of the window.

    Parameters
    ----------
    gain_db : (float, float)
        Range of the gain.
    mix_probability, mix_db
        Probability that another clip is added, and the range of its level.
    filter_probability, filter_deviation_db
        Probability of a filter with a random smooth spectral curve, and the standard deviation of
        the curve.
    noise_probability, noise_db
        Probability that white noise is added, and the range of its level.
    band_probability, band_hz
        Probability that the window loses its high frequencies, as in a lossy file, and the range of
        the highest frequency that is left, in Hz.
    """

    gain_db: LevelRange = (-30.0, 0.0)
    mix_probability: Share = 0.4
    mix_db: LevelRange = (-20.0, 5.0)
    filter_probability: Share = 0.5
    filter_deviation_db: Annotated[float, Field(ge=0, le=30)] = 6.0
    noise_probability: Share = 0.3
    noise_db: LevelRange = (-60.0, -10.0)
    band_probability: Share = 0.0
    band_hz: FrequencyRange = (8000.0, 24000.0)


@dataclass(frozen=True, config=OWN)
class Microphone:
    """How a microphone changes a window; the window is always rounded to 16 bits.

    Parameters
    ----------
    noise_probability, noise_dbfs
        Probability of a noise floor, and the range of its root mean square in dB of full scale.
        Half of the floors are white, half have a power density of 1/f.
    dither_probability
        Probability of triangular dither of one step up or down, before the rounding.
    clock_error_percent
        Largest deviation of the sample rate; each window has a random one.
    """

    noise_probability: Share = 0.0
    noise_dbfs: LevelRange = (-100.0, -70.0)
    dither_probability: Share = 0.0
    clock_error_percent: Annotated[float, Field(ge=0, le=10)] = 0.0


@dataclass(frozen=True, config=OWN)
class Loss:
    """Weights of the terms of the loss; each term is near 1 for an untrained student.

    Parameters
    ----------
    teacher : float
        Squared error between the teacher's embedding and a linear map of the student's.
    statistics : float
        Squared error between a second linear map and the statistics of the student's log-mel: mean
        and standard deviation over time.
    labels : float
        Cross-entropy between a third linear map and the labels of the training clips; needs a
        manifest.
    microphone : float
        Squared error between the student's embeddings of a window before and after the microphone,
        divided by the variance of the embeddings in the batch. Above 0, the other terms take both
        embeddings, and a step takes twice as long.
    maps_steps : int
        In so many first steps only the linear maps learn. A student that starts from trained
        weights would otherwise follow maps that are still random.
    """

    teacher: Weight = 1.0
    statistics: Weight = 0.0
    labels: Weight = 0.0
    microphone: Weight = 0.0
    maps_steps: Annotated[int, Field(ge=0, le=100_000_000)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.teacher == self.statistics == self.labels == 0:
            raise ValueError("expected teacher, statistics or labels above 0, all are 0")
        return self


@dataclass(frozen=True, config=OWN)
class Pruning:
    """When weights are pruned: all at ``begin``, or gradually until ``end``; shares of the run."""

    schedule: Literal["gradual", "one-shot"] = "gradual"
    begin: Share = 0.15
    end: Share = 0.6
    every_steps: Count = 10

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.schedule == "gradual" and self.begin >= self.end:
            raise ValueError(f"expected begin before end, found {self.begin:g} and {self.end:g}")
        return self

    def find_steps(self, steps: int) -> tuple[int, int]:
        """Find the first and the last step of pruning; between them is a whole number of updates.

        Parameters
        ----------
        steps : int
            Number of steps of the run. The first step is 0.

        Raises
        ------
        EdgeL3Error
            If pruning does not end before the run.
        """
        begin = end = round(self.begin * steps)
        if self.schedule == "gradual":
            updates = max(1, round((self.end - self.begin) * steps / self.every_steps))
            end = begin + updates * self.every_steps
        if end >= steps:
            raise EdgeL3Error(
                f"pruning ends at step {end}, expected before the end of the run (training.steps ="
                f" {steps}), so that a pruned network can be validated; lower pruning.begin,"
                " pruning.end or pruning.every_steps, or raise training.steps"
            )
        return begin, end


@dataclass(frozen=True, config=OWN)
class Training:
    """Settings of the optimizer (Adam; linear warm-up, then cosine decay to 2 %) and the run."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1
    steps: Annotated[int, Field(ge=1, le=100_000_000)] = 1000
    batch_windows: Annotated[int, Field(ge=1, le=4096)] = 8
    learning_rate: Share = 2e-3
    warmup_steps: Annotated[int, Field(ge=0, le=100_000_000)] = 50
    precision: Literal["float32", "mixed_bfloat16"] = "mixed_bfloat16"
    validate_every_steps: Annotated[int, Field(ge=1, le=100_000_000)] = 200
    patience_validations: Count = 10


@dataclass(frozen=True, config=OWN)
class Recipe:
    """All settings of a distillation, without the paths of clips and weights."""

    student: StudentChoice
    teacher: NetworkChoice
    validation: Validation = Validation()
    augmentation: Augmentation = Augmentation()
    microphone: Microphone = Microphone()
    loss: Loss = Loss()
    pruning: Pruning = Pruning()
    training: Training = Training()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.student.variant.plan is not None:
            try:
                self.find_pruning_steps()
            except EdgeL3Error as error:
                raise ValueError(str(error)) from error
        return self

    def find_pruning_steps(self) -> tuple[int, int]:
        """Find the steps of pruning; errors as :meth:`Pruning.find_steps`."""
        return self.pruning.find_steps(self.training.steps)


@dataclass(frozen=True, config=OWN)
class VideoChoice:
    """The video subnetwork; by default that of L3.

    Parameters
    ----------
    filters : tuple of 8 int
        Number of filters of each convolution. The last is the embedding size.
    frame_pixels : int
        Width and height of the input, in pixels.
    """

    filters: AllFilters = VARIANTS["l3-dense"].filters
    frame_pixels: Annotated[int, Field(ge=8, le=1024)] = 224


@dataclass(frozen=True, config=OWN)
class VideoValidation:
    """The validation set: a share of the videos, and the number of pairs drawn from it."""

    share: ValidationShare = 0.1
    pairs: Count = 512


@dataclass(frozen=True, config=OWN)
class Fusion:
    """The fusion layers after both embeddings: number of hidden units."""

    units: Annotated[int, Field(ge=1, le=65_536)] = 128


@dataclass(frozen=True, config=OWN)
class FinetunedStudent(StudentChoice):
    """A network to fine-tune; its ``retrain_type`` is ``ft`` by default."""

    retrain_type: Literal["ft", "kd"] = "ft"


@dataclass(frozen=True, config=OWN)
class FinetuneRecipe:
    """All settings of a fine-tuning, without the paths of videos and weights.

    Parameters
    ----------
    student : FinetunedStudent
        The audio network to fine-tune.
    training : Training
    video_training : Training
        Settings of the first stage, which trains the video network if no weights of it are given.
    """

    student: FinetunedStudent
    video: VideoChoice = VideoChoice()
    fusion: Fusion = Fusion()
    validation: VideoValidation = VideoValidation()
    training: Training = Training()
    video_training: Training = Training()


_AnyRecipe = TypeVar("_AnyRecipe", Recipe, FinetuneRecipe)


def parse_recipe(text: bytes | str, kind: type[_AnyRecipe]) -> _AnyRecipe:
    """Read a recipe.

    Parameters
    ----------
    text : bytes or str
    kind : type
        ``Recipe`` for a distillation, or ``FinetuneRecipe``.

    Raises
    ------
    EdgeL3Error
        If the text is not TOML, a key is unknown or missing, or a value is out of range.
    """
    try:
        return parse_toml(text, kind)
    except EdgeL3Error as error:
        raise EdgeL3Error(f"recipe, {error}{_hint(text, kind)}") from error


def _hint(text: bytes | str, kind: type[Recipe] | type[FinetuneRecipe]) -> str:
    """Return the name of the other command if the text is a recipe for that command."""
    other, command = (FinetuneRecipe, "finetune") if kind is Recipe else (Recipe, "distill")
    try:
        parse_toml(text, other)
    except EdgeL3Error:
        return ""
    return f"; it is a recipe for {command}"


def read_recipe(path: Path, kind: type[_AnyRecipe]) -> _AnyRecipe:
    """Read a recipe file; errors as :func:`parse_recipe`, with the name of the file."""
    return read_file(path, lambda text: parse_recipe(text, kind))
