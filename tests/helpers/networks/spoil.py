"""Deployments with a damaged quantized model, which checks must detect."""

import hashlib
import json
import shutil
from pathlib import Path

import tflite

from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.artefacts import PACKED_MODEL_NAME
from edgel3_tflm.runtime.deployment import Deployment


def double_kernel_scales(model: bytes, convolution: int) -> bytes:
    """Double the scales of the kernel of one convolution; the first is number 1."""
    return _scale(model, convolution, 1)


def double_output_scale(model: bytes, convolution: int) -> bytes:
    """Double the scale of the output of one convolution; the pool after it keeps its scale."""
    return _scale(model, convolution, None)


def _scale(model: bytes, convolution: int, which_input: int | None) -> bytes:
    spoilt = bytearray(model)
    root = tflite.Model.GetRootAsModel(spoilt, 0)
    graph = root.Subgraphs(0)
    convolutions = [
        operation
        for operation in map(graph.Operators, range(graph.OperatorsLength()))
        if root.OperatorCodes(operation.OpcodeIndex()).BuiltinCode()
        == tflite.BuiltinOperator.CONV_2D
    ]
    operation = convolutions[convolution - 1]
    tensor = operation.Outputs(0) if which_input is None else operation.Inputs(which_input)
    graph.Tensors(tensor).Quantization().ScaleAsNumpy()[:] *= 2  # a view of the bytes
    assert spoilt != model
    return bytes(spoilt)


def with_quantized_model(deployment: Deployment, model: bytes, directory: Path) -> Deployment:
    """Copy a deployment with another quantized flatbuffer, packed too if that is possible."""
    shutil.copytree(deployment.directory, directory)
    manifest = json.loads((directory / "manifest.json").read_text())
    models = {f"{deployment.quantization}.tflite": model}
    try:
        models[PACKED_MODEL_NAME] = pack(model)
    except ModelFileError:
        del manifest["artefacts"][PACKED_MODEL_NAME]
    for name, data in models.items():
        (directory / name).write_bytes(data)
        manifest["artefacts"][name] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return Deployment.load(directory)
