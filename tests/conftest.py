"""Shared fixtures: clips, weights, and deployments that are made once a run."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from filelock import FileLock
from helpers.browser import Browser
from helpers.networks import tiny_network
from helpers.progress import ignore_progress
from helpers.sounds import synthetic_clips

from edgel3_tflm.converters.pipeline import ConvertOptions, convert
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.runtime import fastest
from edgel3_tflm.runtime.deployment import Deployment

# Commands that the tests run import the installed package, as the tests do, and not the checkout
# that is their working directory.
os.environ["PYTHONSAFEPATH"] = "1"

# A shell without job control starts background jobs with Ctrl-C ignored, and the commands that the
# tests run would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _choose_runtimes_without_a_clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the preferred runtime be the fastest.

    Commands that tests run measure, and keep their choice in the same cache. Under another name of
    the processor, the tests do not read it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEL3_TFLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(fastest, "processor_name", lambda: "the processor of the tests")
        patch.setattr(fastest, "measure", lambda interpreters: list(range(len(interpreters))))
        yield


_SEA = find_variant("sea", embedding_size=64)


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
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """Headless Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "needs the browser Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Browser(found, tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="session")
def sea_weights(shared: Path) -> Path:
    return shared / "weights" / "edgel3_sea_ust_audio_emb_64.h5.gz"


@pytest.fixture(scope="session")
def esc10(shared: Path) -> Path:
    return shared / "audio" / "esc10"


@pytest.fixture(scope="session")
def short_calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one calibration clip of a second, which makes conversions fast."""
    directory = tmp_path_factory.mktemp("calibration")
    soundfile.write(directory / "hiss.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    return directory


@pytest.fixture(scope="session")
def convert_to(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ConvertOptions], Deployment]:
    """Convert without a search for the best quantization, which takes long."""

    def run(options: ConvertOptions) -> Deployment:
        output = tmp_path_factory.mktemp("deployment") / options.variant.name
        return convert(replace(options, quantizer=PLAIN), output, ignore_progress)

    return run


Share = Callable[[str, ConvertOptions], Deployment]


@pytest.fixture(scope="session")
def share(tmp_path_factory: pytest.TempPathFactory) -> Share:
    """Convert once a run, whichever of the processes that run the tests comes first."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def run(name: str, options: ConvertOptions) -> Deployment:
        output = root / f"shared-{name}"
        with FileLock(root / f"shared-{name}.lock"):
            if output.exists():
                return Deployment.load(output)
            return convert(options, output, ignore_progress)

    return run


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic clips of three classes in three folds, as files with a ``manifest.tsv``."""
    return synthetic_clips.write_clips(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of ``tiny_network.TINY``."""
    return tiny_network.write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def tiny_int8(share: Share, tiny_weights: Path) -> Deployment:
    """The network of four filters a layer, int8, calibrated on the project's own clips."""
    return share("tiny-int8", ConvertOptions(_SEA, tiny_weights, quantizer=PLAIN))


@pytest.fixture(scope="session")
def tiny_int16x8(share: Share, tiny_weights: Path) -> Deployment:
    """The same with int16 activations."""
    options = ConvertOptions(_SEA, tiny_weights, quantization="int16x8", quantizer=PLAIN)
    return share("tiny-int16x8", options)


@pytest.fixture(scope="session")
def sea_generated(share: Share) -> Deployment:
    """SEA-64 with all its filters and generated weights, int8, where the network's size matters."""
    return share("sea-generated", ConvertOptions(_SEA, "generated", quantizer=PLAIN))


@pytest.fixture(scope="session")
def sea_int8(share: Share, sea_weights: Path) -> Deployment:
    """The published SEA-64, int8, calibrated on the project's own clips."""
    return share("sea-int8", ConvertOptions(_SEA, sea_weights, quantizer=PLAIN))


@pytest.fixture(scope="session")
def sea_quantized(share: Share, sea_weights: Path) -> Deployment:
    """The same as a user gets it: the quantization that measures best."""
    return share("sea-quantized", ConvertOptions(_SEA, sea_weights))


@pytest.fixture(scope="session")
def sea_int16x8(share: Share, sea_weights: Path) -> Deployment:
    options = ConvertOptions(_SEA, sea_weights, quantization="int16x8", quantizer=PLAIN)
    return share("sea-int16x8", options)


@pytest.fixture(scope="session")
def standin(share: Share) -> Deployment:
    """The 95.45 network with the weights that ship with the package, int8."""
    return share("standin", ConvertOptions(find_variant(), "bundled", quantizer=PLAIN))


@pytest.fixture(scope="session")
def real_time_standin(share: Share) -> Deployment:
    """The 99 network with the weights that ship with the package, int8."""
    return share(
        "real-time", ConvertOptions(find_variant(sparsity="99"), "bundled", quantizer=PLAIN)
    )
