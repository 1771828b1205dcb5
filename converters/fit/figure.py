"""The figures: quality against time, and accuracy against sparsity. Needs the extra report."""

import io
from collections.abc import Sequence

from edgel3_tflm.converters.fit.baselines import Baselines
from edgel3_tflm.converters.fit.budget import Budget
from edgel3_tflm.converters.fit.choice import Judged, find_front
from edgel3_tflm.converters.fit.measurement import Measurement
from edgel3_tflm.errors import RuntimeUnavailableError, install_hint
from edgel3_tflm.evaluation.probe import find_interval
from edgel3_tflm.networks.catalogue import VARIANTS

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise RuntimeUnavailableError(
        f"figures need the package {error.name}, which is not installed; {install_hint('report')}"
    ) from error

_AREA_OF_MB = 400.0
"""Area of the dot of a network with 1 MB of flash, in square points."""
_TRAINED = "trained at this sparsity"


def plot(candidates: Sequence[Judged], budget: Budget, winner: Judged | None) -> bytes:
    """Plot the candidates; return a PNG image.

    Candidates outside of the budget are hollow. A line is the budget's time, if it has one.
    """
    figure = Figure(figsize=(9, 5 + 0.2 * len(candidates)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    ranked = sorted(candidates, key=lambda each: -each.quality)
    for number, each in enumerate(ranked, start=1):
        seconds, figures = each.needs.seconds, each.figures
        middle = (seconds.low + seconds.high) / 2
        interval = figures.interval_percent
        colour = "tab:red" if each is winner else "tab:blue"
        axes.errorbar(
            middle,
            each.quality,
            xerr=middle - seconds.low,
            yerr=None
            if interval is None
            else [[each.quality - interval[0]], [interval[1] - each.quality]],
            fmt="none",
            ecolor="0.75",
            elinewidth=1,
        )
        axes.scatter(
            middle,
            each.quality,
            s=_AREA_OF_MB * each.needs.flash_bytes / 1e6,
            facecolors=colour if each.fits else "none",
            edgecolors=colour,
            zorder=3,
            label=f"{number}: {figures.network}, {figures.origin}",
        )
        axes.annotate(
            str(number),
            (middle, each.quality),
            xytext=(7 + 10 * (number % 3), 7),
            textcoords="offset points",
        )
    front = sorted(find_front(candidates), key=lambda each: each.needs.seconds.high)
    axes.plot(
        [(each.needs.seconds.low + each.needs.seconds.high) / 2 for each in front],
        [each.quality for each in front],
        color="0.5",
        linestyle=":",
        label="Pareto front in quality, time, flash and RAM",
    )
    if budget.limits.milliseconds is not None:
        axes.axvline(
            budget.limits.milliseconds / 1000,
            color="tab:red",
            linestyle="--",
            label=f"budget: {budget.limits.milliseconds:g} ms",
        )
    labelled = candidates[0].figures.accuracy_percent is not None
    axes.set(
        xlabel=f"time of the network for a window, s ({budget.name}; modelled)",
        ylabel="linear probe, % right, with 95 % intervals"
        if labelled
        else "cosine to the teacher, by a linear map",
        title="dot: flash by its area; hollow: outside of the budget; red: the winner",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.25, y=0.15)
    figure.legend(frameon=False, loc="outside lower left", fontsize=8, markerscale=0.5)
    return _encode(figure)


def _encode(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def plot_curves(
    candidates: Sequence[Measurement], baselines: Baselines, teacher: dict[str, str]
) -> bytes:
    """Plot the candidates that have a plan; return a PNG image."""
    figure = Figure(figsize=(8, 5.5), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    curves: dict[str, list[Measurement]] = {}
    for each in candidates:
        if VARIANTS[each.network].plan is not None:
            curves.setdefault(_TRAINED if each.is_given else each.origin, []).append(each)
    for name, points in curves.items():
        points.sort(key=lambda each: each.zeros_percent)
        right = [100 * each.right / each.clips for each in points]
        bounds = [find_interval(each.right, each.clips) for each in points]
        axes.errorbar(
            [each.zeros_percent for each in points],
            right,
            yerr=[
                [at - low for at, (low, _) in zip(right, bounds, strict=True)],
                [high - at for at, (_, high) in zip(right, bounds, strict=True)],
            ],
            marker="o",
            capsize=3,
            label=name,
        )
    for name, folds, style in (
        (f"teacher: {teacher['network']}, {teacher['precision']}", baselines.teacher, "--"),
        ("mean and standard deviation of the log-mel", baselines.statistics, ":"),
    ):
        accuracy = 100 * sum(each.right for each in folds) / sum(each.clips for each in folds)
        axes.axhline(accuracy, color="0.4", linestyle=style, label=f"{name}: {accuracy:.1f} %")
    axes.set(
        xlabel="zeros in all kernels, %",
        ylabel="probe on int8 embeddings, % right (95 % intervals)",
    )
    figure.legend(frameon=False, loc="outside lower left", fontsize=8)
    return _encode(figure)
