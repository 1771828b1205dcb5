"""Short labelled clips, made from formulas: tones, chirps, noise, a silent and a quiet clip."""

from pathlib import Path

import numpy as np
import soundfile

CLASSES = ("tone", "chirp", "noise")
FOLDS = (1, 2, 3)
CLIPS_A_FOLD = 2
"""Clips of each class in each fold."""
RATE_HZ, SECONDS = 16_000, 3
SAMPLES = RATE_HZ * SECONDS
_TIMES = np.arange(SAMPLES) / RATE_HZ
QUIET, SILENT = "noise/3-quiet.wav", "noise/3-silent.wav"
"""Two further clips: noise 80 dB below full scale, and zeros."""


def write_clips(directory: Path) -> Path:
    """Write ``CLASS/FOLD-NUMBER.wav`` and a manifest, with the same bytes in each call."""
    rows = []
    generator = np.random.default_rng(11)

    def write(name: str, samples: np.ndarray) -> None:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")
        rows.append(f"{name}\t{path.parent.name}\t{path.name[0]}\n")

    for label, synthesise in zip(CLASSES, (_tone, _chirp, _noise), strict=True):
        for fold in FOLDS:
            for number in range(CLIPS_A_FOLD):
                write(f"{label}/{fold}-{number}.wav", synthesise(generator))
    write(QUIET, 1e-4 * generator.normal(0, 1, SAMPLES))
    write(SILENT, np.zeros(SAMPLES))
    (directory / "manifest.tsv").write_text("file\tlabel\tfold\n" + "".join(rows))
    return directory


def _tone(generator: np.random.Generator) -> np.ndarray:
    """Return fourteen harmonics of equal amplitude."""
    phase = 2 * np.pi * generator.uniform(120, 250) * _TIMES
    return 0.05 * sum(np.sin(harmonic * phase) for harmonic in range(1, 15))


def _chirp(generator: np.random.Generator) -> np.ndarray:
    """Return a sine that rises or falls by four octaves each second."""
    rise = generator.choice([-4, 4])
    octaves = rise * (_TIMES % 1 - 0.5)
    phase = 2 * np.pi * np.cumsum(generator.uniform(600, 900) * 2**octaves) / RATE_HZ
    return 0.4 * np.sin(phase)


def _noise(generator: np.random.Generator) -> np.ndarray:
    """Return clicks and bursts of noise, with noise 34 dB lower between them; half is silent."""
    bursts = 0.02 + (np.sin(2 * np.pi * generator.uniform(1, 3) * _TIMES) > 0)
    samples = 0.15 * bursts * generator.normal(0, 1, SAMPLES)
    samples[generator.integers(0, SAMPLES // 2, 10)] = 0.9
    samples[SAMPLES // 2 :] = 0
    return samples
