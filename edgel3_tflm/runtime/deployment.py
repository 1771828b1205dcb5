"""A deployment: the directory that ``convert`` writes and everything else reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from edgel3_tflm.audio.clips import refuse_non_finite
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.runtime.artefacts import (
    FLOAT,
    FLOAT_MODEL_NAME,
    MANIFEST_NAME,
    PACKED_MODEL_NAME,
    quantized_model_name,
)
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import (
    DEFAULT_RUNTIME,
    open_interpreter,
    runs_packed_models,
)
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.types import FloatArray


class Embedder:
    """Computes embeddings with one model in one runtime, on all cores or on so many threads."""

    def __init__(
        self,
        model: bytes,
        variant: Variant,
        input_map: InputMap,
        runtime: str,
        *,
        threads: int | None = None,
    ) -> None:
        self._interpreter = open_interpreter(model, runtime, threads=threads)
        self._threads = threads
        self._variant = variant
        self._input_map = input_map
        spec = variant.frontend
        shape = (1, spec.mels, spec.frames, 1)
        if self._interpreter.input.shape != shape:
            raise ModelFileError(
                f"expected a model with input {shape} for {variant.name},"
                f" found {self._interpreter.input.shape}"
            )

    @property
    def input(self) -> TensorSpec:
        """Of the model's input."""
        return self._interpreter.input

    @property
    def output(self) -> TensorSpec:
        """Of the model's output."""
        return self._interpreter.output

    def embed_log_mel(self, decibels: FloatArray) -> FloatArray:
        """Embed log-mel spectrograms of shape (n, mels, frames); returns (n, d) float32.

        Raises
        ------
        AudioError
            If a value is NaN or infinite.
        """
        refuse_non_finite(decibels, "log-mel values")
        windows = self._input_map.apply(decibels, self._interpreter.input)
        return self._interpreter.output.dequantize(self._interpreter.run(windows))

    def embed(self, windows: FloatArray) -> FloatArray:
        """Embed windows of samples, shape (n, window_samples); returns (n, d) float32.

        Raises
        ------
        AudioError
            If a sample is NaN or infinite.
        """
        refuse_non_finite(windows, "samples")
        decibels = log_mel(windows, self._variant.frontend, threads=self._threads)
        return self.embed_log_mel(decibels)


@dataclass(frozen=True)
class Deployment:
    """A deployment directory whose files have been checked against its manifest."""

    directory: Path
    manifest: Mapping[str, Any]
    variant: Variant
    quantization: str
    input_map: InputMap

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> "Deployment":
        """Read a manifest and check the digest of every file it lists.

        Raises
        ------
        ModelFileError
            If the manifest or a file is missing, damaged or not the one that was written.
        """
        directory = Path(directory)
        path = directory / MANIFEST_NAME
        # Not at the top: pydantic takes long to load, and float networks do without.
        from edgel3_tflm.runtime.deployment_manifest import parse_manifest
        from edgel3_tflm.schema import read_file

        try:
            fields, manifest = read_file(
                path, lambda text: (parse_manifest(text), json.loads(text)), ModelFileError
            )
        except ModelFileError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise ModelFileError(
                    f"{directory}: expected a directory that `edgel3-tflm convert` wrote, it has no"
                    f" {MANIFEST_NAME}"
                ) from error
            raise
        quantization = fields.quantization
        digests = {name: artefact.sha256 for name, artefact in fields.artefacts.items()}
        for name in (FLOAT_MODEL_NAME, quantized_model_name(quantization)):
            if name not in digests:
                raise ModelFileError(f"{path}: expected an entry for {name}, it is missing")
        for name, expected in digests.items():
            # A manifest from elsewhere must not lead out of its directory.
            if Path(name).name != name or not name.isprintable():
                raise ModelFileError(f"{path}: expected a plain file name, found {name!r}")
            try:
                found = sha256_hex((directory / name).read_bytes())
            except OSError as error:
                raise ModelFileError(
                    f"{directory / name}: listed in {MANIFEST_NAME} but cannot be read"
                    f" ({error.strerror}); convert again"
                ) from error
            if found != expected:
                raise ModelFileError(
                    f"{directory / name}: expected SHA-256 {expected[:12]}..., found"
                    f" {found[:12]}...; the file was changed after conversion, convert again"
                )
        input_map = InputMap(fields.input.slope_per_db, fields.input.offset)
        return cls(directory, manifest, fields.variant.variant, quantization, input_map)

    def model_name(self, precision: str, runtime: str = DEFAULT_RUNTIME) -> str:
        """Name of the file that a runtime runs.

        Parameters
        ----------
        precision : str
            'float' or the deployment's quantization.
        runtime : str

        Raises
        ------
        ModelFileError
            If this deployment has no such model, or nothing that the runtime runs.
        """
        if precision not in (FLOAT, self.quantization):
            raise ModelFileError(
                f"{self.directory}: expected quantization {FLOAT} or {self.quantization}, got"
                f" {precision!r}; for another, convert again"
            )
        if not runs_packed_models(runtime):
            return FLOAT_MODEL_NAME if precision == FLOAT else quantized_model_name(precision)
        if precision != "int8":
            raise ModelFileError(
                f"{self.directory}: the runtime {runtime} runs int8 only, not {precision}; choose"
                f" another runtime, {DEFAULT_RUNTIME} for example"
            )
        if PACKED_MODEL_NAME not in self.manifest["artefacts"]:
            refused = self.manifest.get("packed", {}).get("refused")
            raise ModelFileError(
                f"{self.directory}: the runtime {runtime} needs {PACKED_MODEL_NAME}, which"
                + (
                    f" could not be made ({refused}); choose another runtime"
                    if refused
                    else " an older version did not write; convert again"
                )
            )
        return PACKED_MODEL_NAME

    def read_model(self, precision: str, runtime: str = DEFAULT_RUNTIME) -> bytes:
        """Bytes of the file that :meth:`model_name` names."""
        return (self.directory / self.model_name(precision, runtime)).read_bytes()

    def read_packed_model(self) -> bytes | None:
        """Bytes of the packed model; None if this deployment has none."""
        if PACKED_MODEL_NAME not in self.manifest["artefacts"]:
            return None
        return (self.directory / PACKED_MODEL_NAME).read_bytes()

    def embedder(
        self, precision: str, runtime: str = DEFAULT_RUNTIME, *, threads: int | None = None
    ) -> Embedder:
        """Open a model of this deployment in a runtime.

        Raises
        ------
        RuntimeUnavailableError, ModelFileError
            As :func:`edgel3_tflm.runtime.interpreters.open_interpreter` and :meth:`model_name`.
        """
        model = self.read_model(precision, runtime)
        return Embedder(model, self.variant, self.input_map, runtime, threads=threads)
