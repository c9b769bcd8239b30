"""Where time starts, ranges of a video, and fields."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.errors import UsageError
from sglat.media.audio import AudioReader
from sglat.media.reader import Clip, VideoReader
from tests.support.video import moving_square, write_video


def times(source: Path | Clip) -> list[Fraction]:
    with VideoReader(source) as reader:
        return [frame.pts * reader.time_base for frame in reader]


def sound_start(source: Path | Clip) -> Fraction:
    with (
        VideoReader(source) as video,
        AudioReader(source, zero_seconds=video.zero_seconds) as sound,
    ):
        assert sound.format is not None
        return next(iter(sound)).pts * sound.format.time_base


def with_offset(path: Path, seconds: int, *, audio: str | None = "aac", late: int = 0) -> Path:
    """Write a video whose clock starts at `seconds`; its pictures by `late` frames later."""
    stamps = [seconds * 25 + late + i for i in range(10)]
    pictures = [moving_square(i) for i in range(10)]
    return write_video(path, pictures, pts=stamps, audio_codec=audio, audio_start_seconds=seconds)


@pytest.mark.parametrize("name", ["a.ts", "a.m2ts", "a.mkv", "a.mp4", "a.mov", "a.nut"])
def test_a_clock_that_starts_late_is_set_to_zero(tmp_path: Path, name: str) -> None:
    path = with_offset(tmp_path / name, 3600)
    found = times(path)
    assert found[0] < Fraction(1, 20)
    assert abs(found[-1] - found[0] - Fraction(9, 25)) < Fraction(1, 500)
    assert sound_start(path) < Fraction(1, 20)
    assert min(found[0], sound_start(path)) < Fraction(1, 1000)


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_pictures_that_begin_after_the_sound_stay_behind_it(tmp_path: Path, name: str) -> None:
    path = with_offset(tmp_path / name, 60, late=5)
    assert abs(times(path)[0] - Fraction(1, 5)) < Fraction(1, 30)


def test_silent_video_begins_with_its_first_frame(tmp_path: Path) -> None:
    assert times(with_offset(tmp_path / "a.mp4", 7, audio=None))[0] == 0


def test_an_ordinary_clip_keeps_its_time_stamps(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [moving_square(i) for i in range(9)], audio_codec="aac")
    with VideoReader(path) as reader:
        assert reader.zero_seconds == 0
        assert [frame.pts * reader.time_base for frame in reader] == [
            Fraction(i, 25) for i in range(9)
        ]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_range_is_exact(tmp_path: Path, name: str) -> None:
    pictures = [moving_square(i) for i in range(150)]
    path = write_video(tmp_path / name, pictures, options={"g": "30"}, audio_codec="ac3")
    with VideoReader(path) as reader:
        base = reader.time_base
        wanted = [frame.picture for frame in reader if 4 <= frame.pts * base < 5]
    clip = Clip(path=path, start_seconds=Fraction(4), end_seconds=Fraction(5))
    with VideoReader(clip) as reader:
        part = list(reader)
    assert len(wanted) == 25
    assert part[0].pts == 0
    assert all(
        np.array_equal(frame.picture, picture) for frame, picture in zip(part, wanted, strict=True)
    )


def test_the_sound_of_a_range_begins_and_ends_with_it(tmp_path: Path) -> None:
    pictures = [moving_square(i) for i in range(150)]
    path = write_video(tmp_path / "a.mkv", pictures, audio_codec="ac3")
    clip = Clip(path=path, start_seconds=Fraction(2), end_seconds=Fraction(3))
    with (
        VideoReader(clip) as video,
        AudioReader(
            path, zero_seconds=video.zero_seconds, end_seconds=video.end_seconds, is_cut=True
        ) as sound,
    ):
        assert sound.format is not None
        base = sound.format.time_base
        packets = list(sound)
    assert packets[0].pts * base <= 0 < (packets[0].pts + packets[0].duration) * base
    assert packets[-1].pts * base < 1 <= (packets[-1].pts + packets[-1].duration) * base


@pytest.mark.parametrize(("start", "end"), [(9, None), (2, 2), (3, 1)])
def test_a_range_without_frames_is_wrong_usage(tmp_path: Path, start: int, end: int | None) -> None:
    path = write_video(tmp_path / "a.mp4", [moving_square(i) for i in range(9)])
    with pytest.raises(UsageError, match="empty-range"):
        times(
            Clip(
                path=path,
                start_seconds=Fraction(start),
                end_seconds=None if end is None else Fraction(end),
            )
        )


def test_a_range_of_a_video_with_an_offset_counts_from_its_first_frame(tmp_path: Path) -> None:
    clip = Clip(path=with_offset(tmp_path / "a.ts", 3600), start_seconds=Fraction(6, 25))
    assert len(times(clip)) in (4, 5)  # the sound begins a packet before the pictures


def fields(path: Path, *, height: int = 48) -> Path:
    """Write interlaced video: a square that moves by 4 pixels a field."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        stream.codec_context.options = {"qmin": "1", "qmax": "2"}
        stream.codec_context.flags |= int(av.codec.context.Flags.interlaced_dct)
        stream.codec_context.flags |= int(av.codec.context.Flags.interlaced_me)
        stream.options = {"field_order": "tt", "flags": "+ildct+ilme"}
        for index in range(12):
            woven = np.zeros((height, 64, 3), np.uint8)
            for field in range(2):
                left = 2 * (2 * index + field)
                woven[field::2, left : left + 12] = 220
            frame = av.VideoFrame.from_ndarray(woven, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for part in _top_field_first(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def _top_field_first(frame: av.VideoFrame) -> list[av.VideoFrame]:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
    )
    flagged = graph.add("setfield", "tff")
    source.link_to(flagged)
    flagged.link_to(graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    return [graph.vpull()]


def test_fields_become_whole_frames(tmp_path: Path) -> None:
    path = fields(tmp_path / "a.mkv")
    with av.open(str(path)) as container:
        woven = next(container.decode(video=0))
        assert woven.interlaced_frame
        comb = combing(woven.to_ndarray(format="rgb24"))
    with VideoReader(path) as reader:
        frames = list(reader)
        assert any("interlaced" in note for note in reader.notes)
        stamps = [frame.pts * reader.time_base for frame in frames]
    assert stamps == [Fraction(index, 25) for index in range(12)]
    assert combing(frames[5].picture) < comb / 3


def combing(picture: np.ndarray) -> float:
    """Return how much neighbouring lines differ from those of the same field."""
    lines = picture.astype(float).mean(axis=-1)
    return float(np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean())
