"""The functions and classes that the package exports, over the rooms that do the work."""
