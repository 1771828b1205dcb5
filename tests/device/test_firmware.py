"""Building firmware: a tool that fails is one line and a log."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from edgel3_tflm.device.firmware import ToolError, build_node, run_tool
from edgel3_tflm.runtime.deployment import Deployment


def read_log(error: BaseException) -> str:
    """Read the log that an error names, and delete it; the error must be one short line."""
    message = str(error)
    assert "\n" not in message
    assert len(message) < 800
    found = re.search(r"the whole log is in (\S+)$", message)
    assert found is not None, message
    path = Path(found[1])
    said = path.read_text()
    path.unlink()
    return said


def fail(*lines: str) -> str:
    """Have a program write lines to standard error and fail; return the error's message."""
    script = f"import sys; sys.stderr.write({chr(10).join(lines)!r}); sys.exit(3)"
    with pytest.raises(ToolError) as caught:
        run_tool([sys.executable, "-c", script])
    assert read_log(caught.value) == "\n".join(lines)
    return str(caught.value)


def test_a_compiler_s_first_error_is_the_message(tmp_path: Path) -> None:
    for name in ("edgel3_packed_model.c", "edgel3_model_frontend.c"):
        (tmp_path / name).write_text("int number;\n" * 100 + '#error "cut short"\n')
    with pytest.raises(
        ToolError, match=r"cmake ended with code \d+: .*#error \"cut short\""
    ) as info:
        build_node(tmp_path, tmp_path / "build", "host")
    assert "CMakeFiles" in read_log(info.value)


@pytest.mark.parametrize(
    ("name", "constant"),
    [("edgel3_packed_model.h", "FAST_ARENA"), ("edgel3_model_frontend.h", "LEVELS")],
)
def test_a_deployment_of_an_older_version_must_be_converted_again(
    name: str, constant: str, tiny_int8: Deployment, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(tiny_int8.directory, older)
    header = older / name
    header.write_text(header.read_text().replace(constant, "OTHER"))
    with pytest.raises(
        ToolError, match=rf"#error .*{name} is from an older edgel3-tflm: convert the network again"
    ) as info:
        build_node(older, tmp_path / "build", "host", options=("-DCMAKE_BUILD_TYPE=Debug",))
    read_log(info.value)


def test_cmake_s_first_error_is_the_message(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"code 1: expected edgel3_packed_model\.c, which") as info:
        build_node(tmp_path, tmp_path / "build", "host")
    assert "CMake Error" in read_log(info.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["-- Found", "CMake Error: no source directory", "more", "CMake Error: other"],
            "code 3: no source directory;",
        ),
        (
            [
                "CMake Error at a/b.cmake:66 (message):",
                "  The compiler",
                "",
                "    cc",
                "  fails",
                "x",
            ],
            "code 3: The compiler cc fails;",
        ),
        (
            ["a.c: In function", "a.c:1:2: error: no such thing", "make: *** Error 1"],
            "code 3: a.c:1:2: error: no such thing;",
        ),
        (
            ["ld: a.o: in function `f':", "a.c:1: undefined reference to `g'", "error: ld"],
            "code 3: a.c:1: undefined reference to `g';",
        ),
        (["one", "two", ""], "code 3: two;"),
        ([""], "code 3: it wrote nothing;"),
        ([f"error: {'long ' * 500}"], "lon...; the whole"),
    ],
)
def test_the_line_that_matters_is_the_message(lines: list[str], message: str) -> None:
    assert message in fail(*lines)


def test_a_program_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"cannot run .*none: No such file"):
        run_tool([tmp_path / "none"])
