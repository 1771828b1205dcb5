"""The exceptions and warnings of this package, and helpers for their messages."""

import json
import shlex
from pathlib import Path

_DISTRIBUTION = "edgel3-tflm"


class EdgeL3Error(Exception):
    """Base class of all errors that the user can correct.

    The message is one line. It says what was expected, what was found and what to do.
    """


class EdgeL3Warning(UserWarning):
    """A fact about a result that the user should know."""


class WeightsError(EdgeL3Error):
    """Weights that are missing or damaged, or have another shape or digest than expected."""


class WeightsUnreachableError(WeightsError):
    """Published weights that could not be fetched."""


class AudioError(EdgeL3Error):
    """A clip that cannot be read or contains no usable samples."""


class VideoError(EdgeL3Error):
    """A video that cannot be decoded, or that has no pictures or no sound.

    Parameters
    ----------
    path : pathlib.Path
        The video file.
    reason : str
        What was expected, and what was found.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; remove it, or leave it out by --keep-going")
        self.path = path


class ModelFileError(EdgeL3Error):
    """A flatbuffer or deployment directory that is damaged or has another layout."""


class RuntimeUnavailableError(EdgeL3Error):
    """An interpreter whose package is missing or cannot be loaded here."""


def on_one_line(text: str, most: int = 500) -> str:
    """Return text from an untrusted file in a form that fits into a message.

    Characters that do not print are escaped. After ``most`` characters the text is cut.
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= most else line[:most] + "..."


def install_hint(extra: str | None = None, *, options: str | None = None) -> str:
    """Return the command that installs this package with an extra, from its present source.

    The source is the directory, archive or repository that pip recorded (PEP 610). Without a record
    it is the package index.

    Parameters
    ----------
    extra : str, optional
    options : str, optional
        Options of ``pip install``.
    """
    brackets = f"[{extra}]" if extra else ""
    editable, what = _installed_source(brackets)
    parts = ["pip install", options, "-e" if editable else None, shlex.quote(what)]
    return " ".join(part for part in parts if part)


def _installed_source(brackets: str) -> tuple[bool, str]:
    """Return whether the installation is editable, and pip's requirement for its source."""
    # Every command would take 10 to 20 ms longer to start if these were imported above.
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    by_name = f"{_DISTRIBUTION}{brackets}"
    try:
        record = json.loads(distribution(_DISTRIBUTION).read_text("direct_url.json") or "{}")
        url = str(record["url"])
        subdirectory = record.get("subdirectory", "")
        if "vcs_info" in record:
            vcs = record["vcs_info"]
            fragment = f"#subdirectory={subdirectory}" if subdirectory else ""
            return False, f"{by_name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}{fragment}"
        parts = urlsplit(url)
        if parts.scheme != "file":
            return False, f"{by_name} @ {url}"
        path = url2pathname(parts.path) + (f"/{subdirectory}" if subdirectory else "")
        return bool(record.get("dir_info", {}).get("editable")), f"{path}{brackets}"
    except (PackageNotFoundError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return False, by_name
