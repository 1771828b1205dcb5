"""The verdict on a drift report by stated thresholds, and findings with their remedies."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgel3_tflm.drift.downstream import ClassifierDrift
from edgel3_tflm.drift.figures import DriftFigures, DriftReport
from edgel3_tflm.drift.layers import INPUT, LayerDrift
from edgel3_tflm.drift.scale import Distance
from edgel3_tflm.runtime.artefacts import HEAD_NAME, quantized_model_name

Level = Literal["good", "fair", "poor"]
LEVELS: tuple[Level, ...] = ("good", "fair", "poor")
SUMMARIES: dict[Level, str] = {
    "good": "Good: the device's embeddings can replace the float embeddings.",
    "fair": "Fair: usable, but check your classifier on the device's embeddings.",
    "poor": "Poor: do not deploy this as it is.",
}

_BROKEN_SQNR_DB = 10.0
"""Rounding to int8 leaves a tensor an SQNR of 30 dB or more."""
_BROKEN_FALL_DB, _SUSPECT_SQNR_DB = 15.0, 20.0
"""Rounding to int8 does not explain that the SQNR falls so far in one layer, to less than this."""
_MOST_SATURATED = 0.01
_LEAST_WINDOWS = 100
_DOMINATES = 0.5


@dataclass(frozen=True)
class Limit:
    """Two limits for a figure: at least ``good``, and at least ``fair``."""

    name: str
    title: str
    good: float
    fair: float

    def judge(self, value: float) -> Level:
        """Return the level of a value; NaN is poor."""
        return "good" if value >= self.good else "fair" if value >= self.fair else "poor"


LIMITS = (
    Limit("cosine_p5", "cosine similarity, 5th percentile", 0.99, 0.95),
    Limit("sqnr_db", "SQNR, dB", 20.0, 10.0),
    Limit("centred_cosine_mean", "centred cosine, mean", 0.95, 0.8),
)
"""Limits for the device's path. At 20 dB the noise has 1 % of the signal's power, at 10 dB 10 %."""
ACCURACY_LIMIT = Limit("accuracy_change_points", "accuracy, points", -1.0, -3.0)
"""Limits for the upper end of the 95 % interval of a classifier's change of accuracy."""


@dataclass(frozen=True)
class Check:
    """A figure that the verdict depends on, with its limits and its level."""

    title: str
    value: float
    good: float
    fair: float
    level: Level


@dataclass(frozen=True)
class Finding:
    """What is remarkable, and what to do about it.

    Parameters
    ----------
    rule : str
        Name of the rule that found it.
    level : {'good', 'fair', 'poor'}
        The verdict is not better than the level of any finding.
    text : str
    remedy : str
    command : str
        The command of the remedy; empty if there is none.
    """

    rule: str
    level: Level
    text: str
    remedy: str
    command: str = ""


@dataclass(frozen=True)
class Verdict:
    """The level is that of the worst check or finding."""

    level: Level
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]

    @property
    def summary(self) -> str:
        """The level in words."""
        return SUMMARIES[self.level]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"summary": self.summary, **asdict(self)}


def judge(report: DriftReport) -> Verdict:
    """Check the figures of a report by ``LIMITS``, and apply every rule.

    The figures are those of the device's path, or of the first runtime if that was not measured.
    """
    figures = judged_figures(report)
    checks = [_check(limit, getattr(figures, limit.name)) for limit in LIMITS]
    checks += [
        _check(ACCURACY_LIMIT, each.change_points.high, each.name)
        for each in report.downstream.classifiers
    ]
    findings = [found for rule in _RULES for found in rule(report)]
    findings.sort(key=lambda each: -LEVELS.index(each.level))
    levels = [*(each.level for each in checks), *(each.level for each in findings)]
    worst = max(levels, key=LEVELS.index)
    if worst != "good" and all(each.level == "good" for each in findings):
        findings.insert(0, _name_largest(report, worst))
    return Verdict(worst, tuple(checks), tuple(findings or [_continue(report)]))


def judged_figures(report: DriftReport) -> DriftFigures:
    """Return the figures that the verdict is about."""
    first = report.first.groups
    return report.device or first.get("sounding") or first["all"]


def _check(limit: Limit, value: float, where: str = "") -> Check:
    title = f"{where}: {limit.title}, upper end of the 95 % interval" if where else limit.title
    return Check(title, value, limit.good, limit.fair, limit.judge(value))


_Findings = Iterator[Finding]


