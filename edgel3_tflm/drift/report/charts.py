"""The charts of a drift report; each title states what the chart shows."""

import math
from collections.abc import Callable

import numpy as np

from edgel3_tflm.drift.figures import DriftReport, FrontendDrift, Spectrogram
from edgel3_tflm.drift.layers import LayerReport
from edgel3_tflm.drift.report.verdict import split_noise
from edgel3_tflm.metrics import cosine_similarity
from edgel3_tflm.pages.charts import (
    AMBER,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    MARKERS,
    ORANGE,
    Chart,
    Heat,
    Series,
)

Name = Callable[[str], str]
"""Shortens the path of a clip."""

_LEAST_DISTANCE = 1e-7  # rounding of float32 embeddings that are equal
_MAP_WINDOWS = 1500
_CURVE_POINTS = 400
_BINS = 16
_SHORT = 180


def chart_boards(report: DriftReport) -> Chart | None:
    """Draw the time of a window on each board."""
    if not report.boards:
        return None
    fitting = [each for each in report.boards if each.fits]
    title = "It fits no board"
    if fitting:
        best = min(fitting, key=lambda each: each.seconds.high)
        title = f"{best.seconds.high:.2g} s for a window of 1 s on {best.board.title}"
    return Chart(
        title,
        "time of the network for a window of 1 s, s (modelled)",
        "",
        tuple(
            Series(
                name,
                [each.seconds.high for each in chosen],
                [each.board.title for each in chosen],
                "bars",
                colour,
                low=[each.seconds.low for each in chosen],
                high=[each.seconds.high for each in chosen],
                hover=[
                    f"flash {each.flash_bytes:,} of {each.board.flash_budget_bytes:,} bytes, RAM"
                    f" {each.memory.ram_bytes:,} of {each.board.ram_budget_bytes:,} bytes"
                    for each in chosen
                ],
            )
            for name, colour, chosen in (
                ("fits", GREEN, fitting),
                ("too large", GREY, [each for each in report.boards if not each.fits]),
            )
            if chosen
        ),
        horizontal=True,
        line=(1.0, "as long as the window"),
        height=_SHORT + 80,
    )


def chart_scale(report: DriftReport) -> Chart | None:
    """Draw the distance of the device's embeddings beside other distances."""
    if (scale := report.scale) is None:
        return None
    found = {
        "the device": scale.device,
        "float, 16 ms later": scale.later,
        "two clips of a class": scale.same_class,
        "two clips (chance)": scale.chance,
    }
    known = {name: each for name, each in found.items() if each is not None}
    title = f"The device's distance is {scale.device.mean:.2g}"
    if scale.later is not None:
        title += f"; 16 ms later: {scale.later.mean:.2g}"
    if scale.chance is not None:
        title += f"; chance: {scale.chance.mean:.2g}"

    def clip_at(value: float) -> float:
        return max(value, _LEAST_DISTANCE)

    return Chart(
        title,
        "1 - centred cosine to the float embedding (log)",
        "",
        tuple(
            Series(
                name,
                [clip_at(each.mean)],
                [name],
                "points",
                ORANGE if name == "the device" else BLUE,
                MARKERS[number],
                low=[clip_at(min(each.p5, each.mean))],
                high=[clip_at(max(each.p95, each.mean))],
                hover=[f"mean of {each.pairs} pairs; 5th to 95th percentile"],
            )
            for number, (name, each) in enumerate(known.items())
        ),
        horizontal=True,
        log_x=True,
        height=_SHORT + 40,
        legend=False,
        note="Mean, and 5th to 95th percentile. 0 is equal, 1 is chance.",
    )


def chart_classifiers(report: DriftReport) -> Chart | None:
    """Draw the accuracy of classifiers; without labels, the agreement of nearest neighbours."""
    down = report.downstream
    if not down.classifiers:
        if math.isnan(down.neighbour_agreement):
            return None
        percent = 100 * down.neighbour_agreement
        return Chart(
            f"{percent:.0f} % of the windows keep their nearest neighbour",
            "windows with the same nearest neighbour in other clips, %",
            "",
            (Series("windows", [percent], ["same neighbour"], "bars", GREEN),),
            horizontal=True,
            line=(100.0, "all"),
            height=_SHORT,
        )
    sides = (
        ("float", BLUE, "circle", "float_percent"),
        ("quantized", ORANGE, "square", "quantized_percent"),
    )
    change = down.classifiers[0].change_points
    return Chart(
        f"Change of the {down.classifiers[0].name}: {change.estimate:+.1f} points"
        f" ({change.low:+.1f} to {change.high:+.1f})",
        "clips classified correctly, % (95 % interval)",
        "",
        tuple(
            Series(
                f"{each.name}, {name}",
                [getattr(each, field).estimate],
                [f"{each.name}, {name}"],
                "points",
                colour,
                marker,
                low=[getattr(each, field).low],
                high=[getattr(each, field).high],
            )
            for each in down.classifiers
            for name, colour, marker, field in sides
        ),
        horizontal=True,
        height=_SHORT + 80,
        legend=False,
    )


