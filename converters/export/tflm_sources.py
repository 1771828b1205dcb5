"""Copies the sources of TensorFlow Lite Micro (TFLM) into an exported sketch.

The Arduino IDE and PlatformIO compile every file below the sketch's ``src`` folder, but search no
folder there for headers. The copies therefore include each other by relative paths. Those of a tree
define the macro that TFLM's own build for microcontrollers defines, and compile with exceptions,
which that build turns off. An Arduino library of TFLM needs neither.
"""

import functools
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgel3_tflm.errors import EdgeL3Error

LIBRARY_URL = "https://github.com/spaziochirale/Chirale_TensorFlowLite.git#v2.0.0"
"""An Arduino library of TFLM, for PlatformIO's ``lib_deps``."""
TREE_SCRIPT = "tensorflow/lite/micro/tools/project_generation/create_tflm_tree.py"
"""The script in TFLM's repository that writes a tree."""

_MICRO = "tensorflow/lite/micro"
_KERNEL_UTIL = f"{_MICRO}/kernels/kernel_util.h"
_REQUIRED = (
    (_KERNEL_UTIL, r"namespace tflite\s*\{\s*namespace micro\b", "namespace tflite::micro"),
    (_KERNEL_UTIL, r"\bRegisterOp\s*\(", "RegisterOp()"),
    (f"{_MICRO}/micro_context.h", r"\bAllocateTempInputTensor\s*\(", "AllocateTempInputTensor()"),
    (f"{_MICRO}/micro_context.h", r"\bexternal_context\s*\(", "external_context()"),
    (
        f"{_MICRO}/micro_interpreter.h",
        r"\bSetMicroExternalContext\s*\(",
        "SetMicroExternalContext()",
    ),
    (
        f"{_MICRO}/micro_allocator.h",
        r"\bCreate\(\s*uint8_t\s*\*\s*\w+,\s*size_t\s+\w+,\s*uint8_t\b",
        "MicroAllocator::Create() with two arenas",
    ),
)
"""Headers that the node includes, what they must contain, and its name."""
_THIRD_PARTY = {
    "flatbuffers/flatbuffers.h": "flatbuffers",
    "fixedpoint/fixedpoint.h": "gemmlowp",
    "ruy/profiler/instrumentation.h": "ruy",
}
"""Headers of other projects that TFLM includes."""
_COMPILED = (".c", ".cc", ".cpp")
_SUFFIXES = (*_COMPILED, ".h", ".hpp", ".inc")
_LICENSES = ("LICENSE", "LICENSE.txt", "COPYING", "NOTICE")
# Folders and sources that the node does not use. Kernels take most of the time of a build. Those of
# the current TFLM need C++17, and the Arduino IDE compiles Mbed boards with C++14.
_UNUSED_FOLDERS = {"examples", "experimental", "kissfft", "signal", "testing"}
_KERNEL_FOLDERS = {"cmsis", "cmsis_nn"}
_TEST = re.compile(r"(_test|test_.*|mock_.*|fake_.*)\.(c|cc|cpp)$")
_KERNELS = (f"{_MICRO}/kernels/", "tensorflow/lite/kernels/internal/")
_ALWAYS = {"kernel_util", "quantization_util", "runtime_shape", "tensor_ctypes"}
_DENSE = {"common", "conv", "pooling", "portable_tensor_utils", "reshape", "tensor_utils"}
_INCLUDE = re.compile(r'^(\s*#\s*include\s*)(?:"([^"\n]+)"|<([^>\n]+)>)', re.MULTILINE)
_CHANGED = "/* edgel3-tflm changed the paths of includes. */\n"
# Structures differ without this macro.
_STATIC_MEMORY = """\
#ifndef TF_LITE_STATIC_MEMORY
#define TF_LITE_STATIC_MEMORY /* added by edgel3-tflm */
#endif
"""
# TFLM makes this operator private, and its own build has no exceptions. With exceptions, as in the
# Mbed core, GCC refuses to create objects of its classes.
_COMPATIBILITY = PurePosixPath(f"{_MICRO}/compatibility.h")
_PUBLIC_DELETE = """
/* added by edgel3-tflm: public, for compilers with exceptions */
#undef TF_LITE_REMOVE_VIRTUAL_DELETE
#define TF_LITE_REMOVE_VIRTUAL_DELETE \\
 public:                              \\
  void operator delete(void*) {}
"""


