"""A corpus: its clips, and the model that embeds them.

Both are small enough to be sent to worker processes. No audio is read and no model is kept open
before a worker does so.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from edgel3_tflm.audio.clips import find_clips
from edgel3_tflm.audio.framing import Framing
from edgel3_tflm.audio.manifest import read_files
from edgel3_tflm.embedding.models import ModelChoice
from edgel3_tflm.embedding.stream import StreamEmbedder
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.networks.sources import Note
from edgel3_tflm.types import Progress

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)  # a corpus may have a million clips
class CorpusClip:
    """A clip of a corpus.

    Parameters
    ----------
    name : str
        The file as the manifest gives it, relative to ``root``. The dataset uses the same name.
    root : pathlib.Path
        An absolute path, because workers have other current directories.
    """

    name: str
    root: Path

    @property
    def path(self) -> Path:
        """The audio file."""
        return self.root / self.name


def read_clip_list(path: Path) -> list[CorpusClip]:
    """Read the list of clips to embed.

    Parameters
    ----------
    path : pathlib.Path
        A directory, which is searched for audio files with all its subdirectories; or a manifest
        as :func:`edgel3_tflm.audio.manifest.read_files` reads it. File names are relative to the
        directory, or to the manifest's directory.

    Raises
    ------
    AudioError
        If the list cannot be read, is empty or contains a clip twice, or if a file name in the
        directory is not UTF-8.
    """
    root = path.absolute()
    if path.is_dir():
        names = [clip.relative_to(path).as_posix() for clip in find_clips([path])]
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise AudioError(
                    f"{path}: expected file names in UTF-8, found {os.fsencode(name)!r}; rename it"
                ) from error
        return [CorpusClip(name, root) for name in names]
    return [CorpusClip(name, root.parent) for name in read_files(path)]


@dataclass(frozen=True)
class CorpusModel:
    """The model and the framing that embed a corpus. Each worker opens the model itself.

    Parameters
    ----------
    choice : ModelChoice
    framing : Framing
    settings : mapping
        Everything that determines the embeddings. All parts of a dataset have the same settings.
        ``model_sha256`` and ``embedding_size`` are always among them.
    provenance : sequence of str
        Lines of text about the model for the parts' metadata. The first one describes the weights.
    """

    choice: ModelChoice
    framing: Framing
    settings: Mapping[str, Any]
    provenance: Sequence[str]

    @classmethod
    def of(
        cls, choice: ModelChoice, framing: Framing, progress: Progress, note: Note = _log.warning
    ) -> "CorpusModel":
        """Open a model once to read its settings.

        Parameters
        ----------
        choice : ModelChoice
        framing : Framing
        progress, note : callable
            As for :meth:`ModelChoice.settle`.

        Raises
        ------
        EdgeL3Error
            If the model cannot be opened, or a hop is shorter than a sample.
        """
        choice = choice.settle(progress, note)
        model = choice.open(threads=1)
        # Workers may have another current directory, and other runtimes may be installed there.
        choice = replace(
            choice,
            source=_absolute(choice.source),
            weights=_absolute(choice.weights),
            quantization=model.quantization,
            runtime=model.runtime,
        )
        framing.hop_samples(model.variant.frontend.sample_rate_hz)
        settings = {
            "variant": model.variant.name,
            "embedding_size": model.variant.embedding_size,
            "model_sha256": model.sha256,
            "quantization": model.quantization,
            "runtime": model.runtime,
            "weights_kind": model.weights_kind,
            "hop_s": float(framing.hop_size),
            "center": bool(framing.center),
            "resampler": framing.resampler,
        }
        return cls(choice, framing, settings, StreamEmbedder(model, framing).provenance)

    def open(self) -> StreamEmbedder:
        """Open the model in a worker, with one thread, because the workers share the cores.

        Raises
        ------
        EdgeL3Error
            If the worker cannot open the model, or finds another model at the same path.
        """
        model = self.choice.open(threads=1)
        if model.sha256 != self.settings["model_sha256"]:
            raise EdgeL3Error(
                f"expected the model {self.settings['model_sha256'][:12]}... in every worker, one"
                f" found {model.sha256[:12]}... at {self.choice.source}; give all of them the same"
            )
        return StreamEmbedder(model, self.framing)


def _absolute(source: _T | Path) -> _T | Path:
    return source.absolute() if isinstance(source, Path) else source
