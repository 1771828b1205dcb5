"""The parser of packed models under libFuzzer, AddressSanitizer and UBSan."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from int8_network import build, random_network

from edgel3_tflm.converters.pack import pack

LIBRARY = Path(__file__).parents[1] / "micro_app" / "lib" / "edgel3"
SECONDS = 20


def build_fuzzer(sources: Path, directory: Path) -> Path:
    fuzzer = directory / "fuzz_packed"
    subprocess.run(
        [
            *("clang", "-std=gnu99", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror"),
            "-fsanitize=fuzzer,address,undefined",
            *(f"-I{sources}", LIBRARY / "test" / "fuzz_packed.c", *sorted(sources.glob("*.c"))),
            *("-o", fuzzer),
        ],
        check=True,
    )
    return fuzzer


def run_fuzzer(fuzzer: Path, corpus: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(fuzzer, corpus, f"-max_total_time={SECONDS}", "-max_len=4096", "-seed=1"),
            f"-artifact_prefix={corpus.parent}/",
        ],
        capture_output=True,
        text=True,
    )


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


def test_no_packed_model_makes_the_engine_read_or_write_out_of_place(
    corpus: Path, tmp_path: Path
) -> None:
    result = run_fuzzer(build_fuzzer(LIBRARY / "src", tmp_path), corpus)
    assert result.returncode == 0, result.stderr[-4000:]


def test_the_fuzzer_finds_a_check_that_is_missing(corpus: Path, tmp_path: Path) -> None:
    sources = tmp_path / "src"
    shutil.copytree(LIBRARY / "src", sources)
    parser = sources / "edgel3_packed.c"
    text = parser.read_text()
    check = "if (tap >= taps) return -1;"
    assert text.count(check) == 1
    parser.write_text(text.replace(check, check.replace("taps", "taps + 4096u")))
    result = run_fuzzer(build_fuzzer(sources, tmp_path), corpus)
    assert result.returncode != 0
    assert "AddressSanitizer" in result.stderr
