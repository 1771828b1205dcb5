"""Deployments: directories that ``convert`` writes, with the models of one network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgel3_tflm.audio.clips import refuse_non_finite
from edgel3_tflm.audio.log_mel import log_mel
from edgel3_tflm.audio.pcm import to_int16
from edgel3_tflm.errors import ModelFileError, RuntimeUnavailableError
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.networks.variants import Variant
from edgel3_tflm.notebook import html_table
from edgel3_tflm.runtime.artefacts import (
    FLOAT,
    FLOAT_MODEL_NAME,
    MANIFEST_NAME,
    PACKED_MODEL_NAME,
    quantized_model_name,
)
from edgel3_tflm.runtime.fastest import CANDIDATES, choose_runtime
from edgel3_tflm.runtime.input_map import InputMap
from edgel3_tflm.runtime.interpreters import (
    DEFAULT_RUNTIME,
    EMBEDDER_RUNTIMES,
    NODE,
    interpreter_of,
    open_interpreter,
    runs_packed_models,
    split_runtime,
)
from edgel3_tflm.runtime.tensors import TensorSpec
from edgel3_tflm.types import FloatArray


class Embedder:
    """Computes embeddings with one model in one runtime.

    Only one thread at a time may use it.

    Parameters
    ----------
    model : bytes
        A flatbuffer, or a packed model for the engine.
    variant : Variant
        The network, which determines the frontend.
    input_map : InputMap
    runtime : str
        One of ``interpreters.EMBEDDER_RUNTIMES``.
    threads : int, optional
        Number of threads; by default one for each core.

    Raises
    ------
    ModelFileError
        If the runtime refuses the model, or its input is not that of the network.
    RuntimeUnavailableError
        If the runtime is not installed.
    """

    def __init__(
        self,
        model: bytes,
        variant: Variant,
        input_map: InputMap,
        runtime: str,
        *,
        threads: int | None = None,
    ) -> None:
        if runtime not in EMBEDDER_RUNTIMES:
            raise RuntimeUnavailableError(
                f"unknown runtime {runtime!r}: expected one of {', '.join(EMBEDDER_RUNTIMES)}"
            )
        self._interpreter = open_interpreter(model, interpreter_of(runtime), threads=threads)
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
        self._node_frontend = None
        if runtime == NODE:
            # Imported here because it loads the C extension.
            from edgel3_tflm.runtime.c_library.device_frontend import DeviceFrontend

            self._node_frontend = DeviceFrontend(spec, input_map, self._interpreter.input)

    @property
    def input(self) -> TensorSpec:
        """Shape, type and quantization of the model's input."""
        return self._interpreter.input

    @property
    def output(self) -> TensorSpec:
        """Shape, type and quantization of the model's output."""
        return self._interpreter.output

    def embed_log_mel(self, decibels: FloatArray) -> FloatArray:
        """Embed log-mel spectrograms. The runtime ``node`` uses them instead of its own.

        Parameters
        ----------
        decibels : numpy.ndarray, shape (n, mels, frames), float32

        Returns
        -------
        numpy.ndarray, shape (n, d), float32

        Raises
        ------
        AudioError
            If a value is NaN or infinite.
        """
        refuse_non_finite(decibels, "log-mel values")
        windows = self._input_map.apply(decibels, self._interpreter.input)
        return self._interpreter.output.dequantize(self._interpreter.run(windows))

    def embed(self, windows: FloatArray) -> FloatArray:
        """Embed windows of one second.

        Parameters
        ----------
        windows : numpy.ndarray, shape (n, window_samples), float32
            At the network's sample rate; full scale is 1.

        Returns
        -------
        numpy.ndarray, shape (n, d), float32

        Raises
        ------
        AudioError
            If a sample is NaN or infinite.
        """
        refuse_non_finite(windows, "samples")
        if self._node_frontend is not None:
            levels = [self._node_frontend.log_mel(each) for each in to_int16(windows)]
            return self.embed_log_mel(np.stack(levels))
        decibels = log_mel(windows, self._variant.frontend, threads=self._threads)
        return self.embed_log_mel(decibels)


