"""The float network of a deployment in Keras, built again from the weights it was made of."""

from pathlib import Path

from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.converters.pruning.reduce import reduce_weights
from edgel3_tflm.drift.subjects import KERAS, Subject
from edgel3_tflm.errors import WeightsError
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.sources import load_bundled_weights, load_weights
from edgel3_tflm.networks.weights import TRAINED_KINDS, NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import FloatArray

# A map of the dense L3's first layers takes 13 MB a window.
_BATCH_WINDOWS = 8


def open_keras(deployment: Deployment, source: Path | None = None) -> Subject:
    """Build a deployment's float network as it was before it became a flatbuffer.

    Parameters
    ----------
    deployment : Deployment
    source : pathlib.Path, optional
        The weight file that it was converted from. The stand-in and published weights are found
        without.

    Returns
    -------
    Subject
        To be compared, or to compare with.

    Raises
    ------
    WeightsError
        If the weights cannot be had, or are others than the manifest names.
    RuntimeUnavailableError
        If TensorFlow is not installed.
    """
    weights = _find_weights(deployment, source)
    if (plan := weights.variant.plan) is not None:
        weights = prune(weights, plan).weights  # as convert did
    network = build_network(weights, batch_size=None)

    def embed(_: FloatArray, decibels: FloatArray) -> FloatArray:
        windows = deployment.input_map.normalise(decibels)
        found: FloatArray = network.predict(windows, batch_size=_BATCH_WINDOWS, verbose=0)
        return found

    return Subject(KERAS, "", embed, 0.0)


def _find_weights(deployment: Deployment, source: Path | None) -> NetworkWeights:
    named = deployment.manifest["weights"]
    if source is None and named["kind"] in ("file", *TRAINED_KINDS):
        raise WeightsError(
            f"{deployment.directory}: expected --weights with {named['name']}, the file that it was"
            " converted from: Keras runs no flatbuffer"
        )
    if named["kind"] == "generated":
        raise WeightsError(
            f"{deployment.directory}: expected a deployment of weights from a file to run in Keras,"
            " those of this one were generated; convert with --weights FILE"
        )
    variant = deployment.variant
    try:
        whole = VARIANTS[named.get("network", variant.name)]  # before convert cut it
    except KeyError as error:
        raise WeightsError(
            f"{deployment.directory}: expected weights of a known network, the manifest names"
            f" {error}; convert again"
        ) from error
    if source is None and named["kind"] == "bundled":
        weights = load_bundled_weights(whole)
    else:
        weights = load_weights(whole, source)
    if (found := weights.provenance.sha256) != named["sha256"]:
        raise WeightsError(
            f"{source or weights.provenance.name}: expected the weights of"
            f" {deployment.directory}, SHA-256 {named['sha256'][:12]}..., found {found[:12]}...;"
            " give --weights FILE with the file that it was converted from"
        )
    return reduce_weights(weights, len(variant.filters), variant.filters)
