"""Exported projects: files, boards, heads and refusals."""

import configparser
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.boards.arduino import (
    MICRO_APP,
    compile_source,
    needs_arm,
)

from edgel3_tflm.converters.export import app
from edgel3_tflm.converters.export.app import (
    LIBRARY_FOLDER,
    MARKER_NAME,
    export_app,
)
from edgel3_tflm.converters.export.board_files import (
    BOARD_HEADER_NAME,
    SKETCH_NAME,
    write_board_header,
    write_platformio,
)
from edgel3_tflm.converters.export.head import Head
from edgel3_tflm.device.boards import BOARDS, find_board
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.deployment import Deployment


def test_board_facts_in_c_and_for_platformio_are_those_of_boards_py() -> None:
    assert (MICRO_APP / SKETCH_NAME / BOARD_HEADER_NAME).read_text() == write_board_header()
    assert (MICRO_APP / "platformio.ini").read_text() == write_platformio()


def test_platformio_has_an_environment_for_every_board() -> None:
    parser = configparser.ConfigParser()
    parser.read(MICRO_APP / "platformio.ini")

    environments = [name for name in parser.sections() if name.startswith("env:")]
    assert environments == [f"env:{board.name}" for board in BOARDS]
    assert all(parser[f"env:{board.name}"]["board"] == board.name for board in BOARDS)
    # PlatformIO's default split is another than that of the Arduino IDE, which the budgets assume.
    for name in ("giga_r1_m7", "nicla_vision"):
        assert parser[f"env:{name}"]["board_build.arduino.flash_layout"] == "100_0"
        size = parser[f"env:{name}"]["board_upload.maximum_size"]
        assert int(size) == find_board(name).flash_bytes == 1_966_080
    assert (MICRO_APP / parser["platformio"]["src_dir"] / f"{SKETCH_NAME}.ino").is_file()


def test_an_exported_project_is_whole_and_says_what_it_holds(
    standin: Deployment, tmp_path: Path
) -> None:
    exported = export_app(standin, BOARDS[0], tmp_path / "app")

    marker = json.loads((tmp_path / "app" / MARKER_NAME).read_bytes())
    found = {
        path.relative_to(tmp_path / "app").as_posix()
        for path in (tmp_path / "app").rglob("*")
        if path.is_file()
    }
    assert found == {*marker["files"], MARKER_NAME}
    assert len(found) == exported.files
    assert marker["weights"] == standin.manifest["weights"]["description"]
    assert not any(path.is_symlink() for path in (tmp_path / "app").rglob("*"))
    library = {path.name for path in (MICRO_APP / "lib" / "edgel3" / "src").iterdir()}
    library.remove("edgel3_node_tflm_builtin.cc")  # only for TFLM's own kernels
    assert library <= {path.name for path in (tmp_path / "app" / SKETCH_NAME).rglob("*")}


def make_head(model_sha256: str, size: int) -> Head:
    weights = np.ones((2, size), np.int8)
    values = np.array([0.5, -0.25], np.float32)
    return Head("softmax", ("dog", "rain"), weights, values, values, 5, model_sha256, {})


@needs_arm
def test_a_head_is_part_of_the_project(standin: Deployment, tmp_path: Path) -> None:
    digest = standin.manifest["artefacts"]["int8.tflite"]["sha256"]
    make_head(digest, 512).write(tmp_path / "head")

    exported = export_app(standin, BOARDS[0], tmp_path / "app", tmp_path / "head")

    sketch = tmp_path / "app" / SKETCH_NAME
    assert exported.classes == 2
    for name in (f"{LIBRARY_FOLDER}/edgel3_model_head.c", f"{SKETCH_NAME}.ino"):
        assert compile_source(sketch / name, BOARDS[0], tmp_path / "o") == ""
    listed = subprocess.run(
        ["arm-none-eabi-nm", str(tmp_path / "o")], capture_output=True, text=True, check=True
    )
    assert "U edgel3_model_head" in listed.stdout


