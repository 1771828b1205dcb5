"""Writes a drift report as JSON and as one HTML page. Needs the extra ``report``."""

import io
import json
import math
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.device.boards import BOARDS, fits
from edgel3_tflm.drift.downstream import RESAMPLES
from edgel3_tflm.drift.figures import (
    JSON_NAME,
    NEAR_SILENCE_DBFS,
    DriftReport,
    FrontendDrift,
    Spectrogram,
    measure_sizes,
)
from edgel3_tflm.drift.gates import GateResult, gates_json
from edgel3_tflm.drift.layers import LayerReport
from edgel3_tflm.drift.verdict import (
    describe_boards,
    describe_classifiers,
    describe_survival,
    judge,
)
from edgel3_tflm.errors import RuntimeUnavailableError, install_hint
from edgel3_tflm.files import new_directory
from edgel3_tflm.metrics import METRICS, cosine_similarity
from edgel3_tflm.networks.weights import SUBSTITUTE_KINDS
from edgel3_tflm.runtime.deployment import Deployment

try:
    import matplotlib as mpl
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure
except ImportError as error:
    raise RuntimeUnavailableError(
        f"reports need the package {error.name}, which is not installed; {install_hint('report')}"
    ) from error

HTML_NAME = "drift.html"

_FLOAT_COLOUR, _QUANTIZED_COLOUR, _LESS_COLOUR = "#5b6770", "#c2410c", "#0f766e"
_OTHER_COLOURS = ("#1d4ed8", "#0f766e", "#7c3aed", "#a16207", "#be185d")
_LEAST_DISTANCE = 1e-7  # rounding of float32 embeddings that are equal
_SCATTER_POINTS = 4000
_MAP_WINDOWS = 500
_MAX_CLIP_ROWS = 100


def write_report(report: DriftReport, directory: Path, gates: Sequence[GateResult] = ()) -> None:
    """Write ``drift.json`` and ``drift.html`` to a new directory.

    Raises
    ------
    EdgeL3Error
        If the directory contains other files or cannot be written.
    """
    figures = json.dumps(report_json(report, gates), indent=2) + "\n"
    page = render_html(report, gates)
    with new_directory(directory, marker=JSON_NAME) as new:
        (new / JSON_NAME).write_text(figures, encoding="utf-8")
        (new / HTML_NAME).write_text(page, encoding="utf-8")


def report_json(report: DriftReport, gates: Sequence[GateResult]) -> dict[str, Any]:
    """Return figures and gates as plain data."""
    return {**report.to_json(), "verdict": judge(report).to_json(), "gates": gates_json(gates)}


