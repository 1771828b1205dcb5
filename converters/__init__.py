"""The conversion of networks: train, prune, quantize, export. This needs the extra ``convert``."""
