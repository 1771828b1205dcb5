"""Commands that build a node and run it on the emulated Cortex-M7, with a tiny network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import assert_one_error_line, run

from edgel3_tflm.converters.export.app import export_app
from edgel3_tflm.converters.export.head import Head
from edgel3_tflm.device.boards import BOARDS
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.artefacts import HEAD_NAME, quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment

LABELS = ("dog", "rain")


def draw_head(deployment: Deployment, model_sha256: str | None = None) -> Head:
    size = deployment.variant.embedding_size
    digest = deployment.manifest["artefacts"][quantized_model_name("int8")]["sha256"]
    return Head(
        kind="softmax",
        labels=LABELS,
        weights=np.random.default_rng(3).integers(-127, 128, (2, size)).astype(np.int8),
        scale=np.full(2, 2e-5, np.float32),
        bias=np.zeros(2, np.float32),
        zero_point=deployment.embedder("int8").output.zero_point,
        model_sha256=model_sha256 or digest,
        provenance={},
    )


def write_file(head: Head, directory: Path) -> Path:
    """Write the head's JSON file alone, without its C sources."""
    path = directory / "my_head.json"
    path.write_text(json.dumps(head.to_json()))
    return path


def write_directory(head: Head, directory: Path) -> Path:
    head.write(directory / "head")
    return directory / "head"


@pytest.mark.parametrize("write", [write_file, write_directory])
def test_a_head_is_a_file_or_a_directory_in_every_command(
    tiny_int8: Deployment, tmp_path: Path, write: Callable[[Head, Path], Path]
) -> None:
    head = write(draw_head(tiny_int8), tmp_path)

    done = run("device", "info", "--emulate", tiny_int8.directory, "--head", head, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["info"]["classes"] == list(LABELS)

    app = ["--board", BOARDS[0].name, "-o", tmp_path / "app", "--head", head, "--json"]
    done = run("export-app", tiny_int8.directory, *app)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == 2


def test_a_deployment_s_own_head_is_taken_and_checked(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    directory = tmp_path / "with-head"
    shutil.copytree(tiny_int8.directory, directory)
    draw_head(tiny_int8).write(directory)
    done = run("device", "info", "--emulate", directory, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["info"]["classes"] == list(LABELS)

    (directory / HEAD_NAME).write_text(json.dumps(draw_head(tiny_int8, "0" * 64).to_json()))
    app = ["--board", BOARDS[0].name, "-o", tmp_path / "app"]
    for words in (["device", "info", "--emulate", directory], ["export-app", directory, *app]):
        assert_one_error_line(run(*words), "expected a head trained for")
    assert not (tmp_path / "app").exists()


def test_an_application_does_not_replace_what_it_is_made_of(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    output, board = tmp_path / "app", BOARDS[0]
    export_app(tiny_int8, board, output)
    inside = output / "model"
    shutil.copytree(tiny_int8.directory, inside)
    head = write_file(draw_head(tiny_int8), output)
    deployment = Deployment.load(inside)
    for refused, source, named in ((deployment, inside, None), (tiny_int8, head, head)):
        with pytest.raises(
            EdgeL3Error, match=f"expected a directory that does not contain {source}"
        ):
            export_app(refused, board, output, named)
    assert inside.is_dir()
    assert head.is_file()
