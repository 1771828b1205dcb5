"""Weights that ship with this package and stand for the published ones; see MODEL_CARD.md."""
