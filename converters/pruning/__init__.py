"""Pruning of weights to a plan, plan files, and networks with fewer layers or filters."""
