"""Edits of motion by name: set, add, gain, smooth, only, freeze, neutral, mix, retime.

```python
editor = MotionEditor(motion, header, neutral=reader.motion_neutral)
editor.add("mouth 3", 0.4, "2s-4s")
editor.gain("eyes", 1.2)
edited = editor.motion()
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.channels import CHANNEL_NAMES, SETS, channel_label, find_channels
from sglat.bitstream.constants import MAX_TIME_BASE, MAX_VALUE
from sglat.bitstream.edit_grammar import Edit, Span, parse_span
from sglat.bitstream.edit_range import Clock, Float64, Range, When
from sglat.bitstream.records import (
    FIRST_CONTROL,
    FRAME_CUT,
    MOTION_CHANNELS,
    Float32,
    Header,
    Int32,
    Motion,
)
from sglat.errors import UsageError

KERNEL_SIGMAS: Final = 3.0  # the rest of a Gaussian is 0.3 %
MAX_NAMED: Final = 4  # channels of a group that a report names one by one
MAX_SMOOTH_FRAMES: Final = 10_000  # to each side; bounds the work at very high rates


@dataclass(frozen=True, kw_only=True)
class OtherMotion:
    """Motion of another file, for `MotionEditor.mix`."""

    values: Float64
    """Degrees and controls, `[T, 34]`; of a table NaN where it has no such column."""
    seconds: Float64 | None
    """Time of each frame from the first one on, `[T]`; None: frame by frame."""
    neutral: Float64 | None
    """Of the person whose motion it is, `[34]`; None: values count as they are."""
    name: str = ""
    """For messages."""


class MotionEditor:
    """Edits one track; what no edit names keeps its integers.

    Edits act in the order of the calls, each on what the ones before have left. Values are rounded
    once, at the end. Names are those of `find_channels`, times those of `parse_span`.
    """

    def __init__(
        self,
        motion: Motion,
        header: Header,
        *,
        neutral: Float32 | None = None,
        own_names: Sequence[str] = (),
    ) -> None:
        """Begin to edit.

        Args:
            motion: one frame or more.
            header: of its file, for the clock.
            neutral: yaw, pitch and controls at rest of the person whose motion this is, `[34]`.
            own_names: of the controls in the file's bundle.

        Raises:
            UsageError: `no-motion`.
        """
        if not len(motion.values):
            raise UsageError("no-motion", "expected motion to edit, found no frames")
        self.notes: list[str] = []
        """What a user should know, one line each."""
        self.speed = Fraction(1)
        """How many times as fast as before; the file's time base is divided by it."""
        self._source = motion
        self._steps = motion.steps.astype(np.float64)
        self._values = motion.values.astype(np.float64)  # in steps: what is not edited stays exact
        self._neutral = None if neutral is None else neutral.astype(np.float64) / self._steps
        self._own_names = tuple(own_names)
        self._clock = Clock(motion, header)
        self._set: list[tuple[frozenset[int], slice, str]] = []

    def apply(self, edit: Edit, other: OtherMotion | None = None) -> None:
        """Do what a parsed edit asks for; `other` is the motion of `edit.source`."""
        match edit.kind:
            case "set":
                self.set(edit.target, edit.value, edit.span, is_degrees=edit.is_degrees)
            case "add":
                self.add(edit.target, edit.value, edit.span, is_degrees=edit.is_degrees)
            case "neutral":
                self.neutral(edit.target, edit.span)
            case "gain":
                self.gain(edit.target, edit.value, edit.span)
            case "smooth":
                self.smooth(edit.target, edit.value, edit.span)
            case "only":
                self.only(edit.target, edit.span)
            case "freeze":
                self.freeze(edit.target, edit.span)
            case "retime":
                self.retime(edit.speed)
            case "mix":
                assert other is not None  # the caller opens `edit.source`
                self.mix(edit.target, other, edit.span)

    def motion(self) -> Motion:
        """Return the edited motion; steps, flags and time stamps in ticks are the source's."""
        return replace(self._source, values=np.rint(self._values).astype(np.int32))

    def set(
        self, target: str, value: float, when: When = None, *, is_degrees: bool = False
    ) -> None:
        """Bring channels to a value: degrees of yaw and pitch, units of a control."""
        channels, span = self._channels(target, is_degrees=is_degrees), self._frames(when)
        self._say_conflict(channels, span, f"{target} = {value:g}")
        self._blend(channels, span, value / self._steps[channels])

    def add(
        self, target: str, value: float, when: When = None, *, is_degrees: bool = False
    ) -> None:
        """Move channels by a value."""
        channels, span = self._channels(target, is_degrees=is_degrees), self._frames(when)
        now = self._values[span.frames][:, channels]
        self._blend(channels, span, now + value / self._steps[channels])

    def neutral(self, target: str = "all", when: When = None) -> None:
        """Bring channels to the person's neutral.

        Raises:
            UsageError: `no-neutral` as all methods that need it.
        """
        channels = self._channels(target)
        self._blend(channels, self._frames(when), self._rest()[channels])

    def gain(self, target: str, factor: float, when: When = None) -> None:
        """Multiply the distance of channels from the neutral."""
        channels, span = self._channels(target), self._frames(when)
        rest = self._rest()[channels]
        now = self._values[span.frames][:, channels]
        self._blend(channels, span, rest + (now - rest) * factor)

    def only(self, target: str, when: When = None) -> None:
        """Keep the motion of channels and bring all others to neutral."""
        kept = set(self._channels(target).tolist())
        others = np.array([c for c in range(MOTION_CHANNELS) if c not in kept], dtype=np.intp)
        self._blend(others, self._frames(when), self._rest()[others])

    def freeze(self, target: str, when: str | Span) -> None:
        """Hold channels at their value of a time: over the clip for `1s`, else over the range."""
        channels, span = self._channels(target), parse_span(when) if isinstance(when, str) else when
        if span.start is None:
            raise UsageError("bad-time", "freeze: expected the time whose value is held")
        at = self._clock.frame_on_screen(span.start)
        held = self._values[at, channels].copy()
        self._blend(channels, self._frames(Span() if span.is_instant else span), held)

    def smooth(self, target: str, seconds: float, when: When = None) -> None:
        """Smooth channels over time, not across cuts.

        Args:
            target: names of channels.
            seconds: standard deviation of the Gaussian.
            when: frames that change; those around them count.
        """
        if not 0 < seconds < float("inf"):
            raise UsageError("bad-value", f"smooth: expected a width above 0 s, found {seconds}")
        channels, span = self._channels(target), self._frames(when)
        flags = self._source.flags
        cuts = [] if flags is None else np.flatnonzero(flags & FRAME_CUT).tolist()
        bounds = sorted({0, *cuts, len(self._values)})
        smoothed = self._values[:, channels].copy()
        times = self._clock.seconds()
        for first, stop in pairwise(bounds):
            part = slice(first, stop)
            smoothed[part] = _gaussian(smoothed[part], times[part], seconds)
        self._blend(channels, span, smoothed[span.frames])

    def mix(self, target: str, other: OtherMotion, when: When = None) -> None:
        """Take channels from other motion, first frame at first frame, as difference from neutral.

        Between the other's frames values are interpolated; where it is over, nothing changes.
        """
        channels, span = self._channels(target), self._frames(when)
        values = other.values
        if other.seconds is None:
            if len(values) != len(self._values):
                raise UsageError(
                    "frame-count",
                    f"{other.name}: expected {len(self._values)} rows, one a frame, found "
                    f"{len(values)}",
                )
            rows = values[span.frames]
        else:
            times = self._clock.seconds()[span.frames] - self._clock.seconds()[0]
            rows, span = self._resampled(other, times, span)
        present = channels[~np.isnan(rows[:, channels]).any(axis=0)]
        if not len(present):
            raise UsageError(
                "unknown-control", f"{other.name}: expected a column of {target}, found none"
            )
        if len(present) < len(channels):
            missing = [c for c in channels.tolist() if c not in present]
            self.notes.append(f"{other.name} has no {channel_label(missing)}, which stays")
        taken = rows[:, present] / self._steps[present]
        if other.neutral is not None:
            taken += (self._rest() - other.neutral / self._steps)[present]
        self._blend(present, span, taken)

    def retime(self, speed: Fraction | float) -> None:
        """Play faster: no value changes, each frame lasts 1 / speed as long.

        Raises:
            UsageError: `bad-value` if the speed is no such number, or the clock cannot have it.
        """
        try:
            factor = Fraction(speed)
        except (ValueError, OverflowError, TypeError) as error:
            raise UsageError("bad-value", f"expected a speed, found {speed}") from error
        base = self._clock.base / factor if factor > 0 else Fraction(0)
        if not base > 0 or max(base.numerator, base.denominator) > MAX_TIME_BASE:
            raise UsageError(
                "bad-value", f"--retime: expected a simple ratio such as 3/2, found {speed}"
            )
        self.speed *= factor
        self._clock.base = base

    def _resampled(self, other: OtherMotion, times: Float64, span: Range) -> tuple[Float64, Range]:
        """Return the other's values at some times, and the part of the range that it covers."""
        assert other.seconds is not None
        last = float(other.seconds[-1])
        own_step = self._clock.last_ticks * float(self._clock.base)
        last += last - float(other.seconds[-2]) if len(other.seconds) > 1 else own_step
        count = int(np.searchsorted(times, last))
        if not count:
            raise UsageError(
                "bad-time", f"{other.name}: its {last:.2f} s are over before {times[0]:.2f} s"
            )
        if count < len(times):
            self.notes.append(f"{other.name}: over after {last:.2f} s; what follows is unchanged")
            first = span.frames.start
            ramps = self._clock.weight(slice(first, first + count), None, at_start=False)
            weight = np.minimum(span.weight[:count], ramps)
            span, times = Range(frames=slice(first, first + count), weight=weight), times[:count]
        columns = [np.interp(times, other.seconds, column) for column in other.values.T]
        return np.stack(columns, axis=1), span

    def _channels(self, target: str, *, is_degrees: bool = False) -> NDArray[np.intp]:
        channels = np.array(find_channels(target, self._own_names), dtype=np.intp)
        if is_degrees and channels.max() >= FIRST_CONTROL:
            raise UsageError(
                "bad-value", f"expected degrees for yaw, pitch or pose alone, found {target!r:.60}"
            )
        return channels

    def _frames(self, when: When) -> Range:
        """Return the frames of an edit, and note what a user should know."""
        found = self._clock.range(when)
        self.notes += [found.note] if found.note else []
        return found

    def _rest(self) -> Float64:
        """Return the neutral in steps, `[34]`."""
        if self._neutral is None:
            raise UsageError(
                "no-neutral",
                "the person's neutral lies in another file; put it in: sgl-swap --attach",
            )
        return self._neutral

    def _blend(self, channels: NDArray[np.intp], span: Range, wanted: Float64) -> None:
        """Bring channels toward values in steps, by the weight of each frame."""
        now = self._values[span.frames][:, channels]
        edited = np.where(span.weight > 0, now + (wanted - now) * span.weight, now)
        wild = ~(np.abs(edited) <= MAX_VALUE).all(axis=0)  # True for NaN too
        if wild.any():
            channel = int(channels[np.flatnonzero(wild)[0]])
            most = MAX_VALUE * self._steps[channel]
            raise UsageError(
                "bad-value",
                f"expected {CHANNEL_NAMES[channel]} within ±{most:.6g}, the edit goes beyond it",
            )
        self._values[span.frames, channels] = edited

    def _say_conflict(self, channels: NDArray[np.intp], span: Range, text: str) -> None:
        """Note where the same frames of a channel have been set before."""
        mine = frozenset(channels.tolist())
        for theirs, frames, before in self._set:
            both = mine & theirs
            first, stop = max(frames.start, span.frames.start), min(frames.stop, span.frames.stop)
            if both and first < stop:
                a, b = self._clock.seconds()[first], self._clock.ends()[stop - 1]
                self.notes.append(
                    f"{channel_label(sorted(both))}: set twice from {a:.2f} s to {b:.2f} s; "
                    f"{text} counts, not {before}"
                )
        self._set.append((mine, span.frames, text))


