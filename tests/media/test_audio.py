"""Sound goes through bit for bit, and stays in step with the picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError
from sglat.media.audio import AudioReader
from sglat.media.reader import VideoReader
from sglat.media.stream_template import open_template
from sglat.media.writer import VideoWriter
from tests.support.shared import shared_path
from tests.support.video import moving_square, write_audio_only, write_video

CASES = [
    ("aac", ".mp4", ".mp4"),
    ("aac", ".mp4", ".mkv"),
    ("libopus", ".mkv", ".mp4"),
    ("libmp3lame", ".mp4", ".mp4"),
    ("flac", ".mkv", ".mkv"),
    ("ac3", ".mkv", ".mp4"),
    ("alac", ".mov", ".mp4"),
    ("pcm_s16le", ".mkv", ".mkv"),
]


def read_audio(path: Path) -> tuple[AudioFormat | None, list[AudioPacket]]:
    with AudioReader(path) as reader:
        return reader.format, list(reader)


def remux(source: Path, target: Path) -> None:
    audio_format, packets = read_audio(source)
    assert audio_format is not None
    with (
        VideoReader(source) as reader,
        VideoWriter(
            target,
            size=(reader.info.width, reader.info.height),
            time_base=reader.time_base,
            audio=(audio_format, packets),
            encoder="libx264",
        ) as writer,
    ):
        for frame in reader:
            writer.write(frame.picture, frame.pts)


def decode_sound(path: Path) -> tuple[float, np.ndarray]:
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    return float(frames[0].pts * frames[0].time_base), np.concatenate(
        [frame.to_ndarray() for frame in frames], axis=1
    )


@pytest.mark.parametrize(("codec", "before", "after"), CASES)
def test_packets_survive_bit_for_bit(tmp_path: Path, codec: str, before: str, after: str) -> None:
    source = write_video(
        tmp_path / f"in{before}", [moving_square(i) for i in range(25)], audio_codec=codec
    )
    remux(source, tmp_path / f"out{after}")
    sent, received = read_audio(source)[1], read_audio(tmp_path / f"out{after}")[1]
    assert len(sent) > 5
    assert [p.data for p in received] == [p.data for p in sent]


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_decoded_samples_are_equal(tmp_path: Path, codec: str) -> None:
    source = write_video(
        tmp_path / "in.mp4", [moving_square(i) for i in range(25)], audio_codec=codec
    )
    remux(source, tmp_path / "out.mp4")
    assert np.array_equal(decode_sound(source)[1], decode_sound(tmp_path / "out.mp4")[1])


@pytest.mark.parametrize("clip", ["d6", "d9", "d10", "d20", "s20"])
def test_sound_of_real_clips_keeps_its_place_within_a_frame(tmp_path: Path, clip: str) -> None:
    source = shared_path(f"clips/{clip}.mp4")
    audio_format, packets = read_audio(source)
    assert audio_format is not None
    with VideoReader(source) as reader:
        time_base, rate = reader.time_base, reader.info.frame_rate
        stamps = [frame.pts for frame, _ in zip(reader, range(30), strict=False)]
    limit = stamps[-1] * time_base
    packets = [p for p in packets if p.dts * audio_format.time_base <= limit]
    target = tmp_path / "out.mp4"
    with VideoWriter(
        target, size=(64, 48), time_base=time_base, audio=(audio_format, packets), encoder="libx264"
    ) as writer:
        for i, stamp in enumerate(stamps):
            writer.write(moving_square(i), stamp)
    with VideoReader(target) as reader:
        first_picture = float(next(iter(reader)).pts * reader.time_base)
    shift = (decode_sound(target)[0] - first_picture) - (
        decode_sound(source)[0] - float(stamps[0] * time_base)
    )
    assert abs(shift) <= float(1 / rate)


def test_a_clip_without_sound_has_no_format(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", [moving_square(0)])
    assert read_audio(source) == (None, [])


def test_audio_time_stamps_and_format_survive_an_mp4(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "in.mp4", [moving_square(i) for i in range(25)], audio_codec="aac"
    )
    remux(source, tmp_path / "out.mp4")
    assert read_audio(tmp_path / "out.mp4") == read_audio(source)


def test_an_unknown_codec_is_one_clear_line() -> None:
    audio = AudioFormat(codec="nonsense", time_base=Fraction(1, 8), sample_rate=8, channels=1)
    with pytest.raises(MediaError, match="audio-codec"):
        open_template(audio, AudioPacket(data=b"x", pts=0, dts=0, duration=1))


def test_sound_alone_can_be_read(tmp_path: Path) -> None:
    assert len(read_audio(write_audio_only(tmp_path / "a.m4a"))[1]) > 5
