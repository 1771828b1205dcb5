"""Synthetic sound clips that calibrate int8 activation ranges, and the script that makes them."""
