"""The stand-in weights: their zeros and size, the notices about them, and their quality."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.progress import ignore_progress

from edgel3_tflm.audio.clips import read_clip
from edgel3_tflm.audio.framing import cut_windows
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.audio.manifest import read_manifest
from edgel3_tflm.audio.pcm import to_int16
from edgel3_tflm.drift.runtimes import open_frontend
from edgel3_tflm.errors import WeightsError
from edgel3_tflm.evaluation.probe import extract_features, map_cosine, probe
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_bundled_weights, load_given
from edgel3_tflm.runtime.deployment import Deployment

COMMAND = str(Path(sys.executable).with_name("edgel3-tflm"))
FOLDER = Path(__file__).parents[3] / "edgel3_tflm" / "standin"
VALIDATION_FOLD = 4


def run_unreachable(*arguments: object, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with a proxy that makes the authors' address unreachable."""
    nowhere = "http://127.0.0.1:9"
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "EDGEL3_TFLM_CACHE": str(cache),
            "HTTPS_PROXY": nowhere,
            "https_proxy": nowhere,
        },
    )


def test_zeros_are_exactly_the_plan_s(standin: Deployment) -> None:
    for layer in standin.manifest["layers"]:
        planned = round(layer["weights"] * (1 - layer["plan_percent"] / 100))
        assert layer["weights"] - layer["zeros"] == planned, layer["name"]
        assert layer["given_zeros"] == layer["zeros"]
    assert standin.manifest["weights"]["pruned_layers"] == []


def test_the_files_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.glob("*.h5.gz")}
    assert sizes["edgel3_99_standin.h5.gz"] <= 500_000
    assert sum(sizes.values()) <= 1_300_000


def test_the_real_time_stand_in_has_exactly_the_plan_s_zeros() -> None:
    variant = find_variant(sparsity="99")
    notes: list[str] = []
    weights = load_given(variant, "auto", note=notes.append)
    assert weights is not None
    assert variant.plan is not None
    assert weights.provenance.kind == "bundled"
    assert notes == ["STAND-IN weights are used: none are published for edgel3-99-ft"]
    for conv, percent in zip(weights.convs, variant.plan.layers, strict=True):
        assert conv.kernel.size - conv.zeros == round(conv.kernel.size * (1 - percent / 100))


def test_other_networks_have_no_stand_in() -> None:
    with pytest.raises(WeightsError, match=r"95\.45 or 99 %"):
        load_bundled_weights(find_variant(sparsity="98"))


def test_a_plan_of_the_same_total_has_no_stand_in() -> None:
    variant = find_variant(sparsity="99")
    assert variant.plan is not None
    moved = replace(variant.plan, layers=(0, *reversed(variant.plan.layers[1:])))
    with pytest.raises(WeightsError, match="expected a network with bundled weights"):
        load_bundled_weights(replace(variant, plan=moved))


def test_convert_and_compare_fall_back_on_it_and_say_so(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    soundfile.write(clips / "click.wav", [0.0] * 24_000 + [0.5] + [0.0] * 24_000, 48_000)
    output = tmp_path / "out"
    converted = run_unreachable(
        "convert",
        "--sparsity",
        "95.45",
        "--calibration",
        clips,
        *("--calibration-method", "minmax", "--no-equalize", "--no-bias-correction"),
        "--no-adaround",
        "-o",
        output,
        cache=tmp_path / "c",
    )
    assert converted.returncode == 0, converted.stderr
    assert "NOTICE" in converted.stdout
    compared = run_unreachable("compare", output, clips, "-o", tmp_path / "r", cache=tmp_path / "c")
    assert compared.returncode == 0, compared.stderr
    said = "STAND-IN weights of this project, not the authors' EdgeL3"
    manifest = json.loads((output / "manifest.json").read_bytes())
    assert manifest["weights"]["kind"] == "bundled"
    drift = json.loads((tmp_path / "r" / "drift.json").read_bytes())
    page = (tmp_path / "r" / "drift.html").read_text().replace("&#39;", "'")
    for text in (
        converted.stdout,
        compared.stdout,
        manifest["weights"]["description"],
        (output / "edgel3_model.h").read_text(),
        drift["weights"]["description"],
        page,
    ):
        assert said in " ".join(text.split())
    assert 'class="notice"' in page


def test_asking_for_published_weights_refuses_the_stand_in(tmp_path: Path) -> None:
    done = run_unreachable(
        "convert", "--weights", "published", "-o", tmp_path / "out", cache=tmp_path / "cache"
    )
    assert done.returncode == 1
    assert "cannot fetch" in done.stderr
    assert not (tmp_path / "out").exists()


def test_int8_follows_its_teacher_on_the_validation_clips(
    standin: Deployment, sea_int8: Deployment, esc10: Path
) -> None:
    clips = read_manifest(esc10 / "manifest.tsv")
    teacher = extract_features(
        clips,
        sea_int8.variant.frontend,
        sea_int8.embedder("float").embed_log_mel,
        ignore_progress,
    )
    embed = standin.embedder("int8").embed_log_mel
    student = extract_features(clips, standin.variant.frontend, embed, ignore_progress)
    assert map_cosine(clips, student, teacher, [VALIDATION_FOLD]) >= 0.9
    (of_teacher,) = probe(clips, teacher, [VALIDATION_FOLD])
    (of_student,) = probe(clips, student, [VALIDATION_FOLD])
    assert 100 * (of_teacher.right - of_student.right) / of_teacher.clips <= 2


def test_float_and_int8_embeddings_agree_on_the_validation_clips(
    standin: Deployment, esc10: Path
) -> None:
    """The float model takes ten times as long, so a tenth of the validation clips is used."""
    rows = read_manifest(esc10 / "manifest.tsv")
    clips = [row for row in rows if row.fold == VALIDATION_FOLD][::10]
    embeddings = [
        extract_features(
            clips,
            standin.variant.frontend,
            standin.embedder(precision).embed_log_mel,
            ignore_progress,
        ).values
        for precision in ("float", "int8")
    ]
    assert cosine_similarity(*embeddings).mean() >= 0.996


@pytest.mark.parametrize("name", ["standin", "real_time_standin"])
def test_sixteen_bits_move_the_embedding_little(
    name: str, request: pytest.FixtureRequest, esc10: Path
) -> None:
    """What a board computes from 16-bit samples, against the float model on unrounded samples."""
    deployment: Deployment = request.getfixturevalue(name)
    spec = deployment.variant.frontend
    quiet_dbfs = -60
    cosines, errors, energies = [], [], []
    frontend = open_frontend(deployment)
    embed, embed_float = (deployment.embedder(*each) for each in (("int8", "engine"), ("float",)))
    rows = read_manifest(esc10 / "manifest.tsv")
    for row in [row for row in rows if row.fold == VALIDATION_FOLD][::10]:
        clip = read_clip(row.path, spec.sample_rate_hz)
        windows = cut_windows(
            clip, window_samples=spec.window_samples, hop_samples=spec.window_samples
        )
        windows = windows[10 * np.log10(np.mean(windows**2, axis=1) + 1e-20) > quiet_dbfs]
        heard = np.stack([frontend.log_mel(window) for window in to_int16(windows)])
        pair = embed.embed_log_mel(heard), embed_float.embed_log_mel(log_mel(windows, spec))
        cosines.append(cosine_similarity(*pair))
        errors.append(((pair[0] - pair[1]) ** 2).sum())
        energies.append((pair[1] ** 2).sum())
    assert np.percentile(np.concatenate(cosines), 5) >= 0.99
    assert 10 * np.log10(sum(energies) / sum(errors)) >= 22  # dB
