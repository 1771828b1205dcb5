"""Flatbuffers that TensorFlow Lite's converter makes of a network: float and quantized."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.runtime.native import native_stderr
from edgel3_tflm.types import FloatArray


def _converter(network: Any) -> Any:
    tf = load_backend().tf

    def embed(log_mel: Any) -> Any:
        return network(log_mel, training=False)

    spec = tf.TensorSpec(network.input_shape, tf.float32, name="log_mel")
    function = tf.function(embed).get_concrete_function(spec)
    return tf.lite.TFLiteConverter.from_concrete_functions([function], network)


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide the messages and warnings of the converter."""
    with native_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_float(network: Any) -> bytes:
    """Make the float flatbuffer of a network, with BatchNorms folded into the convolutions."""
    with _quietly():
        return bytes(_converter(network).convert())


def to_quantized(
    network: Any, quantization: str, inputs: Callable[[], Iterator[FloatArray]]
) -> bytes:
    """Make the quantized flatbuffer of a network, with TensorFlow Lite's own quantization.

    Weights are int8 with a scale for each output channel. Input and output are quantized as well.

    Parameters
    ----------
    network : tf_keras.Model
    quantization : {'int8', 'int16x8'}
        int16x8 has int16 activations and int8 weights.
    inputs : callable
        Returns the calibration inputs, each of shape (1, mels, frames, 1), float32. They are
        inputs of the network, after the input BatchNorm.

    Raises
    ------
    EdgeL3Error
        If TensorFlow Lite cannot quantize the network with builtin operators alone.
    """
    tf = load_backend().tf
    converter = _converter(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([window] for window in inputs())
    if quantization == "int8":
        operators, dtype = tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8
    else:
        operators = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        dtype = tf.int16
    converter.target_spec.supported_ops = [operators]
    converter.inference_input_type = converter.inference_output_type = dtype
    with _quietly():
        try:
            return bytes(converter.convert())
        except (RuntimeError, ValueError) as error:
            raise EdgeL3Error(
                f"TensorFlow Lite cannot quantize this network to {quantization}:"
                f" {str(error).splitlines()[0]}"
            ) from error
