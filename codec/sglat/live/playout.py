"""From packets to what is shown when: timeline, jitter buffer, concealment (LIVE.md section 7)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import FRAME_CUT
from sglat.live.payload import COPY_STRIDE, MotionPayload

Float32 = NDArray[np.float32]

MARGIN_SECONDS: Final = 0.004  # of the scheduler
MOST_EXTRA_SECONDS: Final = 0.25  # that the buffer may wait beyond the quickest packet
WINDOW_SECONDS: Final = 12.0
LATE_SHARE: Final = 0.015  # of frames that may come too late
RISE: Final = 0.2  # seconds of buffer a second while it grows, while it shrinks
FALL: Final = 0.02
HOLD_SECONDS: Final = 0.3
EASE_SECONDS: Final = 1.0
BLEND_FRAMES: Final = 4
KEPT_SLOTS: Final = 400  # at least, of the past: for a recording
AHEAD_SLOTS: Final = 8  # a gap is bridged to a frame that far ahead


class Grade(IntEnum):
    """How good the values of a slot are."""

    FILLED = 1
    """Interpolated between copies."""
    COPY = 2
    FRAME = 3


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What is known of one frame."""

    values: NDArray[np.int32]
    """`[34]`, in steps."""
    flags: int
    grade: Grade


class Timeline:
    """The frames of a session by slot; better values replace worse ones."""

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}
        self.first: int | None = None
        """Slot of the session's first frame that came."""
        self.last = -1
        """Latest slot of a frame."""

    def get(self, slot: int) -> Slot | None:
        """Return what is known of a frame."""
        return self._slots.get(slot)

    def add(self, first: int, payload: MotionPayload) -> list[int]:
        """Take a packet whose first frame has a slot; return the slots known for the first time."""
        news: list[int] = []
        if self.first is None:
            self.first = first
        for at, values in enumerate(payload.frames):
            self._put(first + at, values, int(payload.flags[at]), Grade.FRAME, news)
        after = (first, payload.frames[0])
        for at, values in enumerate(payload.copies):
            slot = first - 1 - COPY_STRIDE * at
            if slot < self.first:
                break
            self._put(slot, values, 0, Grade.COPY, news)
            self._fill(slot, values, *after, news)
            after = (slot, values)
        if self.last < first + len(payload.frames) - 1:
            self.last = first + len(payload.frames) - 1
        if len(self._slots) > 2 * KEPT_SLOTS:
            for old in sorted(self._slots)[:KEPT_SLOTS]:
                del self._slots[old]
        return news

    def _fill(
        self,
        slot: int,
        values: NDArray[np.int32],
        next_slot: int,
        next_values: NDArray[np.int32],
        news: list[int],
    ) -> None:
        """Interpolate between two slots."""
        for between in range(slot + 1, next_slot):
            share = (between - slot) / (next_slot - slot)
            mixed = np.rint(values + share * (next_values - values)).astype(np.int32)
            self._put(between, mixed, 0, Grade.FILLED, news)

    def _put(
        self, slot: int, values: NDArray[np.int32], flags: int, grade: Grade, news: list[int]
    ) -> None:
        known = self._slots.get(slot)
        if known is None:
            news.append(slot)
        elif known.grade >= grade:
            return
        self._slots[slot] = Slot(values=values, flags=flags, grade=grade)

    def ahead(self, slot: int) -> tuple[int, Slot] | None:
        """Return the next known frame after a slot, if it is near."""
        for later in range(slot + 1, slot + 1 + AHEAD_SLOTS):
            found = self._slots.get(later)
            if found is not None:
                return later, found
        return None


