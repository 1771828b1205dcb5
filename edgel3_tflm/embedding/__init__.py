"""Embeddings of arrays, files and corpora, by edgel3's functions."""
