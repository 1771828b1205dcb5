"""Writes the arrays of a comparison as ``.npz`` files, to look closer at them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.audio.pcm import to_int16
from edgel3_tflm.drift.figures import DriftReport
from edgel3_tflm.drift.layers import trace_layers
from edgel3_tflm.drift.runtimes import open_frontend
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.files import new_directory

EMBEDDINGS_NAME, LOG_MEL_NAME, LAYERS_NAME = "embeddings.npz", "log_mel.npz", "layers.npz"
_LAYER_WINDOWS = 2
"""The layers of one window of the largest network have 30 million values on both sides."""


def export_arrays(report: DriftReport, directory: Path) -> None:
    """Write embeddings, log-mel and layer outputs, on both sides, to a new directory.

    ``embeddings.npz`` has a row for each window: ``clip``, ``start_s``, ``sounding``, ``float``,
    ``device`` if the device's path was measured, and each runtime by its name; for a runtime that
    rounds samples to 16 bits also ``NAME reference``. ``log_mel.npz`` has the windows that layers
    and frontend are measured on: ``clip``, ``start_s``, ``host``, and ``device`` if the C library
    is built, in dB. ``layers.npz`` has ``LAYER float`` and ``LAYER quantized`` for the first
    windows of ``log_mel.npz``, as real numbers.

    Raises
    ------
    EdgeL3Error
        If the directory contains other files or cannot be written, or if the flatbuffers do not
        have the same layers.
    """
    sample = report.sample
    if sample is None:
        raise EdgeL3Error("expected a report with sampled windows to export, got one without")
    names = np.array([each.clip for each in report.clips])
    embeddings: dict[str, npt.NDArray[Any]] = {
        "clip": names[report.windows.clip],
        "start_s": report.windows.start_s,
        "sounding": report.windows.sounding,
        "float": report.float_embeddings,
    }
    if report.device_embeddings is not None:
        embeddings["device"] = report.device_embeddings
    for each in report.runtimes:
        embeddings[each.name] = each.embeddings
        if each.runtime.rounds:
            embeddings[f"{each.name} reference"] = each.reference
    log_mel: dict[str, npt.NDArray[Any]] = {
        "clip": names[sample.clip],
        "start_s": sample.start_s,
        "host": sample.decibels,
    }
    if report.frontend is not None:
        frontend = open_frontend(report.deployment)
        log_mel["device"] = np.stack([frontend.log_mel(each) for each in to_int16(sample.samples)])
    layers = {
        f"{name} {side}": values
        for name, pair in trace_layers(report.deployment, sample.decibels[:_LAYER_WINDOWS]).items()
        for side, values in zip(("float", "quantized"), pair, strict=True)
    }
    with new_directory(directory, marker=EMBEDDINGS_NAME) as new:
        for file, arrays in (
            (EMBEDDINGS_NAME, embeddings),
            (LOG_MEL_NAME, log_mel),
            (LAYERS_NAME, layers),
        ):
            np.savez_compressed(new / file, **arrays)
