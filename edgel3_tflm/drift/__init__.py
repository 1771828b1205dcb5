"""Accuracy drift: how far a quantized model's embeddings lie from the float model's."""
