"""Damaged deployments: one line names the field or the file and the error."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgel3_tflm.cli import commands as cli
from edgel3_tflm.cli.info import describe_deployment, files_table
from edgel3_tflm.drift.figures import measure_sizes
from edgel3_tflm.embedding.models import open_deployment
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.deployment import Deployment

REQUIRED = [
    "format",
    "format_version",
    "variant",
    "variant.name",
    "variant.plan_total_percent",
    "quantization",
    "weights",
    "weights.kind",
    "weights.name",
    "weights.sha256",
    "weights.description",
    "input",
    "input.slope_per_db",
    "input.offset",
    "layers",
    "layers.3.name",
    "layers.3.weights",
    "layers.3.plan_percent",
    "layers.3.zeros",
    "layers.3.quantized_zeros",
    "layers.3.dense_macs",
    "layers.3.effective_macs",
    "arena_bytes",
    "calibration",
    "calibration.windows",
    "artefacts",
    "artefacts.int8.tflite.bytes",
    "artefacts.int8.tflite.sha256",
]

Change = Callable[[Any, Any], None]


@pytest.fixture
def copy(tiny_int8: Deployment, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_int8.directory, tmp_path / "copy"))


def steps_of(field: str) -> list[str]:
    """Return the keys that lead to a field. File names contain dots themselves."""
    return field.replace("int8.tflite", "int8/tflite").split(".")


def change(directory: Path, field: str, edit: Change) -> None:
    """Edit a field of a manifest. ``edit`` gets the field's parent and its key."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_bytes())
    *way, key = (each.replace("/", ".") for each in steps_of(field))
    holder = manifest
    for each in way:
        holder = holder[int(each)] if isinstance(holder, list) else holder[each]
    edit(holder, key)
    path.write_text(json.dumps(manifest))


def remove(holder: Any, key: Any) -> None:
    del holder[key]


def refusal_of(directory: Path) -> str:
    with pytest.raises(ModelFileError) as refusal:
        Deployment.load(directory)
    message = str(refusal.value)
    assert message.isprintable()
    assert message.startswith(str(directory))
    return message


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(copy: Path, field: str) -> None:
    change(copy, field, remove)
    message = refusal_of(copy)
    assert f"manifest.json: expected the field {field}, it is missing; convert again" in message


@pytest.mark.parametrize("field", [each for each in REQUIRED if each != "format_version"])
def test_a_field_of_another_type_is_named(copy: Path, field: str) -> None:
    def spoil(holder: Any, key: Any) -> None:
        holder[key] = False

    change(copy, field, spoil)
    assert field in refusal_of(copy)
    assert "found False" in refusal_of(copy)


@pytest.mark.parametrize(
    ("field", "value", "parts"),
    [
        ("format", "other", ["expected format 'edgel3-tflm deployment' version 1, found 'other'"]),
        ("format_version", 2, ["version 1, found", "version 2", "a newer edgel3-tflm wrote it"]),
        ("quantization", "int4", ["quantization: expected 'int8' or 'int16x8', found 'int4'"]),
        ("variant.name", "other", ["variant: expected the name of a network, found 'other'"]),
        ("input.offset", float("nan"), ["input.offset", "finite", "nan"]),
        ("layers", [], ["layers: expected conv1, conv2"]),
        ("layers.3.weights", 0, ["layers.3.weights", "greater than or equal to 1"]),
        ("layers.3.name", "conv9", ["layers: expected conv1", "conv9"]),
        ("arena_bytes", -1, ["arena_bytes"]),
        ("packed", None, ["packed"]),
        ("packed", {}, ["packed: expected the fields bytes, arena_bytes and layers"]),
        ("packed", {"refused": "no"}, ["packed: expected the size of packed.edgel3"]),
        ("quantizer", None, ["quantizer"]),
        ("quantizer", {"steps": None}, ["quantizer.steps"]),
        ("weights.network", None, ["weights.network"]),
        ("artefacts", {}, ["expected an entry for float.tflite"]),
        ("artefacts", [], ["artefacts: expected named fields"]),
        ("artefacts.int8.tflite.sha256", "0" * 63, ["artefacts.int8.tflite.sha256"]),
        ("artefacts.int8.tflite.sha256", "0" * 64, ["int8.tflite: expected SHA-256", "000000"]),
    ],
)
def test_a_value_that_cannot_be_is_named(
    copy: Path, field: str, value: object, parts: list[str]
) -> None:
    def spoil(holder: Any, key: Any) -> None:
        holder[key] = value

    change(copy, field, spoil)
    message = refusal_of(copy)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("name", ["../x", "a\0b", "/etc/passwd"])