def chart_noise(report: DriftReport) -> Chart | None:
    """Draw the error of each step from the sound to the device's embedding."""
    sources = split_noise(report)
    if not sources:
        return None
    largest = max(sources, key=lambda each: each[1])
    total = sum(noise for _, noise in sources)
    share = f"{100 * largest[1] / total:.0f} % of the error" if total > 0 else "no error"
    return Chart(
        f"{largest[0].capitalize()} adds {share}",
        "power of the error / power of the embeddings, %",
        "",
        (
            Series(
                "error",
                [100 * noise for _, noise in sources],
                [name for name, _ in sources],
                "bars",
                ORANGE,
            ),
        ),
        horizontal=True,
        height=_SHORT,
        note="A device records 16-bit samples, computes log-mel, and runs the quantized network.",
    )


def chart_distances(report: DriftReport) -> Chart:
    """Draw the share of windows up to a distance, for each runtime."""
    series = []
    for number, drift in enumerate(report.runtimes):
        distance = np.sort(1 - cosine_similarity(drift.reference, drift.embeddings))
        kept = np.unique(np.linspace(0, len(distance) - 1, _CURVE_POINTS).round().astype(int))
        series.append(
            Series(
                drift.name,
                np.maximum(distance[kept], _LEAST_DISTANCE).tolist(),
                (100 * (kept + 1) / len(distance)).tolist(),
                "steps",
                COLOURS[(number + 1) % len(COLOURS)],
                dash=("solid", "dash", "dot")[number % 3],
            )
        )
    p95 = 1 - report.overall.cosine_p5
    return Chart(
        f"95 % of the windows are within a distance of {p95:.2g}",
        "1 - cosine similarity of a window to float (log)",
        "windows up to this distance, %",
        tuple(series),
        log_x=True,
        line=(95.0, "95 %"),
    )


def chart_clips(report: DriftReport, name: Name) -> Chart:
    """Draw the distance of each clip, sorted by its mean."""
    ordered = sorted(report.clips, key=lambda drift: -drift.figures.cosine_mean)
    rank = [float(number) for number in range(1, len(ordered) + 1)]
    names = [name(drift.clip) + (f" ({drift.label})" if drift.label else "") for drift in ordered]
    worst = min(report.clips, key=lambda drift: drift.figures.cosine_worst)

    def distances(metric: str) -> list[float]:
        return [max(1 - getattr(drift.figures, metric), _LEAST_DISTANCE) for drift in ordered]

    return Chart(
        f"The worst window is in {name(worst.clip)} (cosine {worst.figures.cosine_worst:.4f})",
        "rank of the clip, best first",
        "1 - cosine similarity (log)",
        (
            Series("mean of the clip", rank, distances("cosine_mean"), colour=BLUE, hover=names),
            Series(
                "worst window",
                rank,
                distances("cosine_worst"),
                colour=ORANGE,
                marker="diamond",
                hover=names,
            ),
        ),
        log_y=True,
    )


