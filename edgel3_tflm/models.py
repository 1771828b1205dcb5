"""The names of ``edgel3.models``: loading a network."""

from edgel3_tflm.embedding.loading import load_embedding_model, load_embedding_model_path

__all__ = ["load_embedding_model", "load_embedding_model_path"]
