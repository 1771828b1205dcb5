"""Sources of TFLM in an exported project."""

import configparser
import os
import subprocess
from pathlib import Path

import pytest
from helpers.boards.arduino import WARNINGS, compile_source, find_recipe, needs_arm

from edgel3_tflm.converters.export.app import LIBRARY_FOLDER, export_app
from edgel3_tflm.converters.export.board_files import PLATFORMIO_NAME, SKETCH_NAME
from edgel3_tflm.converters.export.tflm_sources import LIBRARY_URL, find_tflm
from edgel3_tflm.device.boards import BOARDS, Board
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.deployment import Deployment

MICRO = "tensorflow/lite/micro"
KERNEL_UTIL = f"{MICRO}/kernels/kernel_util.h"
ADD = f"{MICRO}/kernels/add.cc"
CONV = f"{MICRO}/kernels/conv_common.cc"
FLATBUFFERS = "third_party/flatbuffers/include/flatbuffers/flatbuffers.h"
STATIC_MEMORY = "#ifndef TF_LITE_STATIC_MEMORY\n#error not the build of TFLM\n#endif\n"
NO_MACRO = "#ifdef TF_LITE_STATIC_MEMORY\n#error not a library for the Arduino IDE\n#endif\n"
TREE = {
    f"{MICRO}/micro_interpreter.h": f'#include "{KERNEL_UTIL}"\nint SetMicroExternalContext();\n',
    f"{MICRO}/micro_interpreter.cc": f'#include "{MICRO}/micro_interpreter.h"\n'
    f'#  include "{MICRO}/micro_allocator.h"\n#include <string.h>\nstatic_assert(SAME == 1, "");\n'
    f'#include "{MICRO}/compatibility.h"\n#include <new>\n'
    "class Planner {\n public:\n  virtual ~Planner() {}\n private:\n"
    "  TF_LITE_REMOVE_VIRTUAL_DELETE\n};\n"
    "Planner* plan(void* memory) { return new (memory) Planner; }\n",
    f"{MICRO}/compatibility.h": "#ifdef TF_LITE_STATIC_MEMORY\n"
    "#define TF_LITE_REMOVE_VIRTUAL_DELETE void operator delete(void*) {}\n#else\n"
    "#define TF_LITE_REMOVE_VIRTUAL_DELETE\n#endif\n",
    f"{MICRO}/micro_allocator.h": '#include "common.h"\n#include <stddef.h>\n#include <stdint.h>\n'
    "struct Allocator {\n  Allocator* Create(uint8_t* one,\n  size_t size, uint8_t* other);\n};\n",
    f"{MICRO}/common.h": "#define SAME 1\n",
    f"{MICRO}/string.h": "#error a header of the compiler\n",
    f"{MICRO}/kernels/common.h": "#error another header of the same name\n",
    f"{MICRO}/micro_context.h": "int AllocateTempInputTensor(), external_context();\n",
    KERNEL_UTIL: '#include "flatbuffers/flatbuffers.h"\n#include <ruy/profiler/instrumentation.h>\n'
    '#include "fixedpoint/fixedpoint.h"\n'
    "namespace tflite {\nnamespace micro {\nint RegisterOp(\n);\n}\n}\n",
    f"{MICRO}/kernels/kernel_util.cc": '#include "kernel_util.h"\n',
    FLATBUFFERS: '#include "flatbuffers/base.h"\n',
    "third_party/flatbuffers/include/flatbuffers/base.h": "int base();\n",
    "third_party/gemmlowp/fixedpoint/fixedpoint.h": '#include "../internal/detect_platform.h"\n',
    "third_party/gemmlowp/internal/detect_platform.h": "int platform();\n",
    "third_party/ruy/ruy/profiler/instrumentation.h": "int profiler();\n",
    # What a node does not need.
    ADD: "#error\n",
    CONV: "int conv();\n",
    f"{MICRO}/kernels/conv_test.cc": "#error\n",
    f"{MICRO}/mock_micro_graph.cc": "#error\n",
    "signal/src/window.cc": "#error\n",
    "third_party/kissfft/kiss_fft.c": "#error\n",
    "examples/hello_world/main.cc": "#error\n",
    "README.md": "",
}


