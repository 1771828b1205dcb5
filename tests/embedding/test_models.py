"""Networks by edgel3's arguments, the source of their weights, and conversion on demand."""

import gzip
import pickle
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.networks.tiny_network import TINY, draw, write_weights

from edgel3_tflm.converters import pipeline
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.edgel3_exceptions import EdgeL3Error
from edgel3_tflm.edgel3_warnings import EdgeL3Warning
from edgel3_tflm.embedding.loading import load_embedding_model, load_embedding_model_path
from edgel3_tflm.embedding.models import ModelChoice, open_deployment
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.weight_files import pack_weights
from edgel3_tflm.runtime import fastest
from edgel3_tflm.runtime.deployment import Deployment


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to the authors' files."""
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("edgel3_tflm.networks.sources.PUBLISHED_BASE_URL", "http://localhost:1/")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://localhost:1/")
    return tmp_path / "cache"


def test_the_stand_in_is_named_loudly(cache: Path) -> None:
    with pytest.warns(EdgeL3Warning, match="STAND-IN"):
        model = load_embedding_model("sparse", 128, "ft", 95.45, weights="bundled")
    assert model.output_shape == (None, 512)
    assert model.is_substitute
    assert "STAND-IN" in model.provenance[0]
    assert [each.name for each in cache.iterdir()] == ["runtimes"]  # no weights


def test_without_the_authors_weights_other_networks_are_an_error(cache: Path) -> None:
    with pytest.raises(EdgeL3Error, match="cannot fetch"):
        load_embedding_model("sparse", 128, "kd", 53.5)
    with pytest.raises(EdgeL3Error, match=r"95\.45"):
        load_embedding_model("sparse", 128, "ft", 53.5, weights="bundled")
    with pytest.raises(EdgeL3Error, match="trained"):
        load_embedding_model("sparse", 128, "ft", 53.5, weights="generated")
    del cache


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("sea", 512, "kd", 95.45), "edgel3_sea_ust_audio_emb_512.h5"),
        (("sparse", 128, "ft", 81.0), "edgel3_ft_audio_sparsity_81.0.h5"),
        (("sparse", 128, "kd", 95.45), "edgel3_kd_audio_sparsity_95.45.h5"),
    ],
)
def test_files_have_the_names_they_have_in_edgel3(
    cache: Path, words: tuple[str, int, str, float], name: str
) -> None:
    assert load_embedding_model_path(*words) == str(cache / "edgel3" / name)


def test_a_network_without_a_published_file_has_no_path() -> None:
    with pytest.raises(EdgeL3Error, match="no weights are published"):
        load_embedding_model_path("sparse", 128, "ft", 99)


def test_an_unpacked_file_is_found_where_its_path_says(cache: Path) -> None:
    path = Path(load_embedding_model_path("sea", 64, "ft", 95.45))
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.decompress(pack_weights(draw(find_variant("sea", embedding_size=64)))))
    model = load_embedding_model("sea", 64, "ft", 95.45)
    assert model.output_shape == (None, 64)
    assert model.weights_kind == "package"
    del cache


def test_published_weights_are_said_to_be(sea_weights: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_embedding_model("sea", 64, "ft", 95.45, weights=sea_weights)
    assert model.weights_kind == "published"
    assert model.provenance[0].startswith("sea-ust-64, published weights")


def test_a_choice_travels_to_another_process(tmp_path: Path) -> None:
    choice = ModelChoice(find_variant("sea", embedding_size=64), weights=write_weights(tmp_path))
    again = pickle.loads(pickle.dumps(choice))  # noqa: S301 - our own
    assert again == choice
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 8000)).astype(np.float32)
    one, other = choice.open(threads=1), again.open()
    assert one.sha256 == other.sha256
    np.testing.assert_array_equal(one.embed(sound), other.embed(sound))


TINY_INT8 = ("sea", 64, "ft", 95.45)


