"""What moved between two drift reports."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgel3_tflm.drift.figures import FORMAT, FORMAT_VERSION
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import METRICS

_METRIC_FIGURES = {metric.name: metric.higher_is_better for metric in METRICS}
"""Figures, and whether higher is better; so in all of these."""
_LAYER_FIGURES = {
    "cost": False,
    "sqnr_db": True,
    "saturation": False,
    "range_use": True,
    "weights_sqnr_db": True,
    "bias_sqnr_db": True,
}
_FRONTEND_FIGURES = {
    "log_mel_mean_db": False,
    "log_mel_worst_db": False,
    "input_changed": False,
    "input_steps": False,
}
_EMBEDDING_FIGURES = {"sqnr_db": True, "cosine_mean": True, "cosine_worst": True}
_DOWNSTREAM_FIGURES = {"neighbour_agreement": True, "linear_cka": True}
_CLASSIFIER_FIGURES = {"change_points": True, "quantized_percent": True, "float_percent": True}
_SIZE_FIGURES = {"flash_bytes": False, "arena_bytes": False}


@dataclass(frozen=True)
class Change:
    """A figure in both reports.

    ``where`` is the runtime, layer or clip that it is of. None stands for what is infinite or not a
    number: no drift at all, in the case of an SQNR.
    """

    where: str
    name: str
    before: float | None
    after: float | None
    higher_is_better: bool

    @property
    def has_moved(self) -> bool:
        """Whether the two are not the same."""
        return self.before != self.after

    @property
    def moved(self) -> float | None:
        """After less before; None where a single one of them is a number."""
        if not self.has_moved:
            return 0.0
        if self.before is None or self.after is None:
            return None
        return self.after - self.before

    @property
    def is_worse(self) -> bool | None:
        """Whether it moved the wrong way; None where that cannot be told."""
        if self.moved is None:
            return None
        return self.moved < 0 if self.higher_is_better else self.moved > 0


@dataclass(frozen=True)
class DriftDiff:
    """What moved between two reports, of what both of them have.

    Parameters
    ----------
    metrics : tuple of Change
        Every metric of every runtime and group of windows.
    layers : tuple of Change
        Every figure of every layer.
    classes, clips : tuple of Change
        Every metric of every class and clip, in every runtime.
    frontend, downstream, sizes : tuple of Change
        Every figure of the frontend, of neighbours and classifiers, and of flash and arena.
    warnings : tuple of str
        What the two reports were not measured alike in: network, weights, clips, hop,
        resampler or float model. Figures that moved may have moved because of it.
    notes : tuple of str
        What else is not the same, so that the two can be told from each other.

    Each begins with the runtime, layer, class and so on that moved most: by its SQNR, a layer by
    its cost, a classifier by the change of its accuracy.
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

    def to_json(self) -> dict[str, Any]:
        """Turn it into plain data, with how far each figure moved."""
        return {
            field.name: [
                each if isinstance(each, str) else {**asdict(each), "moved": each.moved}
                for each in getattr(self, field.name)
            ]
            for field in fields(self)
        }


def read_drift(path: Path) -> dict[str, Any]:
    """Read a drift.json, or that of a directory.

    Raises
    ------
    EdgeL3Error
        If it cannot be read or is no drift report of this version.
    """
    file = path / "drift.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_bytes())
        found = report["format"], report["format_version"]
        _ = [
            (each["runtime"], each["groups"]["all"], each["classes"], each["clips"])
            for each in report["runtimes"]
        ]
        _ = report["layers"], report["frontend"], report["downstream"]["classifiers"]
    except OSError as error:
        raise EdgeL3Error(f"{file}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeL3Error(
            f"{file}: expected a drift.json that `edgel3-tflm compare` wrote"
            f" ({type(error).__name__}: {error}); compare again"
        ) from error
    if found != (FORMAT, FORMAT_VERSION):
        raise EdgeL3Error(
            f"{file}: expected format {FORMAT!r} version {FORMAT_VERSION}, found {found[0]!r}"
            f" version {found[1]!r}"
        )
    checked: dict[str, Any] = report
    return checked


_Places = Iterator[tuple[str, Mapping[str, Any]]]
"""Places of a report, a layer for example, each with its figures by name."""