def _gaussian(values: Float64, times: Float64, sigma: float) -> Float64:
    """Return values `[T, C]` at times `[T]` under a Gaussian; beyond the ends there is nothing.

    Each frame counts by its duration, so frames that are missing leave no step.
    """
    count = len(times)
    if count < 2:
        return values
    reach = KERNEL_SIGMAS * sigma
    widest = np.searchsorted(times, times + reach, side="right") - np.arange(count) - 1
    span = min(int(widest.max()), MAX_SMOOTH_FRAMES)
    duration = np.gradient(times)[:, None]
    total, weights = values * duration, duration.copy()
    for offset in range(1, span + 1):
        gap = times[offset:] - times[:-offset]
        near = np.where(gap <= reach, np.exp(-0.5 * np.square(gap / sigma)), 0.0)[:, None]
        total[offset:] += near * values[:-offset] * duration[:-offset]
        weights[offset:] += near * duration[:-offset]
        total[:-offset] += near * values[offset:] * duration[offset:]
        weights[:-offset] += near * duration[offset:]
    return total / weights


def changed_channels(before: Int32, after: Int32) -> tuple[str, int]:
    """Return which channels differ, by the names of whole groups and of single channels, and in how
    many frames."""
    differs = before != after
    changed = set(np.flatnonzero(differs.any(axis=0)).tolist())
    parts = []
    for name, members in SETS.items():
        mine = [channel for channel in members if channel in changed]
        if name in ("all", "controls") or not mine:
            continue
        if len(mine) == len(members):
            parts.append(name)
        elif len(mine) > MAX_NAMED:
            parts.append(f"{len(mine)} of {name}")
        else:
            parts.append(channel_label(mine))
    return ", ".join(parts), int(differs.any(axis=1).sum())
