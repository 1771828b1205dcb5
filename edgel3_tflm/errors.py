"""The exceptions and warnings of this package: one root, so that a caller needs one ``except``."""


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


class ModelFileError(EdgeL3Error):
    """A flatbuffer or deployment directory that is damaged or not of this project's layout."""


class RuntimeUnavailableError(EdgeL3Error):
    """An interpreter whose package is missing or cannot be loaded here."""
