"""A packed model inside a flatbuffer of one custom operator, for TFLite Micro."""

import tflite

from edgel3_tflm.converters.export.flatbuffer_writer import (
    WrittenOperator,
    WrittenTensor,
    write_flatbuffer,
)
from edgel3_tflm.runtime.packed import CUSTOM_CODE, read_packed


def wrap_packed(blob: bytes, description: str) -> bytes:
    """Write the flatbuffer: int8 log-mel in, the packed model as a constant, int8 embedding out.

    Input and output have the shape and quantization of the dense flatbuffer's.

    Parameters
    ----------
    blob : bytes
        The packed model; it begins at a multiple of 16 bytes from the start of the file.
    description : str
        What the flatbuffer says about itself.

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
