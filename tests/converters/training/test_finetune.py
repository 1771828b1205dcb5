"""Fine-tuning by audio-visual correspondence: videos, pairs, zeros kept, runs that resume."""

import colorsys
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from edgel3_tflm.cli.commands import app
from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.keras.generate import draw_weights
from edgel3_tflm.converters.pruning.plan_file import write_plan
from edgel3_tflm.converters.pruning.prune import prune
from edgel3_tflm.converters.training.correspondence import (
    CorrespondenceFigures,
    VideoWeights,
    choose_videos,
    finetune,
    load_video_weights,
)
from edgel3_tflm.converters.training.recipe import (
    FinetuneRecipe,
    VideoChoice,
    parse_recipe,
)
from edgel3_tflm.converters.training.videos import (
    PairSource,
    Video,
    find_videos,
    read_frame,
    read_sound,
)
from edgel3_tflm.errors import (
    EdgeL3Error,
    RuntimeUnavailableError,
    VideoError,
    WeightsError,
)
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import Plan
from edgel3_tflm.networks.weight_files import pack_convolutions, pack_weights
from edgel3_tflm.networks.weights import NetworkWeights

FloatArray = npt.NDArray[np.floating[Any]]
# Cut in depth and width, and pruned.
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
VIDEOS = 40


def make_sound(kind: int, time_s: FloatArray) -> FloatArray:
    """A tone, beeps, a chord or glides: told apart wherever a filter looks."""
    tone = np.sin(2 * np.pi * 1000 * time_s)
    chord = sum(np.sin(2 * np.pi * hertz * time_s) for hertz in range(300, 3900, 300))
    glides = np.sin(2 * np.pi * (400 * time_s + 1400 * (time_s % 1) ** 2))
    return 0.3 * [tone, tone * (time_s * 8 % 1 < 0.5), chord / 3, glides][kind]


KINDS = 4


