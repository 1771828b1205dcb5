"""The command ``listen``: files, with a clock of the test, and a microphone that is not there."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.command_line import run_in_process
from typer.testing import CliRunner

from edgel3_tflm.audio.clips import read_clip
from edgel3_tflm.audio.live import Microphone, play_blocks
from edgel3_tflm.cli.commands import app
from edgel3_tflm.converters.export.head import Head
from edgel3_tflm.embedding.api import get_embedding
from edgel3_tflm.errors import AudioError
from edgel3_tflm.runtime.deployment import Deployment

RATE_HZ = 8000
NOISE = np.random.default_rng(3).normal(0, 0.1, 3 * RATE_HZ).astype(np.float32)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, NOISE, RATE_HZ, subtype="FLOAT")
    return path


def listen(*arguments: object) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["listen", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_prints_the_embeddings_of_the_file(clip: Path, tiny_int8: Deployment) -> None:
    found = listen(tiny_int8.directory, clip, "--speed", 0)
    values, times = get_embedding(NOISE, RATE_HZ, tiny_int8, hop_size=0.5, center=False)
    np.testing.assert_array_equal([each["embedding"] for each in found], values)
    assert [each["time_s"] for each in found] == list(times)
    assert len(listen(tiny_int8.directory, clip, "--speed", 0, "--windows", 2)) == 2


def test_it_prints_the_scores_of_a_head(clip: Path, tiny_int8: Deployment, tmp_path: Path) -> None:
    spec = tiny_int8.embedder("int8").output
    weights = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.int8)
    scale, bias = np.full((2, 2), [[0.1], [0]], np.float32)
    digest = tiny_int8.manifest["artefacts"]["int8.tflite"]["sha256"]
    head = Head("softmax", ("a", "b"), weights, scale, bias, spec.zero_point, digest, {})
    head.write(tmp_path / "head")
    found = listen(tiny_int8.directory, clip, "--head", tmp_path / "head", "--speed", 0)
    values, _ = get_embedding(NOISE, RATE_HZ, tiny_int8, hop_size=0.5, center=False)
    quantized = np.rint(values / spec.scale).astype(int) + spec.zero_point
    expected = head.scores(quantized.astype(np.int8))
    assert [list(each["scores"].values()) for each in found] == expected.tolist()
    shown = CliRunner().invoke(
        app,
        [
            "listen",
            *map(str, (tiny_int8.directory, clip, "--head", tmp_path / "head")),
            "--speed=0",
        ],
    )
    assert f"a {expected[0][0]:.2f}" in shown.stdout


@pytest.mark.parametrize("speed", [1, 4])
def test_a_file_is_played_at_its_pace(clip: Path, speed: float) -> None:
    now_s = [100.0]
    delivered, blocks = [], []

    def sleep(seconds: float) -> None:
        assert seconds > 0
        now_s[0] += seconds

    for block in play_blocks(clip, RATE_HZ, speed, clock=lambda: now_s[0], sleep=sleep):
        blocks.append(block)
        delivered.append(now_s[0])
        now_s[0] += 0.01  # the time that an embedding takes
    np.testing.assert_array_equal(np.concatenate(blocks), read_clip(clip, RATE_HZ).samples)
    ends = np.cumsum([len(block) for block in blocks]) / RATE_HZ / speed
    np.testing.assert_allclose(delivered, 100 + ends, rtol=0, atol=1e-9)


def test_bad_arguments_are_one_line(clip: Path, tiny_int8: Deployment) -> None:
    for arguments, message in (
        (["--speed", "-1"], "a speed of 0 or more"),
        (["--hop", "0"], "hop size"),
        (["--head", "none"], "none"),
    ):
        status, shown = run_in_process("listen", tiny_int8.directory, clip, *arguments)
        assert status == 1
        assert message in shown
        assert shown.count("\n") == 1


class _PortAudioError(Exception):
    pass


class _Input:
    """An input of sounddevice that delivers noise, and is unplugged after two blocks."""

    def __init__(self, rate_hz: float, **options: Any) -> None:
        assert options["channels"] == 1
        self.rate_hz = rate_hz
        self.reads = 0

    def __enter__(self) -> "_Input":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, frames: int) -> tuple[np.ndarray, bool]:
        self.reads += 1
        if self.reads > 2:
            raise _PortAudioError("Device unavailable")
        return NOISE[:frames].reshape(-1, 1), False


def test_a_microphone_delivers_blocks_until_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def query(device: object, kind: str) -> dict[str, Any]:
        if device == 7:
            raise ValueError("No input device matching 7")
        assert kind == "input"
        return {"name": "USB", "default_samplerate": 16000.0}

    fake = SimpleNamespace(InputStream=_Input, PortAudioError=_PortAudioError, query_devices=query)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    microphone = Microphone()
    assert (microphone.name, microphone.sample_rate_hz) == ("USB", 16000)
    blocks = microphone.blocks()
    assert next(blocks).shape == (1600, 1)
    next(blocks)
    with pytest.raises(AudioError, match="USB: Device unavailable"):
        next(blocks)
    with pytest.raises(AudioError, match="No input device matching 7"):
        Microphone("7")


def test_without_sounddevice_one_line_says_what_to_install(
    tiny_int8: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    status, shown = run_in_process("listen", tiny_int8.directory)
    assert status == 1
    assert "sounddevice" in shown
    assert "[microphone]" in shown
