"""Edits of motion by name."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from sglat.bitstream.channels import SETS
from sglat.bitstream.edit_motion import MotionEditor, OtherMotion, changed_channels
from sglat.bitstream.records import FRAME_CUT, Header, Motion
from sglat.errors import UsageError
from tests.bitstream.samples import sample_header, walk

FRAMES = 100
HEADER = replace(sample_header(), time_base=Fraction(1, 25), frame_ticks=1)
NEUTRAL = np.full(34, 0.5, np.float32)


def motion(frames: int = FRAMES, header: Header = HEADER, **changes: object) -> Motion:
    values = walk(np.random.default_rng(3), frames)
    return replace(Motion(values=values, steps=header.motion_steps), **changes)


def editor(source: Motion | None = None, header: Header = HEADER) -> MotionEditor:
    return MotionEditor(source or motion(), header, neutral=NEUTRAL)


EDITS = {
    "set": lambda e, c: e.set(c, 3.0),
    "add": lambda e, c: e.add(c, 0.75, "1s-2s"),
    "neutral": lambda e, c: e.neutral(c),
    "gain": lambda e, c: e.gain(c, 1.7),
    "freeze": lambda e, c: e.freeze(c, "1s"),
    "smooth": lambda e, c: e.smooth(c, 0.2),
}


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("target", ["eyes", "mouth 3", "pose"])
def test_channels_that_are_not_named_keep_their_integers(kind: str, target: str) -> None:
    before, edited = motion(), editor()
    EDITS[kind](edited, target)
    found = edited.motion()
    named = edited._channels(target).tolist()
    others = [channel for channel in range(34) if channel not in named]
    assert np.array_equal(found.values[:, others], before.values[:, others])
    assert not np.array_equal(found.values[:, named], before.values[:, named])


def test_a_range_leaves_all_other_frames() -> None:
    before, edited = motion(), editor()
    edited.add("mouth 3", 5.0, "1s-2s")
    changed = np.flatnonzero((edited.motion().values != before.values).any(axis=1))
    assert (changed.min(), changed.max()) == (25, 49)


def test_ends_of_a_range_ramp_and_those_of_the_clip_do_not() -> None:
    before, edited = motion(), editor()
    edited.add("mouth 3", 100.0, "2s-~0.4s")
    moved = (edited.motion().values - before.values)[:, 4] / 400
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(10) + 0.5) / 10)
    assert moved[:50].max() == 0
    assert moved[50:60] == pytest.approx(ramp, abs=2e-3)
    assert np.all(moved[60:] == 1)


def test_set_is_exact_to_the_step() -> None:
    edited = editor()
    edited.set("yaw", 12.5)
    assert set(edited.motion().values[:, 0].tolist()) == {50}


def test_gain_multiplies_the_distance_from_neutral() -> None:
    before, edited = motion(), editor()
    edited.gain("eyes", 2.0)
    expected = 2 * before.values[:, SETS["eyes"]] - 2  # the neutral is two steps
    assert np.array_equal(edited.motion().values[:, SETS["eyes"]], expected)


def test_a_gain_of_one_changes_nothing() -> None:
    edited = editor()
    edited.gain("all", 1.0)
    assert np.array_equal(edited.motion().values, motion().values)


def test_only_brings_all_others_to_neutral() -> None:
    before, edited = motion(), editor()
    edited.only("mouth")
    found, others = edited.motion().values, [c for c in range(34) if c not in SETS["mouth"]]
    assert np.array_equal(found[:, SETS["mouth"]], before.values[:, SETS["mouth"]])
    assert np.all(found[:, others] == 2)


def test_freeze_holds_the_value_of_a_time() -> None:
    before, edited = motion(), editor()
    edited.freeze("pose", "1s-2s~0s")
    found = edited.motion().values
    assert np.all(found[25:50, :2] == before.values[25, :2])
    assert np.array_equal(found[50:], before.values[50:])


def test_edits_act_in_their_order() -> None:
    one, other = editor(), editor()
    one.set("yaw", 4.0)
    one.add("yaw", 1.0)
    other.add("yaw", 1.0)
    other.set("yaw", 4.0)
    assert set(one.motion().values[:, 0].tolist()) == {20}
    assert set(other.motion().values[:, 0].tolist()) == {16}


def test_two_values_for_the_same_frames_are_noted() -> None:
    edited = editor()
    edited.set("yaw", 4.0, "0s-2s")
    edited.set("pitch", 4.0)
    edited.set("pose", 1.0, "1s-3s~0s")
    assert [note.split(":")[0] for note in edited.notes] == ["yaw", "pitch"]
    assert edited.motion().values[30, 0] == 4


def test_small_edits_add_up_before_rounding() -> None:
    edited = editor()
    for _ in range(10):
        edited.add("yaw", 0.1)
    assert np.array_equal(edited.motion().values[:, 0], motion().values[:, 0] + 4)


def test_smoothing_lessens_jitter_and_stops_at_a_cut() -> None:
    values = np.zeros((60, 34), np.int32)
    values[30:] = 400
    values[::2] += 40
    flags = np.zeros(60, np.uint8)
    flags[30] = FRAME_CUT
    edited = editor(motion(values=values, flags=flags))
    edited.smooth("yaw", 0.1)
    found = edited.motion().values[:, 0]
    assert np.abs(np.diff(found[5:25])).max() <= 2
    assert (found[29] < 60, found[30] > 380) == (True, True)


def test_smoothing_weighs_frames_by_their_time() -> None:
    """A line stays a line where frames are missing."""
    header = replace(HEADER, frame_ticks=None)
    pts = np.concatenate([np.arange(30), np.arange(37, 60)]).astype(np.int64)
    values = np.repeat(pts[:, None] * 8, 34, axis=1).astype(np.int32)
    edited = editor(Motion(values=values, steps=header.motion_steps, pts=pts), header)
    edited.smooth("yaw", 0.08)
    error = np.abs(edited.motion().values - values)[:, 0]
    assert error[6:23].max() <= 1
    assert error[23:40].max() <= 12  # one frame and a half; 25 where frames count alike


@pytest.mark.parametrize("is_variable", [False, True])
def test_one_frame_can_be_edited(is_variable: bool) -> None:
    header = replace(HEADER, frame_ticks=None) if is_variable else HEADER
    pts = np.zeros(1, np.int64) if is_variable else None
    edited = editor(motion(1, pts=pts), header)
    for edit in EDITS:
        if edit != "add":
            EDITS["set" if edit == "freeze" else edit](edited, "mouth 1")
    edited.freeze("pose", "0s")
    edited.add("yaw", 1.0, "0f")
    assert edited.motion().values[0, 0] == motion(1).values[0, 0] + 4


def test_a_faster_clip_keeps_its_integers_and_moves_later_ranges() -> None:
    edited = editor()
    edited.retime(Fraction(2))
    edited.add("yaw", 100.0, "1s-2s")
    changed = np.flatnonzero(edited.motion().values[:, 0] != motion().values[:, 0])
    assert (edited.speed, changed.min(), changed.max()) == (2, 50, 99)


def test_motion_is_mixed_in_by_time_and_from_neutral_to_neutral() -> None:
    values = np.repeat(np.arange(50.0)[:, None], 34, axis=1)
    other = OtherMotion(values=values, seconds=np.arange(50) / 12.5, neutral=np.ones(34))
    edited = editor()
    edited.mix("eyes", other)
    found = edited.motion().values[:, SETS["eyes"]]
    expected = np.arange(FRAMES) / 2 * 4 + 2 - 4  # steps of 0.25 between neutrals 0.5 and 1
    assert np.abs(found[:98] - expected[:98, None]).max() <= 0.5


def test_motion_that_is_over_sooner_leaves_the_rest() -> None:
    other = OtherMotion(
        values=np.full((25, 34), 9.0), seconds=np.arange(25) / 25, neutral=np.zeros(34), name="b"
    )
    edited = editor()
    edited.mix("eyes", other)
    assert np.array_equal(edited.motion().values[25:], motion().values[25:])
    assert "over after 1.00 s" in edited.notes[0]


@pytest.mark.parametrize("rows", [99, 101])
def test_a_table_of_another_length_is_refused(rows: int) -> None:
    other = OtherMotion(values=np.ones((rows, 34)), seconds=None, neutral=None, name="a.csv")
    with pytest.raises(UsageError, match=f"a.csv: expected 100 rows, one a frame, found {rows}"):
        editor().mix("eyes", other)


@pytest.mark.parametrize("when", ["5s-6s", "4s-", "100f-", "4s", "200f"])
def test_a_range_outside_the_clip_is_refused_with_its_extent(when: str) -> None:
    with pytest.raises(UsageError, match=r"0\.00 s to 4\.00 s"):
        editor().set("yaw", 1.0, when)


def test_a_range_partly_outside_is_cut_and_noted() -> None:
    edited = editor()
    edited.set("yaw", 1.0, "3s-9s")
    assert "up to the end of the clip" in edited.notes[0]


def test_a_value_beyond_the_format_is_refused() -> None:
    with pytest.raises(UsageError, match="expected yaw within"):
        editor().set("yaw", 1e9)


def test_what_needs_the_neutral_says_so() -> None:
    edited = MotionEditor(motion(), HEADER)
    edited.set("yaw", 1.0)
    with pytest.raises(UsageError, match="no-neutral"):
        edited.gain("yaw", 2.0)


def test_no_frames_cannot_be_edited() -> None:
    with pytest.raises(UsageError, match="no-motion"):
        editor(motion(0))


def test_what_changed_is_told_by_groups_and_channels() -> None:
    before = np.zeros((10, 34), np.int32)
    after = before.copy()
    after[3, [0, 1, 4, *SETS["eyes"]]] = 1
    assert changed_channels(before, after) == ("pose, mouth 3, eyes", 1)
    after[5, 4:10] = 1
    assert changed_channels(before, after) == ("pose, 6 of mouth, eyes", 2)
    assert changed_channels(before, before) == ("", 0)
