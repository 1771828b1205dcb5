"""The networks this package knows: one table of inputs, filters, sparsity plans and files.

Sources: Kumari et al., "EdgeL3: Compressing L3-Net for Mote-Scale Urban Noise Monitoring" (2019)
for the sparse family and its plans; Srivastava et al., "Specialized Embedding Approximation for
Edge Intelligence" (ICASSP 2021) for the SEA family; the ``models`` branch of the edgel3 package
for file names and git blob ids.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar

from edgel3_tflm.errors import EdgeL3Error

ModelType = Literal["sparse", "sea", "dense"]
RetrainType = Literal["ft", "kd"]
_Number = TypeVar("_Number", int, float)

KERNEL_SIZE = 3
POOL_AFTER = (2, 4, 6)
"""Convolutions (counted from 1) that a 2x2 max-pool with stride 2 follows."""
BATCH_NORM_EPSILON = 1e-3
CONVOLUTIONS = 8
MAX_FILTERS = 1024
"""Most filters a convolution may have: twice as many as L3's largest."""
_PERCENT_DECIMALS = 4
_NAME = re.compile(
    r"(?P<family>.+?)(?:-plan-(?P<plan>[0-9.]+(?:-[0-9.]+)*))?(?:-conv(?P<depth>[0-9]+))?"
    r"(?:-filters-(?P<filters>[0-9]+(?:-[0-9]+)*))?"
)


@dataclass(frozen=True)
class FrontendSpec:
    """A log-mel input.

    Parameters
    ----------
    sample_rate_hz, dft_samples, hop_samples, frames, mels : int
        The window is one second. Mel bands span 0 Hz to half the sample rate.
    """

    sample_rate_hz: int
    dft_samples: int
    hop_samples: int
    frames: int
    mels: int

    @property
    def window_samples(self) -> int:
        """Samples in one window of one second."""
        return self.sample_rate_hz


@dataclass(frozen=True)
class Plan:
    """A layer-wise sparsity plan: percent of zeros in conv1..conv8.

    ``package_name`` is the number in the edgel3 package's file names; None where the package
    publishes no file for the plan.
    """

    total: float
    layers: tuple[float, ...]
    package_name: str | None = None

    @property
    def label(self) -> str:
        """The number people know the plan by: the package's if it has one."""
        return self.package_name or f"{self.total:g}"


@dataclass(frozen=True)
class PublishedFile:
    """A weight file of the edgel3 package, known by the git blob id of its gzipped bytes."""

    name: str
    git_blob_id: str


