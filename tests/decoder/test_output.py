"""What `sgl-decode` writes: containers, sound, time, and files that are never replaced."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sglat.bitstream.reader import open_reader
from sglat.bitstream.records import FRAME_HELD
from sglat.bitstream.writer import open_writer
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.decoder.output import OutputConfig, OutputResult, write_decoded
from sglat.errors import SglatError, UsageError
from sglat.media.audio import AudioReader
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import write_file
from tests.support.tolerances import GIF_LEVELS
from tests.support.video import moving_square, write_audio_only, write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


def with_sound(folder: Path, bundle: Bundle, codec: str = "aac", suffix: str = ".mp4") -> Path:
    """Write a `.sglat` file of 25 frames with a second of sound."""
    source = write_video(
        folder / f"in{suffix}", [moving_square(i) for i in range(25)], audio_codec=codec
    )
    with AudioReader(source) as reader:
        assert reader.format is not None
        audio = reader.format, list(reader)
    return write_file(folder / f"{codec}.sglat", bundle, frames=25, audio=audio)


def decode(
    path: Path, bundle: Bundle, target: Path, config: DecodeConfig | None = None, **output: object
) -> OutputResult:
    with path.open("rb") as file:
        decoder = Decoder(file, bundle=bundle, config=config or DecodeConfig(size=64))
        return write_decoded(decoder, OutputConfig(path=target, **output))


def sound_codec(path: Path) -> str | None:
    with AudioReader(path) as reader:
        return None if reader.format is None else reader.format.codec


def start_times(path: Path) -> tuple[float, float]:
    """Return when picture and sound begin by the container's own clock."""
    with VideoReader(path) as video, AudioReader(path) as sound:
        first = next(iter(video)).pts * video.time_base + video.zero_seconds
        return float(first), float(sound.start_seconds or 0)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".webm", "opus"), (".gif", None), (".mov", "aac"), (".mkv", "aac"), (".mp4", "aac")],
)
@pytest.mark.parametrize("is_silent", [False, True])
def test_every_container_can_be_decoded_to(
    tmp_path: Path, bundle: Bundle, suffix: str, codec: str | None, is_silent: bool
) -> None:
    path = (
        write_file(tmp_path / "a.sglat", bundle, frames=25)
        if is_silent
        else with_sound(tmp_path, bundle)
    )
    target = tmp_path / f"out{suffix}"
    decode(path, bundle, target)
    with VideoReader(target) as reader:
        assert len(list(reader)) == 25
    assert sound_codec(target) == (None if is_silent else codec)


@pytest.mark.parametrize(
    ("codec", "expected"), [("pcm_s16le", "aac"), ("pcm_s24le", "aac"), ("flac", "flac")]
)
def test_lossless_sound_goes_into_an_mp4(
    tmp_path: Path, bundle: Bundle, codec: str, expected: str
) -> None:
    result = decode(with_sound(tmp_path, bundle, codec, ".mkv"), bundle, tmp_path / "out.mp4")
    assert sound_codec(tmp_path / "out.mp4") == expected
    assert any("encoded as" in note for note in result.notes) == (expected == "aac")


def test_sound_may_be_left_out(tmp_path: Path, bundle: Bundle) -> None:
    decode(with_sound(tmp_path, bundle), bundle, tmp_path / "out.mp4", has_sound=False)
    assert sound_codec(tmp_path / "out.mp4") is None


@pytest.mark.parametrize("kind", ["longer", "video", "opus"])
def test_sound_may_come_from_another_file(tmp_path: Path, bundle: Bundle, kind: str) -> None:
    if kind == "video":
        other = write_video(
            tmp_path / "other.mp4", [moving_square(i) for i in range(50)], audio_codec="ac3"
        )
    elif kind == "opus":
        other = write_audio_only(tmp_path / "other.ogg", codec="libopus", seconds=2.0)
    else:
        other = write_audio_only(tmp_path / "other.m4a", seconds=3.0)
    decode(with_sound(tmp_path, bundle), bundle, tmp_path / "out.mp4", audio=other)
    assert sound_codec(tmp_path / "out.mp4") == sound_codec(other)
    with AudioReader(tmp_path / "out.mp4") as reader:
        assert reader.format is not None
        packets = list(reader)
        end = (packets[-1].pts + packets[-1].duration) * reader.format.time_base
    assert 0.95 < end < 1.05


def test_a_range_takes_the_same_range_of_another_file(tmp_path: Path, bundle: Bundle) -> None:
    other = write_audio_only(tmp_path / "other.flac", codec="flac", seconds=2.0)
    config = DecodeConfig(size=64, start_seconds=0.4)
    decode(with_sound(tmp_path, bundle), bundle, tmp_path / "out.mkv", config, audio=other)
    with AudioReader(tmp_path / "out.mkv") as part, AudioReader(other) as whole:
        first = next(iter(part)).data
        assert part.format is not None and whole.format is not None
        times = [p.pts * whole.format.time_base for p in whole if p.data == first]
    assert len(times) == 1 and 0.3 < times[0] <= 0.4


def test_a_file_without_sound_is_refused_as_sound(tmp_path: Path, bundle: Bundle) -> None:
    silent = write_video(tmp_path / "silent.mp4", [moving_square(0)])
    with pytest.raises(SglatError, match="no-sound"):
        decode(with_sound(tmp_path, bundle), bundle, tmp_path / "out.mp4", audio=silent)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("start", [90035, 36])
