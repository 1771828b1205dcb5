"""Charts as SVG, for print and for browsers without scripts, and as PNG."""

import io
import re
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgel3_tflm.pages.charts import GREY, Chart, Series

_MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "x": "X",
    "cross": "P",
}
_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
_PIXELS_AN_INCH = 96
_WIDTH_INCHES = 5.2
"""Of a chart in print; two are beside each other on A4, so that texts are half as large there."""
# matplotlib writes colours as numbers only. No chart has this one; it becomes the colour of text.
_INK = "#010203"
_MOST_POINTS = 2000


def to_svg(chart: Chart, prefix: str) -> str:
    """Return an SVG element whose texts and lines have the page's colour of text.

    ``prefix`` makes its ids unique in the page.
    """
    text = io.StringIO()
    with mpl.rc_context(_style(_INK)):
        figure = Figure(
            figsize=(_WIDTH_INCHES, chart.height / _PIXELS_AN_INCH), layout="constrained", dpi=150
        )
        _fill(figure.add_subplot(), chart)
        # A fixed salt and no date, so that the same figures give the same page.
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg[svg.index("<svg") :])
    return svg.replace(_INK, "currentColor")


def to_png(charts: tuple[Chart, ...]) -> bytes:
    """Return a PNG image of charts, from left to right."""
    data = io.BytesIO()
    height = max(chart.height for chart in charts) / _PIXELS_AN_INCH
    with mpl.rc_context(_style("#1b2126")):
        figure = Figure(figsize=(8 * len(charts), height), layout="constrained", dpi=110)
        places = figure.subplots(1, len(charts), squeeze=False)[0]
        for axes, chart in zip(places, charts, strict=True):
            _fill(axes, chart)
            axes.set_title(chart.title, fontsize="medium", wrap=True)
        figure.savefig(data, format="png")
    return data.getvalue()


def _style(ink: str) -> Any:
    colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return {
        "svg.hashsalt": "edgel3-tflm",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "text.parse_math": False,
        **dict.fromkeys(colours, ink),
    }


def _fill(axes: Axes, chart: Chart) -> None:
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    if chart.heat is not None:
        image = axes.imshow(
            chart.heat.values,
            origin="lower",
            aspect="auto",
            cmap="cividis",
            vmin=chart.heat.limits[0],
            vmax=chart.heat.limits[1],
            extent=(*chart.heat.x_range, *chart.heat.y_range),
            interpolation="nearest",
        )
        _add_colour_bar(axes, image, chart)
        return
    for series in chart.series:
        _plot(axes, chart, series)
    # matplotlib's own labels of powers are formulas, which texts are not parsed for.
    if chart.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    if chart.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    if chart.horizontal:
        axes.invert_yaxis()
    if chart.line is not None:
        draw = axes.axvline if chart.horizontal else axes.axhline
        draw(chart.line[0], color=GREY, linestyle=":", linewidth=1, label=chart.line[1])
    if chart.legend and (len(chart.series) > 1 or chart.line is not None):
        axes.figure.legend(frameon=False, loc="outside upper left", ncols=3, fontsize="small")


def _add_colour_bar(axes: Axes, image: Any, chart: Chart) -> None:
    bar = axes.figure.colorbar(image, ax=axes, label=chart.colour_label)
    bar.outline.set_visible(False)


def _plot(axes: Axes, chart: Chart, series: Series) -> None:
    values = series.x if chart.horizontal else series.y
    errors: dict[str, Any] = {}
    if series.low:
        apart = np.array([series.low, series.high], float) - np.array(values, float)
        errors["xerr" if chart.horizontal else "yerr"] = np.abs(apart)
    if series.kind == "bars":
        bars = axes.barh if chart.horizontal else axes.bar
        at, lengths = (series.y, series.x) if chart.horizontal else (series.x, series.y)
        bars(at, lengths, 0.6, color=series.colour, label=series.name, **errors)
        return
    if series.shades:
        image = axes.scatter(series.x, series.y, 12, series.shades, cmap="cividis", rasterized=True)
        _add_colour_bar(axes, image, chart)
        return
    steps: Literal["default", "steps-post"] = "steps-post" if series.kind == "steps" else "default"
    axes.errorbar(
        series.x,
        series.y,
        marker="" if series.kind == "steps" else _MARKERS[series.marker],
        linestyle="" if series.kind == "points" else _DASHES[series.dash],
        drawstyle=steps,
        color=series.colour,
        markersize=4,
        capsize=3,
        label=series.name,
        rasterized=len(series.x) > _MOST_POINTS,
        **errors,
    )
