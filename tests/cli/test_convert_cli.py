"""The command ``convert`` given what it cannot use, or ended early: one line, and nothing left."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from helpers.progress import ignore_progress

from edgel3_tflm.cli import commands as cli
from edgel3_tflm.converters import pipeline
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.networks.catalogue import find_variant

COMMAND = [str(Path(sys.executable).with_name("edgel3-tflm"))]
SEA = ["--model-type", "sea", "--embedding-size", "64"]
INPUTS = ["--weights", "tiny.h5.gz", "--calibration", "clips"]


def convert(*arguments: object) -> int:
    """Run the command in this process; its exit status."""
    try:
        cli.app(["convert", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("a command ends with a status")


@pytest.fixture
def here(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A directory to work in: weights and clips, but no way to the authors' files."""
    shutil.copy(tiny_weights, tmp_path / "tiny.h5.gz")
    (tmp_path / "clips").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write(tmp_path / "clips" / "hiss.wav", noise, 8000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("edgel3_tflm.networks.sources.PUBLISHED_BASE_URL", "http://localhost:1/")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://localhost:1/")
    return tmp_path


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def write_clips(*names: str) -> Callable[[], None]:
    def write() -> None:
        Path("d").mkdir()
        for name in names:
            (Path("d") / name).write_bytes(b"RIFF no sound")

    return write


def write_text(name: str, text: str) -> Callable[[], None]:
    return lambda: (Path(name).write_text(text), None)[1]


def write_cut_weights() -> None:
    Path("w.h5.gz").write_bytes(Path("tiny.h5.gz").read_bytes()[:1000])


def write_empty_hdf5() -> None:
    with h5py.File("w.h5", "w") as file:
        file.create_group("model_weights")


def write_damaged_hdf5() -> None:
    with h5py.File("w.h5", "w") as file:
        file.create_dataset("conv2d_1/conv2d_1/kernel:0", data=np.zeros((3, 3, 1, 64), np.float32))
    data = bytearray(Path("w.h5").read_bytes())
    data[96:400] = b"\xff" * 304
    Path("w.h5").write_bytes(data)


def nothing() -> None:
    """Prepare nothing."""


PLAN = "[zeros_percent]\n"


@pytest.mark.parametrize(
    ("prepare", "arguments", "parts"),
    [
        (nothing, "--weights none.h5", ["none.h5", "No such file"]),
        (nothing, "--weights clips", ["clips: cannot read weights: Is a directory"]),
        (nothing, "--weights clips/hiss.wav", ["hiss.wav: expected an HDF5 file"]),
        (nothing, "--weights tiny.h5.gz --embedding-size 512 --model-type dense", ["tiny.h5.gz"]),
        (write_cut_weights, "--weights w.h5.gz", ["w.h5.gz: expected a whole gzip file"]),
        (write_empty_hdf5, "--weights w.h5", ["w.h5: expected 8 convolutions", "found 0"]),
        (write_damaged_hdf5, "--weights w.h5", ["w.h5: expected"]),
        (write_text("w.h5", ""), "--weights w.h5", ["w.h5: expected an HDF5 file"]),
        (nothing, "--weights auto", ["cannot fetch", "give --weights FILE"]),
        (
            nothing,
            "--weights bundled",
            ["expected a network with bundled weights (95.45 or 99 %"],
        ),
        (nothing, "--calibration none", ["none: no such file or directory"]),
        (nothing, "--calibration tiny.h5.gz", ["tiny.h5.gz"]),
        (write_clips(), "--calibration d", ["d: ", "no"]),
        (write_clips("a.txt"), "--calibration d", ["d: ", "no"]),
        (write_clips("a.wav"), "--calibration d", ["a.wav"]),
        (nothing, "--plan none.toml", ["none.toml: cannot read: No such file"]),
        (nothing, "--plan clips", ["clips: cannot read: Is a directory"]),
        (nothing, "--plan tiny.h5.gz", ["tiny.h5.gz: expected TOML"]),
        (write_text("p.toml", "[zeros]"), "--plan p.toml", ["p.toml: expected the field zeros_p"]),
        (
            write_text("p.toml", PLAN + "conv1 = 1\nconv9 = 1"),
            "--plan p.toml",
            ["p.toml: expected the keys conv1, conv2", "found conv1, conv9"],
        ),
        (
            write_text("p.toml", PLAN + "conv1 = 'x'"),
            "--plan p.toml",
            ["p.toml: zeros_percent.conv1: expected a valid number, found 'x'"],
        ),
        (write_text("p.toml", PLAN + "conv1 = 1"), "--plan p.toml", ["8"]),
        (nothing, "--plan p.toml --sparsity 95.45", ["--sparsity and --plan"]),
        (nothing, "--embedding-layer conv9", ["conv9"]),
        (nothing, "--filters 1,2", ["filters", "2"]),
        (nothing, "--filters 0,1,1,1,1,1,1,1", ["filters"]),
        (nothing, "--filters a,b", ["a,b"]),
        (nothing, "--calibration-method best", ["best"]),
        (nothing, "--quantization int16x8 --adaround", ["int16x8"]),
        (write_text("out", ""), "-o out", ["out: expected a directory to write to, it is a file"]),
        (nothing, "-o tiny.h5.gz/out", ["cannot write", "Not a directory"]),
        (nothing, "-o clips", ["clips: expected a new, empty or earlier output directory"]),
        (nothing, "-o .", ["expected a directory other than the current one"]),
        (nothing, f"-o {'x' * 300}", ["File name too long"]),
        (nothing, "-o /proc/out", ["cannot write /proc/out"]),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(
    here: Path,
    prepare: Callable[[], None],
    arguments: str,
    parts: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    prepare()
    before = names(here)
    defaults = {"--weights": "tiny.h5.gz", "--calibration": "clips", "-o": "out"}
    words = arguments.split()
    for name, value in defaults.items():
        words += [] if name in words else [name, value]
    assert convert(*SEA, *words) == 1
    said = capfd.readouterr()
    assert said.out == ""
    *steps, line = said.err.splitlines()
    assert all(step.endswith(" ...") for step in steps)
    assert line.startswith("error: ")
    assert all(part in line for part in parts), line
    assert names(here) == before


@pytest.mark.parametrize(
    ("step", "number", "line"),
    [
        ("load TensorFlow", signal.SIGTERM, "error: terminated; nothing was written"),
        ("float flatbuffer", signal.SIGINT, "error: interrupted; nothing was written"),
        ("int8: ", signal.SIGTERM, "error: terminated; nothing was written"),
    ],
)
def test_a_signal_leaves_nothing(here: Path, step: str, number: signal.Signals, line: str) -> None:
    before = names(here)
    process = subprocess.Popen(
        [*COMMAND, "convert", *SEA, *INPUTS, "-o", "out"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=here,
    )
    assert process.stderr is not None
    for said in process.stderr:
        if said.startswith(step):
            break
    process.send_signal(number)
    rest = [each for each in process.stderr.read().splitlines() if not each.endswith("...")]
    assert process.wait() == 128 + number
    assert rest == [line]
    assert names(here) == before


def test_a_full_disk_leaves_what_was_there(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "manifest.json").write_text("earlier")
    before = names(here)
    script = (
        "import resource, sys; from edgel3_tflm.cli.commands import main;"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY));"
        " sys.argv[0] = 'edgel3-tflm'; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "convert", *SEA, *INPUTS, "-o", "out", "--quiet"],
        capture_output=True,
        text=True,
        cwd=here,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write ")
    assert done.stderr.endswith("out: File too large; nothing was changed there\n")
    assert names(here) == before
    assert (here / "out" / "manifest.json").read_text() == "earlier"


def test_the_stand_in_is_told_of_before_the_work(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgel3_tflm.converters.pipeline.load_backend", end)
    assert convert("--calibration", "clips", "-o", "out") == 130
    said = capfd.readouterr().err.splitlines()
    told = next(number for number, line in enumerate(said) if "STAND-IN" in line)
    assert "take the place of the published ones of edgel3-95.45-ft: cannot fetch" in said[told]
    assert said[told + 1 :] == ["load TensorFlow ...", "error: interrupted; nothing was written"]
    assert convert("--calibration", "clips", "-o", "out", "--quiet") == 130
    assert capfd.readouterr().err == "error: interrupted; nothing was written\n"
    assert not (here / "out").exists()


def test_the_stand_in_is_only_logged_for_a_caller_without_a_screen(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgel3_tflm.converters.pipeline.load_backend", end)
    options = ConvertOptions(find_variant(), "auto", calibration=here / "clips")
    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        pipeline.convert(options, here / "out", ignore_progress)
    told = [each.levelname for each in caplog.records if "STAND-IN" in each.getMessage()]
    assert told == ["INFO"]  # Python prints warnings that nobody handles, also with --quiet
