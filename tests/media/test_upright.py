"""Pictures and MJPEG with EXIF, stills of every kind, and animations."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.errors import MediaError
from sglat.media.pictures import decode_picture, encode_png, read_still
from sglat.media.reader import VideoReader
from tests.support.pictures import animated_webp, heic, jpeg_with_exif, png_with_exif, stored_as
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


def near(found: np.ndarray, expected: np.ndarray) -> bool:
    return (
        found.shape == expected.shape
        and np.abs(found.astype(int) - expected).mean() < LOSSY_VIDEO_MEAN_LEVELS
    )


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_heic_of_one_piece_stands_upright(tmp_path: Path, turns: int) -> None:
    picture = moving_square(4, width=128, height=96)
    (tmp_path / "a.heic").write_bytes(heic([picture], turns=turns))
    assert near(read_still(tmp_path / "a.heic"), np.rot90(picture, turns))


@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize(("turns", "is_mirrored"), [(0, False), (1, False), (3, True), (0, True)])
def test_a_heic_of_tiles_is_one_picture(
    tmp_path: Path, turns: int, is_mirrored: bool, is_inside: bool
) -> None:
    whole = moving_square(4, width=256, height=160)
    padded = np.pad(whole, ((0, 32), (0, 0), (0, 0)), mode="edge")
    tiles = [padded[y : y + 96, x : x + 128] for y in (0, 96) for x in (0, 128)]
    (tmp_path / "a.heic").write_bytes(
        heic(
            tiles, grid=(2, 2, 256, 160), turns=turns, is_mirrored=is_mirrored, is_inside=is_inside
        )
    )
    shown = np.rot90(whole, turns)
    assert near(read_still(tmp_path / "a.heic"), shown[:, ::-1] if is_mirrored else shown)


def test_a_heic_whose_tiles_are_missing_is_one_line(tmp_path: Path) -> None:
    tile = moving_square(4, width=128, height=96)
    data = heic([tile] * 4, grid=(2, 2, 256, 192))
    (tmp_path / "a.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError) as caught:
        read_still(tmp_path / "a.heic")
    assert "\n" not in str(caught.value)


def rgba(picture: np.ndarray, alpha: int = 255) -> np.ndarray:
    return np.dstack([picture, np.full(picture.shape[:2], alpha, np.uint8)])


def test_an_animated_webp_is_a_video(tmp_path: Path) -> None:
    frames = [(rgba(moving_square(i)), (0, 0), 40 + i, 0) for i in range(4)]
    (tmp_path / "a.webp").write_bytes(animated_webp((64, 48), frames))
    with VideoReader(tmp_path / "a.webp") as reader:
        shown = list(reader)
        times = [frame.pts * reader.time_base for frame in shown]
        assert (reader.info.frame_count, reader.info.duration_seconds) == (4, 0.166)
    assert times == [Fraction(t, 1000) for t in (0, 40, 81, 123)]
    assert all(np.array_equal(f.picture, moving_square(f.index)) for f in shown)


def test_parts_of_an_animation_are_drawn_over_what_was_there(tmp_path: Path) -> None:
    ground, patch = moving_square(0), np.full((8, 10, 3), (10, 200, 20), np.uint8)
    frames = [
        (rgba(ground), (0, 0), 40, 0),
        (rgba(patch), (20, 30), 40, 1),  # cleared afterwards
        (rgba(patch, 0), (2, 2), 40, 0),  # transparent: nothing changes
        (rgba(patch, 0), (2, 2), 40, 2),  # opaque: a hole
    ]
    (tmp_path / "a.webp").write_bytes(animated_webp((64, 48), frames))
    with VideoReader(tmp_path / "a.webp") as reader:
        shown = [frame.picture for frame in reader]
    expected = ground.copy()
    expected[30:38, 20:30] = (10, 200, 20)
    assert np.array_equal(shown[1], expected)
    expected[30:38, 20:30] = 255
    assert np.array_equal(shown[2], expected)
    expected[2:10, 2:12] = 255
    assert np.array_equal(shown[3], expected)


def test_a_canvas_beyond_all_bounds_is_one_line(tmp_path: Path) -> None:
    frames = [(rgba(moving_square(0)), (0, 0), 40, 0)]
    (tmp_path / "a.webp").write_bytes(animated_webp((1 << 24, 1 << 24), frames))
    with pytest.raises(MediaError, match=r"picture-too-large|media-unreadable"):
        read_still(tmp_path / "a.webp")


def test_an_animated_webp_cut_short_gives_the_frames_it_has(tmp_path: Path) -> None:
    frames = [(rgba(moving_square(i)), (0, 0), 40, 0) for i in range(6)]
    data = animated_webp((64, 48), frames)
    (tmp_path / "a.webp").write_bytes(data[: len(data) * 2 // 3])
    with VideoReader(tmp_path / "a.webp") as reader:
        assert 1 <= len(list(reader)) < 6
