"""The table of networks against the published figures."""

import csv
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import (
    PLANS,
    VARIANTS,
    find_depth,
    find_filters,
    find_plan,
    find_variant,
)
from edgel3_tflm.networks.variants import Plan, PublishedFile, Variant

# EdgeL3 paper and slides: total, percents of conv1..conv8, MB (2^20) of non-zero float32 values.
PUBLISHED_PLANS = {
    53.49: ((0, 30, 40, 50, 30, 50, 50, 60), 8.317),
    63.48: ((0, 40, 50, 60, 40, 60, 60, 70), 6.530),
    72.29: ((0, 40, 50, 60, 40, 70, 70, 80), 4.955),
    73.55: ((0, 60, 60, 70, 50, 70, 70, 80), 4.730),
    80.87: ((0, 70, 70, 75, 60, 80, 80, 85), 3.421),
    87.08: ((0, 80, 80, 85, 40, 85, 85, 95), 2.310),
    90.51: ((30, 85, 85, 90, 60, 90, 90, 95), 1.697),
    95.45: ((0, 85, 85, 85, 75, 95, 98, 98), 0.814),
    97.00: ((0, 93, 94, 96, 97, 95.97, 98, 97), 0.536),
    98.00: ((0, 95, 96, 97, 97, 98, 98.65, 98), 0.357),
    99.00: ((0, 94, 96, 99, 99, 99, 99, 99.2), 0.179),
}
# Parameters of L3's audio part: kernels, biases, and gamma and beta of nine BatchNorms.
PUBLISHED_PARAMETERS = 4_688_066
PUBLISHED_NONZEROS_95_45 = 213_491

DENSE = VARIANTS["l3-dense"]


def nonzero_parameters(percents: tuple[float, ...]) -> float:
    """Return the number of kernel weights and biases that remain after pruning of both."""
    return sum(
        (layer.kernel_size + layer.out_channels) * (100 - percent) / 100
        for layer, percent in zip(DENSE.layers, percents, strict=True)
    )


def test_plans_are_the_published_ones() -> None:
    assert {plan.total: plan.layers for plan in PLANS} == {
        total: percents for total, (percents, _) in PUBLISHED_PLANS.items()
    }


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.label)
def test_published_total_follows_from_the_layers_of_a_plan(plan: Plan) -> None:
    total = 100 * (1 - nonzero_parameters(plan.layers) / PUBLISHED_PARAMETERS)
    assert abs(total - plan.total) <= 0.005  # totals are rounded to two decimals


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.label)
def test_published_size_follows_from_the_layers_of_a_plan(plan: Plan) -> None:
    megabytes = 4 * nonzero_parameters(plan.layers) / 2**20
    assert abs(megabytes - PUBLISHED_PLANS[plan.total][1]) <= 0.0005  # three decimals


def test_a_plan_with_one_wrong_layer_misses_its_published_total() -> None:
    percents = (0, 85, 85, 85, 75, 95, 98, 97)
    total = 100 * (1 - nonzero_parameters(percents) / PUBLISHED_PARAMETERS)
    assert abs(total - 95.45) > 0.005


def test_default_plan_keeps_the_published_number_of_nonzeros() -> None:
    # 213,490.56; the layers' own rounding of kernels and biases moves it by less than 16 halves.
    assert abs(nonzero_parameters(find_plan("95.45").layers) - PUBLISHED_NONZEROS_95_45) < 8


def test_l3_has_the_published_number_of_weights() -> None:
    layers = DENSE.layers
    kernels = sum(layer.kernel_size for layer in layers)
    biases = sum(layer.out_channels for layer in layers)
    norms = 1 + biases  # the input's, and one after each convolution when it was trained
    assert kernels == 4_682_304
    assert kernels + biases == 4_684_224
    assert kernels + biases + 2 * norms == PUBLISHED_PARAMETERS


@pytest.mark.parametrize(
    ("name", "macs"), [("l3-dense", 10_202_628_096), ("sea-ust-64", 122_425_344)]
)
def test_multiply_accumulates_of_a_window_are_the_published_ones(name: str, macs: int) -> None:
    layers = VARIANTS[name].layers
    assert sum(layer.rows * layer.columns * layer.kernel_size for layer in layers) == macs


