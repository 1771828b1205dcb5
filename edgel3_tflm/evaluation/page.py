"""An evaluation as one HTML page. Needs the extra ``report``."""

from edgel3_tflm.drift.downstream import Interval
from edgel3_tflm.evaluation.evaluate import Evaluation
from edgel3_tflm.pages.charts import BLUE, GREY, ORANGE, Chart, Series
from edgel3_tflm.pages.page import Cell, Column, number, render_figures


def render_evaluation(found: Evaluation) -> str:
    """Return the page: a chart and a table of every measure, the splits, and published figures."""
    first = found.measures[0].name
    columns = [
        Column("measure"),
        Column("estimate"),
        Column("from", "Lower end of the 95 % interval."),
        Column("to", "Upper end of the 95 % interval."),
    ]
    rows: list[list[str | Cell]] = [
        [f"{each.name}, {side}", *(Cell(f"{v:.4g}", v) for v in _ends(interval))]
        for each in found.measures
        for side, interval in (
            ("float", each.in_float),
            (found.quantization, each.quantized),
            ("change", each.change),
        )
    ]
    split_columns = [
        Column("test"),
        Column("clips, training"),
        Column("clips, test"),
        Column(f"float, {first}"),
        Column(f"{found.quantization}, {first}"),
    ]
    splits: list[list[str | Cell]] = [
        [
            each.name,
            number(each.train_clips),
            number(each.test_clips),
            Cell(f"{each.float_score:.4g}", each.float_score),
            Cell(f"{each.quantized_score:.4g}", each.quantized_score),
        ]
        for each in found.splits
    ]
    tables = {"All test clips": (columns, rows), "Each split": (split_columns, splits)}
    if found.published:
        published: list[list[str | Cell]] = [
            [each.title, each.measure, number(each.value), each.source] for each in found.published
        ]
        names = ("network", "measure", "value", "source")
        tables["Published, float"] = ([Column(name) for name in names], published)
    return render_figures(
        f"{found.model} on {found.dataset}, float and {found.quantization}",
        [
            found.weights,
            f"{found.clips:,} clips, {found.windows:,} windows, {len(found.labels)} classes;"
            f" {found.quantization} in {found.runtime}; resampled by {found.resampler}.",
            *found.protocol.describe(),
            *found.notes,
        ],
        [_chart(found, position) for position in range(len(found.measures))],
        tables,
    )


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _chart(found: Evaluation, position: int) -> Chart:
    measure = found.measures[position]
    change = measure.change
    sides = (
        ("float", measure.in_float, BLUE, "circle"),
        (found.quantization, measure.quantized, ORANGE, "square"),
    )
    published = [each for each in found.published if each.measure == measure.name]
    return Chart(
        f"{measure.name}: change {change.estimate:+.3g} ({change.low:+.3g} to {change.high:+.3g})",
        f"{measure.name} of all test clips (95 % interval)",
        "",
        (
            *(
                Series(
                    name,
                    [interval.estimate],
                    [name],
                    colour=colour,
                    marker=marker,
                    low=[interval.low],
                    high=[interval.high],
                )
                for name, interval, colour, marker in sides
            ),
            *(
                Series(each.title, [each.value], [f"{each.title}, published"], colour=GREY)
                for each in published
            ),
        ),
        horizontal=True,
        legend=False,
        height=200 + 24 * len(published),
    )
