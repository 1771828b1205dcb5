"""Tests of the command ``embed --manifest``, which embeds a manifest's clips into a dataset."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from edgel3_tflm.cli.commands import app
from edgel3_tflm.runtime.deployment import Deployment


def run_embed(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("edgel3-tflm")
    words = [str(command), "embed", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_command_names_damaged_clips_and_goes_on_where_it_was(
    archive: Path, tiny_int8: Deployment, tmp_path: Path
) -> None:
    manifest = archive / "clips.tsv"
    manifest.write_text("label\tfile\nnoise\t06.wav\nno\t07.wav\nnoise\t08.wav\n")
    options = ("--manifest", manifest, "--model", tiny_int8.directory, "-o", tmp_path / "set")
    first = run_embed(*options, "--workers", 1)
    assert first.returncode == 1
    assert "2 of 3 clips embedded" in first.stdout
    assert "weights file tiny.h5.gz" in first.stdout
    assert "07.wav: expected an audio file" in first.stderr
    assert "1 of 3 clips are damaged" in first.stderr
    soundfile.write(archive / "07.wav", np.ones(9000), 8000)
    # Without --retry-damaged, the repaired clip still counts as damaged and is not read again.
    second = run_embed(*options, "--json")
    assert second.returncode == 1
    assert json.loads(second.stdout)["embedded"] == 0
    third = run_embed(*options, "--workers", 1, "--retry-damaged")
    assert third.returncode == 0
    assert "1 of 3 clips embedded" in third.stdout
    assert "nothing to do" in run_embed(*options).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--manifest", "."], "expected --output DATASET"),
        (["--manifest", ".", "-o", "d", "--scheduler", "spark"], "unknown scheduler 'spark'"),
        (
            ["--manifest", ".", "-o", "d", "--scheduler", "a:1", "--workers=2"],
            "expected one of the address of a cluster",
        ),
        (["--manifest", ".", "-o", "d", "a.wav"], "expected --manifest without INPUTS"),
        (["a.wav", "-o", "d", "--workers", "2"], "expected --manifest with --scheduler"),
        ([], "expected INPUTS or --manifest"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_a_line(
    options: list[str], message: str
) -> None:
    result = CliRunner().invoke(app, ["embed", *options])
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.splitlines()) == 1
