"""Building and running the C library's libFuzzer targets, with AddressSanitizer and UBSan.

For more runs than in the tests: EDGEL3_FUZZ_RUNS=10000000.
"""

import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

MICRO_APP = Path(__file__).parents[2] / "micro_app"
LIBRARY = MICRO_APP / "lib" / "edgel3"
HOST_KERNELS = MICRO_APP / "host" / "edgel3_kernels_avx512.c"
RUNS = int(os.environ.get("EDGEL3_FUZZ_RUNS", "100000"))


FLAGS = ("-std=gnu99", "-g", "-O1", "-fsanitize=fuzzer,address,undefined")
DEFINES = (f"-DEDGEL3_EXTRA_KERNELS={HOST_KERNELS.stem}",)
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")


def compile_to(output: Path, source: Path) -> Path:
    command = ["clang", *FLAGS, *WARNINGS, *DEFINES, f"-I{LIBRARY / 'src'}"]
    subprocess.run([*command, "-c", source, "-o", output], check=True)
    return output


@cache
def compile_library() -> tuple[tempfile.TemporaryDirectory[str], dict[str, Path]]:
    """Compile the library once; objects by the names of their sources, while the folder is held."""
    folder = tempfile.TemporaryDirectory()
    sources = [*sorted((LIBRARY / "src").glob("*.c")), HOST_KERNELS]
    outputs = [Path(folder.name) / f"{source.name}.o" for source in sources]
    with ThreadPoolExecutor(2) as threads:
        objects = threads.map(compile_to, outputs, sources)
        return folder, dict(zip((source.name for source in sources), objects, strict=True))


def change_source(directory: Path, file: str, old: str, new: str) -> Path:
    """Copy a source of the library, with something spoiled that stands there once."""
    text = (LIBRARY / "src" / file).read_text()
    assert text.count(old) == 1
    path = directory / file
    path.write_text(text.replace(old, new))
    return path


def fuzz(
    target: str, corpus: Path, *, max_bytes: int, changed: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Build a target of the library's folder test and run it on a corpus.

    ``changed`` is taken in the place of the library's source of that name; then something is to be
    found, which ends it.
    """
    runs = RUNS if changed is None else 10_000_000
    fuzzer = corpus.parent / target
    _, library = compile_library()
    objects = dict(library)
    if changed is not None:
        objects[changed.name] = compile_to(corpus.parent / f"{changed.name}.o", changed)
    main = compile_to(corpus.parent / f"{target}.o", LIBRARY / "test" / f"{target}.c")
    subprocess.run(["clang", *FLAGS, main, *objects.values(), "-lm", "-o", fuzzer], check=True)
    return subprocess.run(
        [
            *(fuzzer, corpus, f"-runs={runs}", f"-max_len={max_bytes}", "-seed=1"),
            f"-artifact_prefix={corpus.parent}/",
            # A process inherits its parent's peak of memory, and TensorFlow may be loaded there:
            # the limit is on what is allocated.
            *("-rss_limit_mb=0", "-malloc_limit_mb=2048"),
        ],
        capture_output=True,
        text=True,
    )