def chart_map(report: DriftReport, name: Name) -> Chart:
    """Draw the float embeddings in their plane of most variance, coloured by their drift."""
    count = len(report.first.reference)
    rows = np.arange(0, count, -(-count // _MAP_WINDOWS))
    reference = report.first.reference.astype(np.float64)
    centred = reference - reference.mean(axis=0)
    _, variances, directions = np.linalg.svd(centred, full_matrices=False)
    plane = np.pad(directions[:2], ((0, 2 - len(directions[:2])), (0, 0)))  # one window: one row
    x, y = (centred[rows] @ plane.T).T
    distance = 1 - cosine_similarity(reference[rows], report.first.embeddings[rows])
    shares = [*(variances**2 / max((variances**2).sum(), np.finfo(float).tiny)), 0.0, 0.0]
    clips = [report.clips[clip] for clip in report.windows.clip[rows]]
    return Chart(
        f"{_concentration(report):.0f} % of the error is in a tenth of the windows",
        f"1st principal component, {100 * shares[0]:.0f} % of variance",
        f"2nd component, {100 * shares[1]:.0f} % of variance",
        (
            Series(
                "windows",
                x.tolist(),
                y.tolist(),
                shades=np.log10(np.maximum(distance, _LEAST_DISTANCE)).tolist(),
                hover=[
                    f"{name(clip.clip)}{f' ({clip.label})' if clip.label else ''}, {start:g} s,"
                    f" cosine {1 - apart:.4f}"
                    for clip, start, apart in zip(
                        clips, report.windows.start_s[rows], distance, strict=True
                    )
                ],
            ),
        ),
        colour_label="log10(1 - cosine)",
        note="Each dot is a window at its float embedding; its colour is its drift.",
    )


def _concentration(report: DriftReport) -> float:
    """Return the percentage of the squared error that a tenth of the windows has."""
    difference = report.first.embeddings.astype(np.float64) - report.first.reference
    error = np.sort((difference**2).sum(axis=1))[::-1]
    total = float(error.sum())
    return 100 * float(error[: -(-len(error) // 10)].sum()) / total if total > 0 else 0.0


def chart_errors(report: DriftReport) -> Chart:
    """Draw the error of single embedding values against their float value."""
    reference = report.first.reference.ravel().astype(np.float64)
    error = report.first.embeddings.ravel() - reference
    order = np.argsort(reference, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if len(part)]
    middles = [float(reference[part].mean()) for part in bins]
    medians, lows, highs = (
        [float(np.percentile(error[part], at)) for part in bins] for at in (50, 5, 95)
    )
    bias = float(error.mean())
    return Chart(
        f"Errors of single values: mean {bias:+.2g}, 90 % within {lows[-1]:+.2g} and"
        f" {highs[-1]:+.2g} for the largest values",
        "float value of the embedding",
        "quantized - float",
        (Series("median, 5th to 95th percentile", middles, medians, low=lows, high=highs),),
        line=(0.0, "no error"),
    )


def chart_layers(layers: LayerReport) -> Chart:
    """Draw what each layer adds to the error or removes from it."""
    most = layers.costliest
    names = [layer.name for layer in layers.layers]
    costs = [100 * layer.cost for layer in layers.layers]
    sides = (
        ("adds error", ORANGE, [max(cost, 0.0) for cost in costs]),
        ("removes error", GREEN, [min(cost, 0.0) for cost in costs]),
    )
    return Chart(
        f"{most.name} adds most error: SQNR {most.sqnr_db:.1f} dB after it",
        "layer",
        "change of noise / (signal + noise), %",
        tuple(Series(title, names, values, "bars", colour) for title, colour, values in sides),
    )


def chart_steps(frontend: FrontendDrift) -> Chart:
    """Draw the SQNR after each step on the way to a device's embedding."""
    finite = [
        (name, drift.sqnr_db) for name, drift in frontend.steps if math.isfinite(drift.sqnr_db)
    ]
    steps = [each for each in finite if each[0] != frontend.steps[-1][0]]
    least = min(steps, key=lambda each: each[1], default=("no step", math.inf))
    title = "No step adds error"
    if steps:
        title = f"{least[0].capitalize()} adds most error: SQNR {least[1]:.1f} dB"
    return Chart(
        title,
        "SQNR of the step, dB (higher is better)",
        "",
        (
            Series(
                "SQNR",
                [value for _, value in finite],
                [name for name, _ in finite],
                "bars",
                AMBER,
            ),
        ),
        horizontal=True,
        height=_SHORT + 40,
    )


def chart_spectrogram(report: DriftReport, window: Spectrogram, name: Name) -> Chart:
    """Draw the log-mel of a window."""
    spec = report.deployment.variant.frontend
    seconds = spec.window_samples / spec.sample_rate_hz
    return Chart(
        f"{name(window.clip)}, {window.start_s:g} s: cosine {window.cosine:.4f}",
        "time in the clip, s",
        "mel band",
        heat=Heat(
            window.decibels,
            (window.start_s, window.start_s + seconds),
            (0, spec.mels),
            (-80, 0),
        ),
        colour_label="dB below the maximum",
        height=280,
    )
