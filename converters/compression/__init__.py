"""Studies of compression: sensitivity of layers, plans within a budget, the published networks."""
