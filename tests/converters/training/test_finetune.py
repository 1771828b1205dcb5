"""Fine-tuning by audio-visual correspondence: learning, zeros, frozen weights, resumed runs."""

import gzip
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.sounds.videos import KINDS, VIDEOS, ignore_video, write_video
from scipy.stats import binom
from typer.testing import CliRunner

from edgel3_tflm.cli.commands import app
from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.keras.generate import draw_weights
from edgel3_tflm.converters.pruning.plan_file import write_plan
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.converters.training.correspondence import CorrespondenceFigures, finetune
from edgel3_tflm.converters.training.recipe import (
    FinetuneRecipe,
    VideoChoice,
    parse_recipe,
)
from edgel3_tflm.converters.training.split import choose_videos
from edgel3_tflm.converters.training.video_network import VideoWeights, load_video_weights
from edgel3_tflm.converters.training.videos import Video, find_videos
from edgel3_tflm.errors import (
    EdgeL3Error,
    WeightsError,
)
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import Plan
from edgel3_tflm.networks.weight_files import pack_convolutions, pack_weights
from edgel3_tflm.networks.weights import NetworkWeights

# The audio network is cut in depth and width, and pruned.
FILTERS = (8, 8, 16, 16)


PLAN = Plan(0, (0, 30, 40, 50))


VIDEO_FILTERS = (8, 8, 8, 8, 8, 8, 16, 16)


RECIPE = f"""
[student]
model_type = "sea"
emb_dim = 64
embedding_layer = "conv4"
filters = {list(FILTERS)}
[video]
filters = {list(VIDEO_FILTERS)}
frame_pixels = 32
[validation]
share = 0.3
pairs = 300
"""


TRAINING = """
batch_windows = 16
learning_rate = 1e-2
warmup_steps = 5
precision = "float32"
"""


@pytest.fixture(scope="module")
def start() -> NetworkWeights:
    variant = find_variant("sea", embedding_size=64).with_depth(4).with_filters(FILTERS)
    variant = variant.with_plan(PLAN)
    mean, variance = np.float32([-50]), np.float32([400])
    drawn = draw_weights(variant, mean=mean, variance=variance, seed=3)
    return prune(drawn, variant.plan).weights


def command(recipe: Path, videos: Path, weights: Path, *more: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("edgel3-tflm")),
        *("finetune", str(recipe), "-o", str(recipe.parent / "run"), "--videos", str(videos)),
        *("--weights", str(weights), *more),
    ]


