"""Video out: exact time, marks, atomic files."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.errors import MediaError, UsageError
from sglat.media.pictures import (
    DIGITAL_SOURCE_TYPE,
    PngWriter,
    RawWriter,
    decode_picture,
    encode_png,
    generated_marks,
    read_still,
)
from sglat.media.reader import VideoReader, constant_step, reduce_timing
from sglat.media.writer import VideoWriter
from tests.support.tolerances import LOSSY_VIDEO_SHIFT_LEVELS
from tests.support.video import moving_square


def write(path: Path, stamps: list[int], time_base: Fraction, **options: object) -> None:
    size = options.pop("size", (64, 48))
    with VideoWriter(path, size=size, time_base=time_base, encoder="libx264", **options) as writer:
        for i, stamp in enumerate(stamps):
            writer.write(moving_square(i, width=size[0], height=size[1]), stamp)


def read_times(path: Path) -> list[Fraction]:
    with VideoReader(path) as reader:
        return [frame.pts * reader.time_base for frame in reader]


@pytest.mark.parametrize(
    "time_base", [Fraction(1, 25), Fraction(1001, 30000), Fraction(1001, 24000), Fraction(1, 600)]
)
def test_constant_rates_are_exact(tmp_path: Path, time_base: Fraction) -> None:
    write(tmp_path / "a.mp4", list(range(12)), time_base)
    assert read_times(tmp_path / "a.mp4") == [i * time_base for i in range(12)]


def test_variable_rates_are_exact(tmp_path: Path) -> None:
    stamps = [0, 40, 41, 90, 300, 2000, 2033]
    write(tmp_path / "a.mp4", stamps, Fraction(1, 1000))
    assert read_times(tmp_path / "a.mp4") == [Fraction(stamp, 1000) for stamp in stamps]


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colours_survive_without_a_cast(tmp_path: Path, channel: int) -> None:
    write(tmp_path / "a.mp4", [0, 1], Fraction(1, 25), size=(256, 192))
    picture = read_still(tmp_path / "a.mp4").astype(float)
    cast = (picture - moving_square(0, width=256, height=192))[..., channel].mean()
    assert abs(cast) < LOSSY_VIDEO_SHIFT_LEVELS


def bent(side: int, count: int) -> list[NDArray[np.uint8]]:
    """Return frames of soft blots that bend and sway."""
    blots = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    ground = cv2.resize(blots, (side, side), interpolation=cv2.INTER_CUBIC)
    down, across = np.mgrid[:side, :side].astype(np.float32)
    frames = []
    for i in range(count):
        columns = across + 6 * np.sin(i / 3 + down / 40)
        rows = down + 5 * np.cos(i / 4 + across / 50)
        moved = cv2.remap(
            ground, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )  # fmt: skip
        frames.append(np.asarray(moved, np.uint8))
    return frames


def test_the_same_frames_make_the_same_file(tmp_path: Path) -> None:
    frames = bent(336, 24)
    contents = set()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        with VideoWriter(
            tmp_path / name, size=(336, 336), time_base=Fraction(1, 25), encoder="libx264"
        ) as writer:
            for index, frame in enumerate(frames):
                writer.write(frame, index)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1


def test_odd_sides_grow_by_one_pixel(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [0, 1], Fraction(1, 25), size=(65, 47))
    assert read_still(tmp_path / "a.mp4").shape == (48, 66, 3)


def test_the_container_says_that_the_video_is_generated(tmp_path: Path) -> None:
    marks = generated_marks(generated_by="sglat test", consent="yes")
    write(tmp_path / "a.mp4", [0, 1], Fraction(1, 25), metadata=marks)
    with av.open(str(tmp_path / "a.mp4")) as container:
        found = container.metadata
    assert marks.items() <= found.items()
    assert found["digitalSourceType"] == DIGITAL_SOURCE_TYPE


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"precious")
    with pytest.raises(UsageError, match="output-exists"):
        write(tmp_path / "a.mp4", [0], Fraction(1, 25))
    assert (tmp_path / "a.mp4").read_bytes() == b"precious"


def test_force_replaces_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    write(tmp_path / "a.mp4", [0], Fraction(1, 25), force=True)
    assert len(read_times(tmp_path / "a.mp4")) == 1


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="picture-size"):
        write_wrong_size(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def write_wrong_size(path: Path) -> None:
    with VideoWriter(path, size=(64, 48), time_base=Fraction(1, 25), encoder="libx264") as writer:
        writer.write(moving_square(0), 0)
        writer.write(moving_square(1, width=32, height=32), 1)


def test_an_unknown_container_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="output-container"):
        write(tmp_path / "a.nothing", [0], Fraction(1, 25))


def test_png_is_exact_and_marked() -> None:
    png = encode_png(moving_square(3), marks={"digitalSourceType": DIGITAL_SOURCE_TYPE})
    assert np.array_equal(decode_picture(png), moving_square(3))
    assert DIGITAL_SOURCE_TYPE.encode() in png


def test_a_png_sequence_appears_whole(tmp_path: Path) -> None:
    with PngWriter(tmp_path / "frames") as writer:
        for i in range(3):
            writer.write(moving_square(i), i)
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]


def test_raw_frames_are_bare_rgb() -> None:
    pipe = io.BytesIO()
    with RawWriter(pipe) as writer:
        writer.write(moving_square(0), 0)
    assert pipe.getvalue() == moving_square(0).tobytes()


def test_what_is_no_picture_is_one_clear_line() -> None:
    with pytest.raises(MediaError, match="picture-unreadable"):
        decode_picture(b"no picture at all")


def test_time_stamps_reduce_to_the_frame_rate() -> None:
    assert reduce_timing([0, 512, 1024], Fraction(1, 12800)) == (Fraction(1, 25), [0, 1, 2])


@pytest.mark.parametrize(("pts", "step"), [([3, 5, 7], 2), ([0, 1, 3], None), ([4], None)])
def test_a_constant_step_is_found(pts: list[int], step: int | None) -> None:
    assert constant_step(pts) == step