def test_no_blank_stands_before_a_file_whose_time_starts_late(
    tmp_path: Path, bundle: Bundle, start: int
) -> None:
    stamps = [start + i for i in range(25)]
    silent = write_file(tmp_path / "a.sglat", bundle, frames=25, pts=stamps)
    decode(silent, bundle, tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.zero_seconds == 0


def test_late_sound_and_pictures_keep_their_distance(tmp_path: Path, bundle: Bundle) -> None:
    source = write_video(
        tmp_path / "in.ts", [moving_square(i) for i in range(25)],
        pts=[90005 + i for i in range(25)], audio_codec="aac", audio_start_seconds=3600,
    )  # fmt: skip
    with AudioReader(source) as reader:
        assert reader.format is not None
        audio = reader.format, list(reader)
    before = start_times(source)
    first = round((before[0] - 0) * 25)
    path = write_file(
        tmp_path / "a.sglat", bundle, frames=25, pts=[first + i for i in range(25)], audio=audio
    )
    decode(path, bundle, tmp_path / "out.mp4")
    after = start_times(tmp_path / "out.mp4")
    assert min(after) < 0.05
    assert abs((after[0] - after[1]) - (first / 25 - before[1])) < 0.002


def test_nothing_is_left_when_an_option_does_not_fit(tmp_path: Path, bundle: Bundle) -> None:
    path = with_sound(tmp_path, bundle)
    before = sorted(tmp_path.iterdir())
    for target, options in (
        ("out.mp4", {"encoder": "nosuch"}),
        ("out.webm", {"encoder": "libx264"}),
        ("out.gif", {"crf": 20}),
        ("out.mp4", {"crf": 80}),
        ("out.jpg", {}),
    ):
        with pytest.raises(SglatError) as caught:
            decode(path, bundle, tmp_path / target, **options)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_the_video_that_is_pasted_into_is_never_replaced(
    tmp_path: Path, bundle: Bundle, link: object
) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=3)
    onto = write_video(tmp_path / "clip.mp4", [moving_square(i) for i in range(3)])
    content = onto.read_bytes()
    target = onto
    if link is not None:
        target = tmp_path / "other.mp4"
        link(onto, target)  # type: ignore[operator]
    with pytest.raises(UsageError, match="same-file"):
        decode(path, bundle, target, onto=onto, force=True)
    assert onto.read_bytes() == content


def test_better_quality_is_larger(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=10)
    sizes = []
    for quality in (95, 10):
        decode(path, bundle, tmp_path / "out.mp4", quality=quality, force=True)
        sizes.append((tmp_path / "out.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


def test_a_gif_shows_what_the_video_shows(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=4)
    shown = []
    for name in ("out.gif", "out.mkv"):
        decode(path, bundle, tmp_path / name)
        with VideoReader(tmp_path / name) as reader:
            frames = list(reader)
            shown.append(frames[-1].picture.astype(int))
            assert frames[-1].pts * reader.time_base == Fraction(3, 25)
    assert np.abs(shown[0] - shown[1]).mean() < GIF_LEVELS


def lost(path: Path, *spans: range) -> Path:
    """Mark frames of a file as held."""
    flags = np.zeros(25, np.uint8)
    for span in spans:
        flags[list(span)] = FRAME_HELD
    with open_reader(path) as reader:
        starts = np.cumsum([0, *(len(group.motion.values) for group in reader.groups())])
    target = path.with_name(f"lost_{path.name}")
    with open_reader(path) as reader, open_writer(target, reader.header) as writer:
        assert reader.identity is not None
        writer.put_identity(reader.identity)
        if reader.audio_format is not None:
            writer.put_audio_format(reader.audio_format)
        for group, start in zip(reader.groups(), starts, strict=False):
            writer.put_audio(group.packets)
            mine = flags[start : start + len(group.motion.values)]
            writer.put_motion(replace(group.motion, flags=mine), group.placement)
        writer.put_audio(list(reader.trailing_packets))
    return target


def test_lost_frames_are_left_out_and_the_sound_with_them(tmp_path: Path, bundle: Bundle) -> None:
    path = lost(with_sound(tmp_path, bundle), range(3), range(10, 16))
    result = decode(path, bundle, tmp_path / "out.mp4", skip_lost=True)
    assert (result.frames, result.held_frames) == (16, 9)
    with VideoReader(tmp_path / "out.mp4") as reader:
        times = [frame.pts * reader.time_base for frame in reader]
    assert times == [Fraction(i, 25) for i in range(16)]
    with AudioReader(tmp_path / "out.mp4") as sound, AudioReader(tmp_path / "in.mp4") as whole:
        assert sound.format is not None
        kept, stored = list(sound), [packet.data for packet in whole]
        seconds = float(sum(p.duration for p in kept) * sound.format.time_base)
    assert seconds == pytest.approx(16 / 25, abs=0.03)
    steps = {b.pts - a.pts for a, b in pairwise(kept)}
    assert len(steps) == 1  # no gap between packets
    assert {packet.data for packet in kept} <= set(stored)


def test_frames_of_nothing_but_lost_ones_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    path = lost(with_sound(tmp_path, bundle), range(25))
    with pytest.raises(UsageError, match="empty-range"):
        decode(path, bundle, tmp_path / "out.mp4", skip_lost=True)
    assert not (tmp_path / "out.mp4").exists()


def test_nothing_is_left_out_of_another_video(tmp_path: Path, bundle: Bundle) -> None:
    path = with_sound(tmp_path, bundle)
    with pytest.raises(UsageError, match="skip-lost"):
        decode(path, bundle, tmp_path / "o.mp4", skip_lost=True, onto=tmp_path / "in.mp4")
