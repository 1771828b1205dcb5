"""Shared fixtures: the data beside the project, and deployments made once a run."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgel3_tflm.converters.pipeline import ConvertOptions, convert
from edgel3_tflm.converters.quantizer import PLAIN
from edgel3_tflm.deployment import Deployment
from edgel3_tflm.variants import find_variant


def ignore_progress(step: str, done: int, total: int) -> None:
    """A progress callback that says nothing."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """Published weights and labelled real clips, which the project may not contain."""
    path = Path(__file__).parents[2] / "shared"
    if not path.is_dir():
        reason = f"needs the published weights and clips in {path}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def sea_weights(shared: Path) -> Path:
    return shared / "weights" / "edgel3_sea_ust_audio_emb_64.h5.gz"


@pytest.fixture(scope="session")
def esc10(shared: Path) -> Path:
    return shared / "audio" / "esc10"


@pytest.fixture(scope="session")
def convert_to(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ConvertOptions], Deployment]:
    """Convert without a search for the best quantization, which takes long."""

    def run(options: ConvertOptions) -> Deployment:
        options = replace(options, quantizer=PLAIN)
        output = tmp_path_factory.mktemp("deployment") / options.variant.name
        return convert(options, output, ignore_progress)

    return run


@pytest.fixture(scope="session")
def sea_int8(convert_to: Callable[[ConvertOptions], Deployment], sea_weights: Path) -> Deployment:
    """The published SEA-64, int8, calibrated on the project's own clips."""
    return convert_to(ConvertOptions(find_variant("sea", embedding_size=64), sea_weights))


@pytest.fixture(scope="session")
def sea_quantized(tmp_path_factory: pytest.TempPathFactory, sea_weights: Path) -> Deployment:
    """The same as a user gets it: the quantization that measures best."""
    variant = find_variant("sea", embedding_size=64)
    output = tmp_path_factory.mktemp("quantized") / variant.name
    return convert(ConvertOptions(variant, sea_weights), output, ignore_progress)


@pytest.fixture(scope="session")
def sea_int16x8(
    convert_to: Callable[[ConvertOptions], Deployment], sea_weights: Path
) -> Deployment:
    variant = find_variant("sea", embedding_size=64)
    return convert_to(ConvertOptions(variant, sea_weights, quantization="int16x8"))


@pytest.fixture(scope="session")
def standin(convert_to: Callable[[ConvertOptions], Deployment]) -> Deployment:
    """The 95.45 network with the weights that ship with the package, int8."""
    return convert_to(ConvertOptions(find_variant(), "bundled"))


@pytest.fixture(scope="session")
def edgel3_generated(convert_to: Callable[[ConvertOptions], Deployment]) -> Deployment:
    """The 95.45 network with generated weights."""
    return convert_to(ConvertOptions(find_variant(), "generated"))
