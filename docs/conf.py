"""Sphinx configuration: ``make docs`` builds the site and runs the tutorials."""

import os
import shutil
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

from edgel3_tflm import __version__

project = "edgel3-tflm"
author = "The edgel3-tflm developers"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["examples"]
html_theme = "furo"
html_title = f"edgel3-tflm {__version__}"
html_show_sphinx = False
smartquotes = False  # they would turn the two hyphens of an option into a dash

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress, and the notice about the stand-in
# The board of this tutorial is an emulated one.
if not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")):
    nb_execution_excludepatterns = ["tutorials/classifier_on_a_board.md"]
    suppress_warnings = ["myst-nb.lexer"]  # only a kernel tells the language of a page

# The commands that tutorials run write no colours, although the kernel asks for them, and draw into
# files.
os.environ["TTY_COMPATIBLE"] = "0"
os.environ["MPLBACKEND"] = "agg"
# The tutorials read clips from here.
os.environ["CLIPS"] = str(Path(__file__).parents[1] / "calibration_data" / "clips")


def setup(app: Any) -> None:
    """Show diagrams that GitHub draws as their text: drawing them needs a network."""
    app.add_lexer("mermaid", TextLexer)
