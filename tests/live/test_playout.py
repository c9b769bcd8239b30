"""Timeline, jitter buffer and concealment, on a clock that the test moves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.bitstream.records import FRAME_CUT
from sglat.live.payload import MotionPayload
from sglat.live.playout import (
    BLEND_FRAMES,
    EASE_SECONDS,
    HOLD_SECONDS,
    MARGIN_SECONDS,
    MOST_EXTRA_SECONDS,
    Concealer,
    Grade,
    JitterBuffer,
    Timeline,
)

STEPS = np.full(34, 0.5, np.float32)
NEUTRAL = np.zeros(34, np.float32)
PERIOD = 0.04


def payload(*values: int, copies: tuple[int, ...] = (), flags: int = 0) -> MotionPayload:
    """Return a payload whose frames have the same value in all channels."""
    return MotionPayload(
        frames=rows(values), copies=rows(copies), flags=np.full(len(values), flags, np.uint8)
    )


def rows(values: tuple[int, ...]) -> NDArray[np.int32]:
    return np.repeat(np.array(values, np.int32)[:, None], 34, axis=1).reshape(len(values), 34)


def value(timeline: Timeline, slot: int) -> tuple[int, Grade] | None:
    found = timeline.get(slot)
    return None if found is None else (int(found.values[0]), found.grade)


def concealer() -> Concealer:
    return Concealer(NEUTRAL, STEPS, PERIOD)


def test_copies_fill_what_was_lost_and_frames_replace_copies() -> None:
    timeline = Timeline()
    timeline.add(0, payload(0, 0))
    assert timeline.add(6, payload(12, 14, copies=(10, 6, 2))) == [6, 7, 5, 3, 4, 2]
    assert value(timeline, 5) == (10, Grade.COPY)
    assert value(timeline, 4) == (8, Grade.FILLED)
    assert value(timeline, 1) == (0, Grade.FRAME)
    assert timeline.add(4, payload(7, 9)) == []
    assert value(timeline, 4) == (7, Grade.FRAME)


def test_copies_before_the_first_frame_of_a_session_are_ignored() -> None:
    timeline = Timeline()
    timeline.add(10, payload(1, 1, copies=(5, 5)))
    assert timeline.get(9) is None


def test_the_timeline_is_bounded() -> None:
    timeline = Timeline()
    for slot in range(0, 5000, 2):
        timeline.add(slot, payload(1, 1))
    assert sum(timeline.get(slot) is not None for slot in range(5000)) <= 802


def arrivals(buffer: JitterBuffer, late: NDArray[np.float64], start: int = 0) -> None:
    for at, lateness in enumerate(late, start=start):
        buffer.note(at * PERIOD, at * PERIOD + lateness)


def test_steady_packets_wait_for_their_first_frame_alone() -> None:
    buffer = JitterBuffer()
    arrivals(buffer, np.tile([0.05, 0.01], 50))  # two frames a packet: the first is 40 ms older
    assert buffer.wanted() == pytest.approx(0.05 + MARGIN_SECONDS)


def test_jitter_makes_the_buffer_longer_but_one_stray_packet_does_not() -> None:
    random = np.random.default_rng(0)
    steady, shaky = JitterBuffer(), JitterBuffer()
    arrivals(steady, np.r_[np.full(98, 0.01), 0.5, 0.01])
    arrivals(shaky, 0.01 + random.uniform(0, 0.06, 200))
    assert steady.wanted() < 0.02
    assert 0.06 < shaky.wanted() < 0.08


def test_the_buffer_has_an_end() -> None:
    buffer = JitterBuffer()
    arrivals(buffer, np.tile([0.0, 2.0], 50))
    assert buffer.wanted() == pytest.approx(MOST_EXTRA_SECONDS + MARGIN_SECONDS)


def test_the_delay_moves_slowly() -> None:
    buffer = JitterBuffer()
    arrivals(buffer, np.full(50, 0.01))
    first = buffer.due(2.0, 2.0) - 2.0
    arrivals(buffer, np.full(100, 0.2), start=50)
    delays = [buffer.due(2 + n * PERIOD, 2 + n * PERIOD) - (2 + n * PERIOD) for n in range(1, 9)]
    assert first == pytest.approx(0.01 + MARGIN_SECONDS)
    assert np.diff([first, *delays]).max() <= 0.2 * PERIOD + 1e-9
    assert delays[-1] > first


def test_what_arrives_is_shown_as_it_is() -> None:
    timeline, shown = Timeline(), concealer()
    timeline.add(0, payload(3, 5))
    assert [float(shown.next(timeline, slot)[0]) for slot in (0, 1)] == [1.5, 2.5]
    assert shown.counts.frames == 2


def test_missing_frames_are_held_and_then_eased_to_neutral() -> None:
    timeline, shown = Timeline(), concealer()
    timeline.add(0, payload(20, 20))
    values = [float(shown.next(timeline, slot)[0]) for slot in range(60)]
    held = 2 + round(HOLD_SECONDS / PERIOD) - 1
    assert values[:held] == [10.0] * held
    assert values[2 + round((HOLD_SECONDS + EASE_SECONDS) / PERIOD) :] == pytest.approx([0] * 26)
    assert np.abs(np.diff(values)).max() < 0.6
    assert shown.counts.frozen == 58


def test_returning_frames_are_blended_in() -> None:
    timeline, shown = Timeline(), concealer()
    timeline.add(0, payload(0, 0))
    for slot in range(12):
        shown.next(timeline, slot)
    for slot in range(12, 20):
        timeline.add(slot, payload(40))
    values = [float(shown.next(timeline, slot)[0]) for slot in range(12, 20)]
    assert np.diff([0.0, *values]).max() <= 20 / BLEND_FRAMES + 1e-6
    assert values[BLEND_FRAMES - 1 :] == [20.0] * (9 - BLEND_FRAMES)


def test_a_gap_is_bridged_to_the_frame_behind_it() -> None:
    timeline, shown = Timeline(), concealer()
    timeline.add(0, payload(0, 0))
    timeline.add(4, payload(12, 12))
    values = [float(shown.next(timeline, slot)[0]) for slot in range(4)]
    assert values == pytest.approx([0, 0, 2, 4])
    assert shown.counts.bridged == 2


def test_a_cut_of_the_source_is_not_blended() -> None:
    timeline, shown = Timeline(), concealer()
    timeline.add(0, payload(0, 0))
    for slot in range(12):
        shown.next(timeline, slot)
    timeline.add(12, payload(40, flags=FRAME_CUT))
    assert float(shown.next(timeline, 12)[0]) == 20.0


def test_before_any_frame_the_neutral_is_shown() -> None:
    assert np.array_equal(concealer().next(Timeline(), 0), NEUTRAL)
