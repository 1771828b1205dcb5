"""The differences between two drift reports."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from edgel3_tflm.drift.downstream import CLASSIFIER_FIGURES, DOWNSTREAM_FIGURES, Interval
from edgel3_tflm.drift.figures import FRONTEND_FIGURES, SIZE_FIGURES, EmbeddingDrift
from edgel3_tflm.drift.layers import LAYER_FIGURES
from edgel3_tflm.metrics import METRICS

if TYPE_CHECKING:  # it loads pydantic, which only a reader of drift.json needs
    from edgel3_tflm.drift.drift_json import DriftFile

_SQUARED_ERRORS, _ERRORS = {"mean_squared_error"}, {"mean_absolute_error", "relative_l2"}
DEVICE_PATH = "the device's path, sounding"
_METRIC_FIGURES = {metric.name: metric.higher_is_better for metric in METRICS}
_EMBEDDING_FIGURES = {field.name: _METRIC_FIGURES[field.name] for field in fields(EmbeddingDrift)}


@dataclass(frozen=True)
class Change:
    """A figure that both reports have.

    Parameters
    ----------
    where : str
        The runtime, layer, clip and so on that the figure was measured for.
    name : str
    before, after : float or None
        None stands for infinite values and NaN, for example for the SQNR of equal embeddings.
    higher_is_better : bool
    """

    where: str
    name: str
    before: float | None
    after: float | None
    higher_is_better: bool

    @property
    def has_moved(self) -> bool:
        """Whether the two values differ."""
        return self.before != self.after

    @property
    def moved(self) -> float | None:
        """After minus before; None if only one of them is a number."""
        if not self.has_moved:
            return 0.0
        if self.before is None or self.after is None:
            return None
        return self.after - self.before

    @property
    def is_worse(self) -> bool | None:
        """Whether the figure got worse; None if only one of the values is a number."""
        if self.moved is None:
            return None
        return self.moved < 0 if self.higher_is_better else self.moved > 0

    @property
    def error_db(self) -> float:
        """By how many dB the power of the error grew, which makes metrics comparable.

        0 if the figure is no measure of an error, and infinite if only one of the values is one.
        """
        if not self.has_moved or not (
            self.name in _SQUARED_ERRORS or self.name in _ERRORS or "cosine" in self.name
        ):
            return 0.0 if self.name != "sqnr_db" else -(self.moved or 0.0)
        sides = [math.nan if each is None else each for each in (self.before, self.after)]
        if "cosine" in self.name:  # 1 - cosine is half the power of the error of unit vectors
            sides = [1 - each for each in sides]
        before, after = sides
        if not (before > 0 and after > 0):
            return math.inf if after > 0 else -math.inf
        return (20 if self.name in _ERRORS else 10) * math.log10(after / before)


@dataclass(frozen=True)
class DriftDiff:
    """The changes of all figures that both reports have.

    Every tuple of changes begins with the runtime, layer, class and so on that moved most. The
    measure for this is the SQNR; for a layer its cost, for a classifier the change of its accuracy.

    Parameters
    ----------
    metrics : tuple of Change
        Metrics of each runtime and group of windows.
    layers : tuple of Change
        Figures of each layer.
    classes, clips : tuple of Change
        Metrics of each class and clip in each runtime.
    frontend, downstream, sizes : tuple of Change
        Figures of the frontend, of neighbours and classifiers, and of flash and arena.
    warnings : tuple of str
        Conditions of the measurement that differ: network, weights, clips, hop, resampler or float
        model. Figures may have changed for this reason alone.
    notes : tuple of str
        Other differences between the two runs, for example the models' digests.
    """

    metrics: tuple[Change, ...]
    layers: tuple[Change, ...]
    classes: tuple[Change, ...]
    clips: tuple[Change, ...]
    frontend: tuple[Change, ...]
    downstream: tuple[Change, ...]
    sizes: tuple[Change, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def rank(self) -> list[Change]:
        """Return what moved in the metrics of runtimes and layers: worse first, then the largest.

        The measure is :attr:`Change.error_db`.
        """
        moved = [
            each for each in (*self.metrics, *self.layers) if each.has_moved and each.error_db != 0
        ]
        return sorted(moved, key=lambda each: (each.error_db < 0, -abs(each.error_db)))

    def to_json(self) -> dict[str, Any]:
        """Return the changes as plain data, each with the difference of its values."""
        return {
            field.name: [
                each if isinstance(each, str) else {**asdict(each), "moved": each.moved}
                for each in getattr(self, field.name)
            ]
            for field in fields(self)
        }


_Positions = Iterator[tuple[str, object]]
"""Parts of a report, for example its layers: the name of each, and the object with its figures."""


def diff_drift(before: "DriftFile", after: "DriftFile") -> DriftDiff:
    """Compare two reports."""

    def compare(
        positions: Callable[["DriftFile"], _Positions], better: Mapping[str, bool]
    ) -> Iterator[Change]:
        sides = dict(positions(before)), dict(positions(after))
        for where in (where for where in sides[0] if where in sides[1]):
            for name, higher_is_better in better.items():
                old, new = (_number_or_none(getattr(side[where], name)) for side in sides)
                yield Change(where, name, old, new, higher_is_better)

    return DriftDiff(
        _most_first(compare(_groups, _METRIC_FIGURES), "sqnr_db"),
        _most_first(compare(_layers, LAYER_FIGURES), "cost"),
        _most_first(compare(_classes, _METRIC_FIGURES), "sqnr_db"),
        _most_first(compare(_clips, _METRIC_FIGURES), "sqnr_db"),
        (
            *compare(_frontend, FRONTEND_FIGURES),
            *_most_first(compare(_frontend_embeddings, _EMBEDDING_FIGURES), "sqnr_db"),
        ),
        (
            *compare(_downstream, DOWNSTREAM_FIGURES),
            *_most_first(compare(_classifiers, CLASSIFIER_FIGURES), "change_points"),
        ),
        _most_first(compare(_sizes, SIZE_FIGURES), "flash_bytes"),
        tuple(_unlike(before, after)),
        tuple(_differences(before, after)),
    )


def _number_or_none(value: Any) -> float | None:
    """Return the value of a figure, an interval's estimate; None for NaN."""
    number: float = value.estimate if isinstance(value, Interval) else value
    return None if math.isnan(number) else number


