"""Where weights come from: a file, the cache, an installed edgel3, a download, or the stand-in."""

import errno
import io
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

from edgel3_tflm.errors import EdgeL3Error, WeightsError, WeightsUnreachableError
from edgel3_tflm.files import write_whole
from edgel3_tflm.networks.catalogue import PLANS, VARIANTS
from edgel3_tflm.networks.hints import OPTIONS, Hints
from edgel3_tflm.networks.variants import RetrainType, Variant
from edgel3_tflm.networks.weights import NetworkWeights

_log = logging.getLogger(__name__)

PUBLISHED_BASE_URL = "https://github.com/ksangeeta2429/edgel3/raw/models/"
"""Address under which the authors of edgel3 publish their weight files."""
_DOWNLOAD_TIMEOUT_S = 20

WeightsWord = Literal["auto", "published", "bundled", "generated"]
"""Weights that are chosen by a word and not by a file.

================= =================================================================================
``published``     the authors' file: from the cache, an installed edgel3, or their address
``bundled``       weights that ship with this package: the stand-ins
``auto``          as ``published``; where none are published or reached, as ``bundled``
``generated``     untrained weights, made on the spot; the caller generates them
================= =================================================================================
"""
WeightsSource = Path | WeightsWord
"""A weight file, or a word."""
_BUNDLED_DESCRIPTIONS = {
    "95.45": (
        "STAND-IN weights of this project, not the authors' EdgeL3: the 95.45 % plan distilled from"
        " the published SEA-UST 64 (see the model card)"
    ),
    "99": (
        "STAND-IN weights of this project, not the authors' (they published none for this plan):"
        " the 99 % plan distilled from the published SEA-UST 64 (see the model card)"
    ),
}
"""The weights that ship with this package, by the label of their plan."""

Note = Callable[[str], None]
"""Callback for a line that the user should see immediately."""


def parse_weights_source(text: str | Path) -> WeightsSource:
    """Return the word if ``text`` is one of ``WeightsWord``, and a file's path otherwise."""
    return cast(WeightsWord, text) if text in get_args(WeightsWord) else Path(text)


def cache_directory() -> Path:
    """Return the directory of downloaded weights.

    The environment variable ``EDGEL3_TFLM_CACHE`` overrides the system's cache directory.
    """
    if given := os.environ.get("EDGEL3_TFLM_CACHE"):
        return Path(given)
    import pooch  # loads requests

    return Path(pooch.os_cache("edgel3-tflm"))


def unpacked_directories() -> list[Path]:
    """Return the directories that may contain published files without their gzip compression.

    An installed edgel3 package comes first, if there is one. The last directory is a part of the
    cache, for copies of such a package's files.
    """
    # Found without an import: edgel3's Keras cannot be loaded in one process with TensorFlow 2.
    package = find_spec("edgel3")
    installed = (package and package.submodule_search_locations) or []
    return [*map(Path, installed), cache_directory() / "edgel3"]


def load_weights(
    variant: Variant,
    source: Path | None = None,
    *,
    base_url: str = PUBLISHED_BASE_URL,
    hints: Hints = OPTIONS,
) -> NetworkWeights:
    """Load weights from a file, or the published weights if no file is given.

    Published weights are searched for in the cache, in :func:`unpacked_directories` and at the
    authors' address, in this order. A downloaded file must have the published git blob id.

    A file that :func:`pack_weights` wrote states its filters if the network has a depth or filters
    of its own. The variant of the result then has these filters.

    Parameters
    ----------
    variant : Variant
    source : pathlib.Path, optional
        An .h5 or .h5.gz file that contains a full Keras 2 model or only its weights.
    base_url : str
        Address under which the published files are.
    hints : Hints
        How the user chooses the network and its weights. Errors say what to change.

    Raises
    ------
    WeightsError
        If no weights are found, or the weights are damaged or have another shape.
    """
    from edgel3_tflm.networks.weight_files import load_file  # loads pyfive

    if source is not None:
        return load_file(source, variant, hints=hints)
    published = variant.published
    if published is None:
        raise WeightsError(
            f"{variant.name}: no weights are published for this network; give"
            f" {hints.weights_option} FILE"
            + (" (dense L3 weights are pruned to the plan)" if hints == OPTIONS else "")
        )
    cached = cache_directory() / published.name
    if os.path.isfile(cached):  # noqa: PTH113 - Path.is_file raises where the name is too long
        return load_file(cached, variant, expected_blob_id=published.git_blob_id)
    for directory in unpacked_directories():
        unpacked = directory / published.name.removesuffix(".gz")
        if os.path.isfile(unpacked):  # noqa: PTH113
            weights = load_file(unpacked, variant)
            provenance = replace(
                weights.provenance,
                kind="package",
                description=f"unpacked {unpacked.name} as of an edgel3 package (digest unknown)",
            )
            return replace(weights, provenance=provenance)
    _download(base_url + published.name, cached, published.git_blob_id, hints)
    return load_file(cached, variant, expected_blob_id=published.git_blob_id)