def render_html(report: DriftReport, gates: Sequence[GateResult] = ()) -> str:
    """Return one HTML page without scripts and external files; its plots are inline SVG."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["metric"] = _write_value
    environment.filters["number"] = lambda value: _write_value(value, "")
    environment.filters["percent"] = lambda value: _write_value(100 * value, "")
    folder = _common_folder([drift.clip for drift in report.clips])
    environment.filters["clip"] = lambda clip: (
        str(Path(clip).relative_to(folder)) if folder.parts else clip
    )
    template = environment.from_string(
        files("edgel3_tflm.drift").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    plots = [
        (
            "Share of windows up to a cosine distance; dotted: 95 %, the cosine's 5th percentile",
            _plot_cosine(report),
        ),
        ("Drift of each clip, sorted by its mean cosine", _plot_clips(report)),
        (
            "Embeddings in the plane of most variance (PCA of the float embeddings). A line joins"
            " the float and the quantized embedding of a window",
            _plot_map(report),
        ),
        ("Error of single embedding values, quantized minus float", _plot_errors(report)),
    ]
    return template.render(
        report=report,
        manifest=report.deployment.manifest,
        version=__version__,
        substitute_kinds=SUBSTITUTE_KINDS,
        metrics=METRICS,
        folder=folder if folder.parts else "",
        verdict=judge(report),
        words={
            "boards": describe_boards(report),
            "survival": describe_survival(report),
            "classifiers": describe_classifiers(report.downstream.classifiers),
        },
        gates=gates,
        failed=[result for result in gates if not result.passed],
        boards=_fit_boards(report.deployment),
        resamples=RESAMPLES,
        near_silence_dbfs=NEAR_SILENCE_DBFS,
        worst_first=sorted(report.clips, key=lambda drift: drift.figures.cosine_worst)[
            :_MAX_CLIP_ROWS
        ],
        plots=[(title, _embed(figure)) for title, figure in plots],
        layer_plot=None if report.layers is None else _embed(_plot_layers(report.layers)),
        steps_plot=None if report.frontend is None else _embed(_plot_steps(report.frontend)),
        spectrograms=[(each, _embed(_plot_spectrogram(report, each))) for each in report.worst],
    )


def _write_value(value: float | None, name: str) -> str:
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
    return f"{value:.3g}"


def _common_folder(clips: Sequence[str]) -> Path:
    """Return the folder that contains all clips; an empty path if there is none."""
    parents = {Path(clip).parent for clip in clips}
    if len({parent.is_absolute() for parent in parents}) > 1:
        return Path()
    return Path(os.path.commonpath(parents))


def _fit_boards(deployment: Deployment) -> list[dict[str, Any]]:
    """Return for each form of the model its size, and for each board whether it fits."""
    return [
        {
            "form": form,
            "size": size,
            "boards": [
                (
                    board.title,
                    fits(board, flash_bytes=size.flash_bytes, ram_bytes=size.arena_bytes),
                )
                for board in BOARDS
            ],
        }
        for form, size in measure_sizes(deployment).items()
    ]


def _embed(figure: Figure) -> Markup:
    text = io.StringIO()
    # A fixed salt and no date, so that the same figures give the same page.
    with mpl.rc_context({"svg.hashsalt": "edgel3-tflm", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    return Markup(svg[svg.index("<svg") :])  # noqa: S704 - drawn here, from numbers alone


def _new_figure(width: float = 5.2, height: float = 3.4) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def _plot_cosine(report: DriftReport) -> Figure:
    figure = _new_figure()
    axes = figure.add_subplot()
    for number, drift in enumerate(report.runtimes):
        distance = np.sort(1 - cosine_similarity(drift.reference, drift.embeddings))
        axes.step(
            np.maximum(distance, _LEAST_DISTANCE),
            np.arange(1, len(distance) + 1) / len(distance),
            where="post",
            color=_QUANTIZED_COLOUR
            if number == 0
            else _OTHER_COLOURS[(number - 1) % len(_OTHER_COLOURS)],
            linestyle="-" if number == 0 else "--",
            label=drift.name,
        )
    axes.axhline(0.95, color=_FLOAT_COLOUR, linestyle=":", linewidth=1, label="95 %")
    axes.legend(frameon=False)
    axes.set(
        xscale="log",
        xlabel="1 - cosine similarity of a window, float to quantized",
        ylabel="share of windows",
        ylim=(0, 1.02),
    )
    return figure


def _plot_clips(report: DriftReport) -> Figure:
    ordered = sorted(report.clips, key=lambda drift: drift.figures.cosine_mean)
    rank = np.arange(1, len(ordered) + 1)
    figure = _new_figure()
    axes = figure.add_subplot()
    for name, colour, label in (
        ("cosine_mean", _FLOAT_COLOUR, "mean of the clip's windows"),
        ("cosine_worst", _QUANTIZED_COLOUR, "worst window"),
    ):
        values = [getattr(drift.figures, name) for drift in ordered]
        axes.plot(rank, values, ".", color=colour, label=label)
    axes.set(xlabel="clip, by mean", ylabel="cosine similarity")
    axes.legend(frameon=False)
    return figure


def _plot_map(report: DriftReport) -> Figure:
    step = -(-len(report.first.reference) // _MAP_WINDOWS)
    reference = report.first.reference.astype(np.float64)
    mean = reference.mean(axis=0)
    _, variances, axes_of_variance = np.linalg.svd(reference - mean, full_matrices=False)
    plane = _fill_plane(axes_of_variance[:2]).T
    a, b = ((side[::step] - mean) @ plane for side in (reference, report.first.embeddings))
    figure = _new_figure()
    axes = figure.add_subplot()
    for start, end in zip(a, b, strict=True):
        axes.plot(*zip(start, end, strict=True), "-", color=_FLOAT_COLOUR, linewidth=0.6)
    axes.plot(*a.T, ".", color=_FLOAT_COLOUR, markersize=3, label="float")
    axes.plot(*b.T, ".", color=_QUANTIZED_COLOUR, markersize=3, label=report.first.name)
    shares = variances**2 / max((variances**2).sum(), np.finfo(float).tiny)
    for name, share in zip("xy", [*shares, 0.0], strict=False):
        axes.set(**{f"{name}label": f"{100 * share:.0f} % of the variance"})
    axes.legend(frameon=False)
    return figure


def _fill_plane(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pad to two rows; with a single window or value PCA gives fewer."""
    return np.pad(rows, ((0, 2 - len(rows)), (0, 0)))


