"""The command line; edgel3's scripts import these names from its module ``cli``."""

from edgel3_tflm.cli.commands import main
from edgel3_tflm.cli.edgel3 import get_file_list, parse_args, positive_float, positive_int, run

__all__ = ["get_file_list", "main", "parse_args", "positive_float", "positive_int", "run"]
