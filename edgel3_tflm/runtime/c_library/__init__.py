"""The C library edgel3, built for this machine, and the modelled cycles of its loops on a board."""
