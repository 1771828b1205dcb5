"""Weights that ship with this package and replace published ones. See MODEL_CARD.md."""
