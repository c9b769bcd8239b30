"""The clock of a track: which frames an edit by name changes, and how far each of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.edit_grammar import Moment, Span, parse_span
from sglat.bitstream.records import Header, Motion
from sglat.errors import UsageError

Float64: TypeAlias = NDArray[np.float64]
When: TypeAlias = str | Span | None

DEFAULT_RAMP_SECONDS: Final = 0.12
"""Of a transition: three frames at 25 fps, about as long as a lid takes to close."""
MAX_RAMP_SHARE: Final = 0.25  # of the range at each end, for the default ramp


@dataclass(frozen=True, kw_only=True)
class Range:
    """Frames of one edit, and how far each is changed, `[n, 1]`."""

    frames: slice
    weight: Float64
    note: str = ""
    """What a user should know."""


class Clock:
    """When each frame of a track begins and ends."""

    def __init__(self, motion: Motion, header: Header) -> None:
        self.base = header.time_base
        self.stamps = motion.stamps(header)
        self.last_ticks = header.frame_ticks or _last_step(self.stamps)
        """How long the last frame is shown."""

    def seconds(self) -> Float64:
        """Return when each frame begins, `[T]`."""
        seconds: Float64 = self.stamps.astype(np.float64) * float(self.base)
        return seconds

    def ends(self) -> Float64:
        """Return when each frame is over, `[T]`."""
        stops = np.append(self.stamps[1:], self.stamps[-1] + self.last_ticks)
        seconds: Float64 = stops.astype(np.float64) * float(self.base)
        return seconds

    def range(self, when: When) -> Range:
        """Return the frames that begin in a span, and their weights."""
        span = when if isinstance(when, Span) else parse_span(when)
        if span.is_instant:
            assert span.start is not None
            at = self.frame_on_screen(span.start)
            return Range(frames=slice(at, at + 1), weight=np.ones((1, 1)))
        count = len(self.stamps)
        first = 0 if span.start is None else self._first_frame(span.start)
        stop = count if span.end is None else self._first_frame(span.end)
        if first >= stop:
            raise UsageError("bad-time", f"no frame begins in {span.text}; {self._extent()}")
        note = ""
        if span.end is not None and self._is_beyond(span.end):
            note = f"{span.text}: edited up to the end of the clip; {self._extent()}"
        frames = slice(first, stop)
        return Range(frames=frames, weight=self.weight(frames, span.ramp_seconds), note=note)

    def weight(self, frames: slice, ramp: Fraction | None, *, at_start: bool = True) -> Float64:
        """Return the weight of each frame, `[n, 1]`: inside the range it rises and falls by a
        raised cosine, but not at the ends of the clip."""
        begins, ends = self.seconds()[frames], self.ends()[frames]
        length = float(ends[-1] - begins[0])
        width = min(DEFAULT_RAMP_SECONDS, MAX_RAMP_SHARE * length) if ramp is None else float(ramp)
        weight = np.ones(len(begins))
        if width > 0:
            width = min(width, length / 2)
            middle = (begins + ends) / 2
            if at_start and frames.start > 0:
                weight = np.minimum(weight, (middle - begins[0]) / width)
            if frames.stop < len(self.stamps):
                weight = np.minimum(weight, (ends[-1] - middle) / width)
        shaped: Float64 = (0.5 - 0.5 * np.cos(np.pi * weight))[:, None]
        return shaped

    def _first_frame(self, moment: Moment) -> int:
        """Return the first frame that begins at a time or later."""
        if moment.frame is not None:
            return min(moment.frame, len(self.stamps))
        assert moment.seconds is not None
        return int(np.searchsorted(self.stamps, ceil(moment.seconds / self.base)))

    def frame_on_screen(self, moment: Moment) -> int:
        """Return the frame that is shown at a time.

        Raises:
            UsageError: `bad-time` outside the clip.
        """
        count = len(self.stamps)
        if moment.frame is not None:
            at = moment.frame if moment.frame < count else -1
        else:
            assert moment.seconds is not None
            tick = moment.seconds / self.base
            at = int(np.searchsorted(self.stamps, floor(tick), side="right")) - 1
            if tick >= int(self.stamps[-1]) + self.last_ticks:
                at = -1
        if at < 0:
            raise UsageError("bad-time", f"no frame is shown at {moment.text}; {self._extent()}")
        return at

    def _is_beyond(self, moment: Moment) -> bool:
        if moment.frame is not None:
            return moment.frame > len(self.stamps)
        assert moment.seconds is not None
        return moment.seconds / self.base > int(self.stamps[-1]) + self.last_ticks

    def _extent(self) -> str:
        first, last = float(self.seconds()[0]), float(self.ends()[-1])
        return f"the clip has {first:.2f} s to {last:.2f} s, frames 0f to {len(self.stamps) - 1}f"


def _last_step(stamps: NDArray[np.int64]) -> int:
    """Return how many ticks the last frame of a variable rate lasts: as many as the one before."""
    return int(stamps[-1] - stamps[-2]) if len(stamps) > 1 else 1
