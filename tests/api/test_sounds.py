"""Embeddings from Python: files, folders, streams, and how results print in a notebook."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import edgel3_tflm
from edgel3_tflm import EdgeL3Error, Stream, embed_file, embed_folder, get_embedding
from edgel3_tflm.audio.pcm import round_to_int16
from edgel3_tflm.errors import AudioError, RuntimeUnavailableError
from edgel3_tflm.runtime.deployment import Deployment

RATE_HZ = 8000


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.1, round(seconds * RATE_HZ)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "recordings"
    (root / "night").mkdir(parents=True)
    soundfile.write(root / "a.wav", noise(3), RATE_HZ, subtype="FLOAT")
    soundfile.write(root / "night" / "b.wav", noise(2), RATE_HZ, subtype="FLOAT")
    return root


def test_every_exported_name_exists_and_the_import_loads_no_slow_package() -> None:
    for name in edgel3_tflm.__all__:
        assert getattr(edgel3_tflm, name) is not None
    assert set(edgel3_tflm._HOMES) == set(edgel3_tflm.__all__) - {"__version__"}
    assert dir(edgel3_tflm) == sorted(edgel3_tflm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgel3_tflm.nothing  # noqa: B018
    slow = ("tensorflow", "sklearn", "pydantic", "matplotlib", "numpy", "soundfile")
    code = f"import sys, edgel3_tflm; print([n for n in {slow} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_file_has_the_embeddings_of_get_embedding(folder: Path, tiny_int8: Deployment) -> None:
    found = embed_file(folder / "a.wav", tiny_int8, hop_s=0.5)
    values, times = get_embedding(noise(3), RATE_HZ, tiny_int8, hop_size=0.5)
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(np.asarray(found), values)
    np.testing.assert_array_equal(found.times_s, times)
    assert len(found) == len(values)
    assert set(found.clips) == {str(folder / "a.wav")}
    assert "weights file tiny.h5.gz" in found.provenance[0]


def test_a_folder_becomes_one_matrix_and_a_row_for_each_clip(
    folder: Path, tiny_int8: Deployment
) -> None:
    steps: list[tuple[str, int, int]] = []
    found = embed_folder(
        folder, tiny_int8.directory, hop_s=1, progress=lambda *step: steps.append(step)
    )
    assert steps == [("embed files", done, 2) for done in range(3)]
    names, means = found.mean_by_clip()
    assert names == ["a.wav", "night/b.wav"]
    for name, mean in zip(names, means, strict=True):
        alone = embed_file(folder / name, tiny_int8, hop_s=1).values
        np.testing.assert_array_equal(found.values[found.clips == name], alone)
        np.testing.assert_array_equal(mean, alone.mean(axis=0))


def test_a_damaged_file_ends_a_folder_or_is_listed(folder: Path, tiny_int8: Deployment) -> None:
    (folder / "bad.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        embed_folder(folder, tiny_int8, hop_s=1)
    found = embed_folder(folder, tiny_int8, hop_s=1, keep_going=True)
    assert list(found.damaged) == ["bad.wav"]
    assert "bad.wav" not in found.clips
    (folder / "a.wav").unlink()
    (folder / "night" / "b.wav").unlink()
    with pytest.raises(AudioError, match="expected a file that can be read"):
        embed_folder(folder, tiny_int8, keep_going=True)


@pytest.mark.parametrize("block", [1, 700, 8000, 30_000])
def test_a_stream_has_the_embeddings_of_the_whole_whatever_the_blocks(
    tiny_int8: Deployment, block: int
) -> None:
    samples = noise(2 if block == 1 else 4)
    stream = Stream(tiny_int8, hop_s=0.5)
    assert stream.sample_rate_hz == RATE_HZ
    blocks = (samples[first : first + block] for first in range(0, len(samples), block))
    found = list(stream.embed(blocks))
    values, times = get_embedding(samples, RATE_HZ, tiny_int8, hop_size=0.5, center=False)
    np.testing.assert_array_equal([value for value, _ in found], values)
    assert [time_s for _, time_s in found] == list(times)


def test_a_stream_embeds_a_window_before_the_next_block_is_taken(tiny_int8: Deployment) -> None:
    taken = 0

    def microphone() -> Iterator[np.ndarray]:
        nonlocal taken
        for first in range(0, 4 * RATE_HZ, 1000):
            taken += 1
            yield noise(4)[first : first + 1000].reshape(-1, 1)

    embeddings = Stream(tiny_int8, hop_s=1).embed(microphone())
    next(embeddings)
    assert taken == 8
    next(embeddings)
    assert taken == 16


def test_a_stream_of_another_rate_is_resampled(tiny_int8: Deployment) -> None:
    samples = noise(3)
    stream = Stream(tiny_int8, sample_rate_hz=2 * RATE_HZ, hop_s=1)
    found = [value for value, _ in stream.embed([np.repeat(samples, 2)])]
    values, _ = get_embedding(
        np.repeat(samples, 2), 2 * RATE_HZ, tiny_int8, hop_size=1, center=False, resampler="soxr"
    )
    np.testing.assert_array_equal(found, values)


def test_a_block_that_is_no_audio_is_refused(tiny_int8: Deployment) -> None:
    stream = Stream(tiny_int8)
    for block, message in (
        (np.zeros((2, 2, 2)), "expected audio of shape"),
        (np.full(10, np.nan), "NaN"),
        (["text"], "real numbers"),
    ):
        with pytest.raises(EdgeL3Error, match=message):
            list(stream.embed([block]))


def test_the_names_of_runtimes_mean_the_same_as_in_the_commands(
    tmp_path: Path, tiny_int8: Deployment
) -> None:
    windows = noise(2).reshape(2, RATE_HZ)
    node = tiny_int8.embedder("int8", "node").embed(windows)
    # The node hears 16 bits, so that rounding before it changes nothing.
    rounded = tiny_int8.embedder(runtime="node").embed(round_to_int16(windows))
    np.testing.assert_array_equal(node, rounded)
    clip = tmp_path / "windows.wav"
    soundfile.write(clip, windows.ravel(), RATE_HZ, subtype="FLOAT")
    report = edgel3_tflm.compare(tiny_int8, clip, runtime="node", hop_s=1)
    np.testing.assert_array_equal(report.first.embeddings, node)
    np.testing.assert_array_equal(
        tiny_int8.embedder(runtime="float:litert").embed(windows),
        tiny_int8.embedder("float", "litert").embed(windows),
    )
    with pytest.raises(RuntimeUnavailableError, match="leave out 'float:'"):
        tiny_int8.embedder("int8", "float:litert")
    with pytest.raises(RuntimeUnavailableError, match=r"expected one of litert, .*, node"):
        tiny_int8.embedder("int8", "nodes")
    in_node = embed_file(clip, tiny_int8, runtime="node", hop_s=1, center=False)
    np.testing.assert_array_equal(in_node.values, node)
    assert "network sea-ust-filters-4-4-4-4-4-4-4-4, int8, in node" in in_node.provenance


def test_results_in_a_notebook_escape_the_names_of_files(
    tmp_path: Path, tiny_int8: Deployment
) -> None:
    for number in range(12):
        soundfile.write(tmp_path / f"<b>{number:02}.wav", noise(1), RATE_HZ)
    shown = embed_folder(tmp_path, tiny_int8, hop_s=1)._repr_html_()
    assert "&lt;b&gt;00.wav" in shown
    assert "<b>" not in shown
    assert "and 2 more" in shown
    assert "int8.tflite" in tiny_int8._repr_html_()
    report = edgel3_tflm.compare(tiny_int8, tmp_path, hop_s=1)
    assert "SQNR" in report._repr_html_()