def load_bundled_weights(variant: Variant) -> NetworkWeights:
    """Load the stand-in weights that ship with this package.

    Raises
    ------
    WeightsError
        If the network is not the one that the stand-in was trained for.
    """
    from edgel3_tflm.networks.weight_files import load_file

    label = _find_bundled_label(variant)
    if label is None:
        raise WeightsError(
            f"{variant.name}: expected a network with bundled weights"
            f" ({' or '.join(_BUNDLED_DESCRIPTIONS)} % of zeros); give --weights FILE or --weights"
            " generated"
        )
    path = Path(str(files("edgel3_tflm.standin"))) / f"edgel3_{label}_standin.h5.gz"
    weights = load_file(path, variant)
    description = _BUNDLED_DESCRIPTIONS[label]
    provenance = replace(weights.provenance, kind="bundled", description=description)
    return replace(weights, provenance=provenance)


def find_bundled_variants(retrain_type: RetrainType = "ft") -> list[Variant]:
    """Return the networks that this package ships stand-in weights of."""
    return [
        variant
        for variant in VARIANTS.values()
        if variant.retrain_type == retrain_type and _find_bundled_label(variant)
    ]


def _find_bundled_label(variant: Variant) -> str | None:
    plan = variant.plan
    if plan is None or plan not in PLANS or plan.label not in _BUNDLED_DESCRIPTIONS:
        return None
    return plan.label


def find_weights(variant: Variant, note: Note = _log.info) -> NetworkWeights:
    """Load the published weights, or a stand-in where none are published or reached.

    Parameters
    ----------
    variant : Variant
    note : callable
        Called with a line that says why the stand-in is used.

    Raises
    ------
    WeightsError
        If neither is available, or a file that was found is damaged.
    """
    if variant.published is None and _find_bundled_label(variant):
        note(f"STAND-IN weights are used: none are published for {variant.name}")
        return load_bundled_weights(variant)
    try:
        return load_weights(variant)
    except WeightsUnreachableError as unreachable:
        if _find_bundled_label(variant) is None:
            raise
        note(
            f"STAND-IN weights take the place of the published ones of {variant.name}:"
            f" {unreachable}"
        )
        return load_bundled_weights(variant)


def load_given(
    variant: Variant, source: WeightsSource, note: Note = _log.info
) -> NetworkWeights | None:
    """Load the weights that a file or a word specifies.

    Parameters
    ----------
    variant : Variant
    source : pathlib.Path or str
        A weight file, or one of ``WeightsWord``.
    note : callable
        As for :func:`find_weights`.

    Returns
    -------
    NetworkWeights or None
        None for 'generated': the caller generates the weights.

    Raises
    ------
    WeightsError
        If the weights are not available or damaged.
    """
    if isinstance(source, Path):
        return load_weights(variant, source)
    if source == "auto":
        return find_weights(variant, note)
    if source == "bundled":
        return load_bundled_weights(variant)
    return load_weights(variant) if source == "published" else None


class _BoundedBuffer(io.BytesIO):
    """A download in memory that refuses more bytes than a weight file may have."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, chunk: Any) -> int:
        if self.tell() + len(chunk) > self._limit:
            raise OSError(errno.EFBIG, "more bytes than a weight file has")
        return super().write(chunk)


def _download(url: str, target: Path, expected_blob_id: str, hints: Hints) -> None:
    """Download a file, verify its git blob id, and write it into the cache."""
    import pooch

    from edgel3_tflm.networks.hdf5 import MAX_HDF5_BYTES
    from edgel3_tflm.networks.weight_files import check_blob_id

    _log.info("downloading %s", url)
    downloaded = _BoundedBuffer(MAX_HDF5_BYTES)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        pooch.HTTPDownloader(timeout=_DOWNLOAD_TIMEOUT_S)(url, downloaded, None)
    except OSError as error:  # requests' exceptions are OSErrors too
        raise WeightsUnreachableError(
            f"cannot fetch {url} ({type(error).__name__}); give {hints.weights_option} FILE, or put"
            f" the file into {target.parent}"
            + (", or try the pipeline with --weights generated" if hints == OPTIONS else "")
        ) from error
    check_blob_id(downloaded.getvalue(), url, expected_blob_id)
    try:
        write_whole(target, downloaded.getvalue())
    except EdgeL3Error as error:
        raise WeightsError(
            f"{error}; give {hints.weights_option} FILE, or set EDGEL3_TFLM_CACHE to a directory"
            " that can be written"
        ) from error
