"""The published networks: sparsity plans, widths and weight files, and how to find a network.

Sources: Kumari et al., "EdgeL3: Compressing L3-Net for Mote-Scale Urban Noise Monitoring" (2019)
for the sparse family and its plans; Srivastava et al., "Specialized Embedding Approximation for
Edge Intelligence" (ICASSP 2021) for the SEA family; the ``models`` branch of the edgel3 package
for file names and git blob ids.
"""

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.variants import (
    CONVOLUTIONS,
    FrontendSpec,
    NameParts,
    Plan,
    PublishedFile,
    RetrainType,
    Variant,
)

_L3_FRONTEND = FrontendSpec(
    sample_rate_hz=48_000, dft_samples=2048, hop_samples=242, frames=199, mels=256
)
_SEA_FRONTEND = FrontendSpec(
    sample_rate_hz=8_000, dft_samples=1024, hop_samples=160, frames=50, mels=64
)
_L3_FILTERS = (64, 64, 128, 128, 256, 256, 512, 512)

PLANS = (
    Plan(53.49, (0, 30, 40, 50, 30, 50, 50, 60), "53.5"),
    Plan(63.48, (0, 40, 50, 60, 40, 60, 60, 70), "63.5"),
    Plan(72.29, (0, 40, 50, 60, 40, 70, 70, 80), "72.3"),
    Plan(73.55, (0, 60, 60, 70, 50, 70, 70, 80), "73.5"),
    Plan(80.87, (0, 70, 70, 75, 60, 80, 80, 85), "81.0"),
    Plan(87.08, (0, 80, 80, 85, 40, 85, 85, 95), "87.0"),
    Plan(90.51, (30, 85, 85, 90, 60, 90, 90, 95), "90.5"),
    Plan(95.45, (0, 85, 85, 85, 75, 95, 98, 98), "95.45"),
    Plan(97.00, (0, 93, 94, 96, 97, 95.97, 98, 97)),
    Plan(98.00, (0, 95, 96, 97, 97, 98, 98.65, 98)),
    Plan(99.00, (0, 94, 96, 99, 99, 99, 99, 99.2)),
)

WIDTHS = {
    "width-43.14": (64, 48, 64, 64, 128, 128, 256, 256),
    "width-64.54": (64, 48, 64, 64, 128, 128, 128, 128),
    "width-69.89": (64, 48, 64, 64, 64, 64, 128, 128),
}
"""Filters of three published, narrower L3s. Each name contains the published weights reduction."""

_SEA_FILTERS = {
    512: _L3_FILTERS,
    256: (32, 32, 64, 64, 128, 128, 256, 256),
    128: (32, 32, 64, 64, 128, 128, 128, 128),
    64: (32, 32, 64, 64, 128, 128, 64, 64),
}

_SPARSE_BLOB_IDS: dict[tuple[RetrainType, str], str] = {
    ("ft", "53.5"): "145a4a61614c1b0b9f68339a844a3c92a431e118",
    ("ft", "63.5"): "ce456a346803f8251505f137c8c3d04dcdcb8e67",
    ("ft", "72.3"): "3bee3a0a90c82d7cd5ff77f3012eb51f6b818ef8",
    ("ft", "73.5"): "6bf23ad68e5bf2e9e41c83659032234e18f5402e",
    ("ft", "81.0"): "550d3c64ced38a3f61c8333f2775259bce216464",
    ("ft", "87.0"): "a3537e20cd83b5d55708af7b1141a8e0c092488c",
    ("ft", "90.5"): "fbf4d3742f46fe40960e9f7ff75ca2a2656877d0",
    ("ft", "95.45"): "f04c05f436a6f95eea6f30573cb70c68841e16de",
    ("kd", "53.5"): "28681887520bd12b87221c13beab11a766cb10dd",
    ("kd", "63.5"): "c2bad561ef1f1cdd919f73f4c4f34f5672f58b4b",
    ("kd", "72.3"): "2bc10ef8b9cec44354c5564173106ca5128cdc92",
    ("kd", "73.5"): "81374e4a0a082eae689da873ef4079485576641d",
    ("kd", "81.0"): "f522214d1f7e55cc2dd5c260051aa8b7b3fd0c65",
    ("kd", "87.0"): "04fd3b2bf1d461bd6bc9a33925651797705e8b56",
    ("kd", "90.5"): "24ec812c198b397c6c56da04ccde84b363e17a35",
    ("kd", "95.45"): "ddefcd4c49a216f2ccec92db15105ed1499a6a35",
}

_SEA_BLOB_IDS = {
    512: "116703e97997cc316d7163ede5d2f5e4d4018f87",
    256: "6be46fee2c278b79d9f77f064146a9493eff2f83",
    128: "162576876259e8267eb6cefe09470dbf153ed6fc",
    64: "f3535405c91fe8da71f6456adb8a061213324239",
}


def _sparse_variant(plan: Plan, retrain_type: RetrainType) -> Variant:
    published = None
    if plan.package_name is not None:
        published = PublishedFile(
            f"edgel3_{retrain_type}_audio_sparsity_{plan.package_name}.h5.gz",
            _SPARSE_BLOB_IDS[retrain_type, plan.package_name],
        )
    return Variant(
        model_type="sparse",
        name=f"edgel3-{plan.label}-{retrain_type}",
        frontend=_L3_FRONTEND,
        filters=_L3_FILTERS,
        final_relu=False,
        plan=plan,
        retrain_type=retrain_type,
        published=published,
    )


