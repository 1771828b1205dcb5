"""drift.json as a reader may rely on it: a missing or mistyped field is one line."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from edgel3_tflm.drift.downstream import Downstream
from edgel3_tflm.drift.figures import FORMAT, JSON_NAME, DriftFigures, FrontendDrift, ModelSize
from edgel3_tflm.drift.layers import LayerReport
from edgel3_tflm.schema import WRITTEN, parse_json, read_file
from edgel3_tflm.types import JsonFloat


@dataclass(frozen=True, config=WRITTEN)
class ClipFigures(DriftFigures):
    """Drift over the windows of one clip."""

    clip: str
    label: str | None


@dataclass(frozen=True, config=WRITTEN)
class RuntimeFigures:
    """Figures of :class:`edgel3_tflm.drift.figures.RuntimeDrift`; ``runtime`` is the name."""

    runtime: str
    groups: dict[str, DriftFigures]
    classes: dict[str, DriftFigures]
    clips: list[ClipFigures]
    values_apart: JsonFloat
    steps_apart: JsonFloat

    @property
    def name(self) -> str:
        """Name of the runtime."""
        return self.runtime


@dataclass(frozen=True, config=WRITTEN)
class Weights:
    """Digest of the weights that the model was converted from."""

    sha256: str


@dataclass(frozen=True, config=WRITTEN)
class DriftFile:
    """A report as drift.json holds it.

    The attributes that :class:`edgel3_tflm.drift.figures.DriftReport` has as well have the same
    names there. Infinite values are NaN here, because JSON has neither.
    """

    generator: str
    variant: str
    quantization: str
    weights: Weights
    models_sha256: dict[str, str]
    sizes: dict[str, ModelSize]
    float_runtime: str
    hop_s: float
    resampler: str
    runtimes: Annotated[list[RuntimeFigures], Field(min_length=1)]
    layers: LayerReport | None
    costliest_layer: str | None
    frontend: FrontendDrift | None
    downstream: Downstream
    notes: list[str]
    device: DriftFigures | None = None
    """None in files of earlier versions, which do not have it."""

    @property
    def first(self) -> RuntimeFigures:
        """Figures of the first runtime."""
        return self.runtimes[0]


def parse_drift(text: bytes | str) -> DriftFile:
    """Read a drift.json.

    Raises
    ------
    EdgeL3Error
        If the text is cut or damaged, or is of another format or version.
    """
    return parse_json(text, DriftFile, FORMAT)


def read_drift(path: Path) -> DriftFile:
    """Read a drift.json, or the one in a directory.

    Raises
    ------
    EdgeL3Error
        If the file cannot be read, is damaged, or is of another format or version.
    """
    return read_file(path / JSON_NAME if path.is_dir() else path, parse_drift)
