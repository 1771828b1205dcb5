"""Embed a file: one row for each window."""

from edgel3_tflm import embed_file

embeddings = embed_file("recordings/street.flac", hop_s=0.5)
print(embeddings.values.shape, embeddings.times_s[:3])
