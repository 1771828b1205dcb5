"""The commands for a device, as a user meets them."""

import csv
import json
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.command_line import assert_one_error_line

from edgel3_tflm.converters.export.head import Head
from edgel3_tflm.device.check import MAX_LOG_MEL_SHARE, ClipComparison
from edgel3_tflm.device.emulation import Program
from edgel3_tflm.device.firmware import build_node
from edgel3_tflm.runtime.artefacts import quantized_model_name
from edgel3_tflm.runtime.deployment import Deployment

COMMAND = [str(Path(sys.executable).with_name("edgel3-tflm")), "device"]
LABELS = ("dog", 'a "quoted" one', "été")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def head(tiny_int8: Deployment) -> Head:
    rng = np.random.default_rng(3)
    output = tiny_int8.embedder("int8")._interpreter.output
    return Head(
        kind="softmax",
        labels=LABELS,
        weights=rng.integers(-127, 128, (len(LABELS), 4)).astype(np.int8),
        scale=np.full(len(LABELS), 3.2e-4, np.float32),
        bias=np.array([0.1, -0.2, 0], np.float32),
        zero_point=output.zero_point,
        model_sha256=tiny_int8.manifest["artefacts"][quantized_model_name("int8")]["sha256"],
        provenance={},
    )


@pytest.fixture(scope="module")
def head_directory(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("head")
    head.write(directory)
    return directory


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, each another tone in noise."""
    rng = np.random.default_rng(0)
    time_s = np.arange(8000) / 8000
    tones = [0.3 * np.sin(2 * np.pi * pitch * time_s) for pitch in (300, 900, 2000)]
    path = tmp_path_factory.mktemp("clips") / "tones.wav"
    soundfile.write(path, np.concatenate(tones) + rng.normal(0, 0.01, 24_000), 8000)
    return path


@pytest.fixture(scope="module")
def port(
    tiny_int8: Deployment, head_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A node with a classifier behind a TCP port, for one host after the other."""
    build = tmp_path_factory.mktemp("node")
    program = Program(build_node(tiny_int8.directory, build, "host", head=head_directory))
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        node = program.connect()
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                try:
                    while True:
                        if select.select([client], [], [], 0.002)[0]:
                            if not (data := client.recv(4096)):
                                break
                            node.write(data)
                        client.sendall(node.read(0.002))
                except OSError:
                    continue

    threading.Thread(target=serve, daemon=True).start()
    yield f"tcp:127.0.0.1:{server.getsockname()[1]}"
    server.close()
    program.close()


def test_info_shows_the_device_and_its_own_test(port: str, tiny_int8: Deployment) -> None:
    done = run("info", "--port", port)
    assert done.returncode == 0, done.stderr
    for part in ("host", "64 x 50 log-mel", " 4 int8", "été", "1/1,000,000 s", "passed"):
        assert part in done.stdout
    result = json.loads(run("info", "--port", port, "--json").stdout)
    assert result["info"]["classes"] == list(LABELS)
    sha256 = tiny_int8.manifest["artefacts"][quantized_model_name("int8")]["sha256"]
    assert result["info"]["source_sha256"] == sha256[:32]
    assert result["self_test_failures"] == []
    assert result["statistics"]["dropped_frames"] == 0


def test_embed_gives_the_embeddings_and_scores_of_a_clip(
    port: str, clip: Path, head: Head, tmp_path: Path
) -> None:
    record = tmp_path / "clip.npz"
    done = run("embed", clip, "--port", port, "--hop", "0.5", "--json", "--record", record)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    embeddings = np.array(result["embeddings"], np.int8)
    assert embeddings.shape == (5, 4)
    assert result["classes"] == list(LABELS)
    # float32 in the node, float64 here: sums of a few hundred steps of 2^-24
    np.testing.assert_allclose(result["scores"], head.scores(embeddings), atol=1e-5)
    with np.load(record) as data:
        np.testing.assert_array_equal(data["embedding"], embeddings)
        np.testing.assert_array_equal(data["time_s"], [0, 0.5, 1, 1.5, 2])
        assert data["classes"].tolist() == list(LABELS)
    table = run("embed", clip, "--port", port).stdout
    assert "été" in table
    assert len([line for line in table.splitlines() if line[:2].strip().isdigit()]) == 3


def test_compare_passes_the_node_of_the_same_model(
    port: str, clip: Path, tiny_int8: Deployment
) -> None:
    done = run("compare", clip, "--port", port, "--model", tiny_int8.directory, "--json")
    assert done.returncode == 0, done.stderr
    (figures,) = json.loads(done.stdout)["clips"]
    assert figures["windows"] == figures["equal_embeddings"] == 3
    assert figures["passes"] is True
    done = run("compare", clip, "--port", port, "--model", tiny_int8.directory)
    assert "pass" in done.stdout


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True),
        ({"equal_embeddings": 2}, False),
        ({"cosine_worst": 0.9989}, False),
        ({"log_mel_share": MAX_LOG_MEL_SHARE * 1.01}, False),
        ({"log_mel_steps": 2}, False),
    ],
)
def test_a_comparison_passes_only_within_its_limits(change: dict[str, float], passes: bool) -> None:
    figures = {"cosine_worst": 0.999, "log_mel_share": MAX_LOG_MEL_SHARE, "log_mel_steps": 1}
    comparison = ClipComparison("clip", 3, **{"equal_embeddings": 3, **figures, **change})  # type: ignore[arg-type]
    assert comparison.passes is passes


