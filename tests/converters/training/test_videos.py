"""Videos: frames, sounds, pairs, and damaged files."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.sounds.videos import ignore_video, write_video
from scipy.stats import binom

from edgel3_tflm.converters.training.pairs import PairSource
from edgel3_tflm.converters.training.videos import Video, find_videos, read_frame, read_sound
from edgel3_tflm.errors import (
    EdgeL3Error,
    RuntimeUnavailableError,
    VideoError,
    install_hint,
)


class TestVideos:
    def test_a_frame_and_the_sound_around_it_are_read(self, videos: list[Video]) -> None:
        video = videos[0]
        assert video.start_s == 0
        assert 1.9 < video.end_s < 2.2  # two seconds, and the padding of the encoder
        frame = read_frame(video, 1.0, short_side=48)
        assert frame.shape == (48, 48, 3)
        seen = np.unravel_index(frame.max(axis=2).argmax(), (48, 48))
        # Hue 0 is (255, 0, 0); lossy coding changes it, but not to another of the four colours.
        assert frame[seen].argmax() == 0
        sound = read_sound(video, 1.0, 8000)
        assert np.abs(np.fft.rfft(sound)).argmax() == 1000  # bins of one second are hertz
        assert np.abs(np.fft.rfft(read_sound(video, 1.0, 16_000))).argmax() == 1000

    def test_a_batch_is_determined_by_its_number(self, videos: list[Video]) -> None:
        source = PairSource(videos, sample_rate_hz=8000, frame_pixels=32, varied=True)
        first, again, other = (source.batch(1, number, 8) for number in (3, 3, 4))
        np.testing.assert_array_equal(first.frames, again.frames)
        np.testing.assert_array_equal(first.windows, again.windows)
        np.testing.assert_array_equal(first.matching, again.matching)
        assert (first.windows != other.windows).any()
        assert first.frames.shape == (8, 32, 32, 3)
        assert first.windows.shape == (8, 8000)

    def test_half_the_pairs_match_and_only_they_share_a_video(self, videos: list[Video]) -> None:
        two = videos[:2]  # a tone and beeps, which are silent half the time
        pairs = PairSource(two, sample_rate_hz=8000, frame_pixels=32, varied=False).batch(1, 0, 100)
        is_beep = (np.abs(pairs.windows) < 0.05).mean(axis=1) > 0.4
        colours = pairs.frames.reshape(100, -1, 3).max(axis=1)
        is_green = colours[:, 1] > colours[:, 0]
        np.testing.assert_array_equal(pairs.matching, is_green == is_beep)
        # A fair coin leaves this range with a probability of two in a million.
        assert binom.isf(1 - 1e-6, 100, 0.5) <= pairs.matching.sum() <= binom.isf(1e-6, 100, 0.5)

    def test_nothing_to_read_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EdgeL3Error, match="it does not exist"):
            find_videos(tmp_path / "nowhere", ignore_video)
        (tmp_path / "notes.txt").write_text("no video")
        with pytest.raises(EdgeL3Error, match=r"expected videos .*\.mp4.*, found none"):
            find_videos(tmp_path, ignore_video)

    def test_videos_without_sound_are_refused(self, tmp_path: Path) -> None:
        write_video(tmp_path / "silent film.mp4", 0, sound=False)
        with pytest.raises(EdgeL3Error, match=r"silent film\.mp4: .* it has no sound; remove it"):
            find_videos(tmp_path, ignore_video)

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
    @pytest.mark.parametrize("share", [0, 0.02, 0.5])
    def test_a_video_that_is_cut_is_named(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = tmp_path / f"cut.{suffix}"
        write_video(path, 0)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(EdgeL3Error, match=rf"cut\.{suffix}: expected") as refused:
            find_videos(tmp_path, ignore_video)
        assert "\n" not in str(refused.value)

    def test_damaged_videos_are_named_and_left_out_when_asked(self, tmp_path: Path) -> None:
        for number in range(3):
            write_video(tmp_path / f"{number}.mp4", number)
        (tmp_path / "1.mp4").write_bytes(b"no video")
        damaged: list[VideoError] = []
        found = find_videos(tmp_path, ignore_video, damaged.append)
        assert [video.path.name for video in found] == ["0.mp4", "2.mp4"]
        assert [error.path for error in damaged] == [tmp_path / "1.mp4"]

    def test_another_pair_is_drawn_where_a_video_cannot_be_decoded(
        self, videos: list[Video]
    ) -> None:
        # The second video is declared to be ten times as long as it is.
        torn = [videos[0], replace(videos[1], end_s=20.0), videos[2]]
        choice = {"sample_rate_hz": 8000, "frame_pixels": 32, "varied": True}
        with pytest.raises(VideoError, match=r"01\.mp4: expected a whole video"):
            PairSource(torn, **choice).batch(1, 0, 16)
        damaged: list[VideoError] = []
        source = PairSource(torn, **choice, on_damaged=damaged.append)
        first, again = (source.batch(1, 0, 16) for _ in range(2))
        assert {error.path for error in damaged} == {videos[1].path}
        assert first.frames.shape == (16, 32, 32, 3)
        np.testing.assert_array_equal(first.frames, again.frames)
        np.testing.assert_array_equal(first.windows, again.windows)
        nothing = [replace(video, start_s=50.0, end_s=60.0) for video in videos[:2]]
        with pytest.raises(VideoError, match="expected a whole video"):
            PairSource(nothing, **choice, on_damaged=damaged.append).batch(1, 0, 2)

    def test_a_missing_package_names_the_extra(
        self, video_directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(RuntimeUnavailableError, match=re.escape(install_hint("video"))):
            find_videos(video_directory, ignore_video)
