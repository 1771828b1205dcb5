"""The parser of packed models under libFuzzer, AddressSanitizer and UBSan."""

from pathlib import Path

import numpy as np
import pytest
from helpers.boards.fuzzing import change_source, fuzz
from helpers.networks.int8_network import build, random_network

from edgel3_tflm.converters.export.pack import pack


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Small models, every encoding of weights among them."""
    rng = np.random.default_rng(0)
    directory = tmp_path / "corpus"
    directory.mkdir()
    for number, (rows, columns, filters, pools, sparsity) in enumerate(
        [
            (1, 1, (1,), ("global",), 0.0),
            (5, 7, (3, 2), ("none", "global"), 0.5),
            (4, 4, (40, 3), ("none", "global"), 0.75),
            (6, 5, (2, 9, 3), ("2x2", "none", "global"), 0.9),
            (8, 8, (4, 30, 5), ("2x2", "2x2", "global"), 0.98),
            (3, 9, (2, 2), ("none", "global"), 1.0),
        ]
    ):
        network = random_network(
            rng, rows=rows, columns=columns, filters=filters, pools=pools, sparsity=sparsity
        )
        (directory / str(number)).write_bytes(pack(build(network)))
    return directory


def test_no_packed_model_makes_the_engine_read_or_write_out_of_place(corpus: Path) -> None:
    result = fuzz("fuzz_packed", corpus, max_bytes=4096)
    assert result.returncode == 0, result.stderr[-4000:]


def test_the_fuzzer_finds_a_check_that_is_missing(corpus: Path, tmp_path: Path) -> None:
    check = "if (tap >= taps) return -1;"
    without = check.replace("taps", "taps + 4096u")
    changed = change_source(tmp_path, "edgel3_packed.c", check, without)
    result = fuzz("fuzz_packed", corpus, max_bytes=4096, changed=changed)
    assert result.returncode != 0
    assert "AddressSanitizer" in result.stderr
