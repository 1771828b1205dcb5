"""Write the synthetic clips of urban sound that calibrate the int8 activation ranges.

In a checkout, run ``python calibration_data/synthesise.py [DIR]``. It writes ``DIR/clips/*.flac``
(48 kHz, mono, 16 bits, 1.5 s each) and ``DIR/manifest.tsv``. Each clip is computed from formulas
and from a random generator that the clip's name seeds, so a second run writes the same bytes.
"""

import argparse
import hashlib
import io
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf
from clip_list import CLIPS, Clip
from waveforms import DURATION_S, PINK, RATE_HZ, block_dc, noise, set_peak


def render(clip: Clip) -> npt.NDArray[np.int16]:
    """Return the samples of a clip: int16, shape (72000,), peak at most 0.99 of full scale."""
    # Python's own hash of a string differs between processes. CRC-32 does not.
    rng = np.random.default_rng(zlib.crc32(clip.name.encode()))
    signal = set_peak(block_dc(clip.sound(rng)), clip.peak_dbfs)
    if clip.floor_dbfs is not None:
        signal += 10 ** (clip.floor_dbfs / 20) * noise(rng, PINK)
    signal[round(clip.end_s * RATE_HZ) :] = 0
    return np.asarray(np.round(np.clip(signal, -0.99, 0.99) * 32768), dtype=np.int16)


def encode(samples: npt.NDArray[np.int16]) -> bytes:
    """Return samples (int16, shape (n,)) as a mono 48 kHz FLAC file.

    The file has the highest compression level of FLAC.
    """
    file = io.BytesIO()
    sf.write(file, samples, RATE_HZ, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return file.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it, so that no reader sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def synthesise(folder: Path) -> int:
    """Write all clips and the manifest into `folder`, and return the size of the clips in bytes."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = ["file\tclass\tseconds\tsample_rate_hz\tsha256\tdescription\n"]
    total_bytes = 0
    for clip in CLIPS:
        content = encode(render(clip))
        file = f"clips/{clip.name}.flac"
        write_whole(folder / file, content)
        digest = hashlib.sha256(content).hexdigest()
        rows.append(
            f"{file}\t{clip.label}\t{DURATION_S}\t{RATE_HZ}\t{digest}\t{clip.description}\n"
        )
        total_bytes += len(content)
    write_whole(folder / "manifest.tsv", "".join(rows).encode())
    return total_bytes


def main() -> None:
    """Write the clips into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Synthesise the calibration clips.")
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        type=Path,
        default=Path(__file__).parent,
        help="folder in which to write clips/ and manifest.tsv (default: the script's own)",
    )
    folder = parser.parse_args().folder
    total_bytes = synthesise(folder)
    print(f"{folder}: {len(CLIPS)} clips, {total_bytes} bytes")


if __name__ == "__main__":
    main()
