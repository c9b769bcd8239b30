"""Where crops are pasted, when none is, and which track of a face is taken."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from sglat.bitstream.records import FRAME_CUT, FRAME_HELD
from sglat.decoder.backdrop import StillBackdrop
from sglat.decoder.composite import Compositor, Pasted
from sglat.decoder.paint import FaceTrack, Painter, agreement, read_track
from sglat.errors import UsageError
from tests.bitstream.samples import sample_file, tiny_file
from tests.decoder.test_composite import oval_parse

FRAMES = 6
SECONDS = [Fraction(number, 25) for number in range(FRAMES)]
PLACEMENT = np.tile([60.0, 50.0, 48.0, 0.0], (FRAMES, 1))


def backdrop(*, has_face: bool = True) -> StillBackdrop:
    return StillBackdrop(np.full((100, 120, 3), 90, np.uint8), has_face=has_face)


def crops() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(FRAMES, 3, 64, 64, generator=generator) * 2 - 1


def track(**changes: object) -> FaceTrack:
    values = {
        "seconds": np.arange(FRAMES) / 25, "placement": PLACEMENT, "size": (120, 100),
        "is_held": np.zeros(FRAMES, bool), "is_cut": np.zeros(FRAMES, bool),
    }  # fmt: skip
    return FaceTrack(**(values | changes))  # type: ignore[arg-type]


def changed(shown: list[Pasted]) -> list[bool]:
    return [bool((frame.picture != 90).any()) for frame in shown]


def test_held_frames_keep_the_source() -> None:
    flags = np.array([0, FRAME_HELD, FRAME_HELD, 0, 0, FRAME_HELD], np.uint8)
    painter = Painter(backdrop(), Compositor(oval_parse))
    shown = painter.paint(crops(), SECONDS, PLACEMENT, flags)
    assert changed(shown) == [True, False, False, True, True, False]
    assert [bool(frame.generated.any()) for frame in shown] == changed(shown)


def test_what_is_generated_covers_all_that_changed() -> None:
    painter = Painter(backdrop(), Compositor(oval_parse))
    for frame in painter.paint(crops(), SECONDS, PLACEMENT, np.zeros(FRAMES, np.uint8)):
        is_changed = (frame.picture != 90).any(axis=-1)
        assert not is_changed[frame.generated == 0].any()
        assert is_changed[frame.generated == 1].mean() > 0.9


def test_held_frames_are_pasted_onto_a_plate() -> None:
    flags = np.full(FRAMES, FRAME_HELD, np.uint8)
    painter = Painter(backdrop(has_face=False), Compositor())
    assert all(changed(painter.paint(crops(), SECONDS, PLACEMENT, flags)))


def restarts_of(painter: Painter, flags: list[int]) -> list[bool]:
    seen: list[bool] = []
    paste = painter.compositor.paste

    def spy(*arguments: object, is_restart: bool = False) -> Pasted:
        seen.append(is_restart)
        return paste(*arguments, is_restart=is_restart)  # type: ignore[arg-type]

    painter.compositor.paste = spy  # type: ignore[assignment]
    for at in range(0, FRAMES, 2):  # in batches: what is remembered crosses them
        span = slice(at, at + 2)
        painter.paint(
            crops()[span], SECONDS[span], PLACEMENT[span], np.array(flags, np.uint8)[span]
        )
    return seen


def test_colours_start_afresh_after_cuts_and_held_frames() -> None:
    painter = Painter(backdrop(), Compositor(oval_parse))
    flags = [0, FRAME_HELD, 0, 0, FRAME_CUT, 0]
    assert restarts_of(painter, flags) == [False, True, False, True, False]


def test_a_track_brings_its_own_cuts_and_held_frames() -> None:
    held, cut = np.zeros(FRAMES, bool), np.zeros(FRAMES, bool)
    held[1] = cut[4] = True
    painter = Painter(backdrop(), Compositor(oval_parse), track(is_held=held, is_cut=cut))
    assert restarts_of(painter, [FRAME_HELD] * FRAMES) == [False, True, False, True, False]


def test_a_track_decides_where_the_face_goes() -> None:
    there = track(placement=np.tile([15.0, 25.0, 20.0, 0.0], (FRAMES, 1)), size=(60, 50))
    painter = Painter(backdrop(), Compositor(oval_parse), there, source_size=(640, 360))
    shown = painter.paint(crops(), SECONDS, PLACEMENT, np.zeros(FRAMES, np.uint8))
    rows, columns = np.nonzero((shown[0].picture != 90).any(axis=-1))
    assert (rows.mean(), columns.mean()) == pytest.approx((50, 30), abs=2)


@pytest.mark.parametrize(("seconds", "row"), [(0, 0), (0.0399, 1), (0.041, 1), (-1, 0), (9, 5)])
def test_the_row_of_a_track_is_the_frame_on_screen(seconds: float, row: int) -> None:
    assert track().row(Fraction(seconds)) == row


def test_a_file_gives_a_track(tmp_path: Path) -> None:
    (tmp_path / "one.sglat").write_bytes(sample_file(seed=1))
    found = read_track(tmp_path / "one.sglat")
    assert found.size == (640, 480)
    assert found.placement.shape == (len(found.seconds), 4)
    assert found.seconds[1] == pytest.approx(1001 / 30000)


def test_a_file_without_placement_is_no_track(tmp_path: Path) -> None:
    (tmp_path / "one.sglat").write_bytes(tiny_file())
    with pytest.raises(UsageError, match="no-placement"):
        read_track(tmp_path / "one.sglat")


def test_tracks_agree_whatever_their_size() -> None:
    half = track(placement=PLACEMENT * [0.5, 0.5, 0.5, 1], size=(60, 50))
    assert agreement(half, track()) == pytest.approx(0)
    moved = track(placement=PLACEMENT + np.array([12.0, 0, 0, 0]))
    assert agreement(moved, track()) == pytest.approx(12 / 48)
    assert agreement(track(), track(is_held=np.ones(FRAMES, bool))) == float("inf")
