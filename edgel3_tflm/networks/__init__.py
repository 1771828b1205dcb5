"""The networks of the EdgeL3 family: their shapes, their weights, and the published results."""
