"""Builds and runs the C library's libFuzzer targets under AddressSanitizer and UBSan.

Set EDGEL3_FUZZ_RUNS=10000000 for more runs than the default.
"""

import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

MICRO_APP = Path(__file__).parents[3] / "micro_app"
LIBRARY = MICRO_APP / "lib" / "edgel3"
HOST_KERNELS = MICRO_APP / "host" / "edgel3_kernels_host.c"
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
    """Compile the library once. Returns the folder and its objects by the names of their sources.

    The folder is deleted with the first return value.
    """
    folder = tempfile.TemporaryDirectory()
    sources = [*sorted((LIBRARY / "src").glob("*.c")), HOST_KERNELS]
    outputs = [Path(folder.name) / f"{source.name}.o" for source in sources]
    with ThreadPoolExecutor(2) as threads:
        objects = threads.map(compile_to, outputs, sources)
        return folder, dict(zip((source.name for source in sources), objects, strict=True))


def change_source(directory: Path, file: str, old: str, new: str) -> Path:
    """Copy a source of the library, with its only occurrence of a text replaced."""
    text = (LIBRARY / "src" / file).read_text()
    assert text.count(old) == 1
    path = directory / file
    path.write_text(text.replace(old, new))
    return path


def fuzz(
    target: str, corpus: Path, *, max_bytes: int, changed: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Build a target in the library's folder ``test`` and run it on a corpus.

    ``changed`` replaces the library's source of the same name. The fuzzer must then find an error,
    which ends the run.
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
            # The limit applies to allocations, because a process inherits the peak memory of its
            # parent, which may have loaded TensorFlow.
            *("-rss_limit_mb=0", "-malloc_limit_mb=2048"),
        ],
        capture_output=True,
        text=True,
    )
