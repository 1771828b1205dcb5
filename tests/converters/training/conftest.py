"""Fixtures of the training tests: clips, videos, teachers, and one finished distillation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.distillation import PERCENTS, RECIPE, train
from helpers.networks.tiny_network import write_weights
from helpers.sounds.videos import VIDEOS, ignore_video, write_video

from edgel3_tflm.converters.training.videos import Video, find_videos
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import Plan, Variant
from edgel3_tflm.networks.weights import NetworkWeights


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("teacher")
    return write_weights(directory, find_variant("sea", embedding_size=64))


@pytest.fixture(scope="session")
def teacher(teacher_file: Path) -> NetworkWeights:
    return load_weights(find_variant("sea", embedding_size=64), teacher_file)


@pytest.fixture(scope="session")
def student() -> Variant:
    """A small network with a plan; the sparse networks are too slow to train in a test."""
    return replace(
        find_variant("sea", embedding_size=64), name="small", plan=Plan(0, PERCENTS), published=None
    )


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    directory = tmp_path / "clips"
    directory.mkdir()
    for number in range(8):
        noise = np.random.default_rng(number).normal(0, 0.1, 9000)
        soundfile.write(directory / f"{number}.wav", noise, 8000)
    return directory


@pytest.fixture
def teacher_of_four(tmp_path: Path) -> NetworkWeights:
    """A teacher with four filters a layer, which embeds fast."""
    (tmp_path / "teacher").mkdir()
    path = write_weights(tmp_path / "teacher")
    return load_weights(find_variant("sea", embedding_size=64), path)


@pytest.fixture(scope="session")
def distilled(
    student: Variant, teacher: NetworkWeights, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[float]]:
    output = tmp_path_factory.mktemp("distill")
    return output, train(RECIPE, student, teacher, output)


@pytest.fixture(scope="session")
def video_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        write_video(directory / f"{number:02}.mp4", number)
    return directory


@pytest.fixture(scope="session")
def videos(video_directory: Path) -> list[Video]:
    return find_videos(video_directory, ignore_video)