@pytest.fixture
def converted(
    cache: Path, tiny_int8: Deployment, monkeypatch: pytest.MonkeyPatch
) -> list[ConvertOptions]:
    """The conversions into an empty cache. Each conversion copies a deployment."""
    found: list[ConvertOptions] = []

    def convert(options: ConvertOptions, output: Path, *_: object) -> Deployment:
        found.append(options)
        shutil.copytree(tiny_int8.directory, output)
        return Deployment.load(output)

    assert not cache.exists()
    monkeypatch.setattr(pipeline, "convert", convert)
    return found


def test_a_network_is_converted_to_int8_once(
    cache: Path, tiny_weights: Path, tiny_int8: Deployment, converted: list[ConvertOptions]
) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 8000)).astype(np.float32)
    expected = tiny_int8.embedder("int8").embed(sound)
    for _ in range(2):
        model = load_embedding_model(*TINY_INT8, quantization="int8", weights=tiny_weights)
        assert (model.quantization, model.runtime) == ("int8", "engine")
        np.testing.assert_array_equal(model.embed(sound), expected)
    assert converted == [ConvertOptions(find_variant("sea", embedding_size=64), tiny_weights)]
    assert in_cache(cache).name.startswith(f"{TINY.name}-")


def in_cache(cache: Path) -> Path:
    (directory,) = (path for path in (cache / "deployments").iterdir() if path.is_dir())
    return directory


@pytest.mark.parametrize("name", ["int8.tflite", "packed.edgel3", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_damaged_deployment_in_the_cache_is_converted_again(
    cache: Path,
    tiny_weights: Path,
    tiny_int8: Deployment,
    converted: list[ConvertOptions],
    name: str,
    how: str,
) -> None:
    said: list[str] = []
    choice = ModelChoice(find_variant("sea", embedding_size=64), "int8", weights=tiny_weights)
    choice.settle(note=said.append)
    assert said == []
    path = in_cache(cache) / name
    data = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(data[:100])
    model = choice.open(note=said.append, threads=1)
    assert model.sha256 == open_deployment(tiny_int8, threads=1).sha256
    assert len(converted) == 2
    (line,) = said
    assert "the deployment in the cache is damaged and is converted again: " in line
    assert name in line
    assert path.read_bytes() == data


def test_two_that_convert_at_once_convert_once(
    cache: Path,
    tiny_weights: Path,
    converted: list[ConvertOptions],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice = ModelChoice(find_variant("sea", embedding_size=64), "int8", weights=tiny_weights)
    settled = []
    other = threading.Thread(target=lambda: settled.append(choice.settle()))
    convert = pipeline.convert

    def convert_beside(*arguments: Any) -> Deployment:
        if other.ident is None:
            other.start()
            other.join(0.5)  # without the lock it would convert in this time
        return convert(*arguments)

    monkeypatch.setattr(pipeline, "convert", convert_beside)
    settled.append(choice.settle())
    other.join()
    assert len(converted) == 1
    assert [each.source for each in settled] == [in_cache(cache)] * 2


def test_a_cache_that_cannot_be_written_is_one_line(
    cache: Path, tiny_weights: Path, converted: list[ConvertOptions]
) -> None:
    cache.write_bytes(b"")  # a file in the directory's place
    choice = ModelChoice(find_variant("sea", embedding_size=64), "int8", weights=tiny_weights)
    with pytest.raises(EdgeL3Error, match=r"cannot write .*set EDGEL3_TFLM_CACHE"):
        choice.settle()
    assert converted == []


def test_a_model_runs_where_it_is_fastest(
    tiny_int8: Deployment, tiny_weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ModelChoice(find_variant("sea", embedding_size=64), weights=tiny_weights)
    assert open_deployment(tiny_int8).runtime == "engine"
    assert open_deployment(tiny_int8, "float").runtime == network.open().runtime == "litert"
    monkeypatch.setenv("EDGEL3_TFLM_CACHE", str(cache / "another"))
    monkeypatch.setattr(
        fastest, "measure", lambda interpreters: [2.0] * (len(interpreters) - 1) + [1.0]
    )
    assert open_deployment(tiny_int8).runtime == "litert-builtin"
    assert open_deployment(tiny_int8, runtime="engine").runtime == "engine"
