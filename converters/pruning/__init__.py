"""Pruning weights to a plan, and cutting networks."""
