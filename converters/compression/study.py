"""The published compression study again: eleven plans, three depths, three widths.

Every row of the published tables is converted, packed and, where the tools are there, run on the
emulated Cortex-M7; what it takes stands beside what was published of it.

Weights reduction is counted as the published tables count it for the plans: the kernel weights and
biases that stay, each bias counted as pruned as its layer's kernel, by L3's 4,688,066 parameters
(kernels, biases, gamma and beta of the BatchNorms). So counted, all eleven plans and conv7 agree
with the published percents to their second decimal. The published percents of conv6, conv5 and the
three widths cannot be had by counting: those networks keep fewer weights than published. The
percents of conv6 and of the widths fit each other if a cut layer is taken to keep the input
channels of the uncut network, and the whole for some 4,134,000 weights, which is no count of L3's;
conv5 and conv7 do not fit that. Such rows are shown with both figures and marked.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgel3_tflm.converters.pipeline import ConvertOptions, Progress, convert
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.device.estimate import Range, estimate_work, measure_work
from edgel3_tflm.device.firmware import QEMU, build_node, has_compiler
from edgel3_tflm.errors import RuntimeUnavailableError, WeightsUnreachableError
from edgel3_tflm.networks.catalogue import WIDTHS, find_depth, find_variant
from edgel3_tflm.networks.published import (
    L3_PARAMETERS,
    PUBLISHED_RESULTS,
    PublishedResult,
)
from edgel3_tflm.networks.sources import WeightsSource, WeightsWord, find_weights
from edgel3_tflm.networks.variants import Variant

STUDY = tuple(each for each in PUBLISHED_RESULTS if each.kind in ("plan", "depth", "width"))
"""The published rows, as :mod:`edgel3_tflm.networks.published` has them."""
AGREEMENT_POINTS = 0.1
"""How far a counted reduction may be from the published one, in percent points."""


@dataclass(frozen=True)
class StudyRow:
    """What a network takes, and the published row it stands beside.

    Parameters
    ----------
    published : PublishedResult
    network : str
        Its name; ``VARIANTS`` knows it.
    weights : str
        Where they come from.
    reduction_percent : float
        Of the weights, counted in what was converted.
    flash_bytes, arena_bytes : int
        Of the packed model and of the engine's arena.
    packed_macs : int
        Multiply-accumulates of the engine for one window.
    instructions : Range
        Of the engine for one window.
    is_counted : bool
        Whether they were counted on the emulated Cortex-M7, or else estimated.
    """

    published: PublishedResult
    network: str
    weights: str
    reduction_percent: float
    flash_bytes: int
    arena_bytes: int
    packed_macs: int
    instructions: Range
    is_counted: bool

    @property
    def agrees(self) -> bool:
        """Whether the reduction is the published one, to AGREEMENT_POINTS."""
        return agrees(self.published, self.reduction_percent)

    def to_json(self) -> dict[str, Any]:
        """Give the figures as they stand in JSON."""
        return {
            **asdict(self),
            "instructions": [self.instructions.low, self.instructions.high],
            "agrees": self.agrees,
        }


def agrees(published: PublishedResult, reduction_percent: float) -> bool:
    """Whether a counted reduction is the published one, to AGREEMENT_POINTS."""
    expected = published.reduction_percent
    return expected is not None and abs(reduction_percent - expected) <= AGREEMENT_POINTS


def options_of(
    published: PublishedResult, weights: WeightsSource, calibration: Path | None = None
) -> ConvertOptions:
    """Choose how a row is converted: plainly quantized, which is quick.

    Parameters
    ----------
    published : PublishedResult
        One of STUDY.
    weights : pathlib.Path or str
        As for ``ConvertOptions``; but 'auto' falls back to 'generated' where there is neither a
        published file nor the stand-in: L3's own weights are not published here.
    calibration : pathlib.Path, optional
    """
    if published.kind == "plan":
        variant = find_variant(sparsity=published.name)
    else:
        variant = find_variant("dense")
    return ConvertOptions(
        variant,
        _have_weights(variant) if weights == "auto" else weights,
        calibration,
        quantizer=PLAIN,
        depth=find_depth(published.name) if published.kind == "depth" else None,
        filters=WIDTHS[published.name] if published.kind == "width" else None,
    )


def count_reduction(variant: Variant, zeros: Sequence[float]) -> float:
    """Weights reduction beside L3 in percent, counted as the published tables count the plans.

    Parameters
    ----------
    variant : Variant
    zeros : sequence of float
        Kernel weights of each convolution that are zero, and are not stored.
    """
    kept = sum(
        (layer.kernel_size + layer.out_channels) * (1 - count / layer.kernel_size)
        for layer, count in zip(variant.layers, zeros, strict=True)
    )
    return 100 * (1 - kept / L3_PARAMETERS)


def has_emulator() -> bool:
    """Whether instructions can be counted here: compiler, QEMU and the extra ``device``."""
    if not has_compiler() or shutil.which(QEMU) is None:
        return False
    try:
        pass
    except RuntimeUnavailableError:
        return False
    return True


def study(
    published: PublishedResult, options: ConvertOptions, *, emulate: bool, progress: Progress
) -> StudyRow:
    """Convert a row's network, and count.

    Parameters
    ----------
    published : PublishedResult
        What it stands beside.
    options : ConvertOptions
        As :func:`options_of` gives them, say.
    emulate : bool
        Count instructions on the emulated Cortex-M7; else estimate them from the
        multiply-accumulates.
    progress : callable

    Raises
    ------
    EdgeL3Error
        If weights or clips cannot be used, a tool is missing, or the engine does not run the
        network.
    """
    with tempfile.TemporaryDirectory() as scratch:
        deployment = convert(options, Path(scratch) / "deployment", progress)
        work = estimate_work(deployment)
        if emulate:
            progress("build firmware", 0, 0)
            firmware = build_node(deployment.directory, Path(scratch) / "build")
            progress("count instructions", 0, 0)
            work = measure_work(firmware, deployment)
    layers, packed = deployment.manifest["layers"], deployment.manifest["packed"]
    # A cut takes away whole filters; whatever zeros the weights have beside is not its doing.
    zeros = [each["zeros"] if published.kind == "plan" else 0 for each in layers]
    return StudyRow(
        published,
        deployment.variant.name,
        deployment.manifest["weights"]["kind"],
        count_reduction(deployment.variant, zeros),
        packed["bytes"],
        packed["arena_bytes"],
        sum(each["packed_macs"] for each in packed["layers"]),
        work.engine,
        emulate,
    )


def _have_weights(variant: Variant) -> WeightsWord:
    if variant.published is None:
        return "generated"
    try:
        find_weights(variant)
    except WeightsUnreachableError:
        return "generated"
    return "auto"
