"""Every container gets codecs that it can hold; what cannot be is one line that says what can."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError, SglatError, UsageError
from sglat.media.audio import AudioReader
from sglat.media.containers import CONTAINERS, encoder_options
from sglat.media.pictures import generated_marks
from sglat.media.reader import VideoReader
from sglat.media.writer import VideoWriter
from tests.support.tolerances import IN_STEP_SECONDS, TRANSCODED_SOUND_DB
from tests.support.video import moving_square, write_video

SIZE = (128, 96)  # libsvtav1 takes no sides below 64
SOUNDS = [("aac", ".mp4"), ("libopus", ".mkv"), ("flac", ".mkv"), ("pcm_s16le", ".mkv")]


def sound_of(path: Path) -> tuple[AudioFormat, list[AudioPacket]]:
    with AudioReader(path) as reader:
        assert reader.format is not None
        return reader.format, list(reader)


def write(path: Path, *, frames: int = 25, **options: object) -> VideoWriter:
    options.setdefault("time_base", Fraction(1, 25))
    with VideoWriter(path, size=SIZE, **options) as writer:
        for i in range(frames):
            writer.write(moving_square(i, width=SIZE[0], height=SIZE[1]), i, duration=1)
    return writer


def samples(path: Path) -> np.ndarray:
    """Return the sound as `[channels, N]` float at 48 kHz, from time 0 on."""
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=48000)
    parts, first = [], None
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            first = float(frame.pts * frame.time_base) if first is None else first
            parts += [part.to_ndarray() for part in resampler.resample(frame)]
    parts += [part.to_ndarray() for part in resampler.resample(None)]
    joined = np.concatenate(parts, axis=1)
    shift = round((first or 0) * 48000)
    return np.pad(joined, ((0, 0), (shift, 0))) if shift > 0 else joined[:, -shift:]


@pytest.mark.parametrize("suffix", sorted(CONTAINERS))
@pytest.mark.parametrize(("codec", "source"), SOUNDS)
def test_every_container_takes_every_sound(
    tmp_path: Path, suffix: str, codec: str, source: str
) -> None:
    clip = write_video(
        tmp_path / f"in{source}", [moving_square(i) for i in range(25)], audio_codec=codec
    )
    target = tmp_path / f"out{suffix}"
    writer = write(target, audio=sound_of(clip))
    with VideoReader(target) as reader:
        assert len(list(reader)) == 25
    if CONTAINERS[suffix].sound is None:
        assert any("left out" in note for note in writer.notes)
        return
    before, after = samples(clip), samples(target)
    lag = best_lag(before, after)
    with VideoReader(target) as reader:
        late = lag / 48000 - float((next(iter(reader)).pts + reader.zero_seconds / reader.time_base)
                                   * reader.time_base)  # fmt: skip
    assert abs(late) < IN_STEP_SECONDS
    part, same = before[:, 4800:38400], after[:, 4800 + lag : 38400 + lag]
    error = np.square(part - same).mean() + 1e-9
    assert 10 * np.log10(np.square(part).mean() / error) > TRANSCODED_SOUND_DB


def best_lag(before: np.ndarray, after: np.ndarray) -> int:
    """Return by how many samples the sweep comes later."""
    part = before[0, 4800:24000]
    scores = np.correlate(after[0, 3600:32000], part, mode="valid")
    return int(scores.argmax()) - 1200


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "h264"), ("a.mov", "h264"), ("a.mkv", "h264"), ("a.webm", "vp9"),
        ("a.gif", "gif"), ("a.apng", "apng"), ("a.avi", "mpeg4"), ("a.m2ts", "h264"),
    ],
)  # fmt: skip
def test_the_name_chooses_the_codec(tmp_path: Path, name: str, codec: str) -> None:
    write(tmp_path / name, frames=3)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.name == codec


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("a.webm", "libsvtav1"), ("a.mov", "prores_ks"), ("a.mkv", "ffv1"), ("a.mp4", "libx265")],
)
def test_other_encoders_work_where_the_container_holds_them(
    tmp_path: Path, name: str, encoder: str
) -> None:
    write(tmp_path / name, frames=3, encoder=encoder)
    with VideoReader(tmp_path / name) as reader:
        frames = list(reader)
    shown = moving_square(0, width=SIZE[0], height=SIZE[1])
    assert len(frames) == 3
    assert np.abs(frames[0].picture.astype(int) - shown).mean() < 6


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.mp4", {"encoder": "nosuch"}, "--encoder libx264"),
        ("a.mp4", {"encoder": "aac"}, "not video"),
        ("a.webm", {"encoder": "libx264"}, "--encoder libvpx-vp9"),
        ("a.gif", {"encoder": "libx264"}, "--encoder gif"),
        ("a.mp4", {"encoder": "gif"}, "--encoder libx264"),
        ("a.mp4", {"encoder": "wmv2"}, "libx264"),
        ("a.xyz", {}, ".mp4"),
        ("a.png", {}, ".mp4"),
        ("a", {}, ".mp4"),
        ("a.mp4", {"crf": 99}, "0 (best) to 51"),
        ("a.gif", {"quality": 50}, "no quality"),
        ("a.mkv", {"encoder": "ffv1", "crf": 20}, "no quality"),
    ],
)
def test_what_cannot_be_written_is_one_line_that_says_what_can(
    tmp_path: Path, name: str, options: dict[str, object], expected: str
) -> None:
    with pytest.raises(SglatError) as caught:
        write(tmp_path / name, **options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_refuses_its_settings_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="output-refused") as caught:
        write(tmp_path / "a.avi", time_base=Fraction(1, 90000))  # MPEG-4 counts to 65535
    assert "\n" not in str(caught.value)
    assert "--encoder libx264" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("a.mp4", ("crf", 10, 40)), ("a.webm", ("crf", 10, 55)), ("a.mp4", ("quality", 90, 20)),
        ("a.webm", ("quality", 90, 20)),
    ],
)  # fmt: skip
def test_better_quality_takes_more_bytes(
    tmp_path: Path, name: str, marks: tuple[str, int, int]
) -> None:
    option, good, poor = marks
    sizes = []
    for value in (good, poor):
        write(tmp_path / name, frames=10, force=True, **{option: value})
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] > 1.2 * sizes[1]


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_one_frame_is_a_video(tmp_path: Path, encoder: str) -> None:
    for _ in range(6):  # what libx265 leaves open changes from run to run
        write(tmp_path / "a.mp4", frames=1, encoder=encoder, force=True)
        with VideoReader(tmp_path / "a.mp4") as reader:
            assert len(list(reader)) == 1


def test_quality_reaches_both_ends_of_each_scale() -> None:
    assert encoder_options("libx264", quality=100)["crf"] == "0"
    assert encoder_options("libx264", quality=0)["crf"] == "51"
    assert encoder_options("h264_videotoolbox", quality=100)["q"] == "100"
    assert encoder_options("libx264")["crf"] == "18"
    with pytest.raises(UsageError, match="bad-options"):
        encoder_options("gif", crf=3)


@pytest.mark.parametrize("name", ["a.gif", "a.apng", "a.webm", "a.mkv", "a.mov"])
def test_every_container_says_that_the_video_is_generated(tmp_path: Path, name: str) -> None:
    marks = generated_marks(generated_by="sglat test")
    write(tmp_path / name, frames=3, metadata=marks)
    assert marks["digitalSourceType"].encode() in (tmp_path / name).read_bytes()
    with VideoReader(tmp_path / name) as reader:
        assert len(list(reader)) == 3


def test_a_gif_keeps_time_and_leaves_out_frames_that_come_too_fast(tmp_path: Path) -> None:
    write(tmp_path / "a.gif", frames=60, time_base=Fraction(1, 120))
    with VideoReader(tmp_path / "a.gif") as reader:
        times = [frame.pts * reader.time_base for frame in reader]
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= Fraction(2, 100)
    assert abs(times[-1] - Fraction(59, 120)) <= Fraction(3, 100)


def test_the_colours_of_a_gif_are_near(tmp_path: Path) -> None:
    write(tmp_path / "a.gif", frames=2)
    with VideoReader(tmp_path / "a.gif") as reader:
        picture = next(iter(reader)).picture.astype(int)
    assert np.abs(picture - moving_square(0, width=SIZE[0], height=SIZE[1])).mean() < 6
