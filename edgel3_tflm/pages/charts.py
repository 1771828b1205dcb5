"""Charts as data. :mod:`.interactive` and :mod:`.static` draw them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgel3_tflm.types import RealArray

# The colours of Okabe and Ito, which people with colour blindness can tell apart.
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, AMBER, SKY, GREY = "#cc79a7", "#e69f00", "#56b4e9", "#7a7f85"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY)
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
"""Each series of a chart has its own marker, so that it can be told apart in print."""

Values = Sequence[float] | Sequence[str]


@dataclass(frozen=True)
class Series:
    """Points, a line, steps or bars.

    Parameters
    ----------
    name : str
        Name in the legend.
    x, y : sequence of float or of str
        Names are categories.
    kind : {'points', 'line', 'steps', 'bars'}
        A line has markers, steps have none.
    colour, marker : str
    dash : {'solid', 'dash', 'dot'}
    low, high : sequence of float
        Ends of error bars, along the axis of the values; empty for none.
    hover : sequence of str
        A text for each point; empty for the values alone.
    shades : sequence of float
        A value for each point, which its colour shows; empty for ``colour``.
    """

    name: str
    x: Values
    y: Values
    kind: Literal["points", "line", "steps", "bars"] = "points"
    colour: str = BLUE
    marker: str = "circle"
    dash: Literal["solid", "dash", "dot"] = "solid"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    hover: Sequence[str] = ()
    shades: Sequence[float] = ()


@dataclass(frozen=True)
class Heat:
    """An image: values of shape (rows, columns), the lowest row first."""

    values: RealArray
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    limits: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """A figure of a report.

    Parameters
    ----------
    title : str
        Says what the figure shows, as a finding.
    x_label, y_label : str
        With the unit. The label of an axis of names is ''.
    series : tuple of Series
    heat : Heat, optional
        Drawn instead of series.
    horizontal : bool
        The categories are on the y axis, and the values on the x axis.
    log_x, log_y : bool
    line : tuple of float and str, optional
        A reference line across the axis of the values, and its label.
    colour_label : str
        Label of the colour bar, for ``heat`` and ``Series.shades``.
    height : int
        In pixels.
    legend : bool
        Whether there is a legend; not needed if the categories name the series.
    note : str
        A sentence that explains the figure.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...] = ()
    heat: Heat | None = None
    horizontal: bool = False
    log_x: bool = False
    log_y: bool = False
    line: tuple[float, str] | None = None
    colour_label: str = ""
    height: int = 320
    legend: bool = True
    note: str = ""