def _most_first(changes: Iterable[Change], key: str) -> tuple[Change, ...]:
    """Sort runtimes, layers and so on by how far their figure ``key`` moved.

    The figures of one runtime or layer stay together.
    """
    found = tuple(changes)
    moves = {
        each.where: math.inf if each.moved is None else abs(each.moved)
        for each in found
        if each.name == key
    }
    return tuple(sorted(found, key=lambda each: -moves.get(each.where, 0.0)))


def _groups(report: "DriftFile") -> _Positions:
    if report.device is not None:
        yield DEVICE_PATH, report.device
    for runtime in report.runtimes:
        for group, figures in runtime.groups.items():
            yield f"{runtime.name}, {group.replace('_', ' ')}", figures


def _classes(report: "DriftFile") -> _Positions:
    for runtime in report.runtimes:
        for label, figures in runtime.classes.items():
            yield f"{label}, {runtime.name}", figures


def _clips(report: "DriftFile") -> _Positions:
    for runtime in report.runtimes:
        for clip in runtime.clips:
            yield f"{clip.clip}, {runtime.name}", clip


def _layers(report: "DriftFile") -> _Positions:
    for layer in report.layers.layers if report.layers else ():
        yield layer.name, layer


def _frontend(report: "DriftFile") -> _Positions:
    if report.frontend is not None:
        yield "the C frontend", report.frontend


def _frontend_embeddings(report: "DriftFile") -> _Positions:
    if report.frontend is not None:
        for field in fields(report.frontend):
            if isinstance(drift := getattr(report.frontend, field.name), EmbeddingDrift):
                yield field.name.replace("_", " "), drift


def _downstream(report: "DriftFile") -> _Positions:
    yield report.first.name, report.downstream


def _classifiers(report: "DriftFile") -> _Positions:
    for classifier in report.downstream.classifiers:
        yield classifier.name, classifier


def _sizes(report: "DriftFile") -> _Positions:
    yield from report.sizes.items()


def _unlike(before: "DriftFile", after: "DriftFile") -> Iterator[str]:
    """Describe each condition of the measurement that differs, other than the quantized model."""
    for name in ("variant", "float_runtime", "hop_s", "resampler"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield f"{name} is not the same: {old}, then {new}"
    weights = [side.weights.sha256 for side in (before, after)]
    if weights[0] != weights[1]:
        yield f"weights are not the same: SHA-256 {weights[0][:12]}, then {weights[1][:12]}"
    clips = [{clip.clip for clip in side.first.clips} for side in (before, after)]
    if alone := clips[0] ^ clips[1]:
        yield (
            f"clips are not the same: {len(alone)} are in one report only, for example {min(alone)}"
        )


def _differences(before: "DriftFile", after: "DriftFile") -> Iterator[str]:
    """Describe each other difference between the two runs."""
    for name in ("quantization", "generator"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield f"{name}: {old}, then {new}"
    for name, digest in before.models_sha256.items():
        other = after.models_sha256.get(name, digest)
        if digest != other:
            yield f"{name} is not the same: SHA-256 {digest[:12]}, then {other[:12]}"
    sets = [[each.name for each in side.runtimes] for side in (before, after)]
    for which, own, others in (("before", sets[0], sets[1]), ("after", sets[1], sets[0])):
        alone = [each for each in own if each not in set(others)]
        if alone:
            yield f"{len(alone)} runtimes only {which}, for example {alone[0]}"
    if before.costliest_layer != after.costliest_layer:
        yield f"the costliest layer: {before.costliest_layer}, then {after.costliest_layer}"
