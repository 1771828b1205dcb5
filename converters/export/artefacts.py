"""The files of a quantized model: flatbuffers, the packed model, and C arrays of both."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgel3_tflm.converters.export import c_array
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.export.packed_flatbuffer import wrap_packed
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.runtime.arena import describe_packed
from edgel3_tflm.runtime.artefacts import (
    PACKED_FLATBUFFER_NAME,
    PACKED_MODEL_NAME,
    quantized_model_name,
)
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.types import Progress


def export_model(
    model: bytes,
    variant: Variant,
    input_map: InputMap,
    *,
    quantization: str,
    description: str,
    arena_bytes: int | None,
    progress: Progress,
) -> tuple[dict[str, bytes], dict[str, Any] | None]:
    """Make every file of a quantized model: flatbuffers, packed model, C arrays and headers.

    Parameters
    ----------
    model : bytes
        The quantized flatbuffer.
    variant : Variant
    input_map : InputMap
    quantization : {'int8', 'int16x8'}
        Only int8 has a packed model and frontend tables.
    description : str
        Written into the packed flatbuffer and into the comment at the top of the C files.
    arena_bytes : int, optional
        Arena of TFLM for the flatbuffer; None if it was not measured.
    progress : callable

    Returns
    -------
    artefacts : dict
        Contents of the files by their names.
    packed : dict or None
        The packed model's description for the manifest. Its only key is ``refused`` if the packed
        model cannot represent the weights; None if the quantization has no packed model.
    """
    interpreter = open_interpreter(model)
    progress("write files", 0, 0)
    banner = c_array.write_banner(model, variant, description)
    constants = c_array.write_constants(variant, input_map, interpreter.input, interpreter.output)
    header = c_array.write_header(
        banner, constants, model_bytes=len(model), arena_bytes=arena_bytes
    )
    artefacts = {
        quantized_model_name(quantization): model,
        c_array.SOURCE_NAME: c_array.write_source(model, banner).encode(),
        c_array.HEADER_NAME: header.encode(),
    }
    if quantization != "int8":
        return artefacts, None
    frontend_source = c_array.write_frontend_source(
        variant.frontend, input_map, interpreter.input, banner
    )
    frontend_header = c_array.write_frontend_header(variant.frontend, banner)
    artefacts[c_array.FRONTEND_SOURCE_NAME] = frontend_source.encode()
    artefacts[c_array.FRONTEND_HEADER_NAME] = frontend_header.encode()
    try:
        blob = pack(model)
    except ModelFileError as error:
        # The packed model cannot represent these weights. The dense files can be used all the same.
        return artefacts, {"refused": str(error)}
    progress("self-test of the device", 0, 0)
    crc = _compute_self_test_crc32(model)
    described = describe_packed(blob)
    artefacts |= _export_packed(blob, described, variant, description, constants, crc)
    return artefacts, described


def _export_packed(
    blob: bytes,
    described: Mapping[str, Any],
    variant: Variant,
    description: str,
    constants: str,
    self_test_crc32: int,
) -> dict[str, bytes]:
    """Make the files of a packed model: itself, a flatbuffer of one custom operator, and C."""
    banner = c_array.write_banner(blob, variant, description)
    header = c_array.write_packed_header(
        banner,
        constants,
        blob_bytes=len(blob),
        arena_bytes=described["arena_bytes"],
        fast_arena_bytes=described["fast_arena_bytes"],
        self_test_crc32=self_test_crc32,
    )
    return {
        PACKED_MODEL_NAME: blob,
        PACKED_FLATBUFFER_NAME: wrap_packed(blob, description),
        c_array.PACKED_SOURCE_NAME: c_array.write_packed_source(blob, banner).encode(),
        c_array.PACKED_HEADER_NAME: header.encode(),
    }


def _compute_self_test_crc32(model: bytes) -> int:
    """Compute the CRC-32 of the reference's embedding of the window that the self-test runs.

    The C function ``edgel3_node_self_test_value`` makes the same window on the device.
    """
    interpreter = open_interpreter(model, "reference")
    shape = interpreter.input.shape
    numbers = np.arange(np.prod(shape), dtype=np.uint32)
    values = (numbers * np.uint32(2654435761) >> np.uint32(24)).astype(np.uint8).view(np.int8)
    return zlib.crc32(interpreter.run(values.reshape(shape)).tobytes())
