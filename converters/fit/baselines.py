"""Baselines of the linear probe: the statistics of the log-mel, and the teacher."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from edgel3_tflm.audio.log_mel import log_mel_statistics
from edgel3_tflm.converters.fit.measurement import Sample, Teacher, read_figures
from edgel3_tflm.evaluation.probe import FoldResult, extract_features, probe
from edgel3_tflm.files import sha256_hex, write_whole
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.schema import WRITTEN
from edgel3_tflm.types import Progress


@dataclass(frozen=True, config=WRITTEN)
class Baselines:
    """Results of the probe on the mean and deviation of the log-mel, and on the teacher."""

    digest: str
    statistics: list[FoldResult]
    teacher: list[FoldResult]


def find_baselines(
    inputs: dict[str, Any], sample: Sample, teacher: Teacher, path: Path, progress: Progress
) -> Baselines:
    """Read the baselines from a file, or measure them and write it."""
    digest = sha256_hex(json.dumps(inputs, sort_keys=True).encode())
    found = read_figures(path, digest, Baselines)
    if found is None:
        spec, folds = find_variant().frontend, sample.test_folds
        statistics = extract_features(sample.clips, spec, log_mel_statistics, progress)
        theirs = teacher.embed(progress)
        found = Baselines(
            digest, *(probe(sample.clips, each, folds) for each in (statistics, theirs))
        )
        write_whole(path, (json.dumps(asdict(found), indent=2) + "\n").encode())
    return found