@dataclass(frozen=True)
class Deployment:
    """A deployment whose files have the digests that its manifest lists.

    Open one with :meth:`load`.

    Parameters
    ----------
    directory : pathlib.Path
    manifest : mapping
        The contents of ``manifest.json``.
    variant : Variant
        The network.
    quantization : {'int8', 'int16x8'}
        Type of the quantized model. A deployment also has the float model.
    input_map : InputMap

    Examples
    --------
    >>> embedder = Deployment.load("edgel3").embedder("int8")
    >>> embeddings = embedder.embed(windows)  # (n, 48000) float32 to (n, 512) float32
    """

    directory: Path
    manifest: Mapping[str, Any]
    variant: Variant
    quantization: str
    input_map: InputMap

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> "Deployment":
        """Read a deployment and check the digest of every file.

        Parameters
        ----------
        directory : str or pathlib.Path

        Raises
        ------
        ModelFileError
            If the manifest or a file is missing, or was changed after ``convert`` wrote it.
        """
        directory = Path(directory)
        path = directory / MANIFEST_NAME
        # Not at the top: pydantic lengthens the import of this package by about 40 %, and a network
        # without a deployment does not need it.
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
            # A manifest from another source must not refer to files outside its directory.
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

    def _repr_html_(self) -> str:
        """Return a table of the files for a notebook."""
        artefacts = self.manifest["artefacts"]
        return html_table(
            f"{self.directory}: {self.variant.name}, {self.quantization}",
            ("file", "bytes"),
            [(name, f"{each['bytes']:,}") for name, each in artefacts.items()],
            (self.manifest["weights"]["description"],),
        )

    def model_name(self, precision: str, runtime: str = DEFAULT_RUNTIME) -> str:
        """Return the name of the file that a runtime runs.

        Parameters
        ----------
        precision : str
            'float' or the deployment's quantization.
        runtime : str

        Raises
        ------
        ModelFileError
            If this deployment has no such model, or none that the runtime can run.
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
        """Return the bytes of the file that a runtime runs; see :meth:`model_name`."""
        return (self.directory / self.model_name(precision, runtime)).read_bytes()

    def fastest_runtime(self, precision: str) -> str:
        """Return the fastest runtime that gives the exact result, measured once on this machine.

        Parameters
        ----------
        precision : str
            'float' or the deployment's quantization.

        Raises
        ------
        ModelFileError
            If this deployment has no such model.
        """
        self.model_name(precision)
        has_packed_model = PACKED_MODEL_NAME in self.manifest["artefacts"]
        return choose_runtime(
            {
                name: self.read_model(precision, name)
                for name in CANDIDATES[precision]
                if has_packed_model or not runs_packed_models(name)
            }
        )

    def read_packed_model(self) -> bytes | None:
        """Return the bytes of the packed model, or None if this deployment has none."""
        if PACKED_MODEL_NAME not in self.manifest["artefacts"]:
            return None
        return (self.directory / PACKED_MODEL_NAME).read_bytes()

    def embedder(
        self,
        precision: str | None = None,
        runtime: str | None = None,
        *,
        threads: int | None = None,
    ) -> Embedder:
        """Open a model of this deployment in a runtime.

        Parameters
        ----------
        precision : str, optional
            'float' or the deployment's quantization, which is the default.
        runtime : str, optional
            One of ``interpreters.EMBEDDER_RUNTIMES``, the names that the commands take; by default
            :meth:`fastest_runtime`. ``float:`` before a name chooses the float model.
        threads : int, optional
            Number of threads; by default one for each core.

        Returns
        -------
        Embedder

        Raises
        ------
        RuntimeUnavailableError, ModelFileError
            As :func:`edgel3_tflm.runtime.interpreters.open_interpreter` and :meth:`model_name`.
        """
        precision, runtime = split_runtime(precision, runtime)
        precision = precision or self.quantization
        runtime = runtime or self.fastest_runtime(precision)
        model = self.read_model(precision, runtime)
        return Embedder(model, self.variant, self.input_map, runtime, threads=threads)
