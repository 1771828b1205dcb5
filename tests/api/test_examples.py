"""The scripts of docs/examples: short, typed, and they run as they are."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgel3_tflm import estimate
from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.runtime.deployment import Deployment

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NAMES = ("convert", "embed_file", "embed_folder", "compare", "pipeline")  # convert goes first


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    (directory / "recordings").mkdir()
    for name in ("street", "birds", "rooster", "rain_heavy", "rain_light"):
        source = bundled_clips_directory() / f"{name}.flac"
        shutil.copy(source, directory / "recordings")
    return directory


def test_the_folder_has_these_scripts_of_less_than_ten_lines() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(NAMES)
    for path in EXAMPLES.glob("*.py"):
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(lines) < 10, path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::edgel3_tflm.EdgeL3Warning")
def test_a_script_runs(
    name: str, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(directory)
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    shown = capsys.readouterr().out
    assert shown.startswith(
        {
            "convert": "edgel3 ",
            "embed_file": "(3, 512) [0.  0.5 1. ]",
            "embed_folder": "birds.flac (5, 512)",
            "compare": "0.99",
            "pipeline": "['bird']",
        }[name]
    )


def test_a_type_checker_finds_the_types_of_the_scripts(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from edgel3_tflm import embed_file\nembed_file('a', hop_s='1').value\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    command += ["--cache-dir", str(tmp_path / "cache")]
    options = ["--config-file", str(tmp_path / "none.ini")]
    (tmp_path / "none.ini").write_text("[mypy]\n[mypy-sklearn.*]\nignore_missing_imports = True\n")
    paths = [str(EXAMPLES / f"{name}.py") for name in NAMES]
    done = subprocess.run([*command, *options, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([*command, *options, str(wrong)], capture_output=True, text=True)
    assert 'incompatible type "str"' in done.stdout
    assert 'has no attribute "value"' in done.stdout


def test_an_estimate_prints_well_and_names_its_assumptions(sea_generated: Deployment) -> None:
    found = estimate(sea_generated, "portenta_h7_m7", build=False)
    assert [each.board.name for each in found.boards] == ["portenta_h7_m7"]
    assert "nothing was measured on a board" in found._repr_html_()
    assert found.to_json()["boards"][0]["fits"]