class JitterBuffer:
    """Chooses when frames are shown: as early as nearly all of them are there.

    Lateness is the time from a frame's time stamp until it was first known, by the receiver's
    clock, so it contains the unknown difference of the clocks. What copies bring late counts too:
    under loss the buffer grows until they come in time.
    """

    def __init__(self) -> None:
        self._lateness: deque[tuple[float, float]] = deque()
        self._delay: float | None = None
        self._updated = 0.0

    def note(self, frame_seconds: float, now: float) -> None:
        """Take the arrival of a frame by its time stamp, in seconds."""
        self._lateness.append((now, now - frame_seconds))
        while self._lateness[0][0] < now - WINDOW_SECONDS:
            self._lateness.popleft()

    @property
    def is_ready(self) -> bool:
        return bool(self._lateness)

    def wanted(self) -> float:
        """Return the delay that the last seconds ask for."""
        late = np.array([lateness for _, lateness in self._lateness])
        base = float(late.min())
        need = float(np.quantile(late, 1 - LATE_SHARE, method="higher"))
        return min(need, base + MOST_EXTRA_SECONDS) + MARGIN_SECONDS

    def due(self, frame_seconds: float, now: float) -> float:
        """Return when a frame is to be shown; the delay moves slowly towards the wanted one."""
        wanted = self.wanted()
        if self._delay is None:
            self._delay = wanted
        else:
            passed = max(0.0, now - self._updated)
            move = wanted - self._delay
            self._delay += min(max(move, -FALL * passed), RISE * passed)
        self._updated = now
        return frame_seconds + self._delay

    @property
    def extra_seconds(self) -> float:
        """How long the quickest frame waits."""
        if self._delay is None or not self._lateness:
            return 0.0
        return self._delay - min(lateness for _, lateness in self._lateness)


@dataclass
class Counts:
    """What a receiver has shown."""

    frames: int = 0
    """From their own packets."""
    copies: int = 0
    """From coarse copies, or between them."""
    bridged: int = 0
    """On the way to a later frame that is known."""
    frozen: int = 0
    """Held or eased to neutral."""


class Concealer:
    """Turns known and missing frames into motion without jumps.

    Args:
        neutral: of the person, `[34]`.
        steps: of the integers, `[34]`.
        frame_seconds: time from frame to frame.
    """

    def __init__(self, neutral: Float32, steps: Float32, frame_seconds: float) -> None:
        self.counts = Counts()
        self._neutral, self._steps, self._frame = neutral, steps, frame_seconds
        self._shown: Float32 | None = None
        self._missing = 0
        self._is_exact = True
        self._offset = np.zeros_like(neutral)
        self._blend = 0

    def next(self, timeline: Timeline, slot: int) -> Float32:
        """Return what is shown at a slot, `[34]` in degrees and controls."""
        found = timeline.get(slot)
        if found is not None:
            return self._known(found)
        later = timeline.ahead(slot)
        if later is not None and self._shown is not None:
            return self._bridge(slot, *later)
        return self._freeze()

    def _known(self, slot: Slot) -> Float32:
        target = slot.values.astype(np.float32) * self._steps
        is_exact = slot.grade is Grade.FRAME
        if is_exact:
            self.counts.frames += 1
        else:
            self.counts.copies += 1
        if self._shown is not None and (self._missing or is_exact != self._is_exact):
            self._offset, self._blend = self._shown - target, BLEND_FRAMES
        if slot.flags & FRAME_CUT:
            self._blend = 0
        self._missing, self._is_exact = 0, is_exact
        if self._blend:
            self._blend -= 1
            target = target + self._offset * np.float32(self._blend / BLEND_FRAMES)
        self._shown = target
        return target

    def _bridge(self, slot: int, later_slot: int, later: Slot) -> Float32:
        assert self._shown is not None
        self.counts.bridged += 1
        target = later.values.astype(np.float32) * self._steps
        self._shown = self._shown + (target - self._shown) / np.float32(later_slot - slot + 1)
        self._missing += 1
        return self._shown

    def _freeze(self) -> Float32:
        self.counts.frozen += 1
        self._missing += 1
        if self._shown is None:
            self._shown = self._neutral
        self._shown = eased(self._shown, self._neutral, self._missing, self._frame)
        return self._shown


def eased(shown: Float32, neutral: Float32, missing: int, frame_seconds: float) -> Float32:
    """Return the motion after a number of missing frames: held, then on the way to neutral."""
    left = HOLD_SECONDS + EASE_SECONDS - missing * frame_seconds
    if missing * frame_seconds <= HOLD_SECONDS:
        return shown
    if left <= 0:
        return neutral
    share = np.float32(min(1.0, frame_seconds / (left + frame_seconds)))
    return shown + (neutral - shown) * share
