"""Plan files: a written plan can be read, and invalid plans are errors."""

from pathlib import Path

import pytest

from edgel3_tflm.converters.pruning.plan_file import parse_plan, read_plan, write_plan
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import PLANS, find_variant
from edgel3_tflm.networks.variants import Plan


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.label)
def test_what_is_written_is_read(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(write_plan(plan, "the published plan"))
    assert read_plan(path).layers == plan.layers
    assert read_plan(path) == find_variant("dense").with_plan(plan).plan


def test_comment_of_several_lines_stands_in_front() -> None:
    data = write_plan(Plan(0, (10, 20.5)), "from a search\n\nover 3 clips")
    assert data == (
        b"# from a search\n#\n# over 3 clips\n[zeros_percent]\nconv1 = 10\nconv2 = 20.5\n"
    )


def test_total_counts_the_kernels_of_l3_down_to_the_last_layer() -> None:
    plan = parse_plan("[zeros_percent]\nconv1 = 0\nconv2 = 50\n")
    assert plan.layers == (0, 50)
    assert plan.total == round(100 * 18432 / (576 + 36864), 2)
    assert plan.package_name is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected the field zeros_percent, it is missing"),
        ("zeros_percent = 3", "zeros_percent: expected named fields, found 3"),
        ("[zeros_percent]", "found none"),
        ("[zeros]\nconv1 = 1", "expected the field zeros_percent, it is missing"),
        ("[zeros_percent]\nconv1 = 1\n[more]", "more: expected no such field"),
        ("[zeros_percent]\nconv2 = 1", "found conv2"),
        ("[zeros_percent]\nconv1 = 1\nconv3 = 1", "found conv1, conv3"),
        (
            "[zeros_percent]\n" + "".join(f"conv{number} = 1\n" for number in range(1, 10)),
            "up to conv8",
        ),
        ("[zeros_percent]\nconv1 = 1\nconv1 = 2", "expected TOML"),
        ("[zeros_percent\nconv1 = 1", "expected TOML"),
        ("[zeros_percent]\nconv1 = '1'", "zeros_percent.conv1: expected a valid number, found '1'"),
        ("[zeros_percent]\nconv1 = true", "expected a valid number, found True"),
        ("[zeros_percent]\nconv1 = [1]", "expected a valid number"),
        ("[zeros_percent]\nconv1 = -1", "from 0 to 100, got -1"),
        ("[zeros_percent]\nconv1 = 100.5", "from 0 to 100, got 100.5"),
        ("[zeros_percent]\nconv1 = 100", "below 100 with at most 4 decimals, got 100"),
        ("[zeros_percent]\nconv1 = nan", "expected a finite number, found nan"),
        ("[zeros_percent]\nconv1 = inf", "expected a finite number, found inf"),
        ("[zeros_percent]\nconv1 = 1.00001", "at most 4 decimals, got 1.00001"),
        ("[zeros_percent]\nconv1 = 99.99999", "at most 4 decimals, got 99.99999"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(EdgeL3Error) as refusal:
        read_plan(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ")
    assert part in message
    assert "\n" not in message


def test_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeL3Error, match="cannot read"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(EdgeL3Error, match="expected TOML"):
        read_plan(tmp_path / "bytes.toml")


@pytest.mark.parametrize("layers", [(), (100.0,), (float("nan"),), (1.00001,), (1,) * 9])
def test_plan_that_could_not_be_read_is_not_written(layers: tuple[float, ...]) -> None:
    with pytest.raises(EdgeL3Error):
        write_plan(Plan(0, layers), "no plan")