def _check_head(report: DriftReport) -> _Findings:
    """Find a head that was trained on the embeddings of another model."""
    path = report.deployment.directory / HEAD_NAME
    try:
        trained_for = json.loads(path.read_text(encoding="utf-8"))["model_sha256"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        trained_for = "an unreadable file"
    own = report.deployment.manifest["artefacts"].get(quantized_model_name("int8"), {})
    if trained_for != own.get("sha256"):
        yield Finding(
            "head",
            "poor",
            f"The head in {HEAD_NAME} was trained for another model (SHA-256"
            f" {str(trained_for)[:12]}...), so that its classes mean nothing here.",
            "Train it again.",
            f"edgel3-tflm train-head {report.deployment.directory.name} --manifest MANIFEST",
        )


def _check_scales(report: DriftReport) -> _Findings:
    """Find a layer whose tensors are no rounding of the float ones."""
    layers = report.layers.layers if report.layers else ()
    for before, layer in zip((None, *layers), layers, strict=False):
        if layer.weights_sqnr_db < _BROKEN_SQNR_DB:
            what = f"The weights of {layer.name} have an SQNR of {layer.weights_sqnr_db:.1f} dB"
        elif (
            before is not None
            and before.sqnr_db - layer.sqnr_db > _BROKEN_FALL_DB
            and layer.sqnr_db < _SUSPECT_SQNR_DB
            and layer.saturation < _MOST_SATURATED
        ):
            what = (
                f"The SQNR falls from {before.sqnr_db:.1f} to {layer.sqnr_db:.1f} dB in"
                f" {layer.name}"
            )
        else:
            continue
        yield Finding(
            "scale",
            "poor",
            f"{what}. Rounding to int8 does not explain this: a scale is wrong, or the quantized"
            " model is not of these weights.",
            "Convert again. If the deployment comes from elsewhere, take it from its source again.",
            "edgel3-tflm convert",
        )
        return


def _check_saturation(report: DriftReport) -> _Findings:
    """Find values outside the quantized ranges: the calibration clips are unlike these clips."""
    layers = report.layers.layers if report.layers else ()
    worst = max(layers, key=lambda layer: layer.saturation, default=None)
    if worst is None or worst.saturation <= _MOST_SATURATED:
        return
    calibration = report.deployment.manifest["calibration"]
    windows = calibration["windows"]
    source = "the package's clips" if calibration["bundled"] else "the clips given to convert"
    yield Finding(
        "calibration",
        "poor" if worst.saturation > 10 * _MOST_SATURATED else "fair",
        f"{100 * worst.saturation:.2g} % of the values of {worst.name} are outside its quantized"
        f" range. The calibration set ({windows} windows of {source}) is unlike these clips, for"
        " example silent or quieter.",
        "Convert with recordings of your microphone, loud ones among them.",
        "edgel3-tflm convert --calibration DIR",
    )


def _check_boards(report: DriftReport) -> _Findings:
    if report.boards and not any(each.fits for each in report.boards):
        yield Finding(
            "boards",
            "poor",
            "The packed model is within the flash and RAM budget of no board.",
            "Choose a smaller network: a higher --sparsity, fewer --filters, or --model-type sea.",
            "edgel3-tflm fit --board BOARD --manifest MANIFEST",
        )


def _check_classifiers(report: DriftReport) -> _Findings:
    for each in report.downstream.classifiers:
        change = each.change_points
        if change.high < 0:
            yield Finding(
                "classifier",
                "fair",
                f"The {each.name} loses {-change.estimate:.1f} points (95 % interval"
                f" {-change.high:.1f} to {-change.low:.1f}).",
                "Train your classifier on quantized embeddings. If it still loses too much, convert"
                " with --calibration on your recordings.",
                f"edgel3-tflm train-head {report.deployment.directory.name} --manifest MANIFEST",
            )
            return


def split_noise(report: DriftReport) -> list[tuple[str, float]]:
    """Return the noise of capture, frontend and quantization, relative to the signal's power."""
    if report.frontend is None:
        return []
    return [
        (name, 0.0 if math.isinf(drift.sqnr_db) else 10 ** (-drift.sqnr_db / 10))
        for name, drift in report.frontend.steps[:-1]
        if not math.isnan(drift.sqnr_db)
    ]


def _check_capture(report: DriftReport) -> _Findings:
    noise = dict(split_noise(report))
    capture = noise.get("capture in 16 bits", 0.0)
    share = capture / total if (total := sum(noise.values())) > 0 else 0.0
    if share > _DOMINATES:
        yield Finding(
            "capture",
            "good",
            f"Rounding to 16-bit samples adds {100 * share:.0f} % of the error, more than int8.",
            "Raise the gain of the microphone, so that quiet sounds use more of the 16 bits. A"
            " better quantization changes little.",
        )


def dominant_layer(report: DriftReport) -> tuple[LayerDrift, float] | None:
    """Return the layer that adds more than half of all added error, and its share."""
    if report.layers is None:
        return None
    total = sum(max(layer.cost, 0.0) for layer in report.layers.layers)
    most = report.layers.costliest
    return (most, most.cost / total) if total > 0 and most.cost > _DOMINATES * total else None


def _check_layer(report: DriftReport) -> _Findings:
    if (found := dominant_layer(report)) is not None:
        layer, share = found
        yield Finding(
            "layer",
            "good",
            f"{'The network input' if layer.name == INPUT else layer.name} adds"
            f" {100 * share:.0f} % of the error of all layers.",
            "If you need less error, convert with activations of 16 bits. They cost RAM and time,"
            " and do not run as a packed model.",
            "edgel3-tflm convert --quantization int16x8",
        )


def _check_count(report: DriftReport) -> _Findings:
    sounding = int(report.windows.sounding.sum())
    if sounding < _LEAST_WINDOWS:
        yield Finding(
            "windows",
            "good",
            f"Only {sounding} windows have sound, so that the 5th percentile and the worst window"
            " say little.",
            f"Compare on clips with at least {_LEAST_WINDOWS} windows.",
        )


def _name_largest(report: DriftReport, level: Level) -> Finding:
    """Return the finding if a check fails and no rule explains it."""
    sources = split_noise(report)
    largest = max(sources, key=lambda each: each[1])[0] if sources else "quantization"
    return Finding(
        "drift",
        level,
        f"The largest part of the error comes from {largest}.",
        "Convert with recordings of your microphone, or with another --calibration-method.",
        "edgel3-tflm convert --calibration DIR",
    )


def _continue(report: DriftReport) -> Finding:
    name = report.deployment.directory.name
    return Finding(
        "none",
        "good",
        "No rule found a problem.",
        "Put it on a board, and measure there with edgel3-tflm device compare.",
        f"edgel3-tflm export-app {name} --board BOARD",
    )


_RULES: tuple[Callable[[DriftReport], _Findings], ...] = (
    _check_head,
    _check_scales,
    _check_saturation,
    _check_boards,
    _check_classifiers,
    _check_capture,
    _check_layer,
    _check_count,
)


def describe_survival(report: DriftReport) -> str:
    """Return one sentence on how much of the embedding survives on the device."""
    scale = report.scale
    figures = judged_figures(report)
    what = "The device's" if report.device is not None else f"The quantized ({report.first.name})"
    text = (
        f"{what} embeddings have a cosine similarity of {figures.cosine_mean:.4f} to the float"
        f" embeddings (5th percentile {figures.cosine_p5:.4f}; SQNR {figures.sqnr_db:.1f} dB)."
    )
    if scale is not None and scale.later is not None and scale.device.mean > 0:
        text += f" {_compare_distances(scale.device, scale.later)}"
    return text


def _compare_distances(device: Distance, later: Distance) -> str:
    ratio = later.mean / device.mean
    if ratio >= 1:
        return f"Listening 16 ms later changes the float embedding {ratio:.1f} times as much."
    return f"Listening 16 ms later changes the float embedding less, {ratio:.2f} times as much."


def describe_classifiers(classifiers: tuple[ClassifierDrift, ...]) -> str:
    """Return one sentence on what a classifier loses."""
    if not classifiers:
        return (
            "Unknown: the clips have no labels in two folds. Compare with --manifest clips.tsv to"
            " train and test classifiers."
        )
    first = classifiers[0]
    change = first.change_points
    if change.estimate == 0:
        moved = "keeps its accuracy"
    else:
        verb = "gains" if change.estimate > 0 else "loses"
        moved = f"{verb} {abs(change.estimate):.1f} points of accuracy"
    certain = ", which may be chance" if change.low <= 0 <= change.high and change.estimate else ""
    return (
        f"A {first.name} {moved}{certain} (95 %"
        f" interval {change.low:+.1f} to {change.high:+.1f}): {first.float_percent.estimate:.1f} %"
        f" in float, {first.quantized_percent.estimate:.1f} % quantized, of {first.clips} clips."
    )


def describe_boards(report: DriftReport) -> str:
    """Return one sentence on the boards that the model fits, and its time there."""
    fitting = [each for each in report.boards if each.fits]
    if not report.boards:
        return "Unknown: boards are estimated for packed int8 models only."
    if not fitting:
        return f"It fits none of {len(report.boards)} boards."
    best = min(fitting, key=lambda each: each.seconds.high)
    return (
        f"It fits {len(fitting)} of {len(report.boards)} boards. A window of 1 s takes"
        f" {best.seconds.high:.2f} s at most on {best.board.title} (modelled)."
    )
