"""Accuracy drift: how far a quantized model's embeddings lie from the float model's."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm._version import __version__
from edgel3_tflm.audio import find_clips, read_windows
from edgel3_tflm.deployment import Deployment
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.frontend import is_silent, log_mel
from edgel3_tflm.interpreters import DEFAULT_RUNTIME
from edgel3_tflm.metrics import cosine_similarity, mean_squared_error, sqnr_db

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DriftFigures:
    """Drift over a set of windows.

    Cosine similarity is per window, SQNR (dB) and mean squared error are over all values;
    see :mod:`edgel3_tflm.metrics` for the formulas. A silent window's log-mel is all zeros, so
    that all silent windows have one and the same embedding.
    """

    windows: int
    silent_windows: int
    cosine_mean: float
    cosine_p5: float
    cosine_worst: float
    sqnr_db: float
    mean_squared_error: float


@dataclass(frozen=True)
class ClipDrift:
    """Drift over the windows of one clip."""

    clip: str
    figures: DriftFigures


@dataclass(frozen=True)
class DriftReport:
    """A comparison, with what a reader needs to judge it.

    ``runtime`` is the quantized model's.
    ``float_embeddings`` and ``quantized_embeddings`` have shape (windows, d), float32, in the order
    of the clips.
    """

    deployment: Deployment
    float_runtime: str
    runtime: str
    hop_s: float
    overall: DriftFigures
    clips: tuple[ClipDrift, ...]
    float_embeddings: FloatArray
    quantized_embeddings: FloatArray

    @property
    def model_names(self) -> tuple[str, str]:
        """Files of the deployment that were run: the float and the quantized model."""
        return (
            self.deployment.model_name("float", self.float_runtime),
            self.deployment.model_name(self.deployment.quantization, self.runtime),
        )

    def to_json(self) -> dict[str, Any]:
        """Turn the figures into plain data; an infinite SQNR (no drift) is None."""
        manifest = self.deployment.manifest

        def plain(figures: DriftFigures) -> dict[str, Any]:
            return {
                key: value if math.isfinite(value) else None
                for key, value in asdict(figures).items()
            }

        return {
            "generator": f"edgel3-tflm {__version__}",
            "variant": self.deployment.variant.name,
            "quantization": self.deployment.quantization,
            "weights": manifest["weights"],
            "models_sha256": {
                name: manifest["artefacts"][name]["sha256"] for name in self.model_names
            },
            "float_runtime": self.float_runtime,
            "runtime": self.runtime,
            "hop_s": self.hop_s,
            "overall": plain(self.overall),
            "clips": [{"clip": drift.clip, **plain(drift.figures)} for drift in self.clips],
        }


def measure(
    reference: FloatArray, other: FloatArray, silent: npt.NDArray[np.bool_]
) -> DriftFigures:
    """Drift of ``other`` against ``reference``, both of shape (n, d); ``silent`` of shape (n,)."""
    cosine = cosine_similarity(reference, other)
    return DriftFigures(
        windows=len(reference),
        silent_windows=int(silent.sum()),
        cosine_mean=float(cosine.mean()),
        cosine_p5=float(np.percentile(cosine, 5)),
        cosine_worst=float(cosine.min()),
        sqnr_db=sqnr_db(reference, other),
        mean_squared_error=mean_squared_error(reference, other),
    )


def compare(
    deployment: Deployment,
    paths: list[Path],
    *,
    runtime: str,
    hop_s: float,
    progress: Callable[[str, int, int], None],
) -> DriftReport:
    """Run the float and the quantized model on the same windows.

    Parameters
    ----------
    deployment : Deployment
    paths : list of pathlib.Path
        Clips, or directories of clips.
    runtime : str
        Runtime of the quantized model; the float one runs in the default runtime.
    hop_s : float
        Seconds from one window of 1 s to the next.
    progress : callable
        Called with the name of the step, clips done and clips in all.

    Raises
    ------
    EdgeL3Error
        If a clip cannot be read, the runtime is missing or the hop is not positive.
    """
    spec = deployment.variant.frontend
    if not 1 <= hop_s * spec.sample_rate_hz < math.inf:
        raise EdgeL3Error(f"expected a hop of at least one sample, in seconds, got {hop_s}")
    clips = find_clips(paths)
    in_float = deployment.embedder("float", DEFAULT_RUNTIME)
    in_integers = deployment.embedder(deployment.quantization, runtime)
    pairs, silences, drifts = [], [], []
    for path, windows in read_windows(
        clips,
        sample_rate_hz=spec.sample_rate_hz,
        window_samples=spec.window_samples,
        hop_s=hop_s,
    ):
        decibels = log_mel(windows, spec)
        pair = in_float.embed_log_mel(decibels), in_integers.embed_log_mel(decibels)
        silent = is_silent(decibels)
        pairs.append(pair)
        silences.append(silent)
        drifts.append(ClipDrift(str(path), measure(*pair, silent)))
        progress("embed clips, float and quantized", len(drifts), len(clips))
    reference, quantized = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return DriftReport(
        deployment,
        DEFAULT_RUNTIME,
        runtime,
        hop_s,
        measure(reference, quantized, np.concatenate(silences)),
        tuple(drifts),
        reference,
        quantized,
    )
