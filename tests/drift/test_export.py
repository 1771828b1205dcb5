"""The arrays of a comparison as .npz files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.command_line import assert_one_error_line, run
from helpers.progress import ignore_progress

from edgel3_tflm.drift.compare import compare
from edgel3_tflm.drift.figures import DriftReport
from edgel3_tflm.drift.report.export import export_arrays
from edgel3_tflm.metrics import sqnr_db
from edgel3_tflm.runtime.deployment import Deployment


@pytest.fixture(scope="module")
def report(tiny_int8: Deployment, tmp_path_factory: pytest.TempPathFactory) -> DriftReport:
    clips = tmp_path_factory.mktemp("clips")
    for number in range(2):
        noise = np.random.default_rng(number).normal(0, 0.1, 16_000)
        soundfile.write(clips / f"{number}.flac", noise, 8000, subtype="PCM_24")
    return compare(
        tiny_int8, [clips], runtimes=["engine", "node"], hop_s=0.5, progress=ignore_progress
    )


def test_the_arrays_are_those_of_the_figures(report: DriftReport, tmp_path: Path) -> None:
    export_arrays(report, tmp_path / "arrays")
    # Without pickled objects: the files can be read by anyone.
    found = {
        path.stem: dict(np.load(path, allow_pickle=False))
        for path in (tmp_path / "arrays").iterdir()
    }
    embeddings = found["embeddings"]
    assert set(embeddings) == {
        *("clip", "start_s", "sounding", "float", "device"),
        *("engine", "node", "node reference"),
    }
    assert embeddings["clip"].tolist() == sorted(3 * [each.clip for each in report.clips])
    assert embeddings["start_s"].tolist() == 2 * [0.0, 0.5, 1.0]
    assert sqnr_db(embeddings["float"], embeddings["engine"]) == report.overall.sqnr_db
    node = report.runtimes[1].overall
    assert sqnr_db(embeddings["node reference"], embeddings["node"]) == node.sqnr_db
    assert report.device is not None
    assert sqnr_db(embeddings["float"], embeddings["device"]) == report.device.sqnr_db


def test_log_mel_and_layers_are_of_the_same_windows(report: DriftReport, tmp_path: Path) -> None:
    export_arrays(report, tmp_path / "arrays")
    log_mel = np.load(tmp_path / "arrays" / "log_mel.npz", allow_pickle=False)
    assert report.frontend is not None
    difference = np.abs(log_mel["host"].astype(np.float64) - log_mel["device"])
    assert difference.mean() == pytest.approx(report.frontend.log_mel_mean_db)
    layers = np.load(tmp_path / "arrays" / "layers.npz", allow_pickle=False)
    names = ["input", *(f"conv{number}" for number in range(1, 9))]
    assert list(layers) == [f"{name} {side}" for name in names for side in ("float", "quantized")]
    # The last layer is the embedding.
    rows = [
        np.flatnonzero(
            (np.array([each.clip for each in report.clips])[report.windows.clip] == clip)
            & (report.windows.start_s == start)
        )[0]
        for clip, start in zip(log_mel["clip"][:2], log_mel["start_s"][:2], strict=True)
    ]
    last = layers["conv8 quantized"].reshape(len(rows), -1)
    step = report.runtimes[0].runtime.output_scale
    np.testing.assert_allclose(last, report.first.embeddings[rows], rtol=0, atol=step)


def test_the_command_exports_and_refuses_a_directory_of_others(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    command = ["compare", tiny_int8.directory, tmp_path / "a.wav", "-o", tmp_path / "report"]
    done = run(*command, "--export", tmp_path / "arrays")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "arrays").iterdir()) == [
        "embeddings.npz",
        "layers.npz",
        "log_mel.npz",
    ]
    assert_one_error_line(run(*command, "--export", tmp_path), str(tmp_path))
