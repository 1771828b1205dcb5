"""Build the two C extensions.

``edgel3_tflm._engine`` is the C library ``edgel3``, built for this machine.
``edgel3_tflm.converters.quantization._sparse_products`` are the quantizer's float products.

The scripts in ``calibration_data/`` are left out of the wheel. All other settings of the package
are in pyproject.toml.
"""

import re
import sys
from pathlib import Path

from cffi import FFI
from setuptools import setup
from setuptools.command.build_py import build_py

SOURCES = Path("micro_app/lib/edgel3/src")
# Kernels for desktop processors. They are not part of the Arduino library.
HOST_KERNELS = Path("micro_app/host/edgel3_kernels_host.c")
# The library's other files are the node and its wire protocol, which Python does not run.
ENGINE_FILES = (
    "edgel3_engine.c",
    "edgel3_fft.c",
    "edgel3_frontend.c",
    "edgel3_kernels.c",
    "edgel3_packed.c",
)
HEADERS = ("edgel3.h", "edgel3_frontend.h")
# Debug information would contain the build directory: the wheel would never be the same twice.
COMPILE_ARGUMENTS = [] if sys.platform == "win32" else ["-std=c99", "-O3", "-g0"]


def read_declarations(path: Path) -> str:
    """Return the declarations of a header in the subset of C that cffi parses."""
    header = path.read_text(encoding="utf-8")
    constants = re.findall(r"^#define (EDGEL3_\w+) \d", header, re.MULTILINE)
    opening, closing = 'extern "C" {\n#endif\n', "#ifdef __cplusplus\n}"
    code = header[header.index(opening) + len(opening) : header.rindex(closing)]
    declarations = re.sub(r"^#.*\n", "", code, flags=re.MULTILINE)
    # cffi asks the compiler for the constants' values.
    return declarations + "".join(f"#define {name} ...\n" for name in constants)


ROW_HOOK = """
extern "Python" void edgel3_collect_row(void *context, uint32_t convolution, uint32_t row,
                                        const uint8_t *values, uint32_t channels,
                                        uint32_t columns, uint32_t stride);
"""

engine = FFI()
engine.cdef("".join(read_declarations(SOURCES / name) for name in HEADERS) + ROW_HOOK)
engine.set_source(
    "edgel3_tflm._engine",
    "".join(f'#include "{name}"\n' for name in HEADERS),
    sources=[
        *((SOURCES / name).as_posix() for name in ENGINE_FILES),
        HOST_KERNELS.as_posix(),
    ],
    define_macros=[("EDGEL3_EXTRA_KERNELS", HOST_KERNELS.stem)],
    depends=[
        "setup.py",
        *(path.as_posix() for path in sorted(SOURCES.glob("*.h"))),
        *(path.as_posix() for path in sorted(HOST_KERNELS.parent.glob("*.h"))),
    ],
    include_dirs=[SOURCES.as_posix()],
    extra_compile_args=COMPILE_ARGUMENTS,
    # Without a C compiler the package works, but the runtime "engine" is missing.
    optional=True,
)

PRODUCTS = Path("converters/quantization/sparse_products.c")

sparse_products = FFI()
sparse_products.cdef(read_declarations(PRODUCTS.with_suffix(".h")))
sparse_products.set_source(
    "edgel3_tflm.converters.quantization._sparse_products",
    f'#include "{PRODUCTS.stem}.h"\n',
    sources=[PRODUCTS.as_posix()],
    depends=["setup.py", PRODUCTS.with_suffix(".h").as_posix()],
    include_dirs=[PRODUCTS.parent.as_posix(), SOURCES.as_posix()],
    extra_compile_args=COMPILE_ARGUMENTS,
    # Without a C compiler, TensorFlow computes the products, with the zeros.
    optional=True,
)


class BuildWithoutScripts(build_py):
    """Leave the scripts that make the calibration clips out of the wheel.

    They import each other as top-level modules, so that they run from a checkout. An installed
    package could not import them.
    """

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return a package's modules as tuples (package, module, file)."""
        modules = super().find_package_modules(package, package_dir)
        if package == "edgel3_tflm.calibration_data":
            return [module for module in modules if module[1] == "__init__"]
        return modules


# cffi executes this file again under another name to read `engine` and `sparse_products`.
if __name__ == "__main__":
    setup(
        cffi_modules=["setup.py:engine", "setup.py:sparse_products"],
        cmdclass={"build_py": BuildWithoutScripts},
        # cffi writes the extension for the stable interface: one wheel suits every Python.
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )
