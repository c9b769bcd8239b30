"""Frames without the face: nothing of theirs is solved, and the last good face stands still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sglat
from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.encoder.align import Crops
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from tests.encoder.test_encode import CONFIG, Killed
from tests.encoder.test_encode import bundle as bundle  # a fixture
from tests.support.faces import draw_face
from tests.support.video import write_video

WALL = np.full((96, 128, 3), 60, np.uint8)
BLACK = np.zeros_like(WALL)
PLAIN = replace(CONFIG, tuning="none", self_check=False)
# Held frames of a clip of 12, and which frame each frame shows
GAPS = {
    "start": (range(4), [4, 4, 4, 4, 4, 5, 6, 7, 8, 9, 10, 11]),
    "middle": (range(5, 9), [0, 1, 2, 3, 4, 4, 4, 4, 4, 9, 10, 11]),
    "end": (range(8, 12), [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7]),
    "two": ((2, 3, 7, 8), [0, 1, 1, 1, 4, 5, 6, 6, 6, 9, 10, 11]),
}


def gap_clip(path: Path, held: range | tuple[int, ...], ground: np.ndarray = BLACK) -> Path:
    """Twelve frames of a moving face, some of them without it; one blinks."""
    faces = [draw_face(WALL, 52 + 2 * i, 48, 66, shut=i == 6) for i in range(12)]
    pictures = [ground if i in held else face for i, face in enumerate(faces)]
    return write_video(path, pictures, codec="ffv1", pixel_format="bgra")


def numbers(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return motion, placement and held flags of a short file."""
    with open_reader(path) as reader:
        group = next(iter(reader.groups()))
    assert group.placement is not None
    flags = group.motion.flags
    assert flags is not None
    return group.motion.values, group.placement.values, (flags & 1) > 0


@pytest.mark.parametrize("place", GAPS)
def test_held_frames_repeat_the_last_good_face(bundle: Bundle, tmp_path: Path, place: str) -> None:
    held, shown = GAPS[place]
    encode(gap_clip(tmp_path / "in.mkv", held), tmp_path / "out.sglat", PLAIN)
    motion, placement, flags = numbers(tmp_path / "out.sglat")
    assert np.flatnonzero(flags).tolist() == list(held)
    assert np.array_equal(motion, motion[shown])
    assert np.array_equal(placement, placement[shown])


def test_held_frames_stand_still_in_the_decoded_video(bundle: Bundle, tmp_path: Path) -> None:
    encode(gap_clip(tmp_path / "in.mkv", range(5, 9)), tmp_path / "out.sglat", PLAIN)
    pictures = [frame.picture for frame in sglat.decode(tmp_path / "out.sglat", bundle=bundle)]
    assert all(np.array_equal(pictures[i], pictures[4]) for i in range(5, 9))


@pytest.mark.parametrize("solver", ["fast", "paper"])
def test_the_crops_of_held_frames_are_never_fitted(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    seen: set[int] = set()
    pictures = Crops.pictures

    def spy(self: Crops, rows: range | list[int] | np.ndarray) -> np.ndarray:
        seen.update(int(row) for row in rows)
        return pictures(self, rows)

    monkeypatch.setattr(Crops, "pictures", spy)
    config = replace(CONFIG, solver=solver, tuning="manifold", tune_steps=2)
    encode(gap_clip(tmp_path / "in.mkv", range(5, 9)), tmp_path / "out.sglat", config)
    assert seen == {0, 1, 2, 3, 4, 9, 10, 11}


def test_what_is_in_held_frames_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    grey = np.full_like(WALL, 45)
    for name, ground in (("a", BLACK), ("b", grey)):
        source = gap_clip(tmp_path / f"{name}.mkv", range(8, 12), ground)
        encode(source, tmp_path / f"{name}.sglat", PLAIN)
    first, second = (numbers(tmp_path / f"{name}.sglat") for name in "ab")
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_an_interrupted_encoding_with_a_gap_ends_with_the_same_bytes(
    bundle: Bundle, tmp_path: Path
) -> None:
    source = gap_clip(tmp_path / "in.mkv", GAPS["two"][0])
    encode(source, tmp_path / "whole.sglat", PLAIN)

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "expression":
            raise Killed

    with pytest.raises(Killed):
        encode(source, tmp_path / "cut.sglat", PLAIN, progress=kill)
    encode(source, tmp_path / "cut.sglat", PLAIN)
    assert (tmp_path / "cut.sglat").read_bytes() == (tmp_path / "whole.sglat").read_bytes()


def test_the_self_check_compares_good_frames_only(bundle: Bundle, tmp_path: Path) -> None:
    config: EncodeConfig = replace(PLAIN, self_check=True)
    source = gap_clip(tmp_path / "in.mkv", tuple(range(0, 12, 2)))
    result = encode(source, tmp_path / "out.sglat", config)
    assert result.check is not None
    assert np.isfinite(result.check.psnr_db)
