"""A drift report as JSON and as one standalone HTML page. Needs the extra ``report``."""

import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np

from edgel3_tflm._version import __version__
from edgel3_tflm.drift import DriftReport
from edgel3_tflm.errors import RuntimeUnavailableError
from edgel3_tflm.files import new_directory
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.weights import SUBSTITUTE_KINDS

try:
    import matplotlib as mpl
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure
except ImportError as error:
    raise RuntimeUnavailableError(
        f"reports need the package {error.name}, which is not installed;"
        " pip install 'edgel3-tflm[report]'"
    ) from error

JSON_NAME = "drift.json"
HTML_NAME = "drift.html"

_FLOAT_COLOUR, _QUANTIZED_COLOUR = "#5b6770", "#c2410c"
_SCATTER_POINTS = 4000


def write_report(report: DriftReport, directory: Path) -> None:
    """Write ``drift.json`` and ``drift.html`` to a directory of their own.

    Raises
    ------
    EdgeL3Error
        If the directory holds other files or cannot be written.
    """
    figures = json.dumps(report.to_json(), indent=2) + "\n"
    page = render_html(report)
    with new_directory(directory, marker=JSON_NAME) as new:
        (new / JSON_NAME).write_text(figures, encoding="utf-8")
        (new / HTML_NAME).write_text(page, encoding="utf-8")


def render_html(report: DriftReport) -> str:
    """One page without outside references: figures are SVG inside it."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["db"] = lambda value: f"{value:.2f}" if np.isfinite(value) else "no drift"
    template = environment.from_string(
        files("edgel3_tflm").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        report=report,
        manifest=report.deployment.manifest,
        version=__version__,
        substitute_kinds=SUBSTITUTE_KINDS,
        worst_first=sorted(report.clips, key=lambda drift: drift.figures.cosine_worst),
        plots=[
            (title, Markup(_to_svg(figure)))  # noqa: S704 - drawn here, from numbers alone
            for title, figure in (
                ("Share of windows below a cosine similarity", _plot_cosine(report)),
                ("Drift of each clip, sorted", _plot_clips(report)),
                ("Error of single embedding values", _plot_errors(report)),
            )
        ],
    )


def _to_svg(figure: Figure) -> str:
    text = io.StringIO()
    # Fixed salt and no date: the same figures give the same page.
    with mpl.rc_context({"svg.hashsalt": "edgel3-tflm", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _new_figure() -> Figure:
    return Figure(figsize=(5.2, 3.4), layout="constrained", dpi=150)


def _plot_cosine(report: DriftReport) -> Figure:
    cosine = np.sort(cosine_similarity(report.float_embeddings, report.quantized_embeddings))
    figure = _new_figure()
    axes = figure.add_subplot()
    axes.step(
        cosine, np.arange(1, len(cosine) + 1) / len(cosine), where="post", color=_QUANTIZED_COLOUR
    )
    axes.axhline(0.05, color=_FLOAT_COLOUR, linestyle=":", linewidth=1)
    axes.annotate(
        "5 %", (cosine[0], 0.05), textcoords="offset points", xytext=(0, 4), color=_FLOAT_COLOUR
    )
    axes.set(
        xlabel="cosine similarity of a window, float to quantized",
        ylabel="share of windows",
        ylim=(0, 1.02),
    )
    return figure


def _plot_clips(report: DriftReport) -> Figure:
    ordered = sorted(report.clips, key=lambda drift: drift.figures.cosine_mean)
    rank = np.arange(1, len(ordered) + 1)
    figure = _new_figure()
    axes = figure.add_subplot()
    axes.plot(
        rank,
        [d.figures.cosine_mean for d in ordered],
        ".",
        color=_FLOAT_COLOUR,
        label="mean of the clip's windows",
    )
    axes.plot(
        rank,
        [d.figures.cosine_worst for d in ordered],
        ".",
        color=_QUANTIZED_COLOUR,
        label="worst window",
    )
    axes.set(xlabel="clip, by mean", ylabel="cosine similarity")
    axes.legend(frameon=False)
    return figure


def _plot_errors(report: DriftReport) -> Figure:
    reference = report.float_embeddings.ravel()
    step = -(-len(reference) // _SCATTER_POINTS)
    error = (report.quantized_embeddings.ravel() - reference)[::step]
    figure = _new_figure()
    axes = figure.add_subplot()
    axes.plot(reference[::step], error, ".", markersize=2, color=_QUANTIZED_COLOUR, rasterized=True)
    axes.axhline(0, color=_FLOAT_COLOUR, linewidth=1)
    axes.set(xlabel="float value", ylabel="quantized - float")
    return figure
