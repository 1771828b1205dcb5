"""Repeat the published compression study: eleven sparsity plans, three depths, three widths.

Each row of the published tables is converted and packed. If the tools are installed, the packed
model also runs on the emulated Cortex-M7. The result is shown beside the published figures.

Weights reduction is computed as in the published tables of the plans: the kernel weights and biases
that remain, divided by L3's 4,688,066 parameters (kernels, biases, gamma and beta of the
BatchNorms). The count assumes that a layer loses the same share of its biases as of its kernel
weights. With this count, all eleven plans and conv7 agree with the published percentages to two
decimals.

The published percentages of conv6, conv5 and the three widths do not agree with this count: the
converted networks keep fewer weights than the percentages say. The study shows both figures for
these rows and marks them. The percentages of conv6 and the widths fit two assumptions: a cut layer
keeps the input channels of the uncut network, and percentages refer to about 4,134,000 weights. But
L3 has another number of weights, and the percentages of conv5 and conv7 do not fit.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgel3_tflm.converters.pipeline import ConvertOptions, convert
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.device.estimate import count_instructions
from edgel3_tflm.device.firmware import QEMU, build_node, has_compiler
from edgel3_tflm.device.footprint import require_packed_model
from edgel3_tflm.errors import RuntimeUnavailableError, WeightsUnreachableError
from edgel3_tflm.networks.catalogue import WIDTHS, find_depth, find_variant
from edgel3_tflm.networks.published import (
    L3_PARAMETERS,
    PUBLISHED_RESULTS,
    PublishedResult,
)
from edgel3_tflm.networks.sources import WeightsSource, WeightsWord, find_weights
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.runtime.c_library.cycles import modelled_cycles
from edgel3_tflm.types import Progress

STUDY = tuple(each for each in PUBLISHED_RESULTS if each.kind in ("plan", "depth", "width"))
"""The rows of :mod:`edgel3_tflm.networks.published` that the study repeats."""
AGREEMENT_POINTS = 0.1
"""A counted and a published reduction agree up to this difference, in percentage points."""


@dataclass(frozen=True)
class StudyRow:
    """Size and work of a converted network, and its published row.

    Parameters
    ----------
    published : PublishedResult
    network : str
        Name of the network's variant.
    weights : str
        Kind of the weights' source, as in the deployment's manifest.
    reduction_percent : float
        Weights reduction of the converted network, see :func:`count_reduction`.
    flash_bytes, arena_bytes : int
        Size of the packed model, and of the arena, the engine's working memory.
    packed_macs : int
        Multiply-accumulates of the engine for one window.
    cycles : int
        Modelled cycles of the engine for one window, if no input row is zero: an upper limit.
    instructions : int or None
        Instructions of the engine for one window, counted on the emulated Cortex-M7.
    """

    published: PublishedResult
    network: str
    weights: str
    reduction_percent: float
    flash_bytes: int
    arena_bytes: int
    packed_macs: int
    cycles: int
    instructions: int | None

    @property
    def agrees(self) -> bool:
        """Whether the reduction differs from the published one by at most AGREEMENT_POINTS."""
        return agrees(self.published, self.reduction_percent)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "agrees": self.agrees}


def agrees(published: PublishedResult, reduction_percent: float) -> bool:
    """Whether a counted reduction differs from the published one by at most AGREEMENT_POINTS."""
    expected = published.reduction_percent
    return expected is not None and abs(reduction_percent - expected) <= AGREEMENT_POINTS


def options_of(
    published: PublishedResult, weights: WeightsSource, calibration: Path | None = None
) -> ConvertOptions:
    """Return the options that convert a row's network.

    They select TensorFlow Lite's own quantization, because a search for the best one takes longer.

    Parameters
    ----------
    published : PublishedResult
        One of STUDY.
    weights : pathlib.Path or str
        As for ``ConvertOptions``. But 'auto' becomes 'generated' if the network has no published
        file, such as the dense L3, or if neither its file nor the stand-in is available.
    calibration : pathlib.Path, optional
        As for ``ConvertOptions``.
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
    """Return the weights reduction in percent of L3, counted as in the published tables of plans.

    Parameters
    ----------
    variant : Variant
    zeros : sequence of float
        Number of zeros in the kernel of each convolution.
    """
    kept = sum(
        (layer.kernel_size + layer.out_channels) * (1 - count / layer.kernel_size)
        for layer, count in zip(variant.layers, zeros, strict=True)
    )
    return 100 * (1 - kept / L3_PARAMETERS)


def has_emulator() -> bool:
    """Whether the tools that count instructions are installed: compiler, QEMU, extra ``device``."""
    if not has_compiler() or shutil.which(QEMU) is None:
        return False
    try:
        import edgel3_tflm.device.wire  # noqa: F401 - needs a package of the extra `device`
    except RuntimeUnavailableError:
        return False
    return True


def study(
    published: PublishedResult, options: ConvertOptions, *, emulate: bool, progress: Progress
) -> StudyRow:
    """Convert a row's network and measure its size and work.

    Parameters
    ----------
    published : PublishedResult
    options : ConvertOptions
        For example, those of :func:`options_of`.
    emulate : bool
        Count instructions on the emulated Cortex-M7.
    progress : callable

    Raises
    ------
    EdgeL3Error
        If weights or clips cannot be used, a tool is missing, or the engine cannot run the network.
    """
    with tempfile.TemporaryDirectory() as scratch:
        deployment = convert(options, Path(scratch) / "deployment", progress)
        cycles = sum(modelled_cycles(require_packed_model(deployment)).values())
        instructions = None
        if emulate:
            progress("build firmware", 0, 0)
            firmware = build_node(deployment.directory, Path(scratch) / "build")
            progress("count instructions", 0, 0)
            instructions = count_instructions(firmware, deployment.variant.frontend)
    layers, packed = deployment.manifest["layers"], deployment.manifest["packed"]
    # Depths and widths remove whole filters. Zeros in the remaining weights are not a reduction.
    zeros = [each["zeros"] if published.kind == "plan" else 0 for each in layers]
    return StudyRow(
        published,
        deployment.variant.name,
        deployment.manifest["weights"]["kind"],
        count_reduction(deployment.variant, zeros),
        packed["bytes"],
        packed["arena_bytes"],
        sum(each["packed_macs"] for each in packed["layers"]),
        cycles,
        instructions,
    )


def _have_weights(variant: Variant) -> WeightsWord:
    if variant.published is None:
        return "generated"
    try:
        find_weights(variant)
    except WeightsUnreachableError:
        return "generated"
    return "auto"
