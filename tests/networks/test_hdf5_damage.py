"""Damaged HDF5 files are read in another process, which may not crash, hang or fill the memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.networks.small_weights import (
    SMALL_FILTERS,
    refusal_of_bytes,
)

LOAD_DAMAGED = """
import dataclasses, json, resource, signal, sys
from pathlib import Path
import numpy as np
from edgel3_tflm.errors import WeightsError
from edgel3_tflm.networks.catalogue import VARIANTS
from edgel3_tflm.networks.sources import load_weights

source, filters, kind, count = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
data = Path(source).read_bytes()
path = Path(source).with_suffix(".damaged")
variant = dataclasses.replace(VARIANTS["sea-ust-64"], filters=tuple(filters))
offsets = [
    at for at in range(0, len(data) - 7, 8) if 0 < int.from_bytes(data[at : at + 8], "little")
    < len(data)
]
outcomes = {"loaded": 0, "refused": 0}
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for seed in range(count):
    generator = np.random.default_rng(seed)
    damaged = bytearray(data)
    if kind == "first 8 kB":
        damaged[generator.integers(8192)] ^= 1 << generator.integers(8)
    elif kind == "anywhere":
        damaged[generator.integers(len(data))] ^= generator.integers(1, 256)
    elif kind == "offsets":  # addresses and sizes of structures, led somewhere else in the file
        here, there = generator.choice(offsets, 2)
        damaged[here : here + 8] = damaged[there : there + 8]
    elif kind == "nothing":
        pass
    path.write_bytes(damaged)
    signal.alarm(20)
    try:
        weights = load_weights(variant, path)
    except WeightsError as error:
        assert str(error).isprintable()
        outcomes["refused"] += 1
    else:
        for conv in weights.convs:
            assert np.isfinite(conv.kernel).all() and np.isfinite(conv.bias).all()
        outcomes["loaded"] += 1
    signal.alarm(0)
print(json.dumps(outcomes))
"""


def load_damaged(source: Path, kind: str, count: int) -> dict[str, int]:
    """Load damaged files in a process that may not crash, hang, or use 4 GB."""
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            LOAD_DAMAGED,
            str(source),
            json.dumps(SMALL_FILTERS),
            kind,
            f"{count}",
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr[-2000:]
    outcomes: dict[str, int] = json.loads(process.stdout)
    assert sum(outcomes.values()) == count
    return outcomes


@pytest.mark.parametrize("kind", ["first 8 kB", "anywhere", "offsets"])
def test_damaged_bytes_are_refused_or_leave_finite_weights(
    tmp_path: Path, small_file: bytes, kind: str
) -> None:
    (tmp_path / "w.h5").write_bytes(small_file)
    outcomes = load_damaged(tmp_path / "w.h5", kind, count=300)
    assert min(outcomes.values()) > 30, outcomes  # damage both in use and in gaps was tried


def test_undamaged_file_survives_the_test_of_damaged_ones(
    tmp_path: Path, small_file: bytes
) -> None:
    (tmp_path / "w.h5").write_bytes(small_file)
    assert load_damaged(tmp_path / "w.h5", "nothing", count=1) == {"loaded": 1, "refused": 0}


def test_endless_list_of_free_blocks_is_refused(tmp_path: Path, small_file: bytes) -> None:
    # libhdf5 1.14 would follow it without end, and allocate memory at every step.
    heaps = []
    position = small_file.find(b"HEAP")
    while position >= 0:
        heaps.append(position)
        position = small_file.find(b"HEAP", position + 1)
    assert len(heaps) > 50
    for heap in (heaps[0], heaps[len(heaps) // 2], heaps[-1]):
        block = int.from_bytes(small_file[heap + 24 : heap + 32], "little") + 8
        data = bytearray(small_file)
        data[heap + 16 : heap + 24] = (8).to_bytes(8, "little")
        data[block : block + 16] = (8).to_bytes(8, "little") + (16).to_bytes(8, "little")
        (tmp_path / "w.h5").write_bytes(data)
        outcome = load_damaged(tmp_path / "w.h5", "nothing", count=1)
        assert outcome == {"loaded": 0, "refused": 1}
        assert "endless free list" in refusal_of_bytes(bytes(data), tmp_path)
