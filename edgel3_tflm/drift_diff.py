"""What moved between two drift reports."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgel3_tflm.drift import FORMAT, FORMAT_VERSION
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import METRICS

_LAYER_FIGURES = {
    "sqnr_db": True,
    "cost": False,
    "saturation": False,
    "range_use": True,
    "weights_sqnr_db": True,
    "bias_sqnr_db": True,
}
"""Figures of a layer, and whether higher is better."""
_CLIP_FIGURE = "sqnr_db"


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
    def moved(self) -> float:
        """After less before; 0 where one of them is None."""
        if self.before is None or self.after is None:
            return 0.0
        return self.after - self.before

    @property
    def is_worse(self) -> bool:
        """Whether it moved the wrong way."""
        return self.moved < 0 if self.higher_is_better else self.moved > 0


@dataclass(frozen=True)
class DriftDiff:
    """What moved between two reports.

    ``metrics`` has every metric of every runtime that both reports have, ``layers`` every figure of
    every layer, ``clips`` the SQNR of the clips, those that moved most first. ``notes`` says what
    else is not the same, so that the two can be told from each other.
    """

    metrics: tuple[Change, ...]
    layers: tuple[Change, ...]
    clips: tuple[Change, ...]
    notes: tuple[str, ...]


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
        _ = [(each["runtime"], each["groups"]["all"], each["clips"]) for each in report["runtimes"]]
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


def diff_drift(before: Mapping[str, Any], after: Mapping[str, Any]) -> DriftDiff:
    """Compare two reports, as :func:`read_drift` gives them."""
    old, new = ({each["runtime"]: each for each in side["runtimes"]} for side in (before, after))
    metrics: list[Change] = []
    clips: list[Change] = []
    for runtime in (name for name in old if name in new):
        sides = [side[runtime]["groups"]["all"] for side in (old, new)]
        better = {metric.name: metric.higher_is_better for metric in METRICS}
        metrics += _changes(runtime, sides, better)
        names = [{each["clip"]: each for each in side[runtime]["clips"]} for side in (old, new)]
        for clip in (name for name in names[0] if name in names[1]):
            pair = [side[clip] for side in names]
            clips += _changes(f"{clip}, {runtime}", pair, {_CLIP_FIGURE: True})
    layers: list[Change] = []
    found = [
        {layer["name"]: layer for layer in (side["layers"] or {"layers": []})["layers"]}
        for side in (before, after)
    ]
    for name in (name for name in found[0] if name in found[1]):
        layers += _changes(name, [side[name] for side in found], _LAYER_FIGURES)
    return DriftDiff(
        tuple(metrics),
        tuple(layers),
        tuple(sorted(clips, key=lambda change: -abs(change.moved))),
        tuple(_differences(before, after)),
    )


def _changes(
    where: str, sides: Sequence[Mapping[str, Any]], better: Mapping[str, bool]
) -> Iterator[Change]:
    before, after = sides
    for name, higher_is_better in better.items():
        yield Change(where, name, before.get(name), after.get(name), higher_is_better)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Say what of the two runs is not the same."""
    for name in ("variant", "quantization", "generator", "float_runtime", "hop_s"):
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name)}, then {after.get(name)}"
    old, new = (side.get("models_sha256", {}) for side in (before, after))
    for name in (name for name in old if name in new):
        if old[name] != new[name]:
            yield f"{name} is another: SHA-256 {old[name][:12]}, then {new[name][:12]}"
    for title, sets in (
        ("runtime", [[each["runtime"] for each in side["runtimes"]] for side in (before, after)]),
        (
            "clip",
            [[clip["clip"] for clip in side["runtimes"][0]["clips"]] for side in (before, after)],
        ),
    ):
        for which, own, other in (("before", sets[0], sets[1]), ("after", sets[1], sets[0])):
            alone = [each for each in own if each not in set(other)]
            if alone:
                yield f"{len(alone)} {title}s {which} alone, {alone[0]} for one"
    costliest = before.get("costliest_layer"), after.get("costliest_layer")
    if costliest[0] != costliest[1]:
        yield f"the layer that costs most: {costliest[0]}, then {costliest[1]}"
