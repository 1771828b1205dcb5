"""The pipeline that makes a deployment: prune, quantize, export. Needs the extra ``convert``."""