def test_maps_of_l3_halve_after_the_second_fourth_and_sixth_convolution() -> None:
    assert [(layer.rows, layer.columns) for layer in DENSE.layers] == [
        (256, 199),
        (256, 199),
        (128, 99),
        (128, 99),
        (64, 49),
        (64, 49),
        (32, 24),
        (32, 24),
    ]


@pytest.mark.parametrize("name", ["edgel3-95.45-ft", "edgel3-99-kd", "l3-dense"])
def test_sparse_family_ends_without_batch_norm(name: str) -> None:
    variant = VARIANTS[name]
    assert [layer.batch_norm for layer in variant.layers] == [True] * 7 + [False]
    assert variant.embedding_size == 512
    spec = variant.frontend
    assert (spec.sample_rate_hz, spec.dft_samples, spec.hop_samples) == (48_000, 2048, 242)
    assert (spec.frames, spec.mels, spec.window_samples) == (199, 256, 48_000)


@pytest.mark.parametrize(
    ("size", "filters"),
    [
        (512, (64, 64, 128, 128, 256, 256, 512, 512)),
        (256, (32, 32, 64, 64, 128, 128, 256, 256)),
        (128, (32, 32, 64, 64, 128, 128, 128, 128)),
        (64, (32, 32, 64, 64, 128, 128, 64, 64)),
    ],
)
def test_sea_students_have_the_published_filters(size: int, filters: tuple[int, ...]) -> None:
    variant = find_variant("sea", embedding_size=size)
    assert variant.filters == filters
    assert variant.embedding_size == size
    assert all(layer.batch_norm for layer in variant.layers)
    spec = variant.frontend
    assert (spec.sample_rate_hz, spec.dft_samples, spec.hop_samples) == (8_000, 1024, 160)
    assert (spec.frames, spec.mels) == (50, 64)


@pytest.mark.parametrize(
    ("typed", "total"),
    [
        ("95.45", 95.45),
        ("97", 97.0),
        ("97.0", 97.0),
        ("97.00", 97.0),
        ("53.5", 53.49),
        ("53.49", 53.49),
        ("81.0", 80.87),
        ("81", 80.87),
        ("80.87", 80.87),
        ("73.5", 73.55),
        ("73.55", 73.55),
        ("99", 99.0),
    ],
)
def test_sparsity_is_understood_in_either_published_form(typed: str, total: float) -> None:
    assert find_plan(typed).total == total


@pytest.mark.parametrize(
    "typed", ["nan", "inf", "-inf", "-1", "", " ", "95", "95.46", "1e400", "abc", "95,45", "95.45%"]
)
def test_unknown_sparsity_is_refused_with_the_list_of_known_ones(typed: str) -> None:
    with pytest.raises(EdgeL3Error) as refusal:
        find_plan(typed)
    assert str(refusal.value) == (
        f"unknown sparsity {typed!r}: expected one of 53.5, 63.5, 72.3, 73.5, 81.0, 87.0, 90.5,"
        " 95.45, 97, 98, 99 (percent of zeros)"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"model_type": "tiny"}, "sparse, sea or dense"),
        ({"retrain_type": "FT"}, "ft or kd"),
        ({"model_type": "sea", "embedding_size": 100}, "512, 256, 128, 64"),
    ],
)
def test_unknown_word_is_refused_with_the_known_ones(words: dict[str, Any], expected: str) -> None:
    with pytest.raises(EdgeL3Error, match=expected):
        find_variant(**words)


def test_options_of_another_family_are_not_read() -> None:
    assert find_variant("dense", sparsity="abc", embedding_size=7).name == "l3-dense"
    assert find_variant("sea", sparsity="abc", embedding_size=64).name == "sea-ust-64"
    assert find_variant("sparse", embedding_size=7).name == "edgel3-95.45-ft"


def test_every_plan_has_a_fine_tuned_and_a_distilled_network() -> None:
    sparse = {name for name, variant in VARIANTS.items() if variant.model_type == "sparse"}
    assert sparse == {f"edgel3-{plan.label}-{kind}" for plan in PLANS for kind in ("ft", "kd")}
    assert len(VARIANTS) == 2 * 11 + 4 + 1
    assert all(variant.name == name for name, variant in VARIANTS.items())


