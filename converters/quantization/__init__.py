"""Quantization of float weights to int8: calibration, ranges, rounding, and the search."""