@pytest.fixture(scope="module")
def finished(
    video_directory: Path, start: NetworkWeights, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A complete run of the command: its directory, and its standard output."""
    root = tmp_path_factory.mktemp("finetune")
    recipe = root / "recipe.toml"
    recipe.write_text(
        f"{RECIPE}[training]\nsteps = 160\nvalidate_every_steps = 20\n{TRAINING}"
        f"[video_training]\nsteps = 160\nvalidate_every_steps = 20\n{TRAINING}"
    )
    (root / "start.h5.gz").write_bytes(pack_weights(start))
    (root / "plan.toml").write_bytes(write_plan(PLAN, "of a test"))
    plan = ("--plan", str(root / "plan.toml"))
    done = subprocess.run(
        command(recipe, video_directory, root / "start.h5.gz", *plan),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root / "run", done.stdout


def bound(figures: dict[str, float]) -> float:
    """Accuracy that a constant answer exceeds with a probability of one in a million."""
    return float(binom.isf(1e-6, figures["pairs"], figures["chance"]) / figures["pairs"])


def test_correspondence_is_learned_far_beyond_chance(finished: tuple[Path, str]) -> None:
    run, printed = finished
    for stage in (run, run / "first_stage"):
        figures = json.loads((stage / "figures.json").read_bytes())["validation"]
        assert figures["accuracy"] > bound(figures), stage
    assert "validation pairs correct" in printed
    assert "all 160 steps were taken" in printed
    assert "student chosen by the lowest loss on the pairs of the validation set" in printed


def test_nothing_is_learned_from_random_sounds(
    finished: tuple[Path, str], start: NetworkWeights, tmp_path: Path
) -> None:
    heard = np.random.default_rng(1).integers(0, KINDS, VIDEOS)
    (tmp_path / "videos").mkdir()
    for number, kind in enumerate(heard):
        write_video(tmp_path / "videos" / f"{number:02}.mp4", number, heard=int(kind))
    recipe = parse_recipe(
        f"{RECIPE}[training]\nsteps = 30\nvalidate_every_steps = 30\n{TRAINING}", FinetuneRecipe
    )
    figures = train(
        recipe,
        start,
        find_videos(tmp_path / "videos", ignore_video),
        tmp_path / "run",
        video=load_video_weights(recipe.video, finished[0] / "video.h5.gz"),
    )
    assert figures.accuracy <= bound(vars(figures))


def test_every_zero_stays_zero_and_the_other_weights_change(
    finished: tuple[Path, str], start: NetworkWeights
) -> None:
    run, _ = finished
    figures = json.loads((run / "figures.json").read_bytes())
    student = load_weights(start.variant, run / "student.h5.gz")
    assert sum(conv.zeros for conv in start.convs) > 0
    for before, after, said in zip(start.convs, student.convs, figures["layers"], strict=True):
        np.testing.assert_array_equal(after.kernel == 0, before.kernel == 0)
        assert said["zeros_before"] == said["zeros"] == before.zeros
        moved = before.kernel != 0
        assert (after.kernel[moved] != before.kernel.astype(np.float16)[moved]).mean() > 0.5
    said = figures["student"]["description"]
    assert re.match(r"fine-tuned by edgel3-tflm \S+ by audio-visual correspondence from: ", said)
    assert student.provenance.kind == "fine-tuned"
    assert said in student.provenance.description
    assert figures["from"]["name"] == "start.h5.gz"


def test_the_weights_of_the_frozen_video_network_do_not_change(
    finished: tuple[Path, str], start: NetworkWeights
) -> None:
    run, _ = finished
    reader = load_backend().tf.train.load_checkpoint(str(run / "checkpoints"))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("model/")]
    trained = {reader.get_tensor(name).tobytes() for name in names if "OPTIMIZER" not in name}
    unpacked = io.BytesIO(gzip.decompress((run / "video.h5.gz").read_bytes()))
    with h5py.File(unpacked) as file:
        arrays: list[bytes] = []
        file.visititems(
            lambda _, item: (
                arrays.append(item[()].tobytes()) if isinstance(item, h5py.Dataset) else None
            )
        )
    assert len(arrays) == 8 * 6
    assert set(arrays) <= trained
    given = load_weights(start.variant, run.parent / "start.h5.gz")
    # The weights of the audio network changed.
    assert not {conv.kernel.tobytes() for conv in given.convs} & trained


def test_logs_are_tensorboard_s(finished: tuple[Path, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0] / "log"), size_guidance={"tensors": 0})
    events.Reload()
    assert {"loss/correspondence", "learning_rate"} <= set(events.Tags()["tensors"])
    assert len(events.Tensors("validation/accuracy")) == 8


SHORT = parse_recipe(
    f"{RECIPE.replace('pairs = 300', 'pairs = 20')}"
    "[training]\nsteps = 8\nvalidate_every_steps = 4\nbatch_windows = 4\n"
    "[video_training]\nsteps = 8\nvalidate_every_steps = 4\nbatch_windows = 4\n",
    FinetuneRecipe,
)


def train(
    recipe: FinetuneRecipe,
    initial: NetworkWeights,
    videos: list[Video],
    output: Path,
    *,
    video: VideoWeights | None = None,
    stop: tuple[str, int] = ("", 0),
) -> CorrespondenceFigures:
    def progress(step: str, done: int, _total: int) -> None:
        if (step, done) == stop:
            raise KeyboardInterrupt

    return finetune(
        recipe,
        initial=initial,
        video=video,
        videos=videos,
        output=output,
        progress=progress,
        on_validation=lambda _stage, _figures: None,
    )


def test_an_interrupted_run_resumes_to_the_same_result(
    videos: list[Video], start: NetworkWeights, tmp_path: Path
) -> None:
    uninterrupted, interrupted = tmp_path / "whole", tmp_path / "parts"
    figures = train(SHORT, start, videos, uninterrupted)
    with pytest.raises(KeyboardInterrupt):
        train(SHORT, start, videos, interrupted, stop=("train audio network", 6))
    assert train(SHORT, start, videos, interrupted) == figures
    for name in ("video.h5.gz", "student.h5.gz", "figures.json", "first_stage/figures.json"):
        assert (uninterrupted / name).read_bytes() == (interrupted / name).read_bytes(), name

    other = replace(SHORT, fusion=replace(SHORT.fusion, units=4))
    with pytest.raises(EdgeL3Error, match="another run"):
        train(other, start, videos, interrupted)


def test_a_run_that_stops_early_says_why_and_what_it_selected(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    short = "[training]\nsteps = 20\nvalidate_every_steps = 1\nbatch_windows = 4\n"
    # At a learning rate of 0 only the moving statistics of BatchNorm change.
    recipe.write_text(
        f"{RECIPE.replace('pairs = 300', 'pairs = 20')}{short}"
        'learning_rate = 0.0\npatience_validations = 1\nprecision = "float32"\n'
    )
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(8):
        write_video(videos / f"{number}.mp4", number)
    # Its start and its end, which are decoded before training, are whole.
    torn = videos / "torn.mp4"
    write_video(torn, 8, seconds=12)
    data = bytearray(torn.read_bytes())
    middle = slice(3 * len(data) // 10, 7 * len(data) // 10)
    data[middle] = bytes(middle.stop - middle.start)
    torn.write_bytes(data)
    (videos / "damaged.mp4").write_bytes(b"no video")
    words = command(recipe, videos, finished[0].parent / "start.h5.gz")[1:]
    words += ["--video-weights", str(finished[0] / "video.h5.gz")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert re.match(rf"error: {videos}/damaged\.mp4: ", refused.stderr.splitlines()[-1])
    assert not (tmp_path / "run").exists()

    done = CliRunner().invoke(app, [*words, "--keep-going"])
    assert done.exit_code == 1, done.stderr
    *_, first, second, last = done.stderr.splitlines()
    for path, line in ((videos / "damaged.mp4", first), (torn, second)):
        assert line.startswith(f"error: {path}: expected a whole video")
    assert last == "error: 2 of 10 videos cannot be decoded completely"
    run = json.loads((tmp_path / "run" / "figures.json").read_bytes())["run"]
    assert run["steps"] == 20
    assert run["steps_taken"] < 20
    for said in (done.stdout, run["reason"]):
        assert f"stopped early, after step {run['steps_taken']} of 20: " in said
        assert "(patience_validations = 1)" in said
    assert "student chosen by the lowest loss on the pairs of the validation set" in done.stdout
    again = json.loads(CliRunner().invoke(app, [*words, "--keep-going", "--json"]).stdout)
    assert again["run"] == run
    assert list(again["damaged"]) == [str(videos / "damaged.mp4"), str(torn)]


def test_too_few_videos_are_refused(
    videos: list[Video], start: NetworkWeights, tmp_path: Path
) -> None:
    _, validation = choose_videos(0.3, videos)
    fewer = [each for each in videos if each not in validation[1:]]
    with pytest.raises(EdgeL3Error, match=r"validation set has 1 of .*validation\.share"):
        train(SHORT, start, fewer, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_video_weights_of_another_shape_are_refused(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    path = finished[0] / "video.h5.gz"
    with pytest.raises(WeightsError, match=r"video\.h5\.gz: .*expected floats of shape"):
        load_video_weights(VideoChoice(), path)
    choice = VideoChoice(filters=VIDEO_FILTERS, frame_pixels=32)
    convs = load_video_weights(choice, path).convs
    cut = tmp_path / "cut.h5.gz"
    cut.write_bytes(pack_convolutions(convs[:-1]))
    with pytest.raises(WeightsError, match="expected 8 convolutions"):
        load_video_weights(choice, cut)
    # An embedding's file ends at the last convolution.
    cut.write_bytes(pack_convolutions([*convs[:-1], replace(convs[-1], batch_norm=None)]))
    assert load_video_weights(choice, cut).convs[-1].batch_norm is None


def test_the_command_refuses_in_one_line(tmp_path: Path, start: NetworkWeights) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE + "[pairs]\nother_time = 1\n")
    (tmp_path / "start.h5.gz").write_bytes(pack_weights(start))
    refused = subprocess.run(
        command(tmp_path / "recipe.toml", tmp_path, tmp_path / "start.h5.gz"),
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1
    assert re.fullmatch(r"error: \S*recipe\.toml: recipe, pairs: .*\n", refused.stderr)
    assert not (tmp_path / "run").exists()
