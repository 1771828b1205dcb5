"""Embed a folder: a matrix with one row for each recording."""

from edgel3_tflm import embed_folder

names, matrix = embed_folder("recordings", hop_s=1).mean_by_clip()
print(names[0], matrix.shape)
