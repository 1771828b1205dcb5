"""Accuracy drift: how much quantized embeddings differ from those of the float model."""
