"""The difference of two drift reports as one HTML page. Needs the extra ``report``."""

from collections.abc import Sequence
from importlib.resources import files

from edgel3_tflm.drift.diff import Change, DriftDiff
from edgel3_tflm.drift.gates import GateResult
from edgel3_tflm.pages.charts import BLUE, ORANGE, Chart, Series
from edgel3_tflm.pages.page import Cell, Column, number, render_page

_MOST_ROWS = 500
_LEAST_DISTANCE = 1e-7  # rounding of float32 embeddings that are equal


def render_diff(
    title: str, found: DriftDiff, gates: Sequence[GateResult], before: str, after: str
) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
    found : DriftDiff
    gates : sequence of GateResult
    before, after : str
        Names of the two reports.
    """
    ranked = found.rank()
    worse = [each for each in ranked if each.error_db > 0]
    parts = {
        "Runtimes": found.metrics,
        "Layers": found.layers,
        "Frontend": found.frontend,
        "Downstream": found.downstream,
        "Sizes": found.sizes,
        "Classes": found.classes,
        "Clips": found.clips,
    }
    charts = [
        _chart_pairs("SQNR of each runtime", found.metrics, "sqnr_db", "SQNR, dB"),
        _chart_pairs("Activation SQNR of each layer", found.layers, "sqnr_db", "SQNR, dB"),
        _chart_clips(found.clips),
        _chart_pairs(
            "Accuracy of each classifier",
            found.downstream,
            "quantized_percent",
            "quantized, % correct",
        ),
    ]
    return render_page(
        title,
        files("edgel3_tflm.drift.report").joinpath("diff.html.j2").read_text(encoding="utf-8"),
        {
            "found": found,
            "gates": gates,
            "failed": [each for each in gates if not each.passed],
            "before": before,
            "after": after,
            "worse": len(worse),
            "better": len(ranked) - len(worse),
            "first": ranked[0] if ranked else None,
            "ranked": tabulate_changes(ranked),
            "parts": {
                name: tabulate_changes([each for each in changes if each.has_moved])
                for name, changes in parts.items()
                if any(each.has_moved for each in changes)
            },
            "charts": [chart for chart in charts if chart is not None],
        },
    )


def tabulate_changes(changes: Sequence[Change]) -> tuple[list[Column], list[list[str | Cell]]]:
    """Return a table of changes, coloured by better and worse."""
    columns = [
        Column("where"),
        Column("figure"),
        Column("before"),
        Column("after"),
        Column("change"),
        Column(
            "error, dB",
            "Growth of the error's power, by which different metrics can be compared: 10 log10 of"
            " the ratio of 1 - cosine or of squared errors, or the fall of the SQNR. Positive is"
            " worse.",
        ),
    ]
    tones = {True: "worse", False: "better", None: ""}
    return columns, [
        [
            each.where,
            each.name,
            number(each.before, each.name),
            number(each.after, each.name),
            number(each.moved, "", tones[each.is_worse] if each.has_moved else ""),
            Cell(f"{each.error_db:+.2f}" if each.error_db else "-", each.error_db),
        ]
        for each in changes[:_MOST_ROWS]
    ]


def _chart_pairs(what: str, changes: Sequence[Change], name: str, label: str) -> Chart | None:
    chosen = [
        each
        for each in changes
        if each.name == name and each.before is not None and each.after is not None
    ]
    if not chosen:
        return None
    moved = [(each.after or 0.0) - (each.before or 0.0) for each in chosen]
    most = max(range(len(chosen)), key=lambda at: abs(moved[at]))
    return Chart(
        f"{what}: {moved[most]:+.3g} at most ({chosen[most].where})",
        label,
        "",
        tuple(
            Series(
                side,
                [getattr(each, side) for each in chosen],
                [each.where for each in chosen],
                "points",
                colour,
                marker,
            )
            for side, colour, marker in (
                ("before", BLUE, "circle"),
                ("after", ORANGE, "diamond"),
            )
        ),
        horizontal=True,
        height=160 + 22 * len(chosen),
    )


def _chart_clips(changes: Sequence[Change]) -> Chart | None:
    chosen = [
        each
        for each in changes
        if each.name == "cosine_mean" and each.before is not None and each.after is not None
    ]
    if not chosen:
        return None

    def distances(field: str) -> list[float]:
        return [max(1 - getattr(each, field), _LEAST_DISTANCE) for each in chosen]

    old, new = distances("before"), distances("after")
    worse = sum(b > a for a, b in zip(old, new, strict=True))
    ends = [min(*old, *new), max(*old, *new)]
    return Chart(
        f"{worse} of {len(chosen)} clips got worse",
        "1 - mean cosine of a clip before (log)",
        "after (log)",
        (
            Series("clips", old, new, hover=[each.where for each in chosen], colour=ORANGE),
            Series("unchanged", ends, ends, "line", BLUE, "x", "dot"),
        ),
        log_x=True,
        log_y=True,
        note="A clip above the dotted line got worse.",
    )
