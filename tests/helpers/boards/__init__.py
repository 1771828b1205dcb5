"""Nodes, ports and builds that several tests share."""
