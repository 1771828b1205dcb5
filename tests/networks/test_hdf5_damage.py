"""Damaged HDF5 files are read in another process, which may not crash, hang or fill the memory."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.networks.small_weights import (
    SMALL_FILTERS,
    in_newer_version,
    refusal_of_bytes,
)

from edgel3_tflm.networks import hdf5_objects

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
    signal.setitimer(signal.ITIMER_PROF, 20)  # of the processor: other programs may be busy
    try:
        weights = load_weights(variant, path)
    except WeightsError as error:
        assert str(error).isprintable()
        outcomes["refused"] += 1
    else:
        for conv in weights.convs:
            assert np.isfinite(conv.kernel).all() and np.isfinite(conv.bias).all()
        outcomes["loaded"] += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
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


@pytest.mark.parametrize("version", ["first", "newest"])
@pytest.mark.parametrize("kind", ["first 8 kB", "anywhere", "offsets"])
def test_damaged_bytes_are_refused_or_leave_finite_weights(
    tmp_path: Path, small_file: bytes, kind: str, version: str
) -> None:
    data = small_file if version == "first" else in_newer_version(small_file)
    (tmp_path / "w.h5").write_bytes(data)
    outcomes = load_damaged(tmp_path / "w.h5", kind, count=300)
    assert min(outcomes.values()) > 20, outcomes  # damage both in use and in gaps was tried


def test_undamaged_file_survives_the_test_of_damaged_ones(
    tmp_path: Path, small_file: bytes
) -> None:
    (tmp_path / "w.h5").write_bytes(small_file)
    assert load_damaged(tmp_path / "w.h5", "nothing", count=1) == {"loaded": 1, "refused": 0}


def tree_node(level: int, child: int, children: int) -> bytes:
    """Write a node of a B-tree of which all children are the same node."""
    undefined = 2**64 - 1
    header = struct.pack("<4sBBHQQ", b"TREE", 0, level, children, undefined, undefined)
    return header + struct.pack("<QQ", 0, child) * children + struct.pack("<Q", 0)


def tree_of_a_billion_nodes(small_file: bytes) -> bytes:
    leaf_and_heap = small_file[80:96]  # in the superblock's entry of the root group
    leaf, heap = struct.unpack("<QQ", leaf_and_heap)
    data, child = small_file, leaf
    for level in (1, 2, 3):
        data, child = data + tree_node(level, child, 1000), len(data)
    return data.replace(leaf_and_heap, struct.pack("<QQ", child, heap))


def header_that_continues_itself(_: bytes) -> bytes:
    block, header = 64, 48
    more = struct.pack("<BHBQQ", 16, 16, 0, block, 28)  # a message: more messages are at `block`
    superblock = struct.pack(
        "<8sBBBBQQQQI", hdf5_objects.SIGNATURE, 2, 8, 8, 0, 0, 2**64 - 1, 200, 120, 0
    )
    body = bytearray(200)
    body[:header] = superblock
    body[block : block + 28] = b"OCHK" + more + bytes(4)
    body[120:127] = b"OHDR\x02\0" + bytes([len(more)])
    body[127 : 127 + len(more)] = more
    return bytes(body)


@pytest.mark.parametrize("make", [tree_of_a_billion_nodes, header_that_continues_itself])
def test_structures_that_repeat_without_end_are_refused(
    tmp_path: Path, small_file: bytes, make: Callable[[bytes], bytes]
) -> None:
    data = make(small_file)
    (tmp_path / "w.h5").write_bytes(data)
    outcome = load_damaged(tmp_path / "w.h5", "nothing", count=1)
    assert outcome == {"loaded": 0, "refused": 1}
    assert "refer to each other without end" in refusal_of_bytes(data, tmp_path)
