"""Pictures and MJPEG with EXIF, stills of every kind, and animations."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.media.pictures import decode_picture, encode_png, read_still
from sglat.media.reader import VideoReader
from tests.support.pictures import jpeg_with_exif, png_with_exif, stored_as
from tests.support.tolerances import LOSSY_VIDEO_MEAN_LEVELS
from tests.support.video import moving_square


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_upright(tmp_path: Path, orientation: int) -> None:
    picture = moving_square(5)
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_with_exif(stored_as(picture, orientation), orientation))
    found = read_still(path)
    assert found.shape == picture.shape
    assert np.abs(found.astype(int) - picture).mean() < LOSSY_VIDEO_MEAN_LEVELS


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_png_with_exif_stands_upright(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(
        png_with_exif(encode_png(stored_as(moving_square(5), orientation)), orientation)
    )
    assert np.array_equal(read_still(path), moving_square(5))


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_with_exif(moving_square(5), orientation))
    assert read_still(path).shape == (48, 64, 3)


def test_picture_bytes_with_exif_are_read() -> None:
    found = decode_picture(jpeg_with_exif(stored_as(moving_square(5), 6), 6))
    assert np.abs(found.astype(int) - moving_square(5)).mean() < LOSSY_VIDEO_MEAN_LEVELS


@pytest.mark.parametrize("suffix", [".avi", ".mov", ".mkv"])
def test_mjpeg_with_exif_in_every_frame_is_a_video(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"webcam{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuvj444p"
        for index in range(6):
            packet = av.Packet(jpeg_with_exif(stored_as(moving_square(index), 6), 6))
            packet.stream, packet.pts, packet.dts = stream, index, index
            packet.time_base, packet.is_keyframe = Fraction(1, 25), True
            container.mux(packet)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert len(frames) == 6
    assert frames[0].picture.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"), [("a.gif", "gif", "rgb8"), ("a.apng", "apng", "rgb24")]
)
def test_an_animation_is_a_video(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(moving_square(index), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = 2 * index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        times = [frame.pts * reader.time_base for frame in reader]
    assert times == [Fraction(2 * index, 25) for index in range(5)]
