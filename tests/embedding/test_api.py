"""The functions of edgel3: results, errors, warnings, and how audio is cut into windows."""

import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resampy
import soundfile
from helpers.networks.tiny_network import draw, write_weights

import edgel3_tflm
from edgel3_tflm.audio.framing import Framing, center_audio, pad_audio
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.audio.resampling import RESAMPLERS
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.edgel3_exceptions import EdgeL3Error
from edgel3_tflm.edgel3_warnings import EdgeL3Warning
from edgel3_tflm.embedding.api import get_embedding, process_file
from edgel3_tflm.embedding.loading import load_embedding_model
from edgel3_tflm.embedding.models import EmbeddingModel, ModelChoice
from edgel3_tflm.embedding.npz import get_output_path, write_embeddings
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.input_map import InputMap

RATE_HZ = 8000


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def tiny(weights: Path) -> EmbeddingModel:
    return load_embedding_model("sea", 64, "ft", 95.45, weights=weights)


def noise(seconds: float, channels: int | None = None, rate_hz: int = RATE_HZ) -> np.ndarray:
    shape = round(seconds * rate_hz) if channels is None else (round(seconds * rate_hz), channels)
    return np.random.default_rng(7).normal(0, 0.1, shape)


def chirp(rate_hz: int, seconds: float = 3) -> np.ndarray:
    """Return a sweep from 100 Hz to 3 kHz, below half of every sample rate in these tests."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return 0.5 * np.sin(2 * np.pi * (100 * times + (3000 - 100) / (2 * seconds) * times**2))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_float_embeddings_are_the_keras_network_s(weights: Path) -> None:
    model = load_embedding_model("sea", 64, "ft", 95.45, weights=weights)
    windows = noise(4).reshape(4, RATE_HZ)
    drawn = draw()
    # The file holds float16 kernels.
    halved = [
        type(conv)(conv.kernel.astype(np.float16).astype(np.float32), conv.bias, conv.batch_norm)
        for conv in drawn.convs
    ]
    network = type(drawn)(drawn.variant, drawn.input_norm, tuple(halved), drawn.provenance)
    inputs = InputMap.of(network).normalise(log_mel(windows, drawn.variant.frontend))
    expected = build_network(network, batch_size=None).predict(inputs, verbose=0)
    # The error of a sum of K products in float32 is at most K units of roundoff of the largest
    # value, and the errors of eight layers add up. A convolution here sums 3 x 3 x 4 products, a
    # bias and a BatchNorm.
    roundoff = np.finfo(np.float32).eps / 2
    tolerance = 8 * (3 * 3 * 4 + 2) * roundoff * abs(expected).max()
    found = model.embed(windows.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    # A kernel with an error of a thousandth exceeds the tolerance.
    halved[0].kernel[:] *= 1.001
    spoilt = build_network(network, batch_size=None).predict(inputs, verbose=0)
    assert abs(found - spoilt).max() > tolerance


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("hop_size", [0.1, 0.25, 1.0, 1.7])
@pytest.mark.parametrize("samples", [1, 7999, 8000, 8001, 12_345, 20_000])
def test_as_many_windows_as_edgel3_has(
    tiny: EmbeddingModel, samples: int, hop_size: float, center: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgeL3Warning)
        embedding, times = get_embedding(
            noise(samples / RATE_HZ), RATE_HZ, tiny, center=center, hop_size=hop_size
        )
    length = samples + (RATE_HZ // 2 if center else 0)
    hop = int(hop_size * RATE_HZ)
    count = 1 + int(np.ceil(max(0, length - RATE_HZ) / hop))
    assert embedding.shape == (count, 4)
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(times, np.arange(count) * hop_size)


@pytest.mark.parametrize("hop_size", [0.1, 1.7])
def test_blocks_and_batches_change_no_number(
    tiny: EmbeddingModel, monkeypatch: pytest.MonkeyPatch, hop_size: float
) -> None:
    sound = noise(6.3, 2, 11_025)

    def embed(batch_size: int) -> np.ndarray:
        return get_embedding(sound, 11_025, tiny, hop_size=hop_size, batch_size=batch_size)[0]

    whole = embed(1000)
    monkeypatch.setattr("edgel3_tflm.embedding.api.BLOCK_FRAMES", 777)
    np.testing.assert_array_equal(embed(3), whole)


def test_each_window_is_embedded_where_it_lies(tiny: EmbeddingModel) -> None:
    sound = noise(2.05)
    embedding, _ = get_embedding(sound, RATE_HZ, tiny, center=False, hop_size=0.5)
    padded = np.pad(sound, (0, RATE_HZ)).astype(np.float32)
    for number in range(4):
        alone = tiny.embed(padded[np.newaxis, number * 4000 : number * 4000 + RATE_HZ])
        np.testing.assert_array_equal(embedding[number : number + 1], alone)


def test_empty_audio_is_refused(tiny: EmbeddingModel) -> None:
    with pytest.raises(EdgeL3Error, match="0 samples"):
        get_embedding(np.zeros(0), RATE_HZ, tiny)


def test_audio_of_three_dimensions_is_refused(tiny: EmbeddingModel) -> None:
    with pytest.raises(EdgeL3Error, match=r"\(10, 10, 10\)"):
        get_embedding(np.ones((10, 10, 10)), RATE_HZ, tiny)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tiny: EmbeddingModel, bad: float) -> None:
    with pytest.raises(EdgeL3Error, match="finite"):
        get_embedding(np.array([0, bad] * 5000), RATE_HZ, tiny)
    with pytest.raises(EdgeL3Error, match="real numbers"):
        get_embedding(np.ones(9000, complex), RATE_HZ, tiny)


def test_short_audio_warns_and_is_padded(tiny: EmbeddingModel) -> None:
    with pytest.warns(EdgeL3Warning, match="shorter"):
        embedding, times = get_embedding(noise(0.5), RATE_HZ, tiny, center=False)
    assert embedding.shape == (1, 4)
    assert times.tolist() == [0]


def test_silence_warns_and_is_embedded(tiny: EmbeddingModel) -> None:
    with pytest.warns(EdgeL3Warning, match="all zeros"):
        embedding, _ = get_embedding(np.zeros(16_000), RATE_HZ, tiny)
    assert np.isfinite(embedding).all()


def test_sound_that_lasts_warns_of_nothing(tiny: EmbeddingModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_embedding(noise(1.0), RATE_HZ, tiny)


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": "invalid"},
        {"model": 5},
        {"model_type": "invalid"},
        {"model_type": "sea", "emb_dim": 50},
        {"emb_dim": 50},
        {"retrain_type": "invalid"},
        {"retrain_type": 1},
        {"sparsity": 40},
        {"sparsity": -95.45},
        {"sparsity": "invalid"},
        {"sparsity": "95.45"},
        {"hop_size": -1},
        {"hop_size": 0},
        {"hop_size": 1e-5},
        {"hop_size": "0.1"},
        {"hop_size": np.nan},
        {"center": "invalid"},
        {"verbose": -1},
        {"sr": 0},
        {"sr": 0.5},
        {"sr": 1e12},
        {"sr": "8000"},
        {"batch_size": 0},
        {"quantization": "int4"},
        {"quantization": "int8"},
        {"runtime": "engine"},
        {"resampler": "linear"},
    ],
)
def test_arguments_out_of_their_range_are_refused(
    tiny: EmbeddingModel, arguments: dict[str, Any]
) -> None:
    with pytest.raises(EdgeL3Error, match=r"expected|no such|unknown") as caught:
        get_embedding(**{"audio": noise(1), "sr": RATE_HZ, "model": tiny} | arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "argument", ["input_repr", "content_type", "embedding_size", "frontend", "batch_size"]
)
def test_openl3_s_arguments_are_refused_by_name(argument: str, tmp_path: Path) -> None:
    calls = [lambda **options: load_embedding_model("sparse", 128, "ft", 95.45, **options)]
    if argument != "batch_size":
        calls.append(lambda **options: get_embedding(noise(1), RATE_HZ, **options))
        calls.append(lambda **options: process_file(tmp_path / "a.wav", **options))
    for call in calls:
        with pytest.raises(EdgeL3Error, match=f"has no argument '{argument}', which is openl3's: "):
            call(**{argument: "mel256"})
        with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
            call(other=1)


def test_stereo_is_its_mean(tiny: EmbeddingModel) -> None:
    left, right = noise(2), chirp(RATE_HZ, 2)
    mono, _ = get_embedding((left + right).astype(np.float32) / 2, RATE_HZ, tiny)
    stereo, _ = get_embedding(np.stack([left, right], axis=1), RATE_HZ, tiny)
    # They differ only because samples are rounded to float32.
    assert cosines(mono, stereo).min() > 1 - 1e-6
    same, _ = get_embedding(np.stack([left, left], axis=1), RATE_HZ, tiny)
    np.testing.assert_array_equal(same, get_embedding(left, RATE_HZ, tiny)[0])


def test_channels_first_is_one_clear_error(tiny: EmbeddingModel) -> None:
    sound = noise(2, 2)
    with pytest.raises(EdgeL3Error, match=r"\(2, 16000\).*more channels than samples.*audio\.T"):
        get_embedding(sound.T, RATE_HZ, tiny)
    assert get_embedding(sound.T.T, RATE_HZ, tiny)[0].shape == (16, 4)


@pytest.mark.parametrize("sounds", [[noise(1.5), chirp(RATE_HZ, 1.5)], [noise(1.5), noise(0.7, 2)]])
def test_a_list_of_sounds_has_a_result_for_each(
    tiny: EmbeddingModel, sounds: list[np.ndarray]
) -> None:
    for rates_hz in ([RATE_HZ, 11_025], (RATE_HZ, 11_025), RATE_HZ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EdgeL3Warning)  # the second may be short
            embeddings, times = get_embedding(sounds, rates_hz, tiny)
            assert isinstance(embeddings, list)
            each_hz = [rates_hz] * 2 if isinstance(rates_hz, int) else rates_hz
            for number in range(2):
                alone = get_embedding(sounds[number], each_hz[number], tiny)
                np.testing.assert_array_equal(embeddings[number], alone[0])
                np.testing.assert_array_equal(times[number], alone[1])
    with pytest.raises(
        EdgeL3Error, match="one sample rate for all 2 sounds, or one for each, got 3"
    ):
        get_embedding(sounds, [RATE_HZ] * 3, tiny)
    with pytest.raises(EdgeL3Error, match=r"sample rate in Hz above 0, got 0"):
        get_embedding(sounds, [RATE_HZ, 0], tiny)


def test_a_list_of_samples_is_one_sound(tiny: EmbeddingModel) -> None:
    sound = noise(1.2, 2)
    expected, _ = get_embedding(sound, RATE_HZ, tiny)
    np.testing.assert_array_equal(get_embedding(sound.tolist(), RATE_HZ, tiny)[0], expected)
    mono = sound[:, 0]
    expected, _ = get_embedding(mono, RATE_HZ, tiny)
    np.testing.assert_array_equal(get_embedding(list(mono), RATE_HZ, tiny)[0], expected)
    with pytest.raises(EdgeL3Error, match="expected audio as an array or a list of arrays"):
        get_embedding([[0.1], [0.1, 0.2]], RATE_HZ, tiny)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused_everywhere(
    tiny: EmbeddingModel, bad: float
) -> None:
    sound = noise(1).astype(np.float32)
    sound[4000] = bad
    for embed in (
        lambda: get_embedding(sound, RATE_HZ, tiny),
        lambda: tiny.embed(sound[np.newaxis]),
        lambda: tiny.embedder.embed(sound[np.newaxis]),
    ):
        with pytest.raises(EdgeL3Error, match="expected finite samples"):
            embed()
    with pytest.raises(EdgeL3Error, match="expected finite log-mel"):
        tiny.embedder.embed_log_mel(np.full((1, 64, 50), bad, np.float32))


def test_the_default_resampler_is_edgel3_s(tiny: EmbeddingModel) -> None:
    sound = noise(3.3, rate_hz=44_100)
    by_resampy = resampy.resample(sound, 44_100, RATE_HZ, filter="kaiser_best")
    expected, _ = get_embedding(by_resampy, RATE_HZ, tiny)
    found, _ = get_embedding(sound, 44_100, tiny)
    # Samples are apart by the rounding to float32 before and after resampling.
    assert cosines(found, expected).min() > 1 - 1e-6
    by_soxr, _ = get_embedding(sound, 44_100, tiny, resampler="soxr")
    assert cosines(by_soxr, expected).min() < 1 - 1e-6


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_a_second_and_half_a_sample_are_one_window_as_in_edgel3(
    tiny: EmbeddingModel, resampler: str
) -> None:
    # 44,103 samples at 44.1 kHz are 8000.54 at 8 kHz: edgel3 rounds down, soxr to the nearest.
    sound = np.full(44_103, 0.1)
    embedding, _ = get_embedding(sound, 44_100, tiny, center=False, resampler=resampler)
    assert len(embedding) == 1


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_other_sample_rates_agree_with_48_khz(tiny: EmbeddingModel, rate_hz: int) -> None:
    # soxr, because edgel3's resampler differs more: SEA-UST 64 has a cosine of 0.93 at 44.1 kHz.
    at_48_khz, _ = get_embedding(chirp(48_000), 48_000, tiny, resampler="soxr")
    other, _ = get_embedding(chirp(rate_hz), rate_hz, tiny, resampler="soxr")
    # Resampling adds noise near the floor of -80 dB. The worst windows have 0.9999 and 0.9997.
    assert cosines(at_48_khz, other).min() > 0.999
    other_sound, _ = get_embedding(noise(3), RATE_HZ, tiny)
    assert cosines(at_48_khz, other_sound).min() < 0.999


@pytest.mark.parametrize("quantization", ["float", "int8"])
def test_a_deployment_is_a_model(tiny_int8: Deployment, quantization: str) -> None:
    sound = noise(1.2)
    by_object, _ = get_embedding(sound, RATE_HZ, tiny_int8, quantization=quantization)
    by_path, _ = get_embedding(sound, RATE_HZ, tiny_int8.directory, quantization=quantization)
    np.testing.assert_array_equal(by_object, by_path)
    windows = np.pad(sound, (4000, 0))[np.newaxis, :RATE_HZ].astype(np.float32)
    runtime = tiny_int8.fastest_runtime(quantization)
    expected = tiny_int8.embedder(quantization, runtime).embed(windows)
    np.testing.assert_array_equal(by_object[:1], expected)


def test_a_deployment_is_int8_unless_float_is_asked_for(tiny_int8: Deployment) -> None:
    int8, _ = get_embedding(noise(1), RATE_HZ, tiny_int8)
    np.testing.assert_array_equal(
        int8, get_embedding(noise(1), RATE_HZ, tiny_int8, quantization="int8")[0]
    )
    with pytest.raises(EdgeL3Error, match="int16x8"):
        get_embedding(noise(1), RATE_HZ, tiny_int8, quantization="int16x8")


def test_a_deployment_is_loaded_by_a_path_of_any_kind(tiny_int8: Deployment) -> None:
    assert Deployment.load(str(tiny_int8.directory)) == tiny_int8
    with pytest.raises(EdgeL3Error, match=r"expected quantization float or int8, got 'int4'"):
        tiny_int8.embedder("int4")


def test_files_have_the_names_they_have_in_edgel3() -> None:
    assert get_output_path("/sound/a.b.wav", "x.npz", "/out") == "/out/a.b_x.npz"
    assert get_output_path("/sound/a.wav", ".npz") == "/sound/a.npz"
    assert edgel3_tflm.get_output_path("a.wav", "x.npz") == "a_x.npz"


def test_a_file_is_written_with_edgel3_s_arrays(tiny: EmbeddingModel, tmp_path: Path) -> None:
    sound = noise(2, 2, 11_025)
    soundfile.write(tmp_path / "a.flac", sound, 11_025)
    process_file(tmp_path / "a.flac", tmp_path / "new" / "out", "emb", tiny, hop_size=0.3)
    read, rate_hz = soundfile.read(tmp_path / "a.flac")
    embedding, times = get_embedding(read, rate_hz, tiny, hop_size=0.3)
    with np.load(tmp_path / "new" / "out" / "a_emb.npz") as found:
        assert found.files == ["embedding", "timestamps", "provenance"]
        np.testing.assert_array_equal(found["embedding"], embedding)
        np.testing.assert_array_equal(found["timestamps"], times)
        last = "resampled to 8000 Hz by kaiser_best"
        assert found["provenance"].tolist() == [*tiny.provenance, last]


def test_several_files_are_written_and_existing_ones_kept_if_asked(
    tiny: EmbeddingModel, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("a.wav", "b.wav")]
    for path in files:
        soundfile.write(path, noise(1), RATE_HZ)
    (tmp_path / "a.npz").write_bytes(b"mine")
    process_file(files, model=tiny, overwrite=False)
    assert (tmp_path / "a.npz").read_bytes() == b"mine"
    process_file([str(path) for path in files], model=tiny)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_two_files_are_not_written_to_one(tiny: EmbeddingModel, tmp_path: Path) -> None:
    with pytest.raises(EdgeL3Error, match=r"a\.wav and .*a\.flac would both"):
        process_file([tmp_path / "a.wav", tmp_path / "a.flac"], model=tiny)


def test_a_file_that_is_no_audio_or_missing_is_named(tiny: EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("not audio")
    with pytest.raises(EdgeL3Error, match=r"a\.wav.*libsndfile"):
        process_file(tmp_path / "a.wav", model=tiny)
    with pytest.raises(EdgeL3Error, match=r"b\.wav"):
        process_file(tmp_path / "b.wav", model=tiny)
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav"}


def test_a_file_that_breaks_off_leaves_nothing(
    tiny: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgel3_tflm.audio.clips.BLOCK_FRAMES", 8000)
    sound = noise(5)
    sound[-1] = np.nan
    soundfile.write(tmp_path / "a.wav", sound, RATE_HZ, subtype="FLOAT")
    (tmp_path / "a.npz").write_bytes(b"before")
    with pytest.raises(EdgeL3Error, match=r"a\.wav: expected finite"):
        process_file(tmp_path / "a.wav", model=tiny)
    assert (tmp_path / "a.npz").read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "a.npz"}


def test_memory_does_not_grow_with_a_file(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgel3_tflm.audio.clips.BLOCK_FRAMES", 1 << 14)
    # One thread, so that the number of spectrograms in memory does not depend on timing.
    model = ModelChoice(find_variant("sea", embedding_size=64), weights=weights).open(threads=1)
    embedder = StreamEmbedder(model, Framing(1.0, batch_size=4))

    def measure_peak_bytes(seconds: int) -> int:
        soundfile.write(tmp_path / "a.wav", noise(seconds), RATE_HZ)
        tracemalloc.start()
        count = write_embeddings(embedder, tmp_path / "a.wav", tmp_path / "a.npz")
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == seconds + 1  # the last one is half
        return peak_bytes

    short, long = measure_peak_bytes(20), measure_peak_bytes(200)
    # A tenth of the size of the additional samples as float32.
    assert long - short < 180 * RATE_HZ * 4 / 10


def test_centring_puts_half_a_window_in_front() -> None:
    np.testing.assert_array_equal(center_audio(np.ones(3), 4), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(center_audio(np.ones(2), 3), [0, 1, 1])


@pytest.mark.parametrize(("samples", "padded"), [(10, 50), (50, 50), (90, 100), (100, 100)])
def test_padding_lets_windows_use_every_sample(samples: int, padded: int) -> None:
    found = pad_audio(np.ones(samples), 50, 25)
    np.testing.assert_array_equal(found, [1] * samples + [0] * (padded - samples))
