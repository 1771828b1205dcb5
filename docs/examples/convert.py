"""Convert the 99 % network for a microcontroller."""

from edgel3_tflm import convert

deployment = convert("edgel3", sparsity=99)
print(deployment.directory, deployment.manifest["packed"]["bytes"], "bytes")
