"""Charts for plotly.js, as the data that its script draws."""

from html import escape
from textwrap import wrap
from typing import Any

import numpy as np

from edgel3_tflm.pages.charts import Chart, Series, Values

_SIGNIFICANT = 5
_LINE = 36
"""Characters of an axis' label that a phone shows on one line."""


def to_plotly(chart: Chart) -> dict[str, Any]:
    """Return data and layout of a chart.

    plotly.js reads a few HTML tags in texts. All texts are escaped, because names come from
    outside. Colours of texts and lines are those of the page, which its script sets.
    """
    data = [_heat(chart)] if chart.heat else [_trace(chart, series) for series in chart.series]
    layout: dict[str, Any] = {
        "height": chart.height,
        "margin": {"l": 60, "r": 16, "t": 12, "b": 48},
        "hovermode": "closest",
        "showlegend": chart.legend and len(chart.series) > 1,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": _axis(chart.x_label, log=chart.log_x),
        "yaxis": _axis(chart.y_label, log=chart.log_y),
        "barmode": "overlay",
    }
    if chart.horizontal:
        layout["yaxis"]["autorange"] = "reversed"
    if chart.line is not None:
        at, label = chart.line
        across = {"x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper"}
        if not chart.horizontal:
            across = {"y0": at, "y1": at, "x0": 0, "x1": 1, "xref": "paper"}
        layout["shapes"] = [{"type": "line", "line": {"dash": "dot", "width": 1}, **across}]
        where = {"x": at, "y": 1, "yref": "paper", "yanchor": "top", "xanchor": "left"}
        if not chart.horizontal:
            log_at = float(np.log10(at)) if chart.log_y else at
            where = {"y": log_at, "x": 1, "xref": "paper", "xanchor": "right", "yanchor": "bottom"}
        elif chart.log_x:
            where["x"] = float(np.log10(at))
        layout["annotations"] = [{"text": escape(label), "showarrow": False, **where}]
    return {"data": data, "layout": layout}


def _axis(label: str, *, log: bool) -> dict[str, Any]:
    text = "<br>".join(map(escape, wrap(label, _LINE)))
    axis: dict[str, Any] = {"title": {"text": text}, "automargin": True, "zeroline": False}
    if log:
        axis |= {"type": "log", "dtick": 1, "exponentformat": "power"}
    return axis


def _plain(values: Values) -> list[float | str | None]:
    return [
        escape(each)
        if isinstance(each, str)
        else float(f"{each:.{_SIGNIFICANT}g}")
        if np.isfinite(each)
        else None
        for each in values
    ]


def _trace(chart: Chart, series: Series) -> dict[str, Any]:
    values = series.x if chart.horizontal else series.y
    axis = "x" if chart.horizontal else "y"
    trace: dict[str, Any] = {
        "name": escape(series.name),
        "x": _plain(series.x),
        "y": _plain(series.y),
        "type": "scatter",
    }
    hover = "%{x}<br>%{y}"
    if series.hover:
        trace["customdata"] = [escape(each) for each in series.hover]
        hover = "%{customdata}<br>" + hover
    trace["hovertemplate"] = f"{hover}<extra>{escape(series.name)}</extra>"
    if series.low:
        at = np.array(values, np.float64)
        trace[f"error_{axis}"] = {
            "type": "data",
            "symmetric": False,
            "array": _plain((np.array(series.high) - at).tolist()),
            "arrayminus": _plain((at - np.array(series.low)).tolist()),
            "thickness": 1.5,
            "color": series.colour,
        }
    if series.kind == "bars":
        trace |= {
            "type": "bar",
            "orientation": "h" if chart.horizontal else "v",
            "marker": {"color": series.colour},
        }
        return trace
    shape = "hv" if series.kind == "steps" else "linear"
    trace |= {
        "mode": {"points": "markers", "line": "lines+markers", "steps": "lines"}[series.kind],
        "line": {"color": series.colour, "dash": series.dash, "shape": shape, "width": 2},
        "marker": {"color": series.colour, "symbol": series.marker, "size": 7},
    }
    if series.shades:
        trace["marker"] |= {
            "color": _plain(series.shades),
            "colorscale": "Cividis",
            "colorbar": {"title": {"text": escape(chart.colour_label), "side": "right"}},
        }
    return trace


def _heat(chart: Chart) -> dict[str, Any]:
    heat = chart.heat
    assert heat is not None  # noqa: S101 - narrows for the type checker
    rows, columns = heat.values.shape

    def middles(ends: tuple[float, float], count: int) -> list[float | str | None]:
        edges = np.linspace(*ends, count + 1)
        return _plain(((edges[1:] + edges[:-1]) / 2).tolist())

    return {
        "type": "heatmap",
        "x": middles(heat.x_range, columns),
        "y": middles(heat.y_range, rows),
        "z": np.round(heat.values.astype(np.float64), 1).tolist(),
        "zmin": heat.limits[0],
        "zmax": heat.limits[1],
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": escape(chart.colour_label), "side": "right"}},
        "hovertemplate": "%{x}<br>%{y}<br>%{z}<extra></extra>",
    }
