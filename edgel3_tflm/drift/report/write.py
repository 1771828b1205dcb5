"""Writes a drift report as JSON and as one HTML page. Needs the extra ``report``."""

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgel3_tflm.drift.downstream import RESAMPLES
from edgel3_tflm.drift.figures import JSON_NAME, NEAR_SILENCE_DBFS, DriftReport
from edgel3_tflm.drift.gates import GateResult, gates_json
from edgel3_tflm.drift.report.charts import (
    Name,
    chart_boards,
    chart_classifiers,
    chart_clips,
    chart_distances,
    chart_errors,
    chart_layers,
    chart_map,
    chart_noise,
    chart_scale,
    chart_spectrogram,
    chart_steps,
)
from edgel3_tflm.drift.report.tables import (
    tabulate_apart,
    tabulate_boards,
    tabulate_checks,
    tabulate_classes,
    tabulate_classifiers,
    tabulate_clips,
    tabulate_geometry,
    tabulate_layers,
    tabulate_runtimes,
    tabulate_steps,
)
from edgel3_tflm.drift.report.verdict import (
    Verdict,
    describe_boards,
    describe_classifiers,
    describe_survival,
    judge,
)
from edgel3_tflm.files import new_directory
from edgel3_tflm.networks.weights import SUBSTITUTE_KINDS
from edgel3_tflm.pages.page import render_page

HTML_NAME = "drift.html"


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
    """Return figures, verdict and gates as plain data."""
    return {**report.to_json(), "verdict": judge(report).to_json(), "gates": gates_json(gates)}


def render_html(report: DriftReport, gates: Sequence[GateResult] = ()) -> str:
    """Return one HTML page that needs no other file."""
    folder = _common_folder([drift.clip for drift in report.clips])
    verdict = judge(report)

    def name(clip: str) -> str:
        return str(Path(clip).relative_to(folder)) if folder.parts else clip

    deployment = report.deployment
    return render_page(
        f"Drift of {deployment.variant.name}, float to {deployment.quantization}",
        files("edgel3_tflm.drift.report").joinpath("drift.html.j2").read_text(encoding="utf-8"),
        {
            "report": report,
            "manifest": deployment.manifest,
            "substitute_kinds": SUBSTITUTE_KINDS,
            "folder": folder if folder.parts else "",
            "gates": gates,
            "failed": [result for result in gates if not result.passed],
            "verdict": verdict,
            "resamples": RESAMPLES,
            "near_silence_dbfs": NEAR_SILENCE_DBFS,
            "words": {
                "boards": describe_boards(report),
                "survival": describe_survival(report),
                "classifiers": describe_classifiers(report.downstream.classifiers),
            },
            "charts": _charts(report, name),
            "tables": _tables(report, verdict, name),
        },
    )


def _charts(report: DriftReport, name: Name) -> dict[str, Any]:
    return {
        "boards": chart_boards(report),
        "scale": chart_scale(report),
        "classifiers": chart_classifiers(report),
        "noise": chart_noise(report),
        "windows": [
            chart_distances(report),
            chart_clips(report, name),
            chart_map(report, name),
            chart_errors(report),
        ],
        "layers": None if report.layers is None else chart_layers(report.layers),
        "steps": None if report.frontend is None else chart_steps(report.frontend),
        "worst": [chart_spectrogram(report, each, name) for each in report.worst],
    }


def _tables(report: DriftReport, verdict: Verdict, name: Name) -> dict[str, Any]:
    return {
        "checks": tabulate_checks(verdict),
        "boards": tabulate_boards(report) if report.boards else None,
        "runtimes": tabulate_runtimes(report),
        "apart": tabulate_apart(report) if len(report.runtimes) > 1 else None,
        "layers": tabulate_layers(report) if report.layers else None,
        "steps": tabulate_steps(report) if report.frontend else None,
        "classifiers": tabulate_classifiers(report) if report.downstream.classifiers else None,
        "geometry": tabulate_geometry(report),
        "classes": tabulate_classes(report),
        "clips": tabulate_clips(report, name),
    }


def _common_folder(clips: Sequence[str]) -> Path:
    """Return the folder that contains all clips; an empty path if there is none."""
    parents = {Path(clip).parent for clip in clips}
    if len({parent.is_absolute() for parent in parents}) > 1:
        return Path()
    return Path(os.path.commonpath(parents))
