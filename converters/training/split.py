"""The split of clips and videos into a training set and a validation set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgel3_tflm.audio.manifest import LabelledClip, list_folds
from edgel3_tflm.converters.training.recipe import Validation
from edgel3_tflm.converters.training.videos import Video
from edgel3_tflm.errors import AudioError
from edgel3_tflm.files import sha256_hex


@dataclass(frozen=True)
class DistillClip:
    """A clip for training or validation; ``label`` is -1 if its class is unknown."""

    path: Path
    sha256: str
    label: int = -1


def choose_clips(
    validation: Validation, labelled: Sequence[LabelledClip], unlabelled: Sequence[Path]
) -> tuple[list[DistillClip], list[DistillClip]]:
    """Split clips into a training set and a validation set.

    If the recipe names a validation fold, the labelled clips of that fold are the validation set.
    Otherwise the digests of the files select a share of all clips. A clip therefore stays in its
    set when other clips are added.

    Parameters
    ----------
    validation : Validation
    labelled : sequence of LabelledClip
    unlabelled : sequence of pathlib.Path

    Returns
    -------
    training, validation : list of DistillClip

    Raises
    ------
    AudioError
        If a clip cannot be read.
    EdgeL3Error
        If no labelled clip is in the validation fold.
    """
    if validation.fold is not None:
        list_folds(labelled, [validation.fold])
    classes = sorted({clip.label for clip in labelled})
    clips: list[tuple[DistillClip, int | None]] = [
        (DistillClip(clip.path, _digest(clip.path), classes.index(clip.label)), clip.fold)
        for clip in labelled
    ]
    # A directory of unlabelled clips may contain labelled ones, and those of the validation fold.
    known = {clip.sha256 for clip, _ in clips}
    others = (DistillClip(path, _digest(path)) for path in unlabelled)
    clips += [(clip, None) for clip in others if clip.sha256 not in known]
    training_set: list[DistillClip] = []
    validation_set: list[DistillClip] = []
    for clip, fold in clips:
        if validation.fold is not None:
            is_validation = fold == validation.fold
        else:
            is_validation = _is_in_validation_set(clip.sha256, validation.share)
        (validation_set if is_validation else training_set).append(clip)
    return training_set, validation_set


def choose_videos(share: float, videos: Sequence[Video]) -> tuple[list[Video], list[Video]]:
    """Split videos into a training set and a validation set, by the digests of the files.

    A video stays in its set when other videos are added.
    """
    training_set: list[Video] = []
    validation_set: list[Video] = []
    for video in videos:
        is_validation = _is_in_validation_set(video.sha256, share)
        (validation_set if is_validation else training_set).append(video)
    return training_set, validation_set


def _is_in_validation_set(sha256: str, share: float) -> bool:
    return int(sha256[:8], 16) < share * 16**8


def _digest(path: Path) -> str:
    try:
        return sha256_hex(path.read_bytes())
    except OSError as error:
        raise AudioError(f"{path}: cannot read the clip: {error.strerror or error}") from error