CUT = (64, 48, 64, 64, 128, 128, 256, 256)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("sea-ust-64", "sea-ust-filters-64-48-64-64-128-128-256-256"),
        ("edgel3-90.5-kd", "edgel3-90.5-kd-filters-64-48-64-64-128-128-256-256"),
        ("l3-dense", "l3-dense-filters-64-48-64-64-128-128-256-256"),
    ],
)
def test_a_network_with_filters_of_its_own_is_found_by_its_name(name: str, own: str) -> None:
    known = VARIANTS[name]
    variant = known.with_filters(CUT)
    assert (variant.name, variant.filters, variant.embedding_size) == (own, CUT, 256)
    assert (variant.frontend, variant.final_relu) == (known.frontend, known.final_relu)
    assert VARIANTS[own] == variant
    assert variant.with_filters(known.filters).with_filters(CUT) == variant


def test_nothing_published_is_said_of_other_filters() -> None:
    variant = VARIANTS["edgel3-90.5-kd"].with_filters((1, 1, 1, 1, 1, 1, 1, 3))
    assert variant.published is None
    assert variant.plan is not None
    assert variant.plan.layers == PUBLISHED_PLANS[90.51][0]
    # Ten 3x3 kernels: one in each of seven layers, three in the last.
    assert variant.plan.total == round((30 + 85 + 85 + 90 + 60 + 90 + 90 + 3 * 95) / 10, 2)
    assert variant.plan.package_name is None


@pytest.mark.parametrize(
    "filters", [(), CUT[:7], (*CUT, 64), (0, *CUT[1:]), (*CUT[:7], -1), (*CUT[:7], 1025)]
)
def test_filters_that_no_network_has_are_refused(filters: tuple[int, ...]) -> None:
    with pytest.raises(EdgeL3Error, match="8 numbers of filters from 1 to 1024"):
        VARIANTS["l3-dense"].with_filters(filters)


OWN_PLAN = Plan(0, (0, 10.25, 20, 30, 40, 50, 60, 70.0625))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("sea-ust-64", "sea-ust-64-conv6"),
        ("edgel3-90.5-kd", "edgel3-90.5-kd-conv6"),
        ("l3-dense", "l3-dense-conv6"),
    ],
)
def test_a_network_cut_at_a_depth_is_found_by_its_name(name: str, own: str) -> None:
    known = VARIANTS[name]
    variant = known.with_depth(6)
    assert (variant.name, variant.filters) == (own, known.filters[:6])
    assert variant.embedding_size == known.filters[5]
    assert (variant.published, variant.frontend) == (None, known.frontend)
    # Only the last layer may differ, in what follows it.
    assert variant.layers[:5] == known.layers[:5]
    assert variant.layers[5].batch_norm == known.final_relu
    assert VARIANTS[own] == variant
    assert known.with_depth(7).with_depth(6) == variant
    assert variant.with_depth(6) == variant


def test_whole_depth_changes_nothing() -> None:
    for variant in VARIANTS.values():
        assert variant.with_depth(8) is variant


@pytest.mark.parametrize("depth", [-1, 0, 9])
def test_depth_that_no_network_has_is_refused(depth: int) -> None:
    with pytest.raises(EdgeL3Error, match=f"one of conv1 to conv8 of l3-dense, got conv{depth}"):
        VARIANTS["l3-dense"].with_depth(depth)


def test_cut_network_cannot_be_made_deeper() -> None:
    with pytest.raises(EdgeL3Error, match="conv1 to conv5"):
        VARIANTS["l3-dense"].with_depth(5).with_depth(6)


def test_plan_of_a_cut_network_counts_the_layers_that_stay() -> None:
    variant = VARIANTS["edgel3-95.45-ft"].with_depth(2)
    assert variant.plan == Plan(round(100 * 0.85 * 36864 / (36864 + 576), 2), (0, 85))


@pytest.mark.parametrize("name", ["sea-ust-64", "edgel3-90.5-kd", "l3-dense"])
def test_depth_filters_and_plan_combine_in_any_order(name: str) -> None:
    changes: list[Callable[[Variant], Variant]] = [
        lambda variant: variant.with_depth(6),
        lambda variant: variant.with_filters(CUT),
        lambda variant: variant.with_plan(OWN_PLAN),
    ]
    made = set()
    for order in permutations(changes):
        variant = VARIANTS[name]
        for change in order:
            variant = change(variant)
        made.add(variant)
    assert len(made) == 1
    (variant,) = made
    assert variant.name.endswith("-plan-0-10.25-20-30-40-50-conv6-filters-64-48-64-64-128-128")
    assert VARIANTS[variant.name] == variant


