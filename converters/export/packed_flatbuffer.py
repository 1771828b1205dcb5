"""Wraps a packed model in a flatbuffer of one custom operator, for TensorFlow Lite Micro."""

import tflite

from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
    write_flatbuffer,
)
from edgel3_tflm.runtime.packed import CUSTOM_CODE, read_packed


def wrap_packed(blob: bytes, description: str) -> bytes:
    """Return a flatbuffer with one custom operator: int8 log-mel and packed model to embedding.

    Input and output have the shapes and the quantization of the dense flatbuffer. The packed model
    is a constant, which begins at a multiple of 16 bytes from the start of the flatbuffer.

    Parameters
    ----------
    blob : bytes
        The packed model.
    description : str
        Description of the flatbuffer.

    Raises
    ------
    ModelFileError
        If the packed model is damaged.
    """
    model = read_packed(blob)
    tensors = (
        WrittenTensor(
            "log_mel",
            tflite.TensorType.INT8,
            (1, model.rows, model.columns, 1),
            (model.input_scale,),
            (model.input_zero_point,),
        ),
        WrittenTensor("packed_model", tflite.TensorType.UINT8, (len(blob),), data=blob),
        WrittenTensor(
            "embedding",
            tflite.TensorType.INT8,
            (1, model.embedding_size),
            (model.output_scale,),
            (model.output_zero_point,),
        ),
    )
    operator = WrittenOperator(
        tflite.BuiltinOperator.CUSTOM, inputs=(0, 1), outputs=(2,), custom_code=CUSTOM_CODE
    )
    return write_flatbuffer(tensors, [operator], inputs=[0], outputs=[2], description=description)