@dataclass(frozen=True)
class ConvLayer:
    """One 3x3 'same' convolution: sizes of its input map (mel rows, time columns) and channels."""

    name: str
    rows: int
    columns: int
    in_channels: int
    out_channels: int
    batch_norm: bool

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Kernel shape (row, column, input channel, output channel)."""
        return (KERNEL_SIZE, KERNEL_SIZE, self.in_channels, self.out_channels)

    @property
    def kernel_size(self) -> int:
        """Number of kernel weights."""
        return KERNEL_SIZE * KERNEL_SIZE * self.in_channels * self.out_channels


@dataclass(frozen=True)
class Variant:
    """One network: its input, its filters, and where published its file."""

    model_type: ModelType
    name: str
    frontend: FrontendSpec
    filters: tuple[int, ...]
    final_relu: bool
    plan: Plan | None = None
    retrain_type: RetrainType | None = None
    published: PublishedFile | None = None

    @property
    def embedding_size(self) -> int:
        """Number of values in an embedding."""
        return self.filters[-1]

    @property
    def has_own_shape(self) -> bool:
        """Whether with_depth or with_filters made it: no table has its shape."""
        name = NameParts.parse(self.name)
        return name.depth is not None or name.filters is not None

    @property
    def layers(self) -> tuple[ConvLayer, ...]:
        """The convolutions in order, with the size of the map each one reads."""
        rows, columns, channels = self.frontend.mels, self.frontend.frames, 1
        layers = []
        for number, filters in enumerate(self.filters, start=1):
            last = number == len(self.filters)
            layers.append(
                ConvLayer(
                    f"conv{number}",
                    rows,
                    columns,
                    channels,
                    filters,
                    batch_norm=not last or self.final_relu,
                )
            )
            channels = filters
            if number in POOL_AFTER:
                rows, columns = rows // 2, columns // 2
        return tuple(layers)

    def with_filters(self, filters: Sequence[int]) -> Self:
        """Give the network filters of its own; nothing that was published is of it then.

        The plan's percents stay, layer by layer; its total follows from the kernels' new sizes. The
        name is the family's (with the plan's label) and the filters; VARIANTS knows it.

        Parameters
        ----------
        filters : sequence of int
            Of conv1..conv8, or of the convolutions the network has, each from 1 to MAX_FILTERS; the
            last of those it has is the embedding size.

        Raises
        ------
        EdgeL3Error
            If there are fewer or more, or one is out of its range.
        """
        own = self._own_layers(filters, "numbers of filters", MAX_FILTERS, least=1)
        name = replace(NameParts.parse(self.name), filters="-".join(map(str, own)))
        if self.model_type == "sea":
            name = replace(name, family="sea-ust")
        return self._derive(name, own, self.plan.layers if self.plan else None)

    def with_depth(self, convolutions: int) -> Self:
        """Take the embedding from an earlier convolution; those behind it fall away.

        The embedding is, as the whole network's, the maximum of each channel over the last map: of
        the last convolution's bare output in the sparse family, behind BatchNorm and ReLU in the
        SEA family. A pool that followed that convolution falls away.

        Parameters
        ----------
        convolutions : int
            How many are kept, counted from conv1; as many as there are change nothing.

        Raises
        ------
        EdgeL3Error
            If the network has not so many.
        """
        have = len(self.filters)
        if not 1 <= convolutions <= have:
            raise EdgeL3Error(
                f"expected an embedding from one of conv1 to conv{have} of {self.name}, got"
                f" conv{convolutions}"
            )
        if convolutions == have:
            return self
        name = NameParts.parse(self.name)

        def cut(part: str | None) -> str | None:
            return part and "-".join(part.split("-")[:convolutions])

        return self._derive(
            NameParts(name.family, cut(name.plan), str(convolutions), cut(name.filters)),
            self.filters[:convolutions],
            self.plan.layers[:convolutions] if self.plan else None,
        )

    def with_plan(self, plan: Plan) -> Self:
        """Give the network a sparsity plan of its own; nothing that was published is of it then.

        Its total is counted anew, as the share of zeros in this network's kernels. The name has the
        plan's percents; VARIANTS knows it.

        Parameters
        ----------
        plan : Plan
            Of conv1..conv8, or of the convolutions the network has; percents from 0 to below 100,
            with no more than four decimals, which the name can hold.

        Raises
        ------
        EdgeL3Error
            If there are fewer or more, or one is out of its range.
        """
        own = self._own_layers(plan.layers, "percents of zeros", 100)
        own = tuple(each + 0 for each in own)  # no -0.0, which a name cannot hold
        written = [f"{each:.{_PERCENT_DECIMALS}f}".rstrip("0").rstrip(".") for each in own]
        for text, percent in zip(written, own, strict=True):
            if percent == 100 or float(text) != percent:
                raise EdgeL3Error(
                    f"expected percents of zeros below 100 with at most {_PERCENT_DECIMALS}"
                    f" decimals, got {percent!r}"
                )
        name = replace(NameParts.parse(self.name), plan="-".join(written))
        if self.model_type == "sparse":
            name = replace(name, family=f"edgel3-{self.retrain_type}")
        return self._derive(name, self.filters, own)

    def _own_layers(
        self, values: Sequence[_Number], what: str, most: int, least: int = 0
    ) -> tuple[_Number, ...]:
        """Values of the convolutions this network has, of as many or of a whole network's."""
        have = len(self.filters)
        if len(values) not in (have, CONVOLUTIONS) or not all(
            least <= each <= most for each in values
        ):
            raise EdgeL3Error(
                f"expected {have} {what} from {least} to {most}, got"
                f" {', '.join(map(str, values)) or 'none'}"
            )
        return tuple(values[:have])

    def _derive(
        self, name: "NameParts", filters: tuple[int, ...], percents: tuple[float, ...] | None
    ) -> Self:
        variant = replace(self, name=str(name), filters=filters, plan=None, published=None)
        if percents is None:
            return variant
        sizes = [layer.kernel_size for layer in variant.layers]
        zeros = sum(size * percent / 100 for size, percent in zip(sizes, percents, strict=True))
        return replace(variant, plan=Plan(round(100 * zeros / sum(sizes), 2), percents))


@dataclass(frozen=True)
class NameParts:
    """A network's name: the family, and what with_plan, with_depth and with_filters gave it."""

    family: str
    plan: str | None = None
    depth: str | None = None
    filters: str | None = None

    @classmethod
    def parse(cls, name: str) -> "NameParts":
        """Split a variant's name into its parts."""
        match = _NAME.fullmatch(name)
        return cls(*match.groups()) if match else cls(name)

    def __str__(self) -> str:
        plan = f"-plan-{self.plan}" if self.plan else ""
        depth = f"-conv{self.depth}" if self.depth else ""
        return f"{self.family}{plan}{depth}{f'-filters-{self.filters}' if self.filters else ''}"
