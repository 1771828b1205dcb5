"""Boards, nodes and the wire between a node and this computer."""
