"""Studies of compression: sensitivity of layers, plans for a target size, published networks."""