def _plot_errors(report: DriftReport) -> Figure:
    reference = report.first.reference.ravel()
    step = -(-len(reference) // _SCATTER_POINTS)
    error = (report.first.embeddings.ravel() - reference)[::step]
    figure = _new_figure()
    axes = figure.add_subplot()
    axes.plot(reference[::step], error, ".", markersize=2, color=_QUANTIZED_COLOUR, rasterized=True)
    axes.axhline(0, color=_FLOAT_COLOUR, linewidth=1)
    axes.set(xlabel="float value", ylabel="quantized - float")
    return figure


def _plot_layers(layers: LayerReport) -> Figure:
    """Draw a waterfall chart of the noise share: what each layer adds or removes."""
    costs = np.array([layer.cost for layer in layers.layers])
    below = np.concatenate([[0], np.cumsum(costs)[:-1]])
    names = [layer.name for layer in layers.layers]
    figure = _new_figure(10.6, 3.2)
    axes = figure.add_subplot()
    colours = [_QUANTIZED_COLOUR if cost > 0 else _LESS_COLOUR for cost in costs]
    axes.bar(
        [*names, "embedding"],
        [*costs, costs.sum()],
        bottom=[*below, 0],
        width=0.6,
        color=[*colours, _FLOAT_COLOUR],
    )
    axes.set_ylim(top=1.05 * max(costs.cumsum().max(), np.finfo(float).tiny))
    axes.set(ylabel="noise / (signal + noise)", xlabel="added or removed by each layer")
    return figure


def _plot_steps(frontend: FrontendDrift) -> Figure:
    """Draw the noise of each step on the way from the sound to a device's embedding."""
    names, drifts = zip(*frontend.steps, strict=True)
    # A step without noise gets no bar, and neither does one without signal.
    percent = [
        100 * 10 ** (-drift.sqnr_db / 10) if math.isfinite(drift.sqnr_db) else 0.0
        for drift in drifts
    ]
    figure = _new_figure(10.6, 2.2)
    axes = figure.add_subplot()
    colours = [*[_QUANTIZED_COLOUR] * (len(names) - 1), _FLOAT_COLOUR]
    bars = axes.barh(names, percent, height=0.6, color=colours)
    axes.bar_label(bars, [_write_value(drift.sqnr_db, "_db") for drift in drifts], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(right=1.15 * max(*percent, float(np.finfo(float).tiny)))
    axes.set(xlabel="noise / signal of the embedding, %; beside each bar: SQNR in dB")
    return figure


def _plot_spectrogram(report: DriftReport, window: Spectrogram) -> Figure:
    spec = report.deployment.variant.frontend
    seconds = spec.window_samples / spec.sample_rate_hz
    figure = _new_figure(2.6, 2.4)
    axes = figure.add_subplot()
    axes.imshow(
        window.decibels,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-80,
        vmax=0,
        extent=(window.start_s, window.start_s + seconds, 0, spec.mels),
        interpolation="nearest",
    )
    axes.set(xlabel="s", ylabel="mel band")
    return figure
