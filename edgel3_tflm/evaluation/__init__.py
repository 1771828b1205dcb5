"""Classifiers on embeddings: linear probes and the published evaluation protocol."""
