"""The networks in Keras, and random weights for them."""
