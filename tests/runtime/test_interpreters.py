"""Runtimes: equal results, missing packages, and models that they refuse."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgel3_tflm.errors import ModelFileError, RuntimeUnavailableError, install_hint
from edgel3_tflm.runtime import interpreters
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import RUNTIMES, measure_arena_bytes, open_interpreter
from edgel3_tflm.runtime.native import native_stderr

# tflite-runtime has wheels for the oldest Pythons only.
HAS_TFLITE_RUNTIME = find_spec("tflite_runtime") is not None
INSTALLED = [name for name in RUNTIMES if name != "tflite-runtime" or HAS_TFLITE_RUNTIME]


@pytest.mark.parametrize("runtime", INSTALLED)
def test_every_runtime_sees_the_same_tensors(tiny_int8: Deployment, runtime: str) -> None:
    interpreter = open_interpreter(tiny_int8.read_model("int8", runtime), runtime)
    default = open_interpreter(tiny_int8.read_model("int8"))
    assert interpreter.input == default.input
    assert interpreter.output == default.output
    assert interpreter.input.shape == (1, 64, 50, 1)
    assert interpreter.output.shape == (1, 4)
    windows = np.zeros((2, 64, 50, 1), np.int8)
    windows[1] = 5
    embeddings = interpreter.run(windows)
    assert embeddings.shape == (2, 4)
    assert embeddings.dtype == np.int8
    np.testing.assert_array_equal(interpreter.run(windows[::-1]), embeddings[::-1])


@pytest.mark.parametrize("runtime", [name for name in INSTALLED if name != "engine"])
def test_every_runtime_but_the_engine_runs_the_float_model(
    tiny_int8: Deployment, runtime: str
) -> None:
    interpreter = open_interpreter(tiny_int8.read_model("float"), runtime)
    window = np.random.default_rng(0).normal(0, 1, (1, 64, 50, 1)).astype(np.float32)
    default = open_interpreter(tiny_int8.read_model("float")).run(window)
    # Runtimes add the 36 products of a sum in different orders: an error of 36 * 2^-24 relative to
    # the largest value. Eight layers amplify it by less than a factor of 100.
    bound = 100 * 36 * 2.0**-24 * abs(default).max()
    np.testing.assert_allclose(interpreter.run(window), default, rtol=0, atol=bound)


@pytest.mark.parametrize("runtime", ["litert", "litert-builtin", "engine"])
def test_threads_change_no_byte(tiny_int8: Deployment, runtime: str) -> None:
    model = tiny_int8.read_model("int8", runtime)
    windows = np.random.default_rng(1).integers(-128, 128, (9, 64, 50, 1)).astype(np.int8)
    alone = open_interpreter(model, runtime, threads=1).run(windows)
    assert len(np.unique(alone, axis=0)) == 9
    np.testing.assert_array_equal(open_interpreter(model, runtime, threads=4).run(windows), alone)


def test_quantized_values_and_real_values() -> None:
    spec = interpreters.TensorSpec((1, 3), np.dtype(np.int8), scale=0.5, zero_point=-128)
    values = spec.dequantize(np.array([[-128, -127, 127]], np.int8))
    np.testing.assert_array_equal(values, np.float32([[0, 0.5, 127.5]]))


@pytest.mark.parametrize("runtime", ["litert", "tflm", "engine"])
@pytest.mark.parametrize("model", [b"", b"x" * 100])
def test_bytes_that_are_no_model_are_refused(runtime: str, model: bytes) -> None:
    with pytest.raises(ModelFileError):
        open_interpreter(model, runtime)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "find_spec", lambda _: None)
    with pytest.raises(RuntimeUnavailableError, match=re.escape(install_hint("convert"))):
        open_interpreter(b"", "tflm")


def test_tflite_runtime_says_where_it_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "find_spec", lambda _: None)
    hint = f"{install_hint('tflite-runtime')} (its last release is for Linux with Python 3.10 or"
    with pytest.raises(RuntimeUnavailableError, match=re.escape(hint)):
        open_interpreter(b"", "tflite-runtime")


def test_tflite_runtime_is_refused_under_numpy_2(
    tiny_int8: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters, "find_spec", lambda _: True)
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(RuntimeUnavailableError, match=r"needs NumPy 1, found 2\.1\.0; pip install"):
        open_interpreter(tiny_int8.read_model("int8"), "tflite-runtime")


@pytest.mark.parametrize("runtime", ["litert-builtin", "tflite-runtime"])
def test_builtin_kernels_have_the_bytes_of_the_reference(
    tiny_int8: Deployment, runtime: str
) -> None:
    if runtime not in INSTALLED:
        pytest.skip("tflite-runtime has no wheel for this Python")
    model = tiny_int8.read_model("int8")
    windows = np.random.default_rng(3).integers(-128, 128, (20, 64, 50, 1)).astype(np.int8)
    expected = open_interpreter(model, "reference").run(windows)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(open_interpreter(model, runtime).run(windows), expected)


def test_an_engine_that_was_not_built_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("engine", "library"):
        monkeypatch.delitem(sys.modules, f"edgel3_tflm.runtime.c_library.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "edgel3_tflm._engine", None)
    with pytest.raises(RuntimeUnavailableError, match=r"^[^\n]*install a C compiler[^\n]*$"):
        open_interpreter(b"", "engine")


def test_the_engine_runs_a_deployment_s_packed_model(tiny_int8: Deployment) -> None:
    packed = (tiny_int8.directory / "packed.edgel3").read_bytes()
    assert tiny_int8.read_model("int8", "engine") == packed
    with pytest.raises(ModelFileError, match="engine runs int8 only, not float; choose another"):
        tiny_int8.embedder("float", "engine")


def test_the_engine_does_not_run_int16(tiny_int16x8: Deployment) -> None:
    with pytest.raises(ModelFileError, match="engine runs int8 only, not int16x8"):
        tiny_int16x8.embedder("int16x8", "engine")


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (None, "an older version did not write; convert again"),
        ({"refused": "too wide"}, r"could not be made \(too wide\); choose another runtime"),
    ],
)
def test_a_deployment_without_a_packed_model_says_why(
    tiny_int8: Deployment, packed: dict[str, str] | None, message: str
) -> None:
    manifest: dict[str, Any] = {**tiny_int8.manifest, "packed": packed}
    if packed is None:
        del manifest["packed"]
    manifest["artefacts"] = {"float.tflite": {}, "int8.tflite": {}}
    with pytest.raises(ModelFileError, match=message):
        replace(tiny_int8, manifest=manifest).embedder("int8", "engine")


def test_the_arena_is_tflm_s(tiny_int8: Deployment) -> None:
    arena_bytes = measure_arena_bytes(tiny_int8.read_model("int8"))
    # The largest maps in memory at the same time: conv2's input and output, 64 x 50 x 4 bytes each.
    assert 2 * 64 * 50 * 4 <= arena_bytes <= 2 * 64 * 50 * 4 + 16_384
    assert arena_bytes == tiny_int8.manifest["arena_bytes"]


def test_native_messages_are_caught_and_python_s_are_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with native_stderr() as messages:
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'native')"], check=True)
        assert messages() == "native"
    sys.stderr.write("python")
    assert "native" not in capfd.readouterr().err


OVERLAPPING = """
import os, sys
from threading import Event, Thread
from edgel3_tflm.runtime.native import native_stderr

