"""The exceptions and warnings of this package: one root, so that a caller needs one ``except``."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_DISTRIBUTION = "edgel3-tflm"


class EdgeL3Error(Exception):
    """Something the user can mend.

    The message is one line: what was expected, what came, what to do.
    """


class EdgeL3Warning(UserWarning):
    """Something the user should know of a result."""


class WeightsError(EdgeL3Error):
    """Weights that are missing, damaged, of another shape or not the published bytes."""


class WeightsUnreachableError(WeightsError):
    """Published weights that could not be fetched."""


class AudioError(EdgeL3Error):
    """A clip that cannot be read or holds no usable samples."""


class VideoError(EdgeL3Error):
    """A video that cannot be decoded, or lacks pictures or sound; ``path`` is the file.

    Parameters
    ----------
    path : pathlib.Path
    reason : str
        What was expected, and what came.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; remove it, or leave it out by --keep-going")
        self.path = path


class ModelFileError(EdgeL3Error):
    """A flatbuffer or deployment directory that is damaged or not of this project's layout."""


class RuntimeUnavailableError(EdgeL3Error):
    """An interpreter whose package is missing or cannot be loaded here."""


def on_one_line(text: str, most: int = 500) -> str:
    """Escape what does not print and cut what is long: text that a file from outside brings."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= most else line[:most] + "..."


def install_hint(extra: str | None = None, *, options: str | None = None) -> str:
    """Command that installs this package from where it was installed, with an extra.

    A directory, an archive and a repository are named as pip recorded them (PEP 610); else the
    package is named, for a package index to find.

    Parameters
    ----------
    extra : str, optional
    options : str, optional
        Of ``pip install``.
    """
    brackets = f"[{extra}]" if extra else ""
    editable, what = _installed_source(brackets)
    words = ["pip install", options, "-e" if editable else None, shlex.quote(what)]
    return " ".join(word for word in words if word)


def _installed_source(brackets: str) -> tuple[bool, str]:
    """Whether the installation is editable, and pip's requirement for what was installed."""
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
