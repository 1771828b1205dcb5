"""The data model of a network: its input, filters, sparsity plan and published file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from typing_extensions import Self

from edgel3_tflm.errors import EdgeL3Error

ModelType = Literal["sparse", "sea", "dense"]
RetrainType = Literal["ft", "kd"]
_Number = TypeVar("_Number", int, float)

KERNEL_SIZE = 3
POOL_AFTER = (2, 4, 6)
"""Convolutions (counted from 1) before a 2x2 max-pool with stride 2."""
BATCH_NORM_EPSILON = 1e-3
CONVOLUTIONS = 8
MAX_FILTERS = 1024
"""Largest number of filters of a convolution: twice that of L3's largest convolution."""
_PERCENT_DECIMALS = 4
_NAME = re.compile(
    r"(?P<family>.+?)(?:-plan-(?P<plan>[0-9.]+(?:-[0-9.]+)*))?(?:-conv(?P<depth>[0-9]+))?"
    r"(?:-filters-(?P<filters>[0-9]+(?:-[0-9]+)*))?"
)


@dataclass(frozen=True)
class FrontendSpec:
    """The log-mel spectrogram that a network takes as input.

    Parameters
    ----------
    sample_rate_hz, dft_samples, hop_samples, frames, mels : int
        The window is one second long. Mel bands cover 0 Hz to half the sample rate.
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
    """A sparsity plan: percent of zeros in each of conv1..conv8, and in all kernels together.

    ``package_name`` is the number in the file names of the edgel3 package. It is None if the
    package has no file for the plan.
    """

    total: float
    layers: tuple[float, ...]
    package_name: str | None = None

    @property
    def label(self) -> str:
        """The number that identifies the plan: the package's if there is one, else the total."""
        return self.package_name or f"{self.total:g}"


@dataclass(frozen=True)
class PublishedFile:
    """A weight file of the edgel3 package, identified by the git blob id of its gzipped bytes."""

    name: str
    git_blob_id: str


@dataclass(frozen=True)
class ConvLayer:
    """One 3x3 'same' convolution: size of its input map (mel rows, time columns), and channels."""

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
    """One network: its input, its filters, its sparsity plan, and its published file if any."""

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
        """Whether with_depth or with_filters made this network, so that no table has its shape."""
        name = NameParts.parse(self.name)
        return name.depth is not None or name.filters is not None

    @property
    def layers(self) -> tuple[ConvLayer, ...]:
        """The convolutions in order, each with the size of its input map."""
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
        """Return this network with other numbers of filters, without a published file.

        The plan keeps the percent of zeros of each layer. Its total is computed from the new sizes
        of the kernels. The new name consists of the family, the plan's label and the filters;
        ``VARIANTS`` finds the network by this name.

        Parameters
        ----------
        filters : sequence of int
            Numbers of filters of conv1..conv8, or of the convolutions that the network has, each
            from 1 to MAX_FILTERS. The last convolution's number is the embedding size.

        Raises
        ------
        EdgeL3Error
            If the number of values is wrong, or a value is out of range.
        """
        own = self._own_layers(filters, "numbers of filters", MAX_FILTERS, least=1)
        name = replace(NameParts.parse(self.name), filters="-".join(map(str, own)))
        if self.model_type == "sea":
            name = replace(name, family="sea-ust")
        return self._derive(name, own, self.plan.layers if self.plan else None)

    def with_depth(self, convolutions: int) -> Self:
        """Return this network without its last convolutions; the embedding ends at an earlier one.

        The embedding is the maximum of each channel over the last map, as in the whole network. In
        the sparse family this map is the output of the last convolution, in the SEA family the
        output of its BatchNorm and ReLU. A max-pool after that convolution is removed.

        Parameters
        ----------
        convolutions : int
            Number of convolutions that are kept, counted from conv1. If these are all, the network
            is returned unchanged.

        Raises
        ------
        EdgeL3Error
            If the network has fewer convolutions.
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
        """Return this network with another sparsity plan, without a published file.

        The total of the plan is computed again, as the percent of zeros in the kernels of this
        network. The new name contains the percents; ``VARIANTS`` finds the network by this name.

        Parameters
        ----------
        plan : Plan
            Percents of zeros of conv1..conv8, or of the convolutions that the network has. Each is
            at least 0 and below 100, with at most four decimals, so that the name can contain it.

        Raises
        ------
        EdgeL3Error
            If the number of values is wrong, or a value is out of range.
        """
        own = self._own_layers(plan.layers, "percents of zeros", 100)
        own = tuple(each + 0 for each in own)  # turns -0.0 into 0.0: a name has no sign
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
        """Check one value for each convolution; cut values of a whole network to this depth."""
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
    """The parts of a network's name: family, plan, depth and filters; None if not in the name."""

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