def diff_drift(before: Mapping[str, Any], after: Mapping[str, Any]) -> DriftDiff:
    """Compare two reports, as :func:`read_drift` gives them."""

    def compare(
        places: Callable[[Mapping[str, Any]], _Places], better: Mapping[str, bool]
    ) -> Iterator[Change]:
        sides = dict(places(before)), dict(places(after))
        for where in (where for where in sides[0] if where in sides[1]):
            for name, higher_is_better in better.items():
                if all(name in side[where] for side in sides):
                    old, new = (side[where][name] for side in sides)
                    yield Change(where, name, old, new, higher_is_better)

    return DriftDiff(
        _most_first(compare(_groups, _METRIC_FIGURES), "sqnr_db"),
        _most_first(compare(_layers, _LAYER_FIGURES), "cost"),
        _most_first(compare(_classes, _METRIC_FIGURES), "sqnr_db"),
        _most_first(compare(_clips, _METRIC_FIGURES), "sqnr_db"),
        (
            *compare(_frontend, _FRONTEND_FIGURES),
            *_most_first(compare(_frontend_embeddings, _EMBEDDING_FIGURES), "sqnr_db"),
        ),
        (
            *compare(_downstream, _DOWNSTREAM_FIGURES),
            *_most_first(compare(_classifiers, _CLASSIFIER_FIGURES), "change_points"),
        ),
        _most_first(compare(_sizes, _SIZE_FIGURES), "flash_bytes"),
        tuple(_unlike(before, after)),
        tuple(_differences(before, after)),
    )


def _most_first(changes: Iterable[Change], key: str) -> tuple[Change, ...]:
    """Order places by how far their figure ``key`` moved; figures of a place stay together."""
    found = tuple(changes)
    moves = {
        each.where: math.inf if each.moved is None else abs(each.moved)
        for each in found
        if each.name == key
    }
    return tuple(sorted(found, key=lambda each: -moves.get(each.where, 0.0)))


def _groups(report: Mapping[str, Any]) -> _Places:
    for runtime in report["runtimes"]:
        for group, figures in runtime["groups"].items():
            yield f"{runtime['runtime']}, {group.replace('_', ' ')}", figures


def _classes(report: Mapping[str, Any]) -> _Places:
    for runtime in report["runtimes"]:
        for label, figures in runtime["classes"].items():
            yield f"{label}, {runtime['runtime']}", figures


def _clips(report: Mapping[str, Any]) -> _Places:
    for runtime in report["runtimes"]:
        for clip in runtime["clips"]:
            yield f"{clip['clip']}, {runtime['runtime']}", clip


def _layers(report: Mapping[str, Any]) -> _Places:
    for layer in (report["layers"] or {"layers": []})["layers"]:
        yield layer["name"], layer


def _frontend(report: Mapping[str, Any]) -> _Places:
    yield "the C frontend", report["frontend"] or {}


def _frontend_embeddings(report: Mapping[str, Any]) -> _Places:
    for name, figures in (report["frontend"] or {}).items():
        if isinstance(figures, dict):
            yield name.replace("_", " "), figures


def _downstream(report: Mapping[str, Any]) -> _Places:
    yield report["runtimes"][0]["runtime"], report["downstream"]


def _classifiers(report: Mapping[str, Any]) -> _Places:
    for classifier in report["downstream"]["classifiers"]:
        estimates = {
            name: interval["estimate"]
            for name, interval in classifier.items()
            if isinstance(interval, dict)
        }
        yield classifier["name"], estimates


def _sizes(report: Mapping[str, Any]) -> _Places:
    yield from report.get("sizes", {}).items()  # the first reports had none


def _unlike(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Say what makes the figures of two reports differ, other than the quantized model."""
    for name in ("variant", "float_runtime", "hop_s", "resampler"):
        if before.get(name) != after.get(name):
            yield f"{name} is not the same: {before.get(name)}, then {after.get(name)}"
    weights = [side["weights"]["sha256"] for side in (before, after)]
    if weights[0] != weights[1]:
        yield f"weights are not the same: SHA-256 {weights[0][:12]}, then {weights[1][:12]}"
    clips = [{clip["clip"] for clip in side["runtimes"][0]["clips"]} for side in (before, after)]
    if alone := clips[0] ^ clips[1]:
        yield f"clips are not the same: {len(alone)} are in one report alone, {min(alone)} for one"


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Say what of the two runs is not the same."""
    for name in ("quantization", "generator"):
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name)}, then {after.get(name)}"
    old, new = (side.get("models_sha256", {}) for side in (before, after))
    for name in (name for name in old if name in new):
        if old[name] != new[name]:
            yield f"{name} is another: SHA-256 {old[name][:12]}, then {new[name][:12]}"
    sets = [[each["runtime"] for each in side["runtimes"]] for side in (before, after)]
    for which, own, other in (("before", sets[0], sets[1]), ("after", sets[1], sets[0])):
        alone = [each for each in own if each not in set(other)]
        if alone:
            yield f"{len(alone)} runtimes {which} alone, {alone[0]} for one"
    costliest = before.get("costliest_layer"), after.get("costliest_layer")
    if costliest[0] != costliest[1]:
        yield f"the layer that costs most: {costliest[0]}, then {costliest[1]}"
