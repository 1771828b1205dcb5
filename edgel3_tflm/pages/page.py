"""The page of a report: one HTML file with style, script, charts and tables.

Each report has a template of its own for the body. It calls :meth:`Page.section`, :meth:`Page.draw`
and :meth:`Page.tabulate`; the page around it is the same for all.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from edgel3_tflm._version import __version__
from edgel3_tflm.errors import RuntimeUnavailableError, install_hint
from edgel3_tflm.pages.charts import Chart

try:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    from edgel3_tflm.pages.interactive import to_plotly
    from edgel3_tflm.pages.static import to_svg
except ImportError as error:
    raise RuntimeUnavailableError(
        f"reports need the package {error.name}, which is not installed; {install_hint('report')}"
    ) from error

_HERE = "edgel3_tflm.pages"


@dataclass(frozen=True)
class Cell:
    """A number in a table: its text, and the value that the table is sorted by.

    ``tone`` is 'better', 'worse' or '' for no colour.
    """

    text: str
    value: float
    tone: str = ""

    @property
    def key(self) -> str:
        """The value as the page's script reads it; empty for NaN."""
        return "" if math.isnan(self.value) else repr(float(self.value)).replace("inf", "Infinity")


@dataclass(frozen=True)
class Column:
    """A column of a table; ``meaning`` explains it below the table."""

    title: str
    meaning: str = ""


def write_value(value: float | None, name: str = "") -> str:
    """Format a figure for a table; the metric's name decides the digits."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "no drift" if value > 0 else "no signal"
    if "cosine" in name:
        return f"{value:.4f}"
    if name == "linear_cka":
        return f"{value:.5f}"
    if name.endswith("_db"):
        return f"{round(value, 2) + 0.0:.2f}"  # never -0.00
    if name.endswith("bytes"):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def number(value: float | None, name: str = "", tone: str = "") -> Cell:
    """Return a cell for a figure."""
    return Cell(write_value(value, name), math.nan if value is None else value, tone)


class Page:
    """Collects the sections and charts of a page while its body is rendered."""

    def __init__(self, environment: Environment) -> None:
        self.sections: list[tuple[str, str]] = []
        self.charts: list[dict[str, Any]] = []
        self._blocks = environment.from_string(_read("blocks.html.j2")).module

    def section(self, title: str) -> Markup:
        """Return the heading of a section, which the table of contents lists."""
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        self.sections.append((name, title))
        return Markup('<h2 id="{}">{}</h2>').format(name, title)

    def draw(self, chart: Chart, level: str = "h3") -> Markup:
        """Return a figure: an interactive chart, and the same as SVG for print."""
        self.charts.append(to_plotly(chart))
        svg = Markup(to_svg(chart, f"chart{len(self.charts)}"))  # noqa: S704 - matplotlib escapes texts
        return self._call("figure", len(self.charts) - 1, chart, svg, level)

    def tabulate(
        self,
        caption: str,
        columns: Sequence[Column],
        rows: Sequence[Sequence[str | Cell]],
        marked: int | None = None,
    ) -> Markup:
        """Return a table that can be sorted and, with many rows, filtered.

        Columns of text contain strings, columns of numbers contain cells. ``marked`` is the row
        that stands out.
        """
        numeric = [isinstance(each, Cell) for each in rows[0]] if rows else [False] * len(columns)
        return self._call("table", caption, columns, rows, numeric, marked)

    def _call(self, name: str, *arguments: Any) -> Markup:
        macro: Callable[..., str] = getattr(self._blocks, name)
        return Markup(macro(*arguments))  # noqa: S704 - the macros escape their arguments


def _read(name: str) -> str:
    return files(_HERE).joinpath(name).read_text(encoding="utf-8")


def render_figures(
    title: str,
    lead: Sequence[str],
    charts: Sequence[Chart],
    tables: Mapping[str, tuple[Sequence[Column], Sequence[Sequence[str | Cell]]]],
) -> str:
    """Return a page of sentences, charts and tables; the tables are given by their captions."""
    values = {"lead": lead, "charts": charts, "tables": tables}
    return render_page(title, _read("figures.html.j2"), values)


def render_page(title: str, template: str, values: Mapping[str, Any]) -> str:
    """Return a page.

    Parameters
    ----------
    title : str
        Title of the page, and its first heading.
    template : str
        Jinja template of the body. It has ``page``, ``number`` and ``values``.
    values : mapping
    """
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    page = Page(environment)
    body = environment.from_string(template).render(
        page=page, number=number, column=Column, **values
    )
    return environment.from_string(_read("page.html.j2")).render(
        title=title,
        body=Markup(body),  # noqa: S704 - rendered above with every value escaped
        page=page,
        version=__version__,
        # The page's own style and script, and plotly.js: none of them contains "</script" or data.
        style=Markup(_read("page.css")),  # noqa: S704
        script=Markup(_read("page.js")),  # noqa: S704
        plotly=Markup(get_plotlyjs().replace("</script", r"<\/script")),  # noqa: S704
    )
