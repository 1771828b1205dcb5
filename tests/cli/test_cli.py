"""The command line as a user meets it: what it prints, writes and returns, also when it fails."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from helpers.command_line import COMMAND, assert_one_error_line, run
from helpers.deployments import DEPLOYMENT_FILES
from helpers.networks.int8_network import Conv, Int8Network, Quantization, build
from helpers.networks.tiny_network import TINY

from edgel3_tflm.cli.screen import open_screen
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.runtime.deployment import Deployment

SEA = ["--model-type", "sea", "--embedding-size", "64"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, 20_000), 8000)
    return path


def test_convert_then_info_then_compare(
    tiny_weights: Path, short_calibration: Path, clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "sea"
    done = run(
        "convert", *SEA, "--weights", tiny_weights, "--calibration", short_calibration, "-o", output
    )
    assert done.returncode == 0, done.stderr
    assert "int8.tflite" in done.stdout
    assert "weights file tiny.h5.gz" in done.stdout
    assert "int8: activations" in done.stderr  # progress where there is no terminal
    assert sorted(path.name for path in output.iterdir()) == DEPLOYMENT_FILES
    assert sorted(path.name for path in output.parent.iterdir()) == ["sea"]

    shown = run("info", output)
    assert shown.returncode == 0
    assert f"{sum(layer.kernel_size for layer in TINY.layers):,}" in shown.stdout
    assert "Portenta" in shown.stdout

    compared = run("compare", output, clip)
    assert compared.returncode == 0, compared.stderr
    assert "clip.wav" in compared.stdout
    assert sorted(path.name for path in (output.parent / "sea-drift").iterdir()) == [
        "drift.html",
        "drift.json",
    ]


def test_info_as_json_of_a_directory_a_flatbuffer_and_a_weight_file(
    tiny_int8: Deployment, tiny_weights: Path
) -> None:
    by_directory = json.loads(run("info", "--json", tiny_int8.directory).stdout)
    assert by_directory == dict(tiny_int8.manifest)
    flatbuffer = json.loads(run("info", "--json", tiny_int8.directory / "int8.tflite").stdout)
    assert flatbuffer["arena_bytes"] == tiny_int8.manifest["arena_bytes"]
    assert [layer["weights"] for layer in flatbuffer["layers"] if layer["weights"]] == [
        layer.kernel_size for layer in tiny_int8.variant.layers
    ]
    for name in ("packed.edgel3", "int8_packed.tflite"):
        packed = json.loads(run("info", "--json", tiny_int8.directory / name).stdout)
        assert {key: packed[key] for key in tiny_int8.manifest["packed"]} == flatbuffer["packed"]
    assert flatbuffer["packed"] == tiny_int8.manifest["packed"]
    weights = json.loads(run("info", "--json", tiny_weights).stdout)
    assert (weights["variant"], weights["weights"]["kind"]) == (TINY.name, "file")


def test_info_shows_dense_beside_packed_and_says_why_there_is_no_packed(
    tiny_int8: Deployment, tiny_int16x8: Deployment, tmp_path: Path
) -> None:
    packed = tiny_int8.manifest["packed"]
    for path in (tiny_int8.directory, tiny_int8.directory / "int8.tflite"):
        shown = run("info", path).stdout
        assert f"packed: flash {packed['bytes']:,} bytes, arena {packed['arena_bytes']:,}" in shown
        assert f"{packed['layers'][7]['packed_bytes']:,}" in shown
    assert "packed" not in run("info", tiny_int16x8.directory).stdout
    kernel = np.zeros((1, 3, 3, 1), np.int8)
    conv = Conv(
        kernel,
        np.zeros(1, np.int32),
        np.ones(1, np.float32),
        Quantization(1, 0),
        activation="relu_n1_to_1",
        pool="global",
    )
    (tmp_path / "other.tflite").write_bytes(build(Int8Network(2, 2, Quantization(1, 0), (conv,))))
    shown = run("info", tmp_path / "other.tflite")
    assert "not packed: conv1: expected the activation" in shown.stdout


def test_a_damaged_packed_model_is_refused_in_one_line(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    blob = (tiny_int8.directory / "packed.edgel3").read_bytes()
    (tmp_path / "cut.edgel3").write_bytes(blob[:1000])
    assert_one_error_line(run("info", tmp_path / "cut.edgel3"), "cut.edgel3", "cut at 1000")


def test_compare_prints_json_alone_with_json_and_nothing_with_quiet(
    tiny_int8: Deployment, clip: Path, tmp_path: Path
) -> None:
    done = run("compare", tiny_int8.directory, clip, "-o", tmp_path / "r", "--json", "--hop", 1)
    assert json.loads(done.stdout)["runtimes"][0]["groups"]["all"]["windows"] == 2
    quiet = run("compare", tiny_int8.directory, clip, "-o", tmp_path / "r", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize("runtime", ["litert", "reference", "tflm"])
def test_compare_in_another_runtime(
    tiny_int8: Deployment, clip: Path, tmp_path: Path, runtime: str
) -> None:
    done = run(
        "compare", tiny_int8.directory, clip, "-o", tmp_path / "r", "--json", "--runtime", runtime
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (found,) = report["runtimes"]
    assert found["runtime"] == runtime
    assert found["groups"]["all"]["cosine_mean"] > 0.99


@pytest.mark.parametrize(("samples", "windows"), [(10, 1), (96_000, 1), (143_000, 1), (144_000, 2)])
def test_short_clips_and_96_khz_stereo_are_embedded(
    tiny_int8: Deployment, tmp_path: Path, samples: int, windows: int
) -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, (samples, 2))
    soundfile.write(tmp_path / "a.wav", noise, 96_000)
    done = run("compare", tiny_int8.directory, tmp_path / "a.wav", "-o", tmp_path / "r", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runtimes"][0]["groups"]["all"]["windows"] == windows


def test_where_a_report_goes_is_checked_before_clips_are_read(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("text")
    clip = tmp_path / "damaged.wav"
    clip.write_text("no audio")
    command = ["compare", tiny_int8.directory, clip, "--fail-under", "sqnr_db=1"]
    for output in (tmp_path / "file", tmp_path / "file" / "below", tmp_path):
        assert_one_error_line(run(*command, "-o", output), str(output))
    junit = tmp_path / "none" / "junit.xml"
    done = run(*command, "-o", tmp_path / "new", "--junit", junit)
    assert_one_error_line(done, str(junit))
    assert not (tmp_path / "new").exists()


def test_an_empty_clip_leaves_no_report(tiny_int8: Deployment, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    done = run("compare", tiny_int8.directory, tmp_path / "empty.wav", "-o", tmp_path / "r")
    assert_one_error_line(done, "empty.wav", "0 samples")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--sparsity", "42"], ["'42'", "53.5", "95.45", "99"]),
        (["--retrain-type", "none"], ["'none'", "ft or kd"]),
        (["--model-type", "dense2"], ["'dense2'", "sparse, sea or dense"]),
        (["--model-type", "sea", "--embedding-size", "100"], ["100", "512, 256, 128, 64"]),
        (["--quantization", "int4"], ["'int4'", "int8, int16x8"]),
        (["--weights", "nowhere.h5"], ["nowhere.h5", "No such file"]),
        (["--sparsity", "97"], ["no weights are published", "--weights FILE"]),
        (["--calibration", "nowhere"], ["nowhere", "no such file or directory"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    arguments: list[str], parts: list[str], tmp_path: Path
) -> None:
    done = run(
        "convert", *arguments, "-o", tmp_path / "out", EDGEL3_TFLM_CACHE=str(tmp_path / "cache")
    )
    assert_one_error_line(done, *parts)
    assert not any(tmp_path.iterdir())


def test_damaged_weights_are_one_line(tiny_weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5.gz"
    cut.write_bytes(tiny_weights.read_bytes()[:-100])
    done = run("convert", *SEA, "--weights", cut, "-o", tmp_path / "out")
    assert_one_error_line(done, "cut.h5.gz", "gzip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.h5.gz"]


def test_a_cached_file_with_another_digest_is_one_line(tiny_weights: Path, tmp_path: Path) -> None:
    published = find_variant("sea", embedding_size=64).published
    assert published is not None
    (tmp_path / published.name).write_bytes(tiny_weights.read_bytes())
    done = run("convert", *SEA, "-o", tmp_path / "out", EDGEL3_TFLM_CACHE=str(tmp_path))
    assert_one_error_line(done, f"git blob id {published.git_blob_id}", "found")
    assert not (tmp_path / "out").exists()


def test_an_output_directory_with_other_files_is_left_alone(
    tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = run("convert", *SEA, "--weights", tiny_weights, "-o", tmp_path)
    assert_one_error_line(done, "other files")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("earlier_output", [False, True])
def test_a_write_the_system_refuses_leaves_what_was_there(
    tiny_weights: Path,
    short_calibration: Path,
    tmp_path: Path,
    earlier_output: bool,
) -> None:
    output = tmp_path / "out"
    if earlier_output:
        output.mkdir()
        (output / "manifest.json").write_text("earlier")

    def at_most_ten_kilobytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = run(
        "convert",
        *SEA,
        "--weights",
        tiny_weights,
        "--calibration",
        short_calibration,
        "-o",
        output,
        limit=at_most_ten_kilobytes,
    )
    assert_one_error_line(done, "cannot write", "File too large")
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if earlier_output else [])
    if earlier_output:
        assert (output / "manifest.json").read_text() == "earlier"


# In a process of its own, which a signal that is not handled kills.
RAISE_A_SIGNAL = """
import signal, sys, typer
from edgel3_tflm.cli.screen import open_screen

defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
try:
    with open_screen(quiet=True):
        try:
            signal.raise_signal(int(sys.argv[1]))
        except KeyboardInterrupt as error:
            if sys.argv[2] == "disguised":
                raise RuntimeError("a library's own words") from error
            raise
except typer.Exit as ended:
    assert {each: signal.getsignal(each) for each in defaults} == defaults
    sys.exit(ended.exit_code)
"""


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGINT, 130, "error: interrupted; nothing was written\n"),
        (signal.SIGTERM, 143, "error: terminated; nothing was written\n"),
    ],
)
@pytest.mark.parametrize("how", ["plain", "disguised"])
def test_a_signal_ends_a_command_with_one_line(
    number: signal.Signals, status: int, line: str, how: str
) -> None:
    words = [sys.executable, "-c", RAISE_A_SIGNAL, str(int(number)), how]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, line)


def test_an_error_of_the_system_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, open_screen():
        (tmp_path / "none").read_bytes()
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Four clips in two folds; no such files are needed where embeddings are given."""
    path = tmp_path / "m.tsv"
    path.write_text("file\tlabel\tfold\na\tx\t1\nb\ty\t1\nc\tx\t2\nd\ty\t2\n")
    return path


def test_probe_of_embeddings_made_elsewhere(manifest: Path, tmp_path: Path) -> None:
    values = np.array([[0, 1], [1, 0], [0, 2], [2, 0]], np.float32)
    np.savez(tmp_path / "e.npz", clip=list("abcd"), embedding=values)
    done = run("probe", "--manifest", manifest, "--embeddings", tmp_path / "e.npz", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["windows"], result["accuracy_percent"]) == (4, 100)
    assert "e.npz" in result["model"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["DEPLOYMENT", "--statistics", "--embeddings"]),
        (["--embeddings", "e.npz", "--statistics", "sea"], ["one of", "--embeddings"]),
        (["--embeddings", "e.npz", "--model", "d"], ["one of", "--embeddings"]),
        (["--embeddings", "e.npz", "--teacher", "d"], ["--teacher", "got --embeddings"]),
        (["--embeddings", "nowhere.npz"], ["nowhere.npz", "No such file"]),
        (["--embeddings", __file__], ["test_cli.py", ".npz file"]),
    ],
)
def test_probe_of_no_source_is_one_line(
    manifest: Path, arguments: list[str], parts: list[str]
) -> None:
    assert_one_error_line(run("probe", "--manifest", manifest, *arguments), *parts)


@pytest.mark.parametrize(
    "command", ["", "convert", "compare", "info", "probe", "distill", "finetune"]
)
def test_help_is_there(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_version_is_the_package_s() -> None:
    from edgel3_tflm._version import __version__

    assert run("--version").stdout == f"edgel3-tflm {__version__}\n"


def test_files_that_are_no_models_are_one_line(tmp_path: Path) -> None:
    for name in ("a.tflite", "a.h5", "a.h5.gz"):
        (tmp_path / name).write_bytes(b"nothing" * 9)
        assert_one_error_line(run("info", tmp_path / name), name, "expected")


def test_a_full_disk_behind_standard_output_is_one_line(tiny_int8: Deployment) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "info", "--json", str(tiny_int8.directory)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert_one_error_line(done, "No space left on device")


def test_a_reader_that_stops_early_is_no_error_message(tiny_int8: Deployment) -> None:
    piped = f"'{COMMAND[0]}' info --json '{tiny_int8.directory}' | true"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