def capture(name, entered, may_leave):
    with native_stderr(), native_stderr() as inner:
        os.write(2, name)
        entered.set()
        # If the other thread can enter now, the one that entered first leaves first.
        may_leave.wait(0.2)
        assert inner() == name.decode(), inner()

python_stderr, before = sys.stderr, os.fstat(2)
first_entered, second_entered, first_left = Event(), Event(), Event()
second = Thread(target=capture, args=(b"2", second_entered, first_left))

def capture_first():
    capture(b"1", first_entered, second_entered)
    first_left.set()

first = Thread(target=capture_first)
first.start()
first_entered.wait()
second.start()
first.join()
second.join()
assert sys.stderr is python_stderr
assert os.path.samestat(os.fstat(2), before)
os.write(2, b"native")
sys.stderr.write("python")
"""


def test_native_messages_are_caught_by_several_threads() -> None:
    # In another process, because a failure would redirect standard error for all later tests.
    result = subprocess.run([sys.executable, "-c", OVERLAPPING], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == b"nativepython"


def test_importing_the_package_imports_nothing_slow() -> None:
    program = (
        "import sys, edgel3_tflm, edgel3_tflm.cli.commands, edgel3_tflm.drift.compare;"
        "print(*sorted(set(sys.argv[1:]) & sys.modules.keys()))"
    )
    slow = "tensorflow keras tf_keras sklearn matplotlib pydantic pyarrow distributed"
    slow += " tflite h5py pooch requests elftools soundata http.client urllib.request"
    command = [sys.executable, "-c", program, *slow.split()]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "\n"


@pytest.mark.parametrize(
    "order",
    [
        ["tensorflow", "tflite-runtime", "litert", "tflm", "litert-builtin"],
        ["litert", "tflite-runtime", "tensorflow", "tflm", "reference"],
        ["tflite-runtime", "tensorflow", "litert", "tflite-runtime"],
        ["tflm", "litert", "tensorflow", "tflite-runtime"],
    ],
    ids=" ".join,
)
def test_runtimes_and_tensorflow_can_be_loaded_in_any_order(
    tiny_int8: Deployment, order: list[str]
) -> None:
    order = [name for name in order if name != "tflite-runtime" or HAS_TFLITE_RUNTIME]
    program = (
        "import sys, numpy as np; from pathlib import Path;"
        "from edgel3_tflm.runtime.interpreters import open_interpreter;"
        "from edgel3_tflm.runtime.native import import_tensorflow;"
        "model = Path(sys.argv[1]).read_bytes(); windows = np.zeros((1, 64, 50, 1), np.int8);"
        "[int(import_tensorflow().add(1, 1)) if name == 'tensorflow' else"
        " print(open_interpreter(model, name).run(windows).tolist()) for name in sys.argv[2:]]"
    )
    model = tiny_int8.directory / "int8.tflite"
    done = subprocess.run(
        [sys.executable, "-c", program, str(model), *order],
        check=True,
        capture_output=True,
        text=True,
    )
    # The values of XNNPACK (litert) may differ by a few.
    results = np.array([json.loads(line) for line in done.stdout.splitlines()])
    assert len(results) == len(order) - 1
    assert abs(results - results[0]).max() <= 2


def test_tensorflow_may_be_loaded_first(tiny_weights: Path) -> None:
    program = (
        "import numpy as np, sys;"
        "from edgel3_tflm import get_embedding, load_embedding_model;"
        "model = load_embedding_model("
        "    'sea', 64, 'ft', 95.45, weights=sys.argv[1], runtime='litert');"
        "sound = np.random.default_rng(0).normal(0, 0.1, 16000);"
        "print(model.runtime, get_embedding(sound, 8000, model)[0].tobytes().hex())"
    )
    alone, after_tensorflow = (
        subprocess.run(
            [sys.executable, "-c", before + program, str(tiny_weights)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for before in ("", "import tensorflow;")
    )
    assert after_tensorflow == alone
    assert alone.startswith("litert ")


def test_an_editor_s_checkout_is_not_needed(tmp_path: Path) -> None:
    """The installed package works from an empty directory."""
    program = "import edgel3_tflm.audio.clips as c; assert c.bundled_clips_directory().is_dir()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