def test_a_network_with_a_plan_of_its_own_says_no_published_number() -> None:
    variant = VARIANTS["edgel3-95.45-kd"].with_plan(OWN_PLAN)
    assert variant.name == "edgel3-kd-plan-0-10.25-20-30-40-50-60-70.0625"
    assert variant.plan is not None
    assert variant.plan.layers == OWN_PLAN.layers
    assert (variant.plan.package_name, variant.published) == (None, None)
    assert VARIANTS[variant.name] == variant


@pytest.mark.parametrize(
    "layers",
    [(), (0,) * 7, (0,) * 9, (*OWN_PLAN.layers[:7], 100), (*OWN_PLAN.layers[:7], -1)]
    + [(*OWN_PLAN.layers[:7], bad) for bad in (float("nan"), float("inf"), 1e-5, 99.99999)],
)
def test_plan_that_no_network_has_is_refused(layers: tuple[float, ...]) -> None:
    with pytest.raises(EdgeL3Error, match="percents of zeros"):
        VARIANTS["edgel3-95.45-ft"].with_plan(Plan(0, layers))


def test_zero_percent_has_one_name() -> None:
    dense = VARIANTS["l3-dense"].with_depth(1)
    assert dense.with_plan(Plan(0, (-0.0,))).name == "l3-dense-plan-0-conv1"


def test_depth_and_filters_are_understood_as_they_are_typed() -> None:
    assert find_depth("conv7") == 7
    assert find_filters("1,2, 3") == (1, 2, 3)
    assert find_filters("width-43.14") == CUT


@pytest.mark.parametrize("typed", ["", "7", "conv0", "conv9", "conv", "Conv7", "conv07"])
def test_unknown_embedding_layer_is_refused(typed: str) -> None:
    with pytest.raises(EdgeL3Error, match="expected one of conv1, conv2"):
        find_depth(typed)


@pytest.mark.parametrize("typed", ["", "width-50", "1;2", "1,,2", "1.5"])
def test_unknown_filters_are_refused(typed: str) -> None:
    with pytest.raises(EdgeL3Error, match="or one of width-43"):
        find_filters(typed)


@pytest.mark.parametrize(
    "name",
    [
        "sea-ust",
        "sea-ust-filters-",
        "sea-ust-64-filters-1-1-1-1-1-1-1-1",
        "sea-ust-filters-01-1-1-1-1-1-1-1",
        "l3-dense-filters-0-1-1-1-1-1-1-1",
        "l3-dense-filters-1-1-1",
        "l3-dense-filters-1-1-1-1-1-1-1-x",
        "other-filters-1-1-1-1-1-1-1-1",
        "",
        "edgel3-ft",
        "l3-dense-conv0",
        "l3-dense-conv8",
        "l3-dense-conv07",
        "l3-dense-conv6-filters-64-48-64-64-128-128-256-256",
        "l3-dense-conv6-plan-0-0-0-0-0-0",
        "l3-dense-plan-0-0-0-0-0-0-0-100",
        "l3-dense-plan-0-0-0-0-0-0-0-0.0",
        "l3-dense-plan-0-0-0-0-0-0-0-1.2.3",
        "edgel3-95.45-ft-plan-0-0-0-0-0-0-0-0",
    ],
)
def test_a_name_that_no_network_has_is_not_found(name: str) -> None:
    with pytest.raises(KeyError):
        VARIANTS[name]


def read_published_files(shared: Path) -> list[dict[str, str]]:
    path = shared / "design" / "published-weights.tsv"
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_published_files_are_known_by_name_and_blob_id(shared: Path) -> None:
    rows = read_published_files(shared)
    assert len(rows) == 20
    for row in rows:
        variant = (
            find_variant("sea", embedding_size=int(row["sparsity_or_dim"]))
            if row["family"] == "sea"
            else find_variant(sparsity=row["sparsity_or_dim"], retrain_type=row["retrain"])
        )
        assert variant.published == PublishedFile(row["file"], row["git_blob_sha1"])


def test_no_file_is_claimed_that_is_not_published(shared: Path) -> None:
    claimed = {v.published.name for v in VARIANTS.values() if v.published is not None}
    assert claimed == {row["file"] for row in read_published_files(shared)}
