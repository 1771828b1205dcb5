"""Synthetic sound clips that calibrate int8 activation ranges."""
