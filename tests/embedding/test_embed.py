"""The command ``embed``, the functions of edgel3's module ``cli``, and no TensorFlow."""

import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from helpers.command_line import assert_one_error_line, run
from helpers.networks.tiny_network import write_weights

from edgel3_tflm import cli
from edgel3_tflm.cli.commands import app
from edgel3_tflm.edgel3_exceptions import EdgeL3Error
from edgel3_tflm.embedding.api import get_embedding
from edgel3_tflm.embedding.loading import load_embedding_model
from edgel3_tflm.errors import install_hint
from edgel3_tflm.runtime.deployment import Deployment

RATE_HZ = 8000


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Two seconds of noise, one of silence, and in a subdirectory two more of noise."""
    directory = tmp_path / "sounds"
    (directory / "below").mkdir(parents=True)
    generator = np.random.default_rng(3)
    soundfile.write(directory / "a.wav", generator.normal(0, 0.1, 2 * RATE_HZ), RATE_HZ)
    soundfile.write(directory / "b.wav", np.zeros(RATE_HZ), RATE_HZ)
    soundfile.write(directory / "below" / "c.flac", generator.normal(0, 0.1, 88_200), 44_100)
    return directory


def embed(*arguments: object) -> int:
    """Run the command in this process and return its exit status."""
    try:
        app(["embed", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("a command ends with a status")


@pytest.fixture
def tiny(weights: Path) -> list[object]:
    return ["--model-type", "sea", "--emb-dim", "64", "--weights", weights]


def test_files_and_directories_are_embedded(
    sounds: Path, tiny: list[object], weights: Path, tmp_path: Path
) -> None:
    options = ["-o", tmp_path / "out", "--suffix", "x", "--hop-size", "0.5", "--no-centering"]
    assert embed(sounds, sounds / "a.wav", *tiny, *options) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_x.npz",
        "b_x.npz",
        "c_x.npz",
    ]
    model = load_embedding_model("sea", 64, "ft", 95.45, weights=weights)
    for source in (sounds / "a.wav", sounds / "below" / "c.flac"):
        sound, rate_hz = soundfile.read(source)
        expected, times = get_embedding(sound, rate_hz, model, center=False, hop_size=0.5)
        with np.load(tmp_path / "out" / f"{source.stem}_x.npz") as found:
            np.testing.assert_array_equal(found["embedding"], expected)
            np.testing.assert_array_equal(found["timestamps"], times)
            last = "resampled to 8000 Hz by kaiser_best"
            assert found["provenance"].tolist() == [*model.provenance, last]


def test_the_resampler_that_is_asked_for_is_used_and_named(
    sounds: Path, tiny: list[object], weights: Path, tmp_path: Path
) -> None:
    source = sounds / "below" / "c.flac"
    assert embed(source, *tiny, "--resampler", "soxr") == 0
    model = load_embedding_model("sea", 64, "ft", 95.45, weights=weights)
    expected, _ = get_embedding(*soundfile.read(source), model, resampler="soxr")
    with np.load(source.with_suffix(".npz")) as found:
        np.testing.assert_array_equal(found["embedding"], expected)
        assert found["provenance"][-1] == "resampled to 8000 Hz by soxr"
    dataset = tmp_path / "dataset"
    assert embed("--manifest", sounds, "-o", dataset, *tiny, "--resampler", "soxr") == 0
    part = next(dataset.glob("*.parquet"))
    metadata = pyarrow.parquet.read_schema(part).metadata
    assert b'"resampler": "soxr"' in b"".join(metadata.values())
    assert embed("--manifest", sounds, "-o", dataset, *tiny) == 1


def test_the_result_as_json(
    sounds: Path, tiny: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(sounds / "a.wav", *tiny, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["files"] == [
        {"file": str(sounds / "a.wav"), "output": str(sounds / "a.npz"), "windows": 16}
    ]
    assert result["model"]["weights"]["kind"] == "file"


def test_silence_is_told_of(
    sounds: Path, tiny: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(sounds, *tiny) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "b.wav: the audio is all zeros" in said
    assert "a.wav: the audio" not in said


def test_the_stand_in_is_told_of(sounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--weights", "bundled", "--no-centering", "--hop-size", "1"]
    assert embed(sounds / "a.wav", *options) == 0
    said = capsys.readouterr()
    notice = "NOTICE: edgel3-95.45-ft, STAND-IN"
    assert notice in " ".join(said.out.split())
    # Before the work too, which may take hours.
    first, then, *_ = said.err.splitlines()
    assert first.startswith(notice)
    assert then.startswith("embed (seconds of audio)")
    with np.load(sounds / "a.npz") as found:
        assert found["embedding"].shape == (2, 512)
        assert "STAND-IN" in found["provenance"][0]
    dataset = ["--manifest", sounds / "below", "-o", sounds.parent / "dataset"]
    assert embed(*dataset, *options) == 0
    assert capsys.readouterr().err.startswith(notice)


def test_the_stand_in_is_told_of_before_it_is_converted(
    sounds: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(sounds.parent / "cache"))
    monkeypatch.setattr("edgel3_tflm.networks.sources.PUBLISHED_BASE_URL", "http://localhost:1/")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://localhost:1/")
    monkeypatch.setattr("edgel3_tflm.converters.pipeline.load_backend", end)
    assert embed(sounds, "--quantization", "int8") == 130
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("STAND-IN weights take the place of the published ones of edgel3-95.45")
    assert embed(sounds, "--quantization", "int8", "--quiet") == 130
    assert capsys.readouterr().err.startswith("error: interrupted; ")


def test_a_damaged_file_ends_the_run_or_is_named_at_its_end(
    sounds: Path, tiny: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    (sounds / "aa.wav").write_bytes(b"RIFF" + bytes(50))
    assert embed(sounds, *tiny) == 1
    assert "aa.wav" in capsys.readouterr().err
    assert {path.stem for path in sounds.rglob("*.npz")} == {"a"}
    assert embed(sounds, *tiny, "--keep-going", "--json") == 1
    said = capsys.readouterr()
    assert "aa.wav" in said.err
    assert "1 of 4 files cannot be read" in said.err
    assert [*json.loads(said.out)["damaged"]] == [str(sounds / "aa.wav")]
    assert {path.stem for path in sounds.rglob("*.npz")} == {"a", "b", "c"}


def test_truncated_files_and_raw_samples_are_damaged_files(
    sounds: Path, tiny: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    cut = sounds / "cut.wav"
    cut.write_bytes((sounds / "a.wav").read_bytes()[:9000])
    (sounds / "samples.raw").write_bytes(bytes(9000))
    for path in (cut, sounds / "samples.raw"):
        assert embed(path, *tiny) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {path}: ")
    assert embed(sounds, *tiny, "--keep-going", "--json") == 1
    damaged = json.loads(capsys.readouterr().out)["damaged"]
    assert [*damaged] == [str(cut), str(sounds / "samples.raw")]
    assert "truncated: its header states 32,044 bytes, the file has 9,000" in damaged[str(cut)]
    assert {path.stem for path in sounds.rglob("*.npz")} == {"a", "b", "c"}
    assert embed("--manifest", sounds, "-o", sounds.parent / "dataset", *tiny) == 1
    errors = (sounds.parent / "dataset" / "_errors.tsv").read_text()
    assert [line.split("\t")[0] for line in errors.splitlines()[1:]] == ["cut.wav", "samples.raw"]
    assert "truncated" in errors


def test_existing_embeddings_are_written_again_unless_told_not_to(
    sounds: Path, tiny: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    (sounds / "a.npz").write_bytes(b"mine")
    assert embed(sounds, *tiny, "--no-overwrite") == 0
    assert "1 skipped" in capsys.readouterr().out
    assert (sounds / "a.npz").read_bytes() == b"mine"
    assert embed(sounds / "a.wav", *tiny) == 0
    assert (sounds / "a.npz").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.wav"], "no such file"),
        (["a.wav", "--hop-size", "0"], "hop size"),
        (["a.wav", "--sparsity", "40"], "unknown sparsity"),
        (["a.wav", "--model-type", "big"], "unknown model type"),
        (["a.wav", "--emb-dim", "50"], "unknown embedding size"),
        (["a.wav", "--batch-size", "0"], "batch size"),
        (["a.wav", "--runtime", "none", "--weights", "bundled"], "unknown runtime"),
        (["a.wav", "--runtime", "engine", "--weights", "bundled"], "expected quantization int8"),
        (["a.wav", "--quantization", "int4"], "unknown quantization"),
        (["a.wav", "--model", ".", "--weights", "bundled"], "got both"),
        (["a.wav", "--model", "below"], "manifest.json"),
        (["a.wav", "--weights", "none.h5"], "none.h5"),
        (["a.wav", "-o", "b.wav", "--weights", "bundled"], "b.wav: expected a directory"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    sounds: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(sounds)
    assert embed(*arguments, "--quiet") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert message in said.err
    assert sorted(path.name for path in sounds.iterdir()) == ["a.wav", "b.wav", "below"]


def test_a_deployment_is_embedded_with(sounds: Path, tiny_int8: Deployment) -> None:
    assert embed(sounds / "a.wav", "--model", tiny_int8.directory) == 0
    sound, rate_hz = soundfile.read(sounds / "a.wav")
    with np.load(sounds / "a.npz") as found:
        np.testing.assert_array_equal(
            found["embedding"], get_embedding(sound, rate_hz, tiny_int8)[0]
        )


def test_edgel3_s_options_have_edgel3_s_names_and_defaults() -> None:
    found = cli.parse_args(["a.wav"])
    assert (found.inputs, found.output_dir, found.suffix) == (["a.wav"], None, None)
    assert (found.model_type, found.emb_dim, found.retrain_type) == ("sparse", 128, "ft")
    assert (found.model_sparsity, found.hop_size) == (95.45, 0.1)
    assert (found.no_centering, found.quiet) == (False, False)
    short = "a.wav -o out -x s -mtype sea -e 64 -retrain kd -sp 53.5 -n -t 0.5 -q"
    found = cli.parse_args(short.split())
    assert (found.output_dir, found.suffix, found.model_type) == ("out", "s", "sea")
    assert (found.emb_dim, found.retrain_type, found.model_sparsity) == (64, "kd", 53.5)
    assert (found.no_centering, found.hop_size, found.quiet) == (True, 0.5, True)


@pytest.mark.parametrize("value", [-5, -1.0, 0, None, "hello"])
def test_numbers_that_are_not_positive_are_refused(value: object) -> None:
    for read in (cli.positive_float, cli.positive_int):
        with pytest.raises(ArgumentTypeError, match="positive"):
            read(value)
    assert cli.positive_float("1.3") == 1.3
    assert cli.positive_int(5.0) == 5


def test_lists_of_files_are_those_edgel3_makes(sounds: Path) -> None:
    found = cli.get_file_list([str(sounds), str(sounds / "a.wav")])
    assert found == [str(sounds / name) for name in ("a.wav", "b.wav", "a.wav")]
    with pytest.raises(ArgumentTypeError):
        cli.get_file_list(str(sounds))
    with pytest.raises(EdgeL3Error, match="no such file"):
        cli.get_file_list(["/nowhere.wav"])


def test_where_embeddings_go_is_checked_before_the_model_is_opened(
    sounds: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("text")
    none = tmp_path / "no-model"
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        done = run("embed", sounds, "-o", output, "--model", none)
        assert_one_error_line(done, str(output))
    assert_one_error_line(run("embed", sounds, "-o", tmp_path / "new", "--model", none), str(none))


def test_run_refuses_what_is_no_path_and_ends_where_there_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EdgeL3Error):
        cli.run(5)  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as end:
        cli.run([str(tmp_path)])
    assert end.value.code == -1
    assert (
        capsys.readouterr().out == f"Edgel3: No WAV files found in {[str(tmp_path)]}. Aborting.\n"
    )


@pytest.mark.parametrize(
    "order", [["a.wav", "--output-dir", "out", "-q"], ["-q", "-n", "--output-dir", "out", "a.wav"]]
)
def test_arguments_of_edgel3_s_command_are_those_of_main(
    sounds: Path, tiny: list[object], monkeypatch: pytest.MonkeyPatch, order: list[str]
) -> None:
    monkeypatch.chdir(sounds)
    arguments = [str(each) for each in [*order, *tiny]]
    monkeypatch.setattr("sys.argv", ["edgel3", *arguments])
    for given in ((), (arguments,), (["embed", *arguments],)):
        cli.main(*given)
        (sounds / "out" / "a.npz").unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.wav"], "missing.wav: no such file"),
        (["embd", "a.wav"], "No such command 'embd'"),
        (["--verbse", "a.wav"], "No such option: --verbse"),
    ],
)
def test_mistakes_are_told_from_files(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code
    assert message in " ".join(capsys.readouterr().err.split())
    cli.main(["--version"])
    cli.main(["--help"])


# Packages of the extras, and packages that these need.
_OUTSIDE_THE_BASE = (
    "tensorflow",
    "keras",
    "tf_keras",
    "tensorflow_model_optimization",
    "tensorboard",
    "tflite_micro",
    "tflite_runtime",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "distributed",
    "matplotlib",
    "jinja2",
    "serial",
    "cobs",
)
_WITHOUT_EXTRAS = f"""
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name in {_OUTSIDE_THE_BASE} else find_spec(name, package)
)
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {_OUTSIDE_THE_BASE}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from edgel3_tflm.cli import main
main()
"""


def run_without_extras(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRAS, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"EDGEL3_TFLM_CACHE": str(cwd / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_embedding_needs_no_tensorflow_and_no_extra(sounds: Path) -> None:
    options = ["--weights", "bundled", "--hop-size", "1"]
    done = run_without_extras("embed", "a.wav", *options, cwd=sounds)
    assert done.returncode == 0, done.stderr
    with np.load(sounds / "a.npz") as found:
        assert found["embedding"].shape == (3, 512)


def test_int8_without_tensorflow_names_the_extra(sounds: Path) -> None:
    options = ["--weights", "bundled", "--quantization", "int8", "--quiet"]
    done = run_without_extras("embed", "a.wav", *options, cwd=sounds)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert install_hint("convert") in done.stderr
    assert not (sounds / "a.npz").exists()
