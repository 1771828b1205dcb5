"""TFLM with the custom operator, built for this machine."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.boards.tflm import (
    ENGINE_FILES,
    HEADERS,
    HOST_KERNELS,
    INTERPRETER,
    OPERATOR,
    REGISTERER,
    SOURCES,
    STATIC_MEMORY,
    Interpreter,
    compile_for_host,
    compile_to,
    find_package,
    require,
    substitute,
)
from helpers.networks.engine_networks import draw_network
from helpers.networks.int8_network import build

from edgel3_tflm.converters.export.pack import pack


@pytest.fixture(scope="module")
def upstream_headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFLM's headers with upstream's names, virtual functions and reduced structures."""
    require(HEADERS)
    vendor = find_package("xmos_ai_tools") / "runtime" / "include"
    folder = tmp_path_factory.mktemp("tflm")
    for name in ("flatbuffers", "signal", "tensorflow"):
        shutil.copytree(vendor / name, folder / name)
    for path in folder.rglob("*.h"):
        text = path.read_text()
        text = re.sub(r"\btflite_micro\b", "tflite", text)
        path.write_text(re.sub(r"\bvirtual (.*\bint sg\))( override)?", r"\1", text))
    # Upstream has since appended fields, which no inline function reads.
    path = folder / "tensorflow" / "lite" / "micro" / "micro_interpreter.h"
    fields = r"\1  char fields_that_have_come_since_[512];\n\2"
    path.write_text(substitute(r"(class MicroInterpreter \{.*?\n)(\};)", fields, path.read_text()))
    path = folder / "tensorflow" / "lite" / "core" / "c" / "common.h"
    full, mark, reduced = path.read_text().partition("#else   // defined(TF_LITE_STATIC_MEMORY)?")
    reduced = substitute(
        r"(struct TfLiteTensor \{).*?(\} TfLiteTensor;)",
        r"\1 TfLiteQuantization quantization; TfLiteQuantizationParams params;"
        r" TfLitePtrUnion data; TfLiteIntArray* dims; size_t bytes; TfLiteType type;"
        r" TfLiteAllocationType allocation_type; bool is_variable; \2",
        reduced,
    )
    reduced = substitute(r"(void\* user_data;)", r"TfLiteIntArray* intermediates; \1", reduced)
    path.write_text(full + mark + reduced)
    return folder


@pytest.fixture(scope="module")
def library(upstream_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that the interpreter loads: operator, engine and registration."""
    require(INTERPRETER)
    folder = tmp_path_factory.mktemp("operator")
    objects = [folder / f"{source.name}.o" for source in ENGINE_FILES]
    extra = f"-DEDGEL3_EXTRA_KERNELS={HOST_KERNELS.stem}"
    c = ("gcc", "-std=c99", "-O2", "-fPIC", extra, f"-I{SOURCES}")
    for source, output in zip(ENGINE_FILES, objects, strict=True):
        compile_to(output, [*c, "-c", source])
    registerer = folder / "registerer.cc"
    registerer.write_text(REGISTERER)
    gemmlowp = find_package("tensorflow") / "include" / "external" / "gemmlowp"
    for source in (registerer, OPERATOR):
        objects.append(folder / f"{source.name}.o")
        compile_for_host(
            source, objects[-1], [STATIC_MEMORY, "-isystem", gemmlowp], upstream_headers
        )
    compile_to(folder / "operator.so", ["g++", "-shared", *objects])
    return folder / "operator.so"


@pytest.fixture
def interpreter(library: Path, tmp_path: Path) -> Interpreter:
    return Interpreter(library, tmp_path)


@pytest.fixture
def blob() -> bytes:
    rng = np.random.default_rng(1)
    return pack(
        build(
            draw_network(
                rng, rows=13, columns=11, filters=[12, 24, 10], pools=["none", "2x2", "global"]
            )
        )
    )