@dataclass(frozen=True)
class TflmSources:
    """Sources of TFLM.

    Parameters
    ----------
    directory : pathlib.Path
        Folder that contains TFLM's licence.
    root : pathlib.Path
        Folder that contains ``tensorflow``.
    files : tuple of PurePosixPath
        Paths below ``root`` that an application needs.
    """

    directory: Path
    root: Path
    files: tuple[PurePosixPath, ...]

    def write(self, folder: Path) -> None:
        """Write the sources into an existing folder, with relative includes."""
        is_tree = self.root == self.directory
        before = _CHANGED + (_STATIC_MEMORY if is_tree else "")
        headers: dict[str, list[PurePosixPath]] = defaultdict(list)
        for path in self.files:
            headers[path.name].append(path)
        for path in self.files:
            output = folder / path
            output.parent.mkdir(parents=True, exist_ok=True)
            data = (self.root / path).read_bytes()
            if path.suffix in _SUFFIXES:
                # Latin-1 keeps every byte.
                rewrite = functools.partial(_rewrite, includer=path, headers=headers)
                text = _INCLUDE.sub(rewrite, data.decode("latin-1"))
                after = _PUBLIC_DELETE if is_tree and path == _COMPATIBILITY else ""
                data = (before + text + after).encode("latin-1")
            output.write_bytes(data)
        for name in _LICENSES:
            if (self.directory / name).is_file():
                shutil.copyfile(self.directory / name, folder / "tensorflow" / name)


def find_tflm(directory: Path, *, dense: bool) -> TflmSources:
    """Return the sources of TFLM in a directory that a node needs.

    Parameters
    ----------
    directory : pathlib.Path
        A tree that TFLM's ``create_tflm_tree.py`` wrote, or an Arduino library of TFLM.
    dense : bool
        Whether the node uses TFLM's own kernels.

    Raises
    ------
    EdgeL3Error
        If there are none, they lack what the node uses, or code of other projects is missing.
    """
    roots = [each for each in (directory, directory / "src") if (each / _MICRO).is_dir()]
    if not roots:
        raise EdgeL3Error(
            f"{directory}: expected a tree of TFLM's create_tflm_tree.py or an Arduino library of"
            f" TFLM, found no {_MICRO} in it"
        )
    root = roots[0]
    for header, pattern, name in _REQUIRED:
        try:
            text = (root / header).read_text("latin-1")
        except OSError as error:
            raise EdgeL3Error(
                f"{root / header}: expected a header of TFLM, cannot read it: {error.strerror};"
                " write the tree again"
            ) from error
        if not re.search(pattern, text):
            raise EdgeL3Error(
                f"{root / header}: expected {name}, which the node uses, found none; use TFLM of"
                " 2024 or newer, without changes of a vendor"
            )
    found = (path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file())
    files = tuple(
        PurePosixPath(path.as_posix())
        for path in found
        if (path.suffix in _SUFFIXES or (path.name in _LICENSES and len(path.parts) > 1))
        and (path.suffix not in _COMPILED or _is_used(PurePosixPath(path.as_posix()), dense))
    )
    for header, project in _THIRD_PARTY.items():
        if not any(_ends_with(path, header) for path in files):
            raise EdgeL3Error(
                f"{directory}: expected {header} of {project}, which TFLM includes, found none;"
                " write the tree by TFLM's create_tflm_tree.py, which adds it"
            )
    return TflmSources(directory, root, files)


def _is_used(source: PurePosixPath, dense: bool) -> bool:
    """Return whether a node needs a source file."""
    unused = _UNUSED_FOLDERS if dense else _UNUSED_FOLDERS | _KERNEL_FOLDERS
    if unused.intersection(source.parts) or _TEST.search(source.name):
        return False
    is_kernel = source.as_posix().startswith(_KERNELS)
    if dense:
        return not is_kernel or source.stem.removesuffix("_common") in _ALWAYS | _DENSE
    return not is_kernel or source.stem in _ALWAYS


def _ends_with(path: PurePosixPath, name: str) -> bool:
    return f"/{path}".endswith(f"/{name}")


def _rewrite(
    found: re.Match[str],
    includer: PurePosixPath,
    headers: Mapping[str, Sequence[PurePosixPath]],
) -> str:
    """Return an include directive, by a relative path if the sources contain the header."""
    before, quoted, bracketed = found.groups()
    name = quoted or bracketed
    candidates = [
        path for path in headers.get(PurePosixPath(name).name, ()) if _ends_with(path, name)
    ]
    # <name.h> without a folder is a header of the compiler.
    if not candidates or (bracketed and "/" not in name):
        return found[0]
    relatives = (os.path.relpath(path, includer.parent) for path in candidates)
    # The nearest, if several have this name.
    nearest = min(relatives, key=lambda path: (path.count("/"), path))
    return f'{before}"{Path(nearest).as_posix()}"'
