"""The published study: the reduction of its rows, and a row from weights to figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.command_line import assert_one_error_line, run
from helpers.progress import ignore_progress
from rich.console import Console

from edgel3_tflm.cli.retrain.study import published_table, rows_table
from edgel3_tflm.converters.compression.study import (
    STUDY,
    StudyRow,
    agrees,
    count_reduction,
    options_of,
    study,
)
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.converters.quantization.quantizer import PLAIN
from edgel3_tflm.networks.catalogue import VARIANTS, find_variant
from edgel3_tflm.networks.published import PUBLISHED_RESULTS
from edgel3_tflm.networks.variants import Variant

BY_NAME = {each.name: each for each in STUDY}
# The published tables do not agree with any count; these figures are the counted ones.
UNCOUNTABLE = {
    "conv6": 75.59,
    "conv5": 88.18,
    "width-43.14": 74.41,
    "width-64.54": 87.00,
    "width-69.89": 91.72,
}


def planned_reduction(variant: Variant) -> float:
    percents = variant.plan.layers if variant.plan else (0,) * len(variant.layers)
    zeros = [
        layer.kernel_size * percent / 100
        for layer, percent in zip(variant.layers, percents, strict=True)
    ]
    return count_reduction(variant, zeros)


def test_study_has_eleven_plans_three_depths_and_three_widths() -> None:
    kinds = [each.kind for each in STUDY]
    assert [kinds.count(kind) for kind in ("plan", "depth", "width")] == [11, 3, 3]
    assert len({each.name for each in PUBLISHED_RESULTS}) == len(PUBLISHED_RESULTS) == 19


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in UNCOUNTABLE])
def test_counted_reduction_is_the_published_one(name: str) -> None:
    published = BY_NAME[name]
    found = planned_reduction(options_of(published, "generated").target)
    assert published.reduction_percent is not None
    assert abs(found - published.reduction_percent) <= 0.005  # two decimals are published
    assert agrees(published, found)


@pytest.mark.parametrize("name", UNCOUNTABLE)
def test_reduction_that_no_count_gives_is_marked(name: str) -> None:
    found = planned_reduction(options_of(BY_NAME[name], "generated").target)
    assert round(found, 2) == UNCOUNTABLE[name]
    assert not agrees(BY_NAME[name], found)


def test_a_plan_with_one_layer_wrong_is_marked() -> None:
    variant = VARIANTS["edgel3-95.45-ft"]
    assert variant.plan is not None
    wrong = replace(variant, plan=replace(variant.plan, layers=(0, 85, 85, 85, 75, 95, 98, 97)))
    assert agrees(BY_NAME["95.45"], planned_reduction(variant))
    assert not agrees(BY_NAME["95.45"], planned_reduction(wrong))


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("97", "edgel3-97-ft"),
        ("conv6", "l3-dense-conv6"),
        ("width-69.89", "l3-dense-filters-64-48-64-64-64-64-128-128"),
    ],
)
def test_a_row_is_converted_as_published(name: str, network: str) -> None:
    assert options_of(BY_NAME[name], "generated").target.name == network


def test_weights_that_nobody_publishes_are_generated() -> None:
    for name in ("99", "conv6", "width-69.89"):
        assert options_of(BY_NAME[name], "auto").weights == "generated"


@pytest.mark.parametrize(("name", "counts_zeros"), [("99", True), ("conv5", False)])
def test_row_has_the_figures_of_what_was_converted(
    tmp_path: Path, name: str, counts_zeros: bool
) -> None:
    soundfile.write(tmp_path / "hiss.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    small = find_variant("sea", embedding_size=64).with_filters((4, 6, 4, 8, 6, 4, 6, 4))
    options = ConvertOptions(
        small.with_plan(VARIANTS["edgel3-53.5-ft"].plan),
        "generated",
        tmp_path,
        quantizer=PLAIN,
        depth=5,
    )
    row = study(BY_NAME[name], options, emulate=False, progress=ignore_progress)
    target = options.target
    assert (row.network, row.weights, row.instructions) == (target.name, "generated", None)
    # One SMLAL does two multiply-accumulates, and takes a cycle at least.
    assert row.packed_macs / 2 < row.cycles < 20 * row.packed_macs
    dense_macs = sum(layer.rows * layer.columns * layer.kernel_size for layer in target.layers)
    assert 0 < row.packed_macs < dense_macs
    kernels = sum(layer.kernel_size for layer in target.layers)
    assert kernels / 2 < row.flash_bytes < row.arena_bytes < 100_000
    expected = planned_reduction(target if counts_zeros else replace(target, plan=None))
    # The zeros of a layer differ from the plan by at most one of L3's 4.7 million weights.
    assert abs(row.reduction_percent - expected) <= 100 * 5 * 2 / 4_688_066
    assert not row.agrees


def test_row_in_json_says_both_figures() -> None:
    row = StudyRow(BY_NAME["conv6"], "n", "file", 75.59, 1, 2, 3, 4, 5)
    found = json.loads(json.dumps(row.to_json()))
    assert found["published"]["reduction_percent"] == 72.34
    assert (found["reduction_percent"], found["agrees"]) == (75.59, False)
    assert (found["cycles"], found["instructions"]) == (4, 5)


@pytest.mark.parametrize("is_counted", [True, False])
def test_tables_fit_into_eighty_columns(is_counted: bool) -> None:
    work = (11_000_000_000, 12_000_000_000 if is_counted else None)
    rows = [
        StudyRow(each, "n", "file", 88.18, 4_705_344, 228_896, 8_301_000_000, *work)
        for each in STUDY
    ]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(rows_table(rows), published_table(list(STUDY)))
    printed = capture.get()
    assert "…" not in printed
    assert all(printed.count(f"\n {each.name} ") == 2 for each in STUDY), printed
    (conv6,) = (line for line in printed.splitlines() if "4,705,344" in line and "conv6" in line)
    assert "72.34*" in conv6
    assert "67.2 (32.6)" in printed


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--sparsity", "95"], "unknown sparsity '95'"),
        (["--embedding-layer", "conv4"], "expected one of conv7, conv6, conv5"),
        (["--embedding-layer", "8"], "unknown embedding layer '8'"),
        (["--filters", "1,2,3"], "expected one of width-43.14, width-64.54, width-69.89"),
        (["--sparsity", "99", "--weights", "none.h5"], "none.h5"),
        (["--embedding-layer", "conv5", "--weights", "bundled"], "--weights generated"),
    ],
)
def test_row_that_cannot_be_made_is_refused(words: list[str], part: str) -> None:
    assert_one_error_line(run("study", *words), part)
