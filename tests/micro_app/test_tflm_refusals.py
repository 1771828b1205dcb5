"""Flatbuffers that the custom operator refuses."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tflite
from helpers.boards.tflm import OPERATOR, Interpreter, compile_for_host, compile_to, run_engine
from helpers.networks.engine_networks import changed, seal

from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
    write_flatbuffer,
)
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.c_library.engine import arena_bytes
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import RUNTIMES, open_interpreter
from edgel3_tflm.runtime.packed import CUSTOM_CODE, read_packed


def wrap(
    blob: bytes,
    *,
    like: bytes | None = None,
    model_type: int = tflite.TensorType.UINT8,
    constant: bool = True,
    second_output: bool = False,
    **changes: WrittenTensor,
) -> bytes:
    """Return the flatbuffer of ``wrap_packed`` with some changes."""
    model = read_packed(like or blob)
    window = WrittenTensor(
        "window",
        tflite.TensorType.INT8,
        (1, model.rows, model.columns, 1),
        (model.input_scale,),
        (model.input_zero_point,),
    )
    embedding = WrittenTensor(
        "embedding",
        tflite.TensorType.INT8,
        (1, model.embedding_size),
        (model.output_scale,),
        (model.output_zero_point,),
    )
    tensors = [
        changes.get("window", window),
        WrittenTensor("model", model_type, (len(blob),), data=blob if constant else None),
        changes.get("embedding", embedding),
    ]
    inputs, outputs = ([0] if constant else [0, 1]), [2]
    if second_output:
        tensors.append(embedding)
        outputs.append(3)
    operator = WrittenOperator(
        tflite.BuiltinOperator.CUSTOM, (0, 1), tuple(outputs), custom_code=CUSTOM_CODE
    )
    return write_flatbuffer(
        tensors, [operator], inputs=inputs, outputs=outputs, description="a test"
    )


def test_the_flatbuffer_that_is_spoiled_below_runs_when_it_is_not(
    interpreter: Interpreter, blob: bytes
) -> None:
    windows = np.random.default_rng(2).integers(-128, 128, (2, 13, 11, 1)).astype(np.int8)
    (found,) = interpreter.run(windows, wrap(blob))
    np.testing.assert_array_equal(found, run_engine(blob, windows))


def test_spoiled_models_are_refused_with_the_engine_s_reason(
    interpreter: Interpreter, blob: bytes
) -> None:
    cases = {
        "the packed model is damaged: its checksum differs": changed(blob, 70, blob[70] ^ 1),
        "the bytes are not a packed model": b"TFL3" + blob[4:],
        "the packed model has another version of the format": changed(blob, 4, 2),
        "the packed model is truncated: fewer bytes than its header says": blob[:-1],
        "a field of the packed model is inconsistent or out of range": seal(
            changed(blob, 64 + 9, 3)
        ),
    }
    lines = interpreter.refuse(*(wrap(spoiled, like=blob) for spoiled in cases.values()))
    assert lines == [[f"the engine refuses its model: {reason}"] for reason in cases]


def test_tensors_that_are_not_the_packed_model_s_are_refused(
    interpreter: Interpreter, blob: bytes
) -> None:
    model = read_packed(blob)
    int8, int16 = tflite.TensorType.INT8, tflite.TensorType.INT16
    scale, zero_point = (model.input_scale,), (model.input_zero_point,)
    shape = (1, model.rows, model.columns, 1)
    next_scale = (float(np.nextafter(np.float32(scale[0]), np.float32(1))),)
    output = ((model.output_scale,), (model.output_zero_point,))
    shapes = [(1, 13, 12, 1), (1, 11, 13, 1), (2, 13, 11, 1), (1, 13, 11), (143,), (1, 13, 11, 2)]
    cases = [
        *(
            (
                "expected an int8 input of shape [1, 13, 11, 1]; convert again",
                wrap(blob, window=WrittenTensor("window", kind, other, scale, zero_point)),
            )
            for kind, other in [(int16, shape), *((int8, other) for other in shapes)]
        ),
        *(
            (
                "expected an int8 output of shape [1, 10]; convert again",
                wrap(blob, embedding=WrittenTensor("embedding", kind, other, *output)),
            )
            for kind, other in [(int16, (1, 10)), (int8, (1, 9)), (int8, (1, 11)), (int8, (10,))]
        ),
        *(
            (
                "the input is not quantized as the packed model's; convert again",
                wrap(blob, window=WrittenTensor("window", int8, shape, *other)),
            )
            for other in [
                (next_scale, zero_point),
                (scale, (zero_point[0] - 1,)),
                (scale, (zero_point[0] + 256,)),
                ((), ()),
            ]
        ),
        (
            "the output is not quantized as the packed model's; convert again",
            wrap(
                blob,
                embedding=WrittenTensor(
                    "embedding", int8, (1, 10), output[0], (model.output_zero_point + 1,)
                ),
            ),
        ),
        *(
            ("expected the packed model as a uint8 constant; convert again", other)
            for other in (wrap(blob, model_type=int8), wrap(blob, constant=False))
        ),
        (
            "expected 2 inputs and 1 output, found 2 and 2; convert again",
            wrap(blob, second_output=True),
        ),
    ]
    assert interpreter.refuse(*(flatbuffer for _, flatbuffer in cases)) == [
        [line] for line, _ in cases
    ]


def test_a_misaligned_model_is_refused(interpreter: Interpreter, blob: bytes) -> None:
    flatbuffer = wrap(blob)
    root = struct.unpack_from("<I", flatbuffer)[0]
    # Only the root's offset counts from the start of the file.
    moved = struct.pack("<I", root + 2) + flatbuffer[4:8] + bytes(2) + flatbuffer[8:]
    assert interpreter.refuse(moved) == [
        ["the packed model is not aligned to 4 bytes; align the flatbuffer to 16"]
    ]


def test_an_arena_that_is_too_small_says_what_the_engine_needs(
    interpreter: Interpreter, blob: bytes
) -> None:
    needed = arena_bytes(blob)
    for size in (needed + 200, needed // 2):
        ((line,),) = interpreter.refuse(wrap(blob), arena=size)
        assert line == f"the engine needs {needed} bytes of the tensor arena; enlarge it"


def test_another_layout_than_tflm_s_library_has_says_so(
    library: Path, upstream_headers: Path, tmp_path: Path, blob: bytes
) -> None:
    """Compiled without the macro that TFLM's own build defines."""
    others = sorted(
        path for path in library.parent.glob("*.o") if not path.match(OPERATOR.name + "*")
    )
    compile_for_host(OPERATOR, tmp_path / "operator.o", [], upstream_headers)
    compile_to(tmp_path / "operator.so", ["g++", "-shared", tmp_path / "operator.o", *others])
    folder = tmp_path / "models"
    folder.mkdir()
    ((line,),) = Interpreter(tmp_path / "operator.so", folder).refuse(wrap(blob))
    assert "TF_LITE_STATIC_MEMORY is not defined as for TFLM's library" in line


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ordinary_runtimes_refuse_the_flatbuffer_in_one_line(
    tiny_int8: Deployment, runtime: str
) -> None:
    packed = (tiny_int8.directory / "int8_packed.tflite").read_bytes()
    reason = {
        "tflm": "Failed to get registration from op code CUSTOM",
        "engine": r"not a packed model; give it the packed\.edgel3 of a deployment",
    }.get(runtime, "unresolved custom op: EDGEL3")
    with pytest.raises(ModelFileError, match=rf"refuses[^\n]*{reason}[^\n]*\Z"):
        open_interpreter(packed, runtime)
