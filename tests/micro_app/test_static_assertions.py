"""What the C compiler refuses: sizes and layouts that parts of the library rely on."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.boards.arduino import ARM_GCC, MICRO_APP, needs_arm

LIBRARY = MICRO_APP / "lib" / "edgel3" / "src"


def compile_changed(name: str, changed: str, old: str, new: str, folder: Path) -> str:
    """Compile a file of a library in which another file is changed; return the errors."""
    library = shutil.copytree(LIBRARY, folder / "src")
    text = (library / changed).read_text()
    assert old in text
    (library / changed).write_text(text.replace(old, new))
    command = [ARM_GCC, "-std=c99", "-mcpu=cortex-m7", "-mthumb", "-fsyntax-only", library / name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@needs_arm
@pytest.mark.parametrize(
    ("name", "changed", "old", "new", "refused"),
    [
        ("edgel3_node.c", "edgel3_node.h", "CLASSES 64u", "CLASSES 64u", ""),
        ("edgel3_node.c", "edgel3_node.h", "CLASSES 64u", "CLASSES 1987u", "info_exceeds_the_body"),
        ("edgel3_node.c", "edgel3_node.h", "CLASSES 64u", "CLASSES 383u", "live_exceeds_the_body"),
        *(
            ("edgel3_kernels_m7.c", "edgel3_kernels_m7.c", old, new, refused)
            for old, new, refused in (
                ("int32_t addend;", "int32_t addend, other;", "differs_from_the_stack"),
                ("uint32_t negatives;", "uint32_t other, negatives;", "differs_from_the_registers"),
            )
        ),
        *(
            ("edgel3_words_m7.c", "edgel3_words_m7.c", old, f"uint32_t other[2]; {old}", refused)
            for old, refused in (
                ("int64_t start; ", "edgel3_words_layout"),
                ("uint32_t half; ", "edgel3_words_layout"),
            )
        ),
        *(
            ("edgel3_pairs_m7.c", "edgel3_pairs_m7.c", old, f"uint32_t other[2]; {old}", refused)
            for old, refused in (
                ("int32_t addend; ", "edgel3_pairs_layout"),
                ("edgel3_half lower;", "edgel3_pairs_layout"),
                ("uint32_t threes; ", "edgel3_pairs_layout"),
            )
        ),
    ],
)
def test_sizes_and_layouts_that_do_not_fit_are_refused(
    name: str, changed: str, old: str, new: str, refused: str, tmp_path: Path
) -> None:
    errors = compile_changed(name, changed, old, new, tmp_path)

    assert ("error" in errors) is bool(refused)
    assert refused in errors
