"""The command ``fit``: the best network of the family within the limits of a board."""
