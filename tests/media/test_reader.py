"""Video in: time stamps, orientation, pixel formats, and clear errors."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.errors import SglatError
from sglat.media.pixels import display_orientation, make_upright
from sglat.media.reader import VideoReader
from tests.support.tolerances import LOSSY_VIDEO_MEAN_LEVELS
from tests.support.video import moving_square, set_display_matrix, write_audio_only, write_video


@pytest.fixture
def pictures() -> list[np.ndarray]:
    return [moving_square(i) for i in range(10)]


def error_code(path: Path) -> str:
    with pytest.raises(SglatError) as caught, VideoReader(path) as reader:
        list(reader)
    assert "\n" not in str(caught.value)
    return caught.value.code


def test_frames_come_back_in_order_with_exact_time(
    tmp_path: Path, pictures: list[np.ndarray]
) -> None:
    path = write_video(tmp_path / "a.mp4", pictures, time_base=Fraction(1001, 30000))
    with VideoReader(path) as reader:
        times = [frame.pts * reader.time_base for frame in reader]
    assert times == [i * Fraction(1001, 30000) for i in range(10)]


def test_variable_frame_rate_is_exact(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    stamps = [0, 33, 70, 71, 140, 400, 433, 470, 1000, 1001]
    path = write_video(tmp_path / "a.mp4", pictures, time_base=Fraction(1, 1000), pts=stamps)
    with VideoReader(path) as reader:
        times = [frame.pts * reader.time_base for frame in reader]
    assert times == [Fraction(stamp, 1000) for stamp in stamps]


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("libx264", "yuv420p10le"), ("libx264", "yuv444p"), ("ffv1", "gray"), ("ffv1", "bgra")],
)
def test_every_pixel_format_becomes_eight_bit_rgb(
    tmp_path: Path, pictures: list[np.ndarray], codec: str, pixel_format: str
) -> None:
    path = write_video(tmp_path / "a.mkv", pictures, codec=codec, pixel_format=pixel_format)
    with VideoReader(path) as reader:
        picture = next(iter(reader)).picture
    assert (picture.dtype, picture.shape) == (np.uint8, (48, 64, 3))


@pytest.mark.parametrize(
    ("name", "default", "sizes", "read", "is_said"),
    [
        ("a.avi", None, [(32, 32), (64, 48)], (64, 48), False),
        ("a.mkv", None, [(32, 32), (64, 48)], (64, 48), False),  # none or all are the default
        ("a.mkv", 0, [(32, 32), (64, 48)], (32, 32), True),
        ("a.mkv", 1, [(64, 48), (32, 32)], (32, 32), True),
        ("a.avi", None, [(64, 48), (64, 48)], (64, 48), True),
    ],
)
def test_of_several_streams_the_default_or_largest_is_read(
    tmp_path: Path, name: str, default: int | None, sizes: list[tuple[int, int]],
    read: tuple[int, int], is_said: bool,
) -> None:  # fmt: skip
    with av.open(str(tmp_path / name), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in sizes]
        for number, (stream, size) in enumerate(zip(streams, sizes, strict=True)):
            stream.width, stream.height = size
            if number == default:
                stream.disposition = av.stream.Disposition.default
        for stream in streams:
            shape = (stream.height, stream.width, 3)
            frame = av.VideoFrame.from_ndarray(np.zeros(shape, np.uint8), format="rgb24")
            for packet in (*stream.encode(frame.reformat(format="yuv420p")), *stream.encode()):
                container.mux(packet)
    with VideoReader(tmp_path / name) as reader:
        found, notes = reader.info, reader.notes
    assert (found.width, found.height) == read
    assert [note.startswith("2 video streams: ") for note in notes] == [True] * is_said


def test_gray_has_no_matrix_to_warn_of(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((48, 64), 40_000, np.uint16), format="gray16be")
    with av.open(str(tmp_path / "a.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray16be"
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    with VideoReader(tmp_path / "a.png") as reader:
        level = int(next(iter(reader)).picture[0, 0, 0])
        assert (reader.notes, level) == ([], 156)


def test_odd_sizes_keep_every_pixel(tmp_path: Path) -> None:
    odd = [moving_square(i, width=65, height=47) for i in range(3)]
    path = write_video(tmp_path / "a.mkv", odd, codec="ffv1", pixel_format="bgra")
    with VideoReader(path) as reader:
        assert np.array_equal(next(iter(reader)).picture, odd[0])


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["90 clockwise", "180", "90 counter-clockwise"],
)
def test_a_rotated_phone_video_stands_upright(
    tmp_path: Path, pictures: list[np.ndarray], matrix: tuple[int, int, int, int], turn: int
) -> None:
    path = write_video(tmp_path / "a.mp4", pictures)
    set_display_matrix(path, matrix)
    with VideoReader(path) as reader:
        picture = next(iter(reader)).picture
        assert (reader.info.height, reader.info.width) == picture.shape[:2]
    expected = np.rot90(pictures[0], turn).astype(int)
    assert np.abs(picture - expected).mean() < LOSSY_VIDEO_MEAN_LEVELS


def test_a_mirror_in_the_display_matrix_is_applied() -> None:
    picture = moving_square(0)
    matrix = np.array([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], dtype=np.int32)
    turned = make_upright(picture, display_orientation(matrix.tobytes()))
    assert np.array_equal(turned, picture[:, ::-1])


def test_a_single_frame_is_a_video(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    path = write_video(tmp_path / "a.mp4", pictures[:1])
    with VideoReader(path) as reader:
        assert len(list(reader)) == 1


def test_a_file_cut_in_the_middle_gives_the_frames_it_has(tmp_path: Path) -> None:
    pictures = [moving_square(i, width=128, height=96) for i in range(50)]
    path = write_video(tmp_path / "a.mkv", pictures)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with VideoReader(path) as reader:
        assert 0 < len(list(reader)) < 50


def test_an_mp4_without_its_index_is_one_clear_line(
    tmp_path: Path, pictures: list[np.ndarray]
) -> None:
    path = write_video(tmp_path / "a.mp4", pictures)
    path.write_bytes(path.read_bytes()[:800])
    assert error_code(path) == "media-unreadable"


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    assert error_code(tmp_path / "none.mp4") == "input-missing"


def test_zero_bytes_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert error_code(tmp_path / "a.mp4") == "media-empty"


def test_noise_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    assert error_code(tmp_path / "a.mp4") == "media-unreadable"


def test_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    assert error_code(tmp_path) == "input-unreadable"


def test_sound_alone_is_one_clear_line(tmp_path: Path) -> None:
    assert error_code(write_audio_only(tmp_path / "a.m4a")) == "no-video"
