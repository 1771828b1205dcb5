"""Runs the command line as ``python -m edgel3_tflm``."""

from edgel3_tflm.cli.commands import main

main()