def write_tree(root: Path, tree: dict[str, str]) -> Path:
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def sources_in(folder: Path) -> set[str]:
    paths = [path for path in folder.rglob("*") if path.suffix in (".c", ".cc")]
    return {path.relative_to(folder).as_posix() for path in paths}


@pytest.mark.parametrize(("folder", "macro"), [(".", STATIC_MEMORY), ("src", NO_MACRO)])
def test_copies_compile_without_a_search_path(tmp_path: Path, folder: str, macro: str) -> None:
    tree = tmp_path / "tree"
    source = f"{MICRO}/micro_interpreter.cc"
    write_tree(tree / folder, {**TREE, source: macro + TREE[source]})
    (tree / "LICENSE").write_text("Apache")
    output = tmp_path / "out"
    output.mkdir()

    find_tflm(tree, dense=False).write(output)

    found = sources_in(output)
    assert found == {source, f"{MICRO}/kernels/kernel_util.cc"}
    for name in found:
        command = ["g++", "-std=c++14", *WARNINGS, "-fsyntax-only", str(output / name)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr == ""
    assert (output / "tensorflow" / "LICENSE").read_text() == "Apache"
    assert {path.name for path in output.iterdir()} == {"tensorflow", "third_party"}


def test_dense_kernels_are_copied_for_the_engine_that_uses_them(tmp_path: Path) -> None:
    files = find_tflm(write_tree(tmp_path, TREE), dense=True).files

    assert CONV in map(str, files)
    assert ADD not in map(str, files)


def without(name: str) -> dict[str, str]:
    return {path: text for path, text in TREE.items() if path != name}


def changed(name: str, old: str, new: str = "") -> dict[str, str]:
    assert old in TREE[name]
    return {**TREE, name: TREE[name].replace(old, new)}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"README.md": ""}, r"tree: expected a tree of TFLM's .* found no tensorflow/lite/micro"),
        (without(KERNEL_UTIL), r"kernel_util\.h: expected a header of TFLM, cannot read it"),
        (changed(KERNEL_UTIL, "RegisterOp"), r"kernel_util\.h: expected RegisterOp\(\), which"),
        (changed(KERNEL_UTIL, "micro {", "other {"), r"expected namespace tflite::micro, which"),
        (
            changed(f"{MICRO}/micro_context.h", "AllocateTempInputTensor", "GetInput"),
            r"micro_context\.h: expected AllocateTempInputTensor\(\), which the node uses",
        ),
        (
            changed(f"{MICRO}/micro_context.h", "external_context", "context"),
            r"micro_context\.h: expected external_context\(\), which the node uses",
        ),
        (
            changed(f"{MICRO}/micro_interpreter.h", "SetMicroExternalContext", "Set"),
            r"micro_interpreter\.h: expected SetMicroExternalContext\(\), which the node uses",
        ),
        (
            changed(f"{MICRO}/micro_allocator.h", "uint8_t* other", "int other"),
            r"micro_allocator\.h: expected MicroAllocator::Create\(\) with two arenas",
        ),
        (without(FLATBUFFERS), r"expected flatbuffers/flatbuffers\.h of flatbuffers"),
    ],
)
def test_sources_that_do_not_fit_are_refused_in_one_line(
    tiny_int8: Deployment, tmp_path: Path, tree: dict[str, str], message: str
) -> None:
    sources = write_tree(tmp_path / "tree", tree)

    with pytest.raises(EdgeL3Error, match=message) as refusal:
        export_app(tiny_int8, BOARDS[0], tmp_path / "app", engine="tflm", tflm=sources)

    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def read_environment(app: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser()
    parser.read(app / PLATFORMIO_NAME)
    return parser["env"]


def test_a_project_contains_the_sources(tiny_int8: Deployment, tmp_path: Path) -> None:
    sources = write_tree(tmp_path / "tree", TREE)
    exported = export_app(tiny_int8, BOARDS[0], tmp_path / "app", engine="tflm", tflm=sources)

    library = exported.directory / SKETCH_NAME / LIBRARY_FOLDER
    assert (library / MICRO / "micro_interpreter.cc").is_file()
    # edgel3_tflm.h includes TFLM from its own folder.
    assert f'"{KERNEL_UTIL}"' in (library / "edgel3_tflm.h").read_text()
    assert "lib_deps" not in read_environment(exported.directory)
    assert "--tflm" not in (exported.directory / "README.md").read_text()


def test_without_sources_the_project_says_how_to_get_them(
    tiny_int8: Deployment, tmp_path: Path
) -> None:
    app = export_app(tiny_int8, BOARDS[0], tmp_path / "app", engine="tflm").directory

    assert read_environment(app)["lib_deps"] == LIBRARY_URL
    readme = (app / "README.md").read_text()
    assert "create_tflm_tree.py" in readme
    assert "--tflm tflm" in readme
    packed = export_app(tiny_int8, BOARDS[0], tmp_path / "app").directory
    assert "lib_deps" not in read_environment(packed)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_tflm_s_own_kernels_on_a_mbed_board_need_platformio(
    board: Board, tiny_int8: Deployment, tmp_path: Path
) -> None:
    sources = write_tree(tmp_path / "tree", TREE)
    readmes = {}
    for engine in ("tflm", "tflm-builtin"):
        app = export_app(tiny_int8, board, tmp_path / engine, engine=engine, tflm=sources).directory
        assert read_environment(app)["build_flags"] == "-std=gnu++17"
        builtin = app / SKETCH_NAME / LIBRARY_FOLDER / "edgel3_node_tflm_builtin.cc"
        assert builtin.exists() == (engine == "tflm-builtin")
        readmes[engine] = (app / "README.md").read_text()

    assert "C++14" not in readmes["tflm"]
    assert ("C++14" in readmes["tflm-builtin"]) == ("gnu++14" in find_recipe(board).cpp)


def test_the_library_s_engine_takes_no_sources(tiny_int8: Deployment, tmp_path: Path) -> None:
    sources = write_tree(tmp_path / "tree", TREE)

    with pytest.raises(EdgeL3Error, match="the engine packed, which does not use TFLM"):
        export_app(tiny_int8, BOARDS[0], tmp_path / "app", tflm=sources)
    with pytest.raises(EdgeL3Error, match="expected a directory that does not contain"):
        export_app(tiny_int8, BOARDS[0], sources, engine="tflm", tflm=sources)


@needs_arm
@pytest.mark.parametrize(
    "board",
    [next(each for each in BOARDS if each.fqbn.startswith(core)) for core in ("ard", "tee", "STM")],
    ids=lambda board: board.name,
)
def test_a_real_tree_compiles_as_the_board_s_core_does(
    board: Board, tiny_int8: Deployment, tmp_path: Path
) -> None:
    includes = os.environ.get("EDGEL3_TFLM_INCLUDE", "").split(os.pathsep)[0]
    if not includes:
        pytest.skip("set EDGEL3_TFLM_INCLUDE; its first folder is TFLM's tree")
    app = export_app(
        tiny_int8, board, tmp_path / "app", engine="tflm", tflm=Path(includes)
    ).directory
    library = app / SKETCH_NAME / LIBRARY_FOLDER

    for name in (
        "edgel3_tflm.cc",
        "edgel3_node_tflm.cc",
        f"{MICRO}/micro_interpreter.cc",
        f"{MICRO}/micro_allocator.cc",
        f"{MICRO}/recording_micro_allocator.cc",
        f"{MICRO}/tflite_bridge/micro_error_reporter.cc",
        f"{MICRO}/kernels/kernel_util.cc",
    ):
        # TFLM's headers cause warnings, among them one about C++17 where a core chooses C++14.
        errors = compile_source(library / name, board, tmp_path / "o", "-w")
        assert errors == "", name