def write_video(path: Path, number: int, *, heard: int | None = None, sound: bool = True) -> None:
    """A square that jumps about, in one of four colours, each with its sound; two seconds."""
    generator = np.random.default_rng(number)
    seen = number % KINDS
    colour = [round(255 * value) for value in colorsys.hsv_to_rgb(seen / KINDS, 1, 1)]
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=4)
        pictures.width = pictures.height = 48
        pictures.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for _ in range(8):
            image = np.full((48, 48, 3), 30, np.uint8)
            row, column = generator.integers(0, 24, 2)
            image[row : row + 24, column : column + 24] = colour
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(pictures.encode())
        if audio is None:
            return
        time_s = np.arange(16_000) / 8000
        noise = generator.normal(0, 0.01, len(time_s))
        samples = (make_sound(seen if heard is None else heard, time_s) + noise).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def ignore_video(done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        write_video(directory / f"{number:02}.mp4", number)
    return directory


@pytest.fixture(scope="module")
def videos(directory: Path) -> list[Video]:
    return find_videos(directory, ignore_video)


@pytest.fixture(scope="module")
def start() -> NetworkWeights:
    variant = find_variant("sea", embedding_size=64).with_depth(4).with_filters(FILTERS)
    variant = variant.with_plan(PLAN)
    mean, variance = np.float32([-50]), np.float32([400])
    drawn = draw_weights(variant, mean=mean, variance=variance, seed=3)
    return prune(drawn, variant.plan).weights


class TestVideos:
    def test_a_frame_and_the_sound_around_it_are_read(self, videos: list[Video]) -> None:
        video = videos[0]
        assert video.start_s == 0
        assert 1.9 < video.end_s < 2.2  # two seconds, and what the encoder pads
        frame = read_frame(video, 1.0, short_side=48)
        assert frame.shape == (48, 48, 3)
        seen = np.unravel_index(frame.max(axis=2).argmax(), (48, 48))
        # Hue 0 is (255, 0, 0); lossy coding moves it, not into another of the four.
        assert frame[seen].argmax() == 0
        sound = read_sound(video, 1.0, 8000)
        assert np.abs(np.fft.rfft(sound)).argmax() == 1000  # bins of one second are hertz
        assert np.abs(np.fft.rfft(read_sound(video, 1.0, 16_000))).argmax() == 1000

    def test_a_batch_is_determined_by_its_number(self, videos: list[Video]) -> None:
        source = PairSource(videos, sample_rate_hz=8000, frame_pixels=32, varied=True)
        first, again, other = (source.batch(1, number, 8) for number in (3, 3, 4))
        np.testing.assert_array_equal(first.frames, again.frames)
        np.testing.assert_array_equal(first.windows, again.windows)
        np.testing.assert_array_equal(first.matching, again.matching)
        assert (first.windows != other.windows).any()
        assert first.frames.shape == (8, 32, 32, 3)
        assert first.windows.shape == (8, 8000)

    def test_half_the_pairs_match_and_only_they_share_a_video(self, videos: list[Video]) -> None:
        two = videos[:2]  # a tone and beeps, which are silent half the time
        pairs = PairSource(two, sample_rate_hz=8000, frame_pixels=32, varied=False).batch(1, 0, 100)
        is_beep = (np.abs(pairs.windows) < 0.05).mean(axis=1) > 0.4
        colours = pairs.frames.reshape(100, -1, 3).max(axis=1)
        is_green = colours[:, 1] > colours[:, 0]
        np.testing.assert_array_equal(pairs.matching, is_green == is_beep)
        # Beyond these numbers a fair coin goes once in a million times.
        assert binom.isf(1 - 1e-6, 100, 0.5) <= pairs.matching.sum() <= binom.isf(1e-6, 100, 0.5)

    def test_a_video_stays_on_its_side_when_others_come(self, videos: list[Video]) -> None:
        training, held = choose_videos(0.3, videos)
        assert len(training) > len(held) > 1
        fewer, fewer_held = choose_videos(0.3, videos[:20])
        assert [video for video in training if video in fewer] == fewer
        assert [video for video in held if video in fewer_held] == fewer_held

    def test_nothing_to_read_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EdgeL3Error, match="there is none"):
            find_videos(tmp_path / "nowhere", ignore_video)
        (tmp_path / "notes.txt").write_text("no video")
        with pytest.raises(EdgeL3Error, match=r"expected videos .*\.mp4.*, found none"):
            find_videos(tmp_path, ignore_video)

    def test_videos_without_sound_are_refused(self, tmp_path: Path) -> None:
        write_video(tmp_path / "silent film.mp4", 0, sound=False)
        with pytest.raises(EdgeL3Error, match=r"silent film\.mp4: .* it has no sound; remove it"):
            find_videos(tmp_path, ignore_video)

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
    @pytest.mark.parametrize("share", [0, 0.02, 0.5])
    def test_a_video_that_is_cut_is_named(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = tmp_path / f"cut.{suffix}"
        write_video(path, 0)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(EdgeL3Error, match=rf"cut\.{suffix}: expected") as refused:
            find_videos(tmp_path, ignore_video)
        assert "\n" not in str(refused.value)

    def test_damaged_videos_are_named_and_left_out_when_asked(self, tmp_path: Path) -> None:
        for number in range(3):
            write_video(tmp_path / f"{number}.mp4", number)
        (tmp_path / "1.mp4").write_bytes(b"no video")
        damaged: list[VideoError] = []
        found = find_videos(tmp_path, ignore_video, damaged.append)
        assert [video.path.name for video in found] == ["0.mp4", "2.mp4"]
        assert [error.path for error in damaged] == [tmp_path / "1.mp4"]

    def test_another_pair_is_drawn_where_a_video_cannot_be_decoded(
        self, videos: list[Video]
    ) -> None:
        # Most of what the second claims to have is not there.
        torn = [videos[0], replace(videos[1], end_s=20.0), videos[2]]
        choice = {"sample_rate_hz": 8000, "frame_pixels": 32, "varied": True}
        with pytest.raises(VideoError, match=r"01\.mp4: expected a whole video"):
            PairSource(torn, **choice).batch(1, 0, 16)
        damaged: list[VideoError] = []
        source = PairSource(torn, **choice, on_damaged=damaged.append)
        first, again = (source.batch(1, 0, 16) for _ in range(2))
        assert {error.path for error in damaged} == {videos[1].path}
        assert first.frames.shape == (16, 32, 32, 3)
        np.testing.assert_array_equal(first.frames, again.frames)
        np.testing.assert_array_equal(first.windows, again.windows)
        nothing = [replace(video, start_s=50.0, end_s=60.0) for video in videos[:2]]
        with pytest.raises(VideoError, match="expected a whole video"):
            PairSource(nothing, **choice, on_damaged=damaged.append).batch(1, 0, 2)

    def test_a_missing_package_names_the_extra(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(RuntimeUnavailableError, match=r"edgel3-tflm\[video\]"):
            find_videos(directory, ignore_video)


def command(recipe: Path, videos: Path, weights: Path, *more: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("edgel3-tflm")),
        *("finetune", str(recipe), "-o", str(recipe.parent / "run"), "--videos", str(videos)),
        *("--weights", str(weights), *more),
    ]


@pytest.fixture(scope="module")
def finished(
    directory: Path, start: NetworkWeights, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A whole run by the command: its directory, and what was printed."""
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
        command(recipe, directory, root / "start.h5.gz", *plan), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return root / "run", done.stdout


def bound(figures: dict[str, float]) -> float:
    """Accuracy that guessing at the more frequent answer passes once in a million times."""
    return float(binom.isf(1e-6, figures["pairs"], figures["chance"]) / figures["pairs"])


def test_correspondence_is_learned_far_beyond_chance(finished: tuple[Path, str]) -> None:
    run, printed = finished
    for stage in (run, run / "first_stage"):
        figures = json.loads((stage / "figures.json").read_bytes())["validation"]
        assert figures["accuracy"] > bound(figures), stage
    assert "pairs of held videos right" in printed
    assert "all 160 steps were taken" in printed
    assert "kept by the least loss on the pairs of held videos" in printed


def test_sounds_that_tell_nothing_of_the_picture_teach_nothing(
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


def test_every_zero_stays_zero_and_the_other_weights_move(
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


def test_the_frozen_video_network_does_not_move_by_a_bit(
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
    assert not {conv.kernel.tobytes() for conv in given.convs} & trained  # the audio network did


def test_logs_are_tensorboard_s(finished: tuple[Path, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0] / "log"), size_guidance={"tensors": 0})
    events.Reload()
    assert {"loss/correspondence", "learning_rate"} <= set(events.Tags()["tensors"])
    assert len(events.Tensors("validation/accuracy")) == 8


def test_a_network_to_fine_tune_is_named_so() -> None:
    recipe = parse_recipe('[student]\nmodel_type = "sparse"\n', FinetuneRecipe)
    assert recipe.student.variant.name == "edgel3-95.45-ft"


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


def test_a_run_that_stops_early_says_why_and_what_it_kept(
    finished: tuple[Path, str], directory: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    short = "[training]\nsteps = 20\nvalidate_every_steps = 1\nbatch_windows = 4\n"
    # Nothing is learned at this rate but the moving statistics of BatchNorm.
    recipe.write_text(
        f"{RECIPE.replace('pairs = 300', 'pairs = 20')}{short}"
        'learning_rate = 0.0\npatience_validations = 1\nprecision = "float32"\n'
    )
    videos = tmp_path / "videos"
    shutil.copytree(directory, videos)
    (videos / "damaged.mp4").write_bytes(b"no video")
    words = command(recipe, videos, finished[0].parent / "start.h5.gz")[1:]
    words += ["--video-weights", str(finished[0] / "video.h5.gz")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert re.match(rf"error: {videos}/damaged\.mp4: ", refused.stderr.splitlines()[-1])
    assert not (tmp_path / "run").exists()

    done = CliRunner().invoke(app, [*words, "--keep-going"])
    assert done.exit_code == 1, done.stderr
    assert done.stderr.splitlines()[-1] == "error: 1 of 41 videos cannot be decoded everywhere"
    run = json.loads((tmp_path / "run" / "figures.json").read_bytes())["run"]
    assert run["steps"] == 20
    assert run["steps_taken"] < 20
    for said in (done.stdout, run["reason"]):
        assert f"stopped early, after step {run['steps_taken']} of 20: " in said
        assert "(patience_validations = 1)" in said
    assert "kept by the least loss on the pairs of held videos" in done.stdout
    again = json.loads(CliRunner().invoke(app, [*words, "--keep-going", "--json"]).stdout)
    assert again["run"] == run
    assert list(again["damaged"]) == [str(videos / "damaged.mp4")]


def test_too_few_videos_are_refused(
    videos: list[Video], start: NetworkWeights, tmp_path: Path
) -> None:
    _, held = choose_videos(0.3, videos)
    with pytest.raises(EdgeL3Error, match=r"validation has 1 of .*validation\.share"):
        train(SHORT, start, [each for each in videos if each not in held[1:]], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("table", "choice"),
    [
        ("validation", "share = 0"),
        ("validation", "share = 1"),
        ("validation", "pairs = 0"),
        ("validation", "pairs = 1000000000000"),
        ("fusion", "units = 0"),
        ("fusion", "units = 1000000000000"),
        ("video", "frame_pixels = 7"),
        ("video", "filters = [8, 8]"),
        ("training", "seed = -1"),
        ("training", "warmup_steps = -5"),
        ("video_training", "seed = -1"),
        ("video_training", "batch_windows = 1000000000000"),
    ],
)
def test_a_wrong_choice_is_refused(table: str, choice: str) -> None:
    text = f'[student]\nmodel_type = "sparse"\n[{table}]\n{choice}\n'
    with pytest.raises(EdgeL3Error, match=rf"recipe, {table}\.{choice.split()[0]}: "):
        parse_recipe(text, FinetuneRecipe)


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