def _sea_variant(embedding_size: int) -> Variant:
    return Variant(
        model_type="sea",
        name=f"sea-ust-{embedding_size}",
        frontend=_SEA_FRONTEND,
        filters=_SEA_FILTERS[embedding_size],
        final_relu=True,
        published=PublishedFile(
            f"edgel3_sea_ust_audio_emb_{embedding_size}.h5.gz", _SEA_BLOB_IDS[embedding_size]
        ),
    )


_RETRAIN_TYPES: tuple[RetrainType, ...] = ("ft", "kd")


# Some names with an own plan, depth or filters contain only a family, without its size or total.
# This is the published network that they modify.
_FAMILY_MEMBERS = {
    "sea-ust": "sea-ust-512",
    **{f"edgel3-{each}": f"edgel3-95.45-{each}" for each in _RETRAIN_TYPES},
}


class _Variants(dict[str, Variant]):
    """Networks by name. Looking up a name with a plan, depth or filters makes that network."""

    def __missing__(self, name: str) -> Variant:
        parts = NameParts.parse(name)
        variant = self.get(_FAMILY_MEMBERS.get(parts.family, parts.family))
        if variant is None:
            raise KeyError(name)
        try:
            if parts.depth:
                variant = variant.with_depth(int(parts.depth))
            if parts.plan:
                variant = variant.with_plan(Plan(0, tuple(map(float, parts.plan.split("-")))))
            if parts.filters:
                variant = variant.with_filters([int(each) for each in parts.filters.split("-")])
        except (EdgeL3Error, ValueError) as error:
            raise KeyError(name) from error
        if variant.name != name:
            raise KeyError(name)
        return variant


VARIANTS: dict[str, Variant] = _Variants(
    (variant.name, variant)
    for variant in (
        *(_sparse_variant(plan, retrain) for plan in PLANS for retrain in _RETRAIN_TYPES),
        *(_sea_variant(size) for size in _SEA_FILTERS),
        # The sparse family was pruned from this network. The authors' package has no file of it.
        Variant("dense", "l3-dense", _L3_FRONTEND, _L3_FILTERS, final_relu=False),
    )
)
"""Every network by name. ``VARIANTS[name]`` also accepts the names of the networks that
``Variant.with_plan``, ``with_depth`` and ``with_filters`` return."""


def find_plan(sparsity: str) -> Plan:
    """Return the published plan that has the given total sparsity.

    Parameters
    ----------
    sparsity : str
        Percent of zeros, as in the paper (``95.45``, ``53.49``, ``97``) or as in the file names
        of the edgel3 package (``53.5``, ``81.0``).

    Raises
    ------
    EdgeL3Error
        If no plan has this total. The message lists the known ones.
    """
    try:
        percent = float(sparsity)
    except ValueError:
        percent = float("nan")
    for plan in PLANS:
        # Totals are rounded to two decimals, so they are exact to 0.005.
        if any(abs(percent - known) < 0.005 for known in (plan.total, float(plan.label))):
            return plan
    known_labels = ", ".join(plan.label for plan in PLANS)
    raise EdgeL3Error(
        f"unknown sparsity {sparsity!r}: expected one of {known_labels} (percent of zeros)"
    )


def find_variant(
    model_type: str = "sparse",
    *,
    sparsity: str = "95.45",
    retrain_type: str = "ft",
    embedding_size: int = 128,
) -> Variant:
    """Return the network for options of the command line or arguments of edgel3's API.

    Parameters
    ----------
    model_type : {'sparse', 'sea', 'dense'}
    sparsity : str
        Percent of zeros; used only for 'sparse'.
    retrain_type : {'ft', 'kd'}
        Fine-tuned or knowledge-distilled; used only for 'sparse'.
    embedding_size : {512, 256, 128, 64}
        Used only for 'sea'.

    Raises
    ------
    EdgeL3Error
        If a value is unknown.
    """
    if model_type == "sparse":
        if retrain_type not in _RETRAIN_TYPES:
            raise EdgeL3Error(f"unknown retrain type {retrain_type!r}: expected ft or kd")
        return VARIANTS[f"edgel3-{find_plan(sparsity).label}-{retrain_type}"]
    if model_type == "sea":
        if embedding_size not in _SEA_FILTERS:
            sizes = ", ".join(map(str, _SEA_FILTERS))
            raise EdgeL3Error(f"unknown embedding size {embedding_size}: expected one of {sizes}")
        return VARIANTS[f"sea-ust-{embedding_size}"]
    if model_type == "dense":
        return VARIANTS["l3-dense"]
    raise EdgeL3Error(f"unknown model type {model_type!r}: expected sparse, sea or dense")


def find_depth(embedding_layer: str) -> int:
    """Return the number of convolutions up to the embedding layer: 7 for ``conv7``.

    Raises
    ------
    EdgeL3Error
        If there is no such convolution.
    """
    names = [f"conv{number}" for number in range(1, CONVOLUTIONS + 1)]
    if embedding_layer not in names:
        raise EdgeL3Error(
            f"unknown embedding layer {embedding_layer!r}: expected one of {', '.join(names)}"
        )
    return names.index(embedding_layer) + 1


def find_filters(filters: str) -> tuple[int, ...]:
    """Parse numbers of filters: a name in WIDTHS, or numbers separated by commas.

    Raises
    ------
    EdgeL3Error
        If the text is neither.
    """
    if filters in WIDTHS:
        return WIDTHS[filters]
    try:
        return tuple(int(each) for each in filters.split(","))
    except ValueError as error:
        raise EdgeL3Error(
            f"unknown filters {filters!r}: expected numbers separated by commas, one for each"
            f" convolution, or one of {', '.join(WIDTHS)}"
        ) from error
