"""A small drift.json with made-up figures, which tests change and read."""

import json
import math
from dataclasses import asdict
from typing import Any

from edgel3_tflm.drift.downstream import ClassifierDrift, Downstream, Interval
from edgel3_tflm.drift.drift_json import DriftFile, parse_drift
from edgel3_tflm.drift.figures import (
    FORMAT,
    DriftFigures,
    EmbeddingDrift,
    FrontendDrift,
    ModelSize,
)
from edgel3_tflm.drift.layers import LayerDrift, LayerReport
from edgel3_tflm.metrics import METRICS


def make_drift_json() -> dict[str, Any]:
    """Two runtimes, three groups, two layers, one class, one clip, one classifier."""
    figures = asdict(DriftFigures(4, 0, **{metric.name: 0.5 for metric in METRICS}))
    embedding = EmbeddingDrift(0.9, 0.8, 30.0)
    points = Interval(1.0, 0.0, 2.0)
    data = {
        "format": FORMAT.name,
        "format_version": FORMAT.version,
        "generator": "edgel3-tflm test",
        "variant": "sea-64",
        "quantization": "int8",
        "weights": {"sha256": "ab" * 32},
        "models_sha256": {"int8.tflite": "cd" * 32},
        "sizes": {"dense": asdict(ModelSize(1000, 200))},
        "float_runtime": "litert",
        "hop_s": 0.5,
        "resampler": "soxr",
        "runtimes": [
            {
                "runtime": name,
                "groups": dict.fromkeys(("all", "sounding", "near_silent"), figures),
                "classes": {"dog": figures},
                "clips": [{"clip": "a.wav", "label": "dog", **figures}],
                "values_apart": 0.25,
                "steps_apart": 1.0,
            }
            for name in ("litert-builtin", "engine")
        ],
        "layers": asdict(
            LayerReport(
                8,
                (
                    LayerDrift("input", 40.0, 0.001, 0.0, 0.9, math.nan, math.nan),
                    LayerDrift("conv1", 30.0, 0.002, 0.01, 0.8, 35.0, 36.0),
                ),
            )
        ),
        "costliest_layer": "conv1",
        "frontend": asdict(
            FrontendDrift(8, 0.1, 1.0, 0.2, 2, embedding, embedding, embedding, embedding)
        ),
        "downstream": asdict(
            Downstream(
                4, 0.75, 0.999, (ClassifierDrift("linear probe", 2, points, points, points),), ""
            )
        ),
        "notes": [],
    }
    plain: dict[str, Any] = json.loads(json.dumps(data).replace("NaN", "null"))
    return plain


def read(data: dict[str, Any]) -> DriftFile:
    """Read plain data as a drift.json."""
    return parse_drift(json.dumps(data))
