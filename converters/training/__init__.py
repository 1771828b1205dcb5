"""Retraining: distillation, audio-visual correspondence, and their recipes."""