def test_a_file_outside_is_refused(copy: Path, name: str) -> None:
    def add(holder: Any, key: Any) -> None:
        holder[key][name] = {"bytes": 0, "sha256": "0" * 64}

    change(copy, "artefacts", add)
    assert "expected a plain file name" in refusal_of(copy)


def fields_of(holder: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys of every field, with the first element of each list only."""
    items: Any = holder.items() if isinstance(holder, dict) else enumerate(holder[:1])
    for key, value in items:
        if isinstance(holder, dict):
            yield (*way, key)
        if isinstance(value, dict | list):
            yield from fields_of(value, (*way, key))


def test_no_field_that_is_missing_is_a_programming_error(copy: Path) -> None:
    """A missing field is either reported by ``load`` or not needed by anything."""
    manifest = json.loads((copy / "manifest.json").read_bytes())
    needed = 0
    for way in list(fields_of(manifest)):
        changed = json.loads(json.dumps(manifest))
        holder = changed
        for key in way[:-1]:
            holder = holder[key]
        del holder[way[-1]]
        (copy / "manifest.json").write_text(json.dumps(changed))
        try:
            deployment = Deployment.load(copy)
        except ModelFileError as error:
            assert str(way[-1]) in str(error) or "packed" in str(error), way  # noqa: PT017
            needed += 1
            continue
        describe_deployment(deployment)
        files_table(deployment)
        measure_sizes(deployment)
        open_deployment(deployment, threads=1)
    assert needed >= len(REQUIRED)


def test_fields_of_a_later_version_are_ignored(copy: Path) -> None:
    def add(holder: Any, key: Any) -> None:
        holder[key] = {"more": 1}
        holder["layers"][0]["new"] = [1]

    change(copy, "new", add)
    assert Deployment.load(copy).manifest["new"] == {"more": 1}


ARTEFACTS = ["float.tflite", "int8.tflite", "packed.edgel3", "edgel3_model.h"]


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_damaged_file_is_named(copy: Path, name: str) -> None:
    path = copy / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert f"{name}: expected SHA-256" in refusal_of(copy)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert f"{name}: expected SHA-256" in refusal_of(copy)
    path.unlink()
    assert f"{name}: listed in manifest.json but cannot be read (No such file" in refusal_of(copy)
    path.mkdir()
    assert f"{name}: listed in manifest.json but cannot be read (Is a dir" in refusal_of(copy)


def test_a_manifest_that_cannot_be_read_is_one_line(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes()[:-10])
    assert "manifest.json: expected JSON, it is cut or damaged" in refusal_of(copy)
    path.write_bytes(b"")
    assert "manifest.json: expected JSON, it is cut or damaged" in refusal_of(copy)
    path.unlink()
    assert "it has no manifest.json" in refusal_of(copy)
    path.mkdir()
    assert "manifest.json: cannot read: Is a directory" in refusal_of(copy)


@pytest.mark.parametrize(
    "words",
    [
        "info DIR",
        "compare DIR sounds -o out",
        "embed sounds --model DIR",
        "probe DIR --manifest sounds/manifest.tsv",
        "evaluate DIR --dataset esc50 --data-home sounds",
        "estimate DIR",
        "export-app DIR --board portenta_h7_m7 -o out",
        "train-head DIR --manifest sounds/manifest.tsv -o out",
        "device info --emulate DIR",
        "device compare sounds --port loop:// --model DIR",
    ],
)
def test_every_command_says_so_in_one_line(
    tiny_int8: Deployment,
    sounds: Path,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_int8.directory, "DIR")
    shutil.copytree(sounds, "sounds")
    change(Path("DIR"), "layers", remove)
    with pytest.raises(SystemExit) as end:
        cli.app(words.split())
    assert end.value.code == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == (
        "error: DIR/manifest.json: expected the field layers, it is missing; convert again\n"
    )
    assert not Path("out").exists()
