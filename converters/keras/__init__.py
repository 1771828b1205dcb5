"""The networks in Keras, and weights drawn for them."""
