"""The C frontend compiled by several compilers, under sanitizers, and for a Cortex-M7."""

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from emulator import COMPILER, FLAGS, MACHINE, QEMU
from helpers.sounds.frontend_windows import (
    FRONTEND_FILES,
    SOURCES,
    STRICT,
    deployed_frontend,
    draw_samples,
    full_scale_square,
    least_noise,
    read_clips,
)

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter

BOARD = Path(__file__).parents[2] / "micro_app" / "boards" / "mps2_an500"
HOST_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "edgel3_model_frontend.h"
int main(void) {
  const edgel3_frontend_config *config = &edgel3_model_frontend;
  const size_t cells = EDGEL3_MODEL_FRONTEND_LEVELS_BYTES / sizeof(int16_t);
  /* Blocks of the exact size, so that a sanitizer sees the first byte beyond. */
  int16_t *levels = (int16_t *)malloc(EDGEL3_MODEL_FRONTEND_LEVELS_BYTES);
  void *ring = malloc(EDGEL3_FRONTEND_RING_BYTES(config->dft_samples));
  void *spectrum = malloc(EDGEL3_FRONTEND_SPECTRUM_BYTES(config->dft_samples));
  int16_t *samples = (int16_t *)malloc(config->window_samples * sizeof(int16_t));
  int8_t *window = (int8_t *)malloc(cells);
  edgel3_frontend frontend;
  if (!levels || !ring || !spectrum || samples == NULL || window == NULL) return 1;
  if (edgel3_frontend_levels_bytes(config) != EDGEL3_MODEL_FRONTEND_LEVELS_BYTES) return 2;
  if (EDGEL3_FRONTEND_RING_BYTES(8u) + EDGEL3_FRONTEND_SPECTRUM_BYTES(8u) !=
      EDGEL3_FRONTEND_WORK_BYTES(8u)) return 3;
  if (edgel3_frontend_open(&frontend, NULL, levels, ring, spectrum) != EDGEL3_ERROR_ARGUMENT ||
      edgel3_frontend_open(&frontend, config, NULL, ring, spectrum) != EDGEL3_ERROR_ARGUMENT ||
      edgel3_frontend_open(&frontend, config, levels, NULL, spectrum) != EDGEL3_ERROR_ARGUMENT ||
      edgel3_frontend_open(&frontend, config, levels, ring, NULL) != EDGEL3_ERROR_ARGUMENT)
    return 4;
  if (edgel3_frontend_open(&frontend, config, (char *)levels + 1, ring, spectrum) !=
      EDGEL3_ERROR_ARGUMENT) return 5;
  if (edgel3_frontend_open(&frontend, config, levels, ring, (char *)spectrum + 2) !=
      EDGEL3_ERROR_ARGUMENT) return 6;
  if (edgel3_frontend_open(&frontend, config, levels, ring, spectrum) != EDGEL3_OK) return 7;
  while (fread(samples, sizeof *samples, config->window_samples, stdin) ==
         config->window_samples) {
    edgel3_frontend_begin(&frontend);
    edgel3_frontend_push(&frontend, samples, config->window_samples);
    if (edgel3_frontend_finish(&frontend) != EDGEL3_OK) return 8;
    edgel3_frontend_quantize(&frontend, window);
    fwrite(window, 1, cells, stdout);
    /* Also in place. */
    edgel3_frontend_quantize(&frontend, (int8_t *)levels);
    fwrite(levels, 1, cells, stdout);
  }
  free(levels);
  free(ring);
  free(spectrum);
  free(samples);
  free(window);
  return 0;
}
"""


@pytest.mark.parametrize("fixture", ["standin", "tiny_int8"])
@pytest.mark.parametrize("compiler", [["gcc", "-std=c99"], ["g++", "-xc++", "-std=c++11"]])
def test_written_tables_give_the_same_bytes_and_sanitizers_find_nothing(
    compiler: list[str], fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    deployment: Deployment = request.getfixturevalue(fixture)
    (tmp_path / "main.c").write_text(HOST_MAIN)
    program = tmp_path / "main"
    subprocess.run(
        [
            *(*compiler, "-O1", "-g", "-pedantic", *STRICT, "-fsanitize=address,undefined"),
            *("-fno-sanitize-recover=all", f"-I{SOURCES}", f"-I{deployment.directory}"),
            *(tmp_path / "main.c", deployment.directory / "edgel3_model_frontend.c"),
            *(*(SOURCES / name for name in FRONTEND_FILES), "-o", program),
        ],
        check=True,
    )
    spec = deployment.variant.frontend
    windows = [draw_samples(spec), full_scale_square(spec), least_noise(spec)]
    done = subprocess.run(
        [program], input=np.stack(windows).astype("<i2").tobytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    found = np.frombuffer(done.stdout, np.int8).reshape(len(windows), 2, spec.mels, spec.frames)
    frontend = deployed_frontend(deployment)
    for window, cells in zip(windows, found, strict=True):
        frontend.log_mel(window)
        for each in cells:
            np.testing.assert_array_equal(each, frontend.quantize())


def test_int16_deployments_have_no_frontend_of_a_device(tiny_int16x8: Deployment) -> None:
    assert not [name for name in tiny_int16x8.manifest["artefacts"] if "frontend" in name]


def count_fused(source: Path, output: Path, *compiler: str) -> int:
    """Compile a source for a Cortex-M7 and count the fused multiply-add instructions."""
    processor = [flag for flag in FLAGS if flag.startswith("-m")]
    command = [*compiler, *processor, *STRICT, f"-I{SOURCES}", "-S", source, "-o", output]
    subprocess.run(command, check=True)
    # vmla and similar instructions are not counted, because they round twice.
    return len(re.findall(r"\bvfn?m[as]\b", output.read_text()))


C_DIALECTS = ["-std=gnu11"], ["-xc++", "-std=gnu++14"]


@pytest.mark.parametrize("dialect", C_DIALECTS, ids=["c", "c++"])
@pytest.mark.parametrize("level", ["-O3", "-Os"])
def test_no_product_and_sum_are_fused_whatever_the_dialect(
    dialect: list[str], level: str, tmp_path: Path
) -> None:
    output = tmp_path / "frontend.s"
    gcc = [COMPILER, *dialect, level, "-ffp-contract=fast"]
    # With -ffp-contract=fast clang ignores the pragma. By default it fuses within statements.
    searched = subprocess.run(
        [COMPILER, "-xc", "-E", "-v", "/dev/null"], check=True, capture_output=True, text=True
    ).stderr
    folders = [Path(line.strip()).resolve() for line in searched.splitlines() if line[:2] == " /"]
    newlib = [f"-isystem{folder}" for folder in folders if "gcc" not in folder.parts]
    clang = ["clang", "--target=arm-none-eabi", *dialect, level, *newlib]
    for name in ("edgel3_fft.c", "edgel3_frontend.c"):
        for compiler in (gcc, clang):
            assert count_fused(SOURCES / name, output, *compiler) == 0
            # Without the pragma both compilers fuse.
            allowed = tmp_path / name
            source = (SOURCES / name).read_text()
            allowed.write_text(source.replace('#include "edgel3_contraction.h"\n', ""))
            assert count_fused(allowed, output, *compiler) > 0


@pytest.mark.parametrize(("fixture", "most"), [("standin", 40e6), ("tiny_int8", 4.6e6)])
def test_a_cortex_m7_computes_the_same_bytes(
    fixture: str,
    most: float,
    request: pytest.FixtureRequest,
    sounds: Path,
    tmp_path: Path,
) -> None:
    """The bytes equal those on this machine, and the number of instructions has a limit."""
    for program in (COMPILER, QEMU):
        assert shutil.which(program), f"needs {program}"
    deployment: Deployment = request.getfixturevalue(fixture)
    spec = deployment.variant.frontend
    sources = [
        Path(__file__).parents[1] / "native" / "device_frontend_main.c",
        BOARD / "board.c",
        deployment.directory / "edgel3_model_frontend.c",
        *(SOURCES / name for name in FRONTEND_FILES),
    ]
    elf = tmp_path / "frontend.elf"
    includes = [f"-I{path}" for path in (SOURCES, BOARD, deployment.directory)]
    linking = ["-nostartfiles", "--specs=nosys.specs", "-Wl,--gc-sections"]
    linking += ["-T", str(BOARD / "mps2_an500.ld")]
    # The dialect of Arduino, which allows fused operations.
    dialect = ["-std=gnu11", "-ffp-contract=fast"]
    objects = []
    for source in sources:
        objects.append(tmp_path / f"{source.name}.o")
        subprocess.run(
            [COMPILER, *FLAGS, *dialect, *STRICT, *includes, "-c", source, "-o", objects[-1]],
            check=True,
        )
    subprocess.run([COMPILER, *FLAGS, *linking, *objects, "-o", elf], check=True)

    samples = read_clips(find_clips([sounds])[:1], spec, 1)[0][0]
    windows = np.stack([samples, full_scale_square(spec)])
    image = tmp_path / "windows.bin"
    image.write_bytes(struct.pack("<I", len(windows)) + windows.astype("<i2").tobytes())
    done = subprocess.run(
        [
            *(QEMU, "-M", MACHINE, "-icount", "shift=0", "-display", "none", "-monitor", "none"),
            *("-serial", "none", "-chardev", "stdio,id=console"),
            *("-semihosting-config", "enable=on,target=native,chardev=console"),
            *("-device", f"loader,file={image},addr=0x60000000,force-raw=on", "-kernel", elf),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(windows)
    frontend = deployed_frontend(deployment)
    tensor = open_interpreter(deployment.read_model("int8")).input
    for window, answer in zip(windows, answers, strict=True):
        cells = np.frombuffer(bytes.fromhex(answer["cells"]), np.int8)
        found = cells.reshape(spec.mels, spec.frames)
        frontend.log_mel(window)
        np.testing.assert_array_equal(found, frontend.quantize())
    expected = deployment.input_map.apply(log_mel(samples[np.newaxis] / 32768, spec), tensor)
    cells = np.frombuffer(bytes.fromhex(answers[0]["cells"]), np.int8)
    steps = abs(cells.astype(int) - expected.ravel())
    assert steps.max() <= 1
    assert steps.mean() <= 0.01
    instructions = sum(answers[0][part] for part in ("push", "finish", "quantize"))
    assert instructions < most
