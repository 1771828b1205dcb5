"""Recipes: every choice of a training run, in one TOML file."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import VARIANTS, find_depth, find_variant
from edgel3_tflm.networks.variants import CONVOLUTIONS, MAX_FILTERS, Variant
from edgel3_tflm.schema import OWN, parse_toml, read_file


def _check_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected the lower bound first, found {bounds[0]:g} and {bounds[1]:g}")
    return bounds


Share = Annotated[float, Field(ge=0, le=1)]
# Both sides of a division need files.
ValidationShare = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
# Of a window of full scale, 120 dB in either direction leave only silence or only clipping.
Level = Annotated[float, Field(ge=-120, le=120)]
LevelRange = Annotated[tuple[Level, Level], AfterValidator(_check_order)]
Filters = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MAX_FILTERS)], ...],
    Field(max_length=CONVOLUTIONS),
]
AllFilters = Annotated[Filters, Field(min_length=CONVOLUTIONS)]


@dataclass(frozen=True, config=OWN)
class NetworkChoice:
    """A network by the command line's words."""

    model_type: Literal["sparse", "sea", "dense"]
    sparsity: str = "95.45"
    retrain_type: Literal["ft", "kd"] = "kd"
    emb_dim: int = 128

    @property
    def variant(self) -> Variant:
        """The network meant.

        Raises
        ------
        EdgeL3Error
            If there is no such network.
        """
        return find_variant(
            self.model_type,
            sparsity=self.sparsity,
            retrain_type=self.retrain_type,
            embedding_size=self.emb_dim,
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
    """A network to teach, by the same words.

    Parameters
    ----------
    embedding_layer : str, optional
        The convolution that gives the embedding, ``conv1`` to ``conv8``; those behind it are left
        out.
    filters : tuple of int, optional
        Of each convolution, in place of the network's own; the last is the embedding size.
    """

    embedding_layer: str | None = None
    filters: Filters | None = None

    @property
    def depth(self) -> int | None:
        """Number of convolutions, where the recipe says it."""
        return None if self.embedding_layer is None else find_depth(self.embedding_layer)

    @property
    def uncut(self) -> Variant:
        """The network meant, before it is cut."""
        return super().variant

    @property
    def variant(self) -> Variant:
        """The network meant, cut in depth and width."""
        variant = self.uncut
        if self.depth is not None:
            variant = variant.with_depth(self.depth)
        return variant if self.filters is None else variant.with_filters(self.filters)


@dataclass(frozen=True, config=OWN)
class Validation:
    """Which clips are kept from training: a fold of the manifest, or a share of the files."""

    fold: int | None = None
    share: ValidationShare = 0.1


@dataclass(frozen=True, config=OWN)
class Augmentation:
    """What happens to a training window; levels in dB, relative to the window's own level.

    Parameters
    ----------
    gain_db : (float, float)
        Range of the gain, applied before rounding to 16 bits.
    mix_probability, mix_db
        Another clip added at a level in this range.
    filter_probability, filter_deviation_db
        A random smooth spectral curve with this standard deviation.
    noise_probability, noise_db
        White noise at a level in this range.
    """

    gain_db: LevelRange = (-30.0, 0.0)
    mix_probability: Share = 0.4
    mix_db: LevelRange = (-20.0, 5.0)
    filter_probability: Share = 0.5
    filter_deviation_db: Annotated[float, Field(ge=0, le=30)] = 6.0
    noise_probability: Share = 0.3
    noise_db: LevelRange = (-60.0, -10.0)


@dataclass(frozen=True, config=OWN)
class Loss:
    """Weights of the terms of the loss; each term is near 1 for a student that knows nothing.

    Parameters
    ----------
    teacher : float
        Squared error to the teacher's embedding, through a linear map.
    statistics : float
        Squared error to mean and deviation over time of the student's own log-mel, through another.
    labels : float
        Cross-entropy with the training clips' labels, through a third; needs a manifest.
    """

    teacher: Weight = 1.0
    statistics: Weight = 0.0
    labels: Weight = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.teacher == self.statistics == self.labels == 0:
            raise ValueError("expected teacher, statistics or labels above 0, all are 0")
        return self


@dataclass(frozen=True, config=OWN)
class Pruning:
    """When zeros come, as shares of the run: at once at ``begin``, or gradually until ``end``."""

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
        """Find the first and the last step of pruning, a whole number of updates apart.

        Parameters
        ----------
        steps : int
            Of the run. Steps are counted from 0.

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
    """Length and speed of the run (Adam; linear warm-up, then cosine decay to 2 %)."""

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
    """All of a distillation but the places where clips and teacher lie."""

    student: StudentChoice
    teacher: NetworkChoice
    validation: Validation = Validation()
    augmentation: Augmentation = Augmentation()
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
        """Find the steps as :meth:`Pruning.find_steps` does; errors as there."""
        return self.pruning.find_steps(self.training.steps)


@dataclass(frozen=True, config=OWN)
class VideoChoice:
    """The video subnetwork: L3's, unless it is made smaller.

    Parameters
    ----------
    filters : tuple of 8 int
        Of its convolutions; the last is the size of its embedding.
    frame_pixels : int
        Width and height of what it sees of a frame.
    """

    filters: AllFilters = VARIANTS["l3-dense"].filters
    frame_pixels: Annotated[int, Field(ge=8, le=1024)] = 224


@dataclass(frozen=True, config=OWN)
class HeldVideos:
    """What is kept from training: a share of the videos, and how many pairs are drawn from them."""

    share: ValidationShare = 0.1
    pairs: Count = 512


@dataclass(frozen=True, config=OWN)
class Fusion:
    """The layers over both embeddings: units of the hidden one."""

    units: Annotated[int, Field(ge=1, le=65_536)] = 128


@dataclass(frozen=True, config=OWN)
class FinetunedStudent(StudentChoice):
    """A network to fine-tune, and so ``ft`` unless the recipe says otherwise."""

    retrain_type: Literal["ft", "kd"] = "ft"


@dataclass(frozen=True, config=OWN)
class FinetuneRecipe:
    """All of a fine-tuning but the places where videos and weights lie.

    Parameters
    ----------
    student : FinetunedStudent
        The audio network to fine-tune.
    training : Training
    video_training : Training
        Of the first stage, which makes video weights where none are given.
    """

    student: FinetunedStudent
    video: VideoChoice = VideoChoice()
    fusion: Fusion = Fusion()
    validation: HeldVideos = HeldVideos()
    training: Training = Training()
    video_training: Training = Training()


_AnyRecipe = TypeVar("_AnyRecipe", Recipe, FinetuneRecipe)


def parse_recipe(text: bytes | str, kind: type[_AnyRecipe]) -> _AnyRecipe:
    """Read a recipe.

    Parameters
    ----------
    text : bytes or str
    kind : type
        Recipe, of a distillation, or FinetuneRecipe.

    Raises
    ------
    EdgeL3Error
        If the text is not TOML, a key is unknown or missing, or a value is out of its range.
    """
    try:
        return parse_toml(text, kind)
    except EdgeL3Error as error:
        raise EdgeL3Error(f"recipe, {error}{_hint(text, kind)}") from error


def _hint(text: bytes | str, kind: type[Recipe] | type[FinetuneRecipe]) -> str:
    """Name the other command if the text is a recipe for that one."""
    other, command = (FinetuneRecipe, "finetune") if kind is Recipe else (Recipe, "distill")
    try:
        parse_toml(text, other)
    except EdgeL3Error:
        return ""
    return f"; it is a recipe for {command}"


def read_recipe(path: Path, kind: type[_AnyRecipe]) -> _AnyRecipe:
    """Read a recipe file; errors as :func:`parse_recipe`, with the file's name."""
    return read_file(path, lambda text: parse_recipe(text, kind))
