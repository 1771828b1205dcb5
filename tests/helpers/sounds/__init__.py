"""Sounds and videos that several tests share."""
