"""Building and running the C library's libFuzzer targets, with AddressSanitizer and UBSan.

For longer than in the tests: EDGEL3_FUZZ_SECONDS=300.
"""

import os
import shutil
import subprocess
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "micro_app" / "lib" / "edgel3"
SECONDS = int(os.environ.get("EDGEL3_FUZZ_SECONDS", "20"))


def change_library(directory: Path, file: str, old: str, new: str) -> Path:
    """Copy the library's sources, with something spoiled that stands there once."""
    sources = directory / "src"
    shutil.copytree(LIBRARY / "src", sources)
    path = sources / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return sources


def fuzz(
    target: str, corpus: Path, *, max_bytes: int, sources: Path = LIBRARY / "src"
) -> subprocess.CompletedProcess[str]:
    """Build a target of the library's folder test and run it on a corpus."""
    fuzzer = corpus.parent / target
    subprocess.run(
        [
            *("clang", "-std=gnu99", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror"),
            "-fsanitize=fuzzer,address,undefined",
            *(f"-I{sources}", LIBRARY / "test" / f"{target}.c", *sorted(sources.glob("*.c"))),
            *("-lm", "-o", fuzzer),
        ],
        check=True,
    )
    return subprocess.run(
        [
            *(fuzzer, corpus, f"-max_total_time={SECONDS}", f"-max_len={max_bytes}", "-seed=1"),
            f"-artifact_prefix={corpus.parent}/",
        ],
        capture_output=True,
        text=True,
    )