def test_compare_refuses_the_node_of_another_model(
    port: str, clip: Path, tiny_int8: Deployment, tmp_path: Path
) -> None:
    manifest = json.loads((tiny_int8.directory / "manifest.json").read_bytes())
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_int8.directory.iterdir():
        (other / path.name).symlink_to(path)
    # Only a trailing byte is another: the digest says so, and so does what the node tells.
    (other / "int8.tflite").unlink()
    model = (tiny_int8.directory / "int8.tflite").read_bytes() + b"\0"
    (other / "int8.tflite").write_bytes(model)
    from edgel3_tflm.files import sha256_hex

    manifest["artefacts"]["int8.tflite"]["sha256"] = sha256_hex(model)
    (other / "manifest.json").unlink()
    (other / "manifest.json").write_text(json.dumps(manifest))
    done = run("compare", clip, "--port", port, "--model", other)
    assert_one_error_line(done, "expected a device with the model of", "build its firmware")


def test_bench_says_what_its_ticks_are(port: str) -> None:
    done = run("bench", "--port", port, "--windows", "2")
    assert done.returncode == 0, done.stderr
    for part in ("log-mel", "network", "both", "2 windows of 1 s; a tick: 1/1,000,000 s"):
        assert part in done.stdout
    result = json.loads(run("bench", "--port", port, "--windows", "2", "--json").stdout)
    ticks = result["ticks"]
    assert [a + b for a, b in zip(ticks["log-mel"], ticks["network"], strict=True)] == ticks["both"]
    assert min(ticks["network"]) > 0
    rate = result["ticks_per_second"]
    awake_s = np.mean(ticks["both"]) / rate
    assert result["awake_seconds_per_window"] == pytest.approx(awake_s)
    share = (1 - np.mean(ticks["log-mel"]) / rate) / (1 + np.mean(ticks["network"]) / rate)
    assert result["sleep_share"] == pytest.approx(share)
    assert "estimate --awake-s" in done.stdout


def test_the_emulated_board_hears_clips_and_scores_them(
    tiny_int8: Deployment, head_directory: Path, head: Head, clip: Path, tmp_path: Path
) -> None:
    record = tmp_path / "live.csv"
    emulated = ["--emulate", tiny_int8.directory, "--head", head_directory]
    start = time.time()
    done = run("monitor", clip, *emulated, "--record", record)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert "window 1" in lines[0]
    assert lines[3].startswith("3 windows, coverage 100.0 %, 0 samples lost")
    with record.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["number"]) for row in rows] == [1, 2, 3]
    times = [float(row["time_s"]) for row in rows]
    assert start < times[0] < times[1] < times[2] < time.time()
    embeddings = np.array([[int(row[f"e{i}"]) for i in range(4)] for row in rows], np.int8)
    scores = [[float(row[label]) for label in LABELS] for row in rows]
    np.testing.assert_allclose(scores, head.scores(embeddings), atol=1e-5)
    best = LABELS[int(np.argmax(scores[0]))]
    assert f"  {best} {max(scores[0]):.2f}" in lines[0]


def test_ctrl_c_ends_the_monitor_and_keeps_what_it_heard(
    tiny_int8: Deployment, clip: Path, tmp_path: Path
) -> None:
    record = tmp_path / "live.npz"
    many = [clip] * 2000
    emulated = ["--emulate", tiny_int8.directory, "--record", record]
    monitor = subprocess.Popen(
        [*COMMAND, "monitor", *map(str, [*many, *emulated])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert monitor.stdout is not None
    assert "window 1" in monitor.stdout.readline()
    monitor.send_signal(signal.SIGINT)
    said, complaint = monitor.communicate(timeout=600)
    assert monitor.returncode == 0, complaint
    assert "written" in said
    with np.load(record) as data:
        assert 1 <= len(data["embedding"]) < 6000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info"], "expected one of --port PORT and --emulate DEPLOYMENT"),
        (["info", "--port", "tcp:127.0.0.1:1", "--emulate", "."], "expected one of"),
        (["info", "--port", "/dev/ttyNONE"], "/dev/ttyNONE: expected a serial port"),
        (["info", "--port", "tcp:127.0.0.1:1"], "start the node, or check host and port"),
        (["info", "--emulate", "/nowhere"], "expected a directory that `edgel3-tflm convert`"),
        (["info", "--port", "tcp:a:1", "--head", "."], "expected --emulate with --head"),
        (["compare", "x.wav", "--port", "tcp:127.0.0.1:1"], "expected --model DEPLOYMENT"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], message: str) -> None:
    assert_one_error_line(run(*arguments), message)


def test_a_clip_or_hop_that_cannot_be_used_is_one_line(
    port: str, clip: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "none.wav"
    assert_one_error_line(run("embed", missing, "--port", port), "no such file")
    assert_one_error_line(run("embed", clip, "--port", port, "--hop", "0"), "at least one sample")


@pytest.mark.parametrize(
    "arguments", [["monitor", "x.wav", "--port", "p"], ["monitor", "--emulate", "."]]
)
def test_clips_are_what_the_emulated_microphone_hears(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "CLIPS" in done.stderr


def test_a_node_without_a_microphone_cannot_be_monitored(port: str) -> None:
    assert_one_error_line(run("monitor", "--port", port), "refuses STREAM", "a microphone")
