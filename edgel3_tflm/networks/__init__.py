"""The networks of the EdgeL3 family: their shapes, their weights, and what was published of them."""
