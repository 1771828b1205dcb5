"""The float network of a deployment in Keras, rebuilt from its weights."""

from pathlib import Path

from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.converters.pruning.reduce import reduce_weights
from edgel3_tflm.drift.runtimes import KERAS, Runtime
from edgel3_tflm.errors import WeightsError
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.sources import load_bundled_weights, load_weights
from edgel3_tflm.networks.weights import TRAINED_KINDS, NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import FloatArray

# A map of the dense L3's first layers takes 13 MB a window.
_BATCH_WINDOWS = 8


def open_keras(deployment: Deployment, source: Path | None = None) -> Runtime:
    """Rebuild a deployment's float network in Keras, as ``convert`` built it.

    Parameters
    ----------
    deployment : Deployment
    source : pathlib.Path, optional
        The weight file that the deployment was converted from. The stand-in and published weights
        do not need it.

    Returns
    -------
    Runtime
        For a comparison, as the model under test or as the reference.

    Raises
    ------
    WeightsError
        If the weights cannot be loaded, or differ from those in the manifest.
    RuntimeUnavailableError
        If TensorFlow is not installed.
    """
    weights = _find_weights(deployment, source)
    if (plan := weights.variant.plan) is not None:
        weights = prune(weights, plan).weights  # as convert does
    network = build_network(weights, batch_size=None)

    def embed(_: FloatArray, decibels: FloatArray) -> FloatArray:
        windows = deployment.input_map.normalise(decibels)
        found: FloatArray = network.predict(windows, batch_size=_BATCH_WINDOWS, verbose=0)
        return found

    return Runtime(KERAS, "", embed, 0.0)


def _find_weights(deployment: Deployment, source: Path | None) -> NetworkWeights:
    recorded = deployment.manifest["weights"]
    if source is None and recorded["kind"] in ("file", *TRAINED_KINDS):
        raise WeightsError(
            f"{deployment.directory}: Keras cannot run a flatbuffer: expected --weights with"
            f" {recorded['name']}, the file that the deployment was converted from"
        )
    if recorded["kind"] == "generated":
        raise WeightsError(
            f"{deployment.directory}: expected a deployment with weights from a file, but its"
            " weights were generated; convert with --weights FILE"
        )
    variant = deployment.variant
    try:
        uncut = VARIANTS[recorded.get("network", variant.name)]
    except KeyError as error:
        raise WeightsError(
            f"{deployment.directory}: expected weights of a known network, got {error} in the"
            " manifest; convert again"
        ) from error
    if source is None and recorded["kind"] == "bundled":
        weights = load_bundled_weights(uncut)
    else:
        weights = load_weights(uncut, source)
    if (found := weights.provenance.sha256) != recorded["sha256"]:
        raise WeightsError(
            f"{source or weights.provenance.name}: expected the weights of"
            f" {deployment.directory}, SHA-256 {recorded['sha256'][:12]}..., found {found[:12]}...;"
            " give --weights FILE with the file that the deployment was converted from"
        )
    return reduce_weights(weights, len(variant.filters), variant.filters)
