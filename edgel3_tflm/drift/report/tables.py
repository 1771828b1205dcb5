"""The tables of a drift report."""

from edgel3_tflm.drift.downstream import Interval
from edgel3_tflm.drift.figures import DriftFigures, DriftReport
from edgel3_tflm.drift.report.charts import Name
from edgel3_tflm.drift.report.verdict import Verdict
from edgel3_tflm.metrics import METRICS
from edgel3_tflm.pages.page import Cell, Column, number

Table = tuple[list[Column], list[list[str | Cell]]]

_SHOWN = ("cosine_mean", "cosine_p5", "cosine_worst", "centred_cosine_mean", "sqnr_db")
"""Metrics that the tables of windows have; drift.json has all."""
_METRICS = tuple(metric for metric in METRICS if metric.name in _SHOWN)
_MOST_CLIPS = 500


def _metric_columns(*, explained: bool) -> list[Column]:
    return [
        Column(
            metric.title,
            f"{metric.meaning} {metric.formula[0].upper()}{metric.formula[1:]} ({metric.source})."
            if explained
            else "",
        )
        for metric in _METRICS
    ]


def _metric_cells(figures: DriftFigures) -> list[str | Cell]:
    return [number(getattr(figures, metric.name), metric.name) for metric in _METRICS]


