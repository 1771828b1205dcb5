"""The resampler that corrects a microphone's sample rate, built for this machine."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from helpers.boards.arduino import MICRO_APP, WARNINGS

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.audio.pcm import from_int16, to_int16
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.runtime.deployment import Deployment

SOURCE = MICRO_APP / "lib" / "edgel3" / "src" / "edgel3_resampler.c"
DELAY_SAMPLES = 16
# Giga and Nicla at 48 kHz: 2 MHz divided by 41.
MICROPHONE_HZ = 48_780

Samples = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("resampler") / "resampler"
    main = Path(__file__).parents[1] / "native" / "resampler_main.c"
    options = ["-std=c99", "-O1", *WARNINGS, "-Wconversion", f"-I{SOURCE.parent}"]
    options += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *options, main, SOURCE, "-o", program], check=True)
    return program


def resample(program: Path, samples: Samples, from_hz: int, to_hz: int, part: int = 128) -> Samples:
    command = [program, str(from_hz), str(to_hz), str(part)]
    done = subprocess.run(command, input=samples.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.int16)


def tone(cycles: float, count: int, start: float, step: float) -> npt.NDArray[np.float64]:
    """A tone of ``cycles`` a microphone's sample, at half of the full scale.

    ``start`` and ``step`` are the time of the first value and between two, in those samples.
    """
    return 16384 * np.sin(2 * np.pi * cycles * (start + step * np.arange(count)))


def test_the_table_is_the_documented_filter() -> None:
    found = re.search(r"table\[.*?\] = \{(.*?)\}", SOURCE.read_text(), re.DOTALL)
    assert found is not None
    times = np.arange(513) / 32
    kaiser = np.i0(7 * np.sqrt(1 - (times / 16) ** 2)) / np.i0(7)
    table = np.round(2**14 * np.sinc(times) * kaiser).astype(int)

    assert [int(word) for word in found[1].split(",")] == table.tolist()
    phases = [np.append(table[p:512:32], table[32 - p :: 32]) for p in range(33)]
    assert f"MAX_GAIN {max(int(np.abs(phase).sum()) for phase in phases)}" in SOURCE.read_text()


# Up to 86 % of half of the microphone's rate. There, linear interpolation between two of 32 phases
# is wrong by up to (0.86 pi / 32)^2 / 8 of the amplitude: 61 dB.
@pytest.mark.parametrize(
    ("share", "least_sqnr_db"), [(0.004, 70), (0.04, 70), (0.4, 70), (0.7, 64), (0.86, 58)]
)
@pytest.mark.parametrize("from_hz", [MICROPHONE_HZ, 47_990, 46_600, 49_400])
def test_tones_keep_pitch_and_level(
    program: Path, from_hz: int, share: float, least_sqnr_db: float
) -> None:
    samples = np.round(tone(share / 2, 20_000, 0, 1)).astype(np.int16)

    # The first outputs contain the silence before the tone.
    found = resample(program, samples, from_hz, 48_000)[64:].astype(float)

    step = from_hz / 48_000
    expected = tone(share / 2, len(found), 64 * step - DELAY_SAMPLES, step)
    error = found - expected
    assert 10 * np.log10(np.mean(expected**2) / np.mean(error**2)) >= least_sqnr_db


@pytest.mark.parametrize("from_hz", [MICROPHONE_HZ, 47_990, 46_600])
def test_any_parts_give_the_same_samples(program: Path, from_hz: int) -> None:
    # Steps of full scale between random times: the largest sums that samples can have.
    rng = np.random.default_rng(0)
    samples = rng.choice(np.array([-32768, 32767], np.int16), 5000)

    whole = resample(program, samples, from_hz, 48_000, 5000)

    assert len(whole) == int(np.ceil(5000 * 48_000 / from_hz))
    assert (whole.min(), whole.max()) == (-32768, 32767)
    for part in (1, 7, 128):
        np.testing.assert_array_equal(resample(program, samples, from_hz, 48_000, part), whole)


def test_equal_rates_change_nothing(program: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)

    found = resample(program, samples, 8000, 8000)

    np.testing.assert_array_equal(found[DELAY_SAMPLES:], samples[:-DELAY_SAMPLES])


def test_a_corrected_rate_gives_nearly_the_embedding_of_the_right_rate(
    program: Path, standin: Deployment
) -> None:
    embedder = standin.embedder("int8")
    losses = []
    for clip in sorted(bundled_clips_directory().iterdir())[::4]:
        samples, rate_hz = soundfile.read(clip)
        original = soxr.resample(samples, rate_hz, 48_000, "VHQ")[: 2 * 48_000]
        heard = to_int16(soxr.resample(original, 48_000, MICROPHONE_HZ, "VHQ"))
        by_soxr = to_int16(soxr.resample(from_int16(heard), MICROPHONE_HZ, 48_000, "VHQ"))
        corrected = resample(program, heard, MICROPHONE_HZ, 48_000)[DELAY_SAMPLES:]
        sounds = (to_int16(original), corrected, by_soxr, heard)
        pairs = zip(sounds, (12_000, 12_000, 12_000, 12_195), strict=True)
        windows = [sound[start:][:48_000] for sound, start in pairs]
        right, *others = embedder.embed(from_int16(np.stack(windows)))
        losses.append([1 - float(cosine_similarity(right[None], each[None])[0]) for each in others])

    corrected_loss, soxr_loss, uncorrected_loss = np.mean(losses, axis=0)
    # What remains is the second rounding to 16 bits, which the best filter cannot avoid either.
    # Two filters round different samples up, so their losses differ by a few per cent.
    assert corrected_loss < 1.1 * soxr_loss
    assert corrected_loss < uncorrected_loss / 2
