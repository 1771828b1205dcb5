"""The bundled clips: listed, small, reproducible by their script; and the calibration click."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import soundfile
from clip_list import CLIPS
from synthesise import render

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.converters.quantization.calibrate import Calibration
from edgel3_tflm.networks.catalogue import find_variant

FOLDER = bundled_clips_directory().parent


def test_the_manifest_lists_every_clip_with_its_digest() -> None:
    rows = list(csv.DictReader((FOLDER / "manifest.tsv").open(), delimiter="\t"))
    assert {row["file"] for row in rows} == {
        path.relative_to(FOLDER).as_posix() for path in (FOLDER / "clips").iterdir()
    }
    for row in rows:
        assert hashlib.sha256((FOLDER / row["file"]).read_bytes()).hexdigest() == row["sha256"]


def test_the_script_remakes_the_clips() -> None:
    for clip in CLIPS[::5]:
        stored, rate_hz = soundfile.read(FOLDER / "clips" / f"{clip.name}.flac", dtype="int16")
        assert rate_hz == 48_000
        # On another machine, sine and FFT may round a sample differently, by 1.
        assert abs(stored.astype(int) - render(clip)).max() <= 1, clip.name


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in (FOLDER / "clips").iterdir()) <= 3_000_000


def test_the_click_comes_first_and_reaches_both_ends_of_the_scale(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hiss.wav", np.full(48_000, 1e-3), 48_000)
    for variant in (find_variant(), find_variant("sea")):
        first = next(iter(Calibration(tmp_path, variant.frontend).spectrograms()))
        assert (first.min(), first.max()) == (-80, 0)
