"""drift.json read again: whatever is damaged is one line that names the field."""

import json
import math
import operator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import assert_one_error_line, run
from helpers.drift_json import make_drift_json, read

from edgel3_tflm.drift.drift_json import read_drift
from edgel3_tflm.errors import EdgeL3Error

REQUIRED = [
    *("generator", "variant", "quantization", "weights", "models_sha256", "sizes"),
    *("float_runtime", "hop_s", "resampler", "runtimes", "layers", "costliest_layer"),
    *("frontend", "downstream", "notes", "weights.sha256", "sizes.dense.flash_bytes"),
    *("runtimes.0.runtime", "runtimes.1.groups", "runtimes.0.classes", "runtimes.0.clips"),
    *("runtimes.0.values_apart", "runtimes.1.steps_apart", "runtimes.0.groups.all.windows"),
    *("runtimes.0.groups.sounding.cosine_p5", "runtimes.0.classes.dog.sqnr_db"),
    *("runtimes.0.clips.0.clip", "runtimes.0.clips.0.label", "runtimes.1.clips.0.relative_l2"),
    *("layers.windows", "layers.layers", "layers.layers.1.name", "layers.layers.0.cost"),
    *("frontend.input_steps", "frontend.both", "frontend.frontend_alone.sqnr_db"),
    *("downstream.linear_cka", "downstream.classifiers", "downstream.classifiers.0.name"),
    "downstream.classifiers.0.change_points.estimate",
]


def split(field: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in field.split(".")]


def refusal_of(data: dict[str, Any]) -> str:
    with pytest.raises(EdgeL3Error) as refusal:
        read(data)
    message = str(refusal.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(field: str) -> None:
    data = make_drift_json()
    *parents, last = split(field)
    del reduce(operator.getitem, parents, data)[last]
    assert refusal_of(data) == f"expected the field {field}, it is missing; run compare again"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("variant", 3, "variant: expected a valid string, found 3"),
        ("hop_s", "0.5", "hop_s: expected a valid number, found '0.5'"),
        ("hop_s", None, "hop_s: expected a valid number, found None"),
        ("weights", "abc", "weights: expected named fields, found 'abc'"),
        ("weights.sha256", None, "weights.sha256: expected a valid string, found None"),
        ("sizes.dense.arena_bytes", 1.5, "sizes.dense.arena_bytes: expected a valid integer"),
        ("runtimes", {}, "runtimes: expected a valid "),
        ("runtimes", [], "runtimes: List should have at least 1 item"),
        ("runtimes.0", "engine", "runtimes.0: expected named fields, found 'engine'"),
        ("runtimes.0.groups", [], "runtimes.0.groups: expected named fields"),
        ("runtimes.0.groups.all.windows", 1.5, "runtimes.0.groups.all.windows: expected a valid"),
        ("runtimes.0.groups.all.cosine_p5", "1", "runtimes.0.groups.all.cosine_p5: expected a val"),
        ("runtimes.0.groups.all.cosine_p5", True, "runtimes.0.groups.all.cosine_p5: expected a v"),
        ("runtimes.0.clips.0.clip", 7, "runtimes.0.clips.0.clip: expected a valid string, found 7"),
        ("runtimes.1.steps_apart", [], "runtimes.1.steps_apart: expected a valid number, found []"),
        ("layers.layers", 1, "layers.layers: expected a valid array, found 1"),
        ("layers.layers.0.cost", {}, "layers.layers.0.cost: expected a valid number, found {}"),
        ("frontend.both", 1, "frontend.both: expected named fields, found 1"),
        ("downstream", None, "downstream: expected named fields, found None"),
        ("downstream.classifiers.0.change_points.low", "x", "change_points.low: expected a valid"),
    ],
)
def test_a_field_of_another_type_is_named(field: str, value: object, expected: str) -> None:
    data = make_drift_json()
    *parents, last = split(field)
    reduce(operator.getitem, parents, data)[last] = value
    message = refusal_of(data)
    assert expected in message
    assert message.endswith("; run compare again")


def test_null_is_a_figure_that_is_no_number_and_parts_may_not_be_measured() -> None:
    data = make_drift_json()
    data["runtimes"][0]["groups"]["all"]["sqnr_db"] = None
    data |= {"layers": None, "frontend": None, "costliest_layer": None, "later_field": 1}
    found = read(data)
    assert math.isnan(found.first.groups["all"].sqnr_db)
    assert found.first.groups["all"].cosine_p5 == 0.5
    assert (found.layers, found.frontend, found.costliest_layer) == (None, None, None)


def test_a_report_of_version_1_is_refused_in_one_line(tmp_path: Path) -> None:
    """It counted padded windows with the others: its figures cannot be compared."""
    file = tmp_path / "drift.json"
    data = make_drift_json()
    file.write_text(json.dumps(data | {"format_version": 1}))
    with pytest.raises(EdgeL3Error, match=r"drift\.json: .* version 1; run compare again"):
        read_drift(tmp_path)
    assert_one_error_line(run("report", "diff", file, file), str(file), "run compare again")
    file.write_text(json.dumps(data | {"format_version": 3}))
    with pytest.raises(EdgeL3Error, match="a newer edgel3-tflm wrote it"):
        read_drift(file)
