"""The split of clips and videos into a training set and a validation set."""

from pathlib import Path

import pytest

from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.converters.training.recipe import (
    Validation,
)
from edgel3_tflm.converters.training.split import choose_clips, choose_videos
from edgel3_tflm.converters.training.videos import Video
from edgel3_tflm.errors import AudioError, EdgeL3Error


def test_clips_of_the_validation_fold_are_not_in_the_training_set(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(b"%d" % number)
        rows.append(LabelledClip(path, "ab"[number % 2], number % 3))
    training, validation = choose_clips(Validation(fold=2), rows, [])
    assert {clip.path for clip in validation} == {row.path for row in rows if row.fold == 2}
    assert len(training) + len(validation) == 12
    assert {clip.label for clip in training} == {0, 1}
    training, validation = choose_clips(Validation(share=0.5), [], [row.path for row in rows])
    assert validation
    assert training
    fewer, _ = choose_clips(Validation(share=0.5), [], [row.path for row in rows[:6]])
    assert [clip for clip in training if clip in fewer] == fewer  # a file stays in its set


def test_a_labelled_clip_that_is_given_again_without_label_stays_in_its_set(
    tmp_path: Path,
) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    labelled = [LabelledClip(tmp_path / name, "x", fold) for name, fold in (("a", 1), ("b", 2))]
    paths = [tmp_path / name for name in "abc"]
    training, validation = choose_clips(Validation(fold=2), labelled, paths)
    assert [clip.path.name for clip in training] == ["a", "c"]
    assert [clip.path.name for clip in validation] == ["b"]


def test_a_validation_fold_without_clips_is_an_error(tmp_path: Path) -> None:
    clips = [LabelledClip(tmp_path / "not read.wav", "a", fold) for fold in (1, 2)]
    with pytest.raises(EdgeL3Error, match="no clip is in fold 3, expected one of the folds 1, 2"):
        choose_clips(Validation(fold=3), clips, [])
    with pytest.raises(EdgeL3Error, match="no clip is in fold 3, expected labelled clips"):
        choose_clips(Validation(fold=3), [], [tmp_path / "not read.wav"])


def test_a_missing_clip_is_an_audio_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: cannot read the clip: No such file"):
        choose_clips(Validation(), [], [tmp_path / "gone.wav"])


def test_a_video_stays_in_its_set_when_others_are_added(videos: list[Video]) -> None:
    training, validation = choose_videos(0.3, videos)
    assert len(training) > len(validation) > 1
    fewer, fewer_validation = choose_videos(0.3, videos[:20])
    assert [video for video in training if video in fewer] == fewer
    assert [video for video in validation if video in fewer_validation] == fewer_validation