def test_the_head_of_another_model_is_refused(standin: Deployment, tmp_path: Path) -> None:
    make_head("0" * 64, 512).write(tmp_path / "head")

    with pytest.raises(EdgeL3Error, match="run train-head again"):
        export_app(standin, BOARDS[0], tmp_path / "app", tmp_path / "head")

    assert not (tmp_path / "app").exists()


def test_the_command_takes_the_head_beside_the_model(standin: Deployment, tmp_path: Path) -> None:
    digest = standin.manifest["artefacts"]["int8.tflite"]["sha256"]
    shutil.copytree(standin.directory, tmp_path / "model")
    make_head(digest, 512).write(tmp_path / "model")
    command = [str(Path(sys.executable).with_name("edgel3-tflm")), "export-app", "--json"]
    command += [str(tmp_path / "model"), "--board", "teensy41", "-o", str(tmp_path / "app")]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["classes"] == 2
    assert (tmp_path / "app" / "platformio.ini").read_text() == write_platformio(
        [find_board("teensy41")], is_exported=True
    )


def test_exporting_again_gives_the_same_bytes(standin: Deployment, tmp_path: Path) -> None:
    export_app(standin, BOARDS[0], tmp_path / "app")
    first = json.loads((tmp_path / "app" / MARKER_NAME).read_bytes())

    export_app(standin, BOARDS[0], tmp_path / "app")

    assert json.loads((tmp_path / "app" / MARKER_NAME).read_bytes()) == first


def test_nothing_is_written_for_a_board_that_is_too_small(
    standin: Deployment, tmp_path: Path
) -> None:
    small = dataclasses.replace(BOARDS[0], ram_bytes=300_000)

    with pytest.raises(EdgeL3Error, match=r"at most 201,696 bytes of RAM .* got 279,856 bytes"):
        export_app(standin, small, tmp_path / "app")

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_the_disk_refuses(
    standin: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(app, "_write_readme", refuse)

    with pytest.raises(EdgeL3Error, match="No space left"):
        export_app(standin, BOARDS[0], tmp_path / "app")

    assert list(tmp_path.iterdir()) == []


def test_an_unpacked_deployment_is_refused(standin: Deployment, tmp_path: Path) -> None:
    artefacts = {
        name: entry for name, entry in standin.manifest["artefacts"].items() if "packed" not in name
    }
    manifest = {**standin.manifest, "artefacts": artefacts, "packed": {"refused": "too odd"}}

    with pytest.raises(EdgeL3Error, match=r"could not be packed \(too odd\)"):
        export_app(dataclasses.replace(standin, manifest=manifest), BOARDS[0], tmp_path / "app")


@pytest.mark.parametrize(
    ("name", "constant"),
    [("edgel3_packed_model.h", "FAST_ARENA"), ("edgel3_model_frontend.h", "LEVELS")],
)
def test_a_deployment_of_an_older_version_is_refused(
    name: str, constant: str, tiny_int8: Deployment, tmp_path: Path
) -> None:
    copy = tmp_path / "older"
    shutil.copytree(tiny_int8.directory, copy)
    header = copy / name
    header.write_text(header.read_text().replace(constant, "OTHER"))
    older = dataclasses.replace(tiny_int8, directory=copy)

    with pytest.raises(EdgeL3Error, match="found none; convert again"):
        app.export_app(older, BOARDS[0], tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_unknown_boards_are_named_with_those_there_are() -> None:
    with pytest.raises(EdgeL3Error, match="unknown board 'uno': expected one of portenta_h7_m7"):
        find_board("uno")


def test_unknown_engines_are_named_with_those_there_are(
    sea_generated: Deployment, tmp_path: Path
) -> None:
    command = [str(Path(sys.executable).with_name("edgel3-tflm")), "export-app"]
    command += [str(sea_generated.directory), "--board", "teensy41", "-o", str(tmp_path / "app")]
    done = subprocess.run([*command, "--runtime", "tflite"], capture_output=True, text=True)

    assert done.returncode == 1
    assert "unknown runtime 'tflite': expected one of engine, tflm, tflm-builtin" in done.stderr
    assert not (tmp_path / "app").exists()
