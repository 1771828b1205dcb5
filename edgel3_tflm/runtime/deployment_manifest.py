"""The fields of a deployment's manifest, and how they are checked when it is read."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.runtime.artefacts import PACKED_MODEL_NAME
from edgel3_tflm.schema import WRITTEN, parse_json
from edgel3_tflm.types import Format

FORMAT = Format("edgel3-tflm deployment", 1, remedy="convert again")

Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, config=WRITTEN)
class Network:
    """The network, and the percent of zeros of its plan."""

    name: str
    plan_total_percent: float | None

    @property
    def variant(self) -> Variant:
        """The network with this name."""
        return VARIANTS[self.name]

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            _ = self.variant
        except KeyError as error:
            raise ValueError(f"expected the name of a network, found {self.name!r}") from error
        return self


@dataclass(frozen=True, config=WRITTEN)
class Weights:
    """Source of the weights; ``network`` is the network that they were trained for."""

    kind: str
    name: str
    sha256: Sha256
    description: str
    network: str = ""


@dataclass(frozen=True, config=WRITTEN)
class Input:
    """The input BatchNorm: network input = ``slope_per_db * log_mel + offset``."""

    slope_per_db: float
    offset: float


@dataclass(frozen=True, config=WRITTEN)
class Layer:
    """Counts of a convolution's weights, zeros and multiply-accumulates."""

    name: str
    weights: Annotated[int, Field(ge=1)]
    plan_percent: float | None
    zeros: Count
    quantized_zeros: Count
    dense_macs: Count
    effective_macs: Count


@dataclass(frozen=True, config=WRITTEN)
class PackedLayer:
    """Multiply-accumulates of a convolution in the packed model."""

    packed_macs: Count


@dataclass(frozen=True, config=WRITTEN)
class Packed:
    """Size of the packed model, or the reason why there is none (``refused``)."""

    refused: str | None = None
    bytes: Count | None = None
    arena_bytes: Count | None = None
    fast_arena_bytes: Count | None = None
    layers: list[PackedLayer] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.refused is None and None in (self.bytes, self.arena_bytes, self.layers):
            raise ValueError("expected the fields bytes, arena_bytes and layers, or refused")
        return self


@dataclass(frozen=True, config=WRITTEN)
class Calibration:
    """Number of windows that calibrated the quantization."""

    windows: Count


@dataclass(frozen=True, config=WRITTEN)
class Quantizer:
    """Steps of the quantization; TensorFlow Lite's own quantization has none."""

    steps: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, config=WRITTEN)
class Artefact:
    """Size and digest of a file in the deployment."""

    bytes: Count
    sha256: Sha256


@dataclass(frozen=True, config=WRITTEN)
class Manifest:
    """All fields that are read. Older manifests may lack the fields that have a default."""

    variant: Network
    quantization: Literal["int8", "int16x8"]
    weights: Weights
    input: Input
    layers: list[Layer]
    arena_bytes: Count | None
    calibration: Calibration
    artefacts: dict[str, Artefact]
    packed: Packed = Packed(refused="")
    quantizer: Quantizer = Quantizer()

    @model_validator(mode="after")
    def _check(self) -> Self:
        expected = [layer.name for layer in self.variant.variant.layers]
        found = [layer.name for layer in self.layers]
        if found != expected:
            raise ValueError(f"layers: expected {', '.join(expected)}, found {', '.join(found)}")
        if PACKED_MODEL_NAME in self.artefacts and self.packed.refused is not None:
            raise ValueError(f"packed: expected the size of {PACKED_MODEL_NAME}, found none")
        return self


def parse_manifest(text: bytes) -> Manifest:
    """Read and check a manifest.

    Raises
    ------
    EdgeL3Error
        If it is damaged, or has another format or version.
    """
    return parse_json(text, Manifest, FORMAT)