def _count(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def tabulate_checks(verdict: Verdict) -> Table:
    """Return the figures that the verdict depends on."""
    columns = [
        Column("figure"),
        Column("value"),
        Column("good from"),
        Column("fair from"),
        Column("level", "The verdict is the worst level of these figures and of the findings."),
    ]
    return columns, [
        [each.title, *(Cell(f"{v:.4g}", v) for v in (each.value, each.good, each.fair)), each.level]
        for each in verdict.checks
    ]


def tabulate_boards(report: DriftReport) -> Table:
    """Return memory and time on each board."""
    columns = [
        Column("board"),
        Column("fits"),
        Column("flash, bytes"),
        Column("budget, bytes"),
        Column("RAM, bytes", "Static memory of the node; the budget leaves room for the core."),
        Column("budget, bytes"),
        Column("network, s", "Longest time for a window of 1 s: modelled cycles by the clock."),
    ]
    return columns, [
        [
            each.board.title,
            "yes" if each.fits else "too large",
            _count(each.flash_bytes),
            _count(each.board.flash_budget_bytes),
            _count(each.memory.ram_bytes),
            _count(each.board.ram_budget_bytes),
            Cell(f"{each.seconds.high:.3f}", each.seconds.high),
        ]
        for each in report.boards
    ]


def tabulate_runtimes(report: DriftReport) -> Table:
    """Return the metrics of each runtime and group of windows, and of the device's path."""
    rows: list[list[str | Cell]] = []
    if report.device is not None:
        rows.append(
            [
                "the device's path",
                "sounding",
                _count(report.device.windows),
                *_metric_cells(report.device),
            ]
        )
    for drift in report.runtimes:
        for group, figures in drift.groups.items():
            if group == "all" or len(drift.groups) > 2:
                rows.append(
                    [
                        drift.name,
                        group.replace("_", " "),
                        _count(figures.windows),
                        *_metric_cells(figures),
                    ]
                )
    return [
        Column("runtime"),
        Column("windows of"),
        Column("count"),
        *_metric_columns(explained=True),
    ], rows


def tabulate_apart(report: DriftReport) -> Table:
    """Return how far the other runtimes are from the first."""
    columns = [
        Column("runtime"),
        Column(f"values that differ from {report.first.name}, %"),
        Column("largest difference, quantization steps"),
    ]
    return columns, [
        [drift.name, number(100 * drift.values_apart), number(drift.steps_apart)]
        for drift in report.runtimes[1:]
    ]


def tabulate_layers(report: DriftReport) -> Table:
    """Return the errors of each layer."""
    columns = [
        Column("layer"),
        Column("activation SQNR, dB", "SQNR of the layer's output, over all windows."),
        Column(
            "cost, %",
            "Change of noise / (signal + noise), in power, from the layer's input to its output."
            " The costs add up to the noise share of the embedding.",
        ),
        Column("saturated, %", "Share of the float values that are outside the quantized range."),
        Column("range used, %", "Range of the values that occurred / range of their type."),
        Column("weights SQNR, dB", "SQNR of the weight tensor."),
        Column("bias SQNR, dB", "SQNR of the bias tensor."),
    ]
    layers = report.layers.layers if report.layers else ()
    return columns, [
        [
            layer.name,
            number(layer.sqnr_db, "_db"),
            number(100 * layer.cost),
            number(100 * layer.saturation),
            number(100 * layer.range_use),
            number(layer.weights_sqnr_db, "_db"),
            number(layer.bias_sqnr_db, "_db"),
        ]
        for layer in layers
    ]


def tabulate_steps(report: DriftReport) -> Table:
    """Return the errors of each step to a device's embedding."""
    columns = [
        Column("step"),
        Column("cosine, mean", "Agreement of the directions; 1 is equal."),
        Column("cosine, worst window", "The least of the windows."),
        Column("SQNR, dB", "10 log10(sum a^2 / sum (a - b)^2); higher is better."),
    ]
    return columns, [
        [
            title,
            Cell(f"{drift.cosine_mean:.6f}", drift.cosine_mean),
            Cell(f"{drift.cosine_worst:.6f}", drift.cosine_worst),
            number(drift.sqnr_db, "_db"),
        ]
        for title, drift in (report.frontend.steps if report.frontend else ())
    ]


def _interval(interval: Interval) -> Cell:
    text = f"{interval.estimate:.1f} ({interval.low:.1f} to {interval.high:.1f})"
    return Cell(text, interval.estimate)


def tabulate_classifiers(report: DriftReport) -> Table:
    """Return the accuracy of each classifier."""
    columns = [
        Column("classifier"),
        Column("clips"),
        Column("float"),
        Column(report.deployment.quantization),
        Column("change, percentage points"),
    ]
    return columns, [
        [
            each.name,
            _count(each.clips),
            _interval(each.float_percent),
            _interval(each.quantized_percent),
            _interval(each.change_points),
        ]
        for each in report.downstream.classifiers
    ]


def tabulate_geometry(report: DriftReport) -> Table:
    """Return nearest neighbours and kernel alignment."""
    down = report.downstream
    columns = [Column("figure"), Column("value"), Column("meaning")]
    return columns, [
        [
            "same nearest neighbour, %",
            number(100 * down.neighbour_agreement),
            "Windows whose nearest neighbour by cosine, among the windows of other clips, is the"
            " same in float and quantized.",
        ],
        [
            "linear CKA",
            number(down.linear_cka, "linear_cka"),
            "Centred kernel alignment, |B'A|^2 / (|A'A| |B'B|) with the mean of each column"
            " removed; 1 is equal up to rotation and scale (Kornblith et al., 2019).",
        ],
    ]


def tabulate_classes(report: DriftReport) -> Table:
    """Return the metrics of each class."""
    return [Column("class"), Column("windows"), *_metric_columns(explained=False)], [
        [label, _count(figures.windows), *_metric_cells(figures)]
        for label, figures in report.first.classes.items()
    ]


def tabulate_clips(report: DriftReport, name: Name) -> Table:
    """Return the metrics of each clip, the worst first."""
    worst_first = sorted(report.clips, key=lambda drift: drift.figures.cosine_worst)
    return [
        Column("clip"),
        Column("class"),
        Column("windows"),
        Column("silent"),
        *_metric_columns(explained=False),
    ], [
        [
            name(drift.clip),
            drift.label or "",
            _count(drift.figures.windows),
            _count(drift.figures.silent_windows),
            *_metric_cells(drift.figures),
        ]
        for drift in worst_first[:_MOST_CLIPS]
    ]
