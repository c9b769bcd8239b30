"""MOTN and PLAC payloads: group heads, time stamps, frame flags (SPEC.md sections 7.1 and 8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from sglat.bitstream.constants import MAX_FRAMES, MAX_GROUP_FRAMES, MAX_TICKS
from sglat.bitstream.integers import pack_integers, unpack_integers
from sglat.bitstream.motion_coder import MotionModel, default_model, pack_frames, unpack_frames
from sglat.bitstream.records import (
    MOTION_CHANNELS,
    PLACEMENT_CHANNELS,
    Float32,
    Header,
    Int32,
    Int64,
    Motion,
    Placement,
    UInt8,
)
from sglat.bitstream.values import Cursor, pack_svarint, pack_varint
from sglat.errors import FormatError

HAS_PTS: Final = 1
HAS_FLAGS: Final = 2
MAX_FLAG: Final = 3


@dataclass(frozen=True, kw_only=True)
class GroupHead:
    """Everything of a MOTN payload but the frames."""

    first_frame: int
    frame_count: int
    pts: Int64 | None
    """`[T]`; None at a constant rate."""
    flags: UInt8 | None
    """`[T]`; None: all zero."""
    stream: bytes
    """The coded frames, copied verbatim by edits."""
    offset: int | None = None
    """Position of the payload in the file, for messages."""

    def first_pts(self, header: Header) -> int:
        """Return the time stamp of the first frame in ticks."""
        if self.pts is not None:
            return int(self.pts[0])
        return header.start_ticks + self.first_frame * (header.frame_ticks or 0)

    def last_pts(self, header: Header) -> int:
        """Return the time stamp of the last frame in ticks."""
        if self.pts is not None:
            return int(self.pts[-1])
        return self.first_pts(header) + (self.frame_count - 1) * (header.frame_ticks or 0)


def motion_model(header: Header) -> MotionModel:
    """Return the model that a file's motion groups start from."""
    return header.model or default_model(MOTION_CHANNELS)


def _check_span(cursor: Cursor, first_frame: int, frame_count: int) -> None:
    if not 1 <= frame_count <= MAX_GROUP_FRAMES:
        raise cursor.error(
            "bad-frames", f"expected 1 to {MAX_GROUP_FRAMES} frames in a group, found {frame_count}"
        )
    if first_frame + frame_count > MAX_FRAMES:
        found = first_frame + frame_count
        raise cursor.error("bad-frames", f"expected at most {MAX_FRAMES} frames, found {found}")


def pack_group_head(head: GroupHead) -> bytes:
    """Return a MOTN payload from a head whose stream is already coded."""
    form = (HAS_PTS if head.pts is not None else 0) | (HAS_FLAGS if head.flags is not None else 0)
    out = pack_varint(head.first_frame) + pack_varint(head.frame_count) + bytes((form,))
    if head.flags is not None:
        out += _pack_flags(head.flags)
    if head.pts is not None:
        out += _pack_pts(head.pts)
    return out + head.stream


def unpack_group_head(payload: bytes, header: Header, *, offset: int | None = None) -> GroupHead:
    """Read all of a MOTN payload but its frames."""
    cursor = Cursor(payload, offset=offset, code="bad-group")
    first_frame, frame_count = cursor.varint(), cursor.varint()
    _check_span(cursor, first_frame, frame_count)
    form = cursor.u8()
    if form & ~(HAS_PTS | HAS_FLAGS):
        raise cursor.error("bad-group", f"expected a form of 0 to 3, found {form}")
    if bool(form & HAS_PTS) != (header.frame_ticks is None):
        expected = "time stamps" if header.frame_ticks is None else "no time stamps"
        raise cursor.error("bad-group", f"expected {expected} in a group, found form {form}")
    flags = _unpack_flags(cursor, frame_count) if form & HAS_FLAGS else None
    pts = _unpack_pts(cursor, frame_count) if form & HAS_PTS else None
    head = GroupHead(
        first_frame=first_frame,
        frame_count=frame_count,
        pts=pts,
        flags=flags,
        stream=cursor.rest(),
        offset=offset,
    )
    if pts is None and head.last_pts(header) > MAX_TICKS:
        raise cursor.error("bad-time", "expected time stamps within 2^53, found a later one")
    return head


def _pack_flags(flags: UInt8) -> bytes:
    edges = np.flatnonzero(np.diff(flags)) + 1
    starts = [0, *edges.tolist(), len(flags)]
    out, runs, at = b"", 0, 0
    for start, end in pairwise(starts):
        if flags[start]:
            out += pack_varint(start - at) + pack_varint(end - start) + bytes((int(flags[start]),))
            runs, at = runs + 1, end
    return pack_varint(runs) + out


def _unpack_flags(cursor: Cursor, frame_count: int) -> UInt8:
    flags = np.zeros(frame_count, dtype=np.uint8)
    runs, at = cursor.varint(), 0
    if not 1 <= runs <= frame_count:
        raise cursor.error("bad-group", f"expected 1 to {frame_count} flag runs, found {runs}")
    for _ in range(runs):
        at += cursor.varint()
        length, value = cursor.varint(), cursor.u8()
        if length < 1 or at + length > frame_count or not 1 <= value <= MAX_FLAG:
            found = f"{length} frames from {at} with {value}"
            raise cursor.error("bad-group", f"expected flags inside the group, found {found}")
        flags[at : at + length] = value
        at += length
    return flags


def _pack_pts(pts: Int64) -> bytes:
    second = np.diff(np.diff(pts), prepend=0)
    if len(pts) == 1:
        return pack_svarint(int(pts[0]))
    stream = pack_integers(second)
    return pack_svarint(int(pts[0])) + pack_varint(len(stream)) + stream


def _unpack_pts(cursor: Cursor, frame_count: int) -> Int64:
    first = cursor.svarint()
    steps = np.zeros(0, dtype=np.int64)
    if frame_count > 1:
        stream = cursor.take(cursor.varint())
        try:
            steps = np.cumsum(unpack_integers(stream, frame_count - 1), dtype=np.int64)
        except FormatError as error:
            raise cursor.error(error.code, error.message) from error
    pts = np.concatenate([[0], np.cumsum(steps)])  # below 2^52 + …: the first one is added below
    if steps.size and steps.min() < 1:
        raise cursor.error("bad-time", f"expected rising time stamps, found {int(steps.min())}")
    if abs(first) > MAX_TICKS or first + int(pts[-1]) > MAX_TICKS:
        raise cursor.error("bad-time", "expected time stamps within 2^53, found a larger one")
    return pts + first


def pack_motion(motion: Motion, header: Header) -> bytes:
    """Return the MOTN payload of one group."""
    if not np.array_equal(motion.steps, header.motion_steps):
        raise FormatError("bad-step", "motion expected the steps of the header, found others")
    if motion.values.ndim != 2 or motion.values.shape[1] != MOTION_CHANNELS:
        found = motion.values.shape
        raise FormatError("bad-frames", f"expected [T, {MOTION_CHANNELS}] integers, found {found}")
    flags = motion.flags if motion.flags is not None and motion.flags.any() else None
    head = GroupHead(
        first_frame=motion.first_frame,
        frame_count=len(motion.values),
        pts=None if motion.pts is None else motion.pts.astype(np.int64),
        flags=flags,
        stream=b"",
    )
    _check_span(Cursor(b""), head.first_frame, head.frame_count)
    for name, track in (("time stamps", head.pts), ("flags", head.flags)):
        if track is not None and len(track) != head.frame_count:
            raise FormatError(
                "bad-frames", f"expected {head.frame_count} {name}, found {len(track)}"
            )
    stream = pack_frames(motion.values, motion_model(header))
    payload = pack_group_head(replace(head, stream=stream))
    unpack_group_head(payload, header)  # one set of checks for both directions
    return payload


def motion_of(head: GroupHead, values: Int32, header: Header) -> Motion:
    """Return the record of a decoded group."""
    return Motion(
        values=values,
        steps=header.motion_steps,
        first_frame=head.first_frame,
        pts=head.pts,
        flags=head.flags,
    )


def unpack_motion(head: GroupHead, header: Header) -> Motion:
    """Decode the frames of one group."""
    try:
        values = unpack_frames(head.stream, head.frame_count, motion_model(header))
    except FormatError as error:
        raise FormatError(error.code, error.message, offset=head.offset) from error
    return motion_of(head, values, header)


def join_motion(parts: list[Motion], header: Header) -> Motion:
    """Return consecutive groups as one record; time stamps and flags only where a part has them."""
    empty = np.zeros((0, MOTION_CHANNELS), dtype=np.int32)
    flags = None
    if any(part.flags is not None for part in parts):
        flags = np.concatenate(
            [np.zeros(len(p.values), np.uint8) if p.flags is None else p.flags for p in parts]
        )
    stamps = [part.pts for part in parts if part.pts is not None]
    return Motion(
        values=np.concatenate([empty, *(part.values for part in parts)]),
        steps=header.motion_steps,
        first_frame=parts[0].first_frame if parts else 0,
        pts=np.concatenate(stamps) if stamps else None,
        flags=flags,
    )


def _placement_steps(header: Header, offset: int | None) -> Float32:
    if header.placement_steps is None or header.source_size is None:
        raise FormatError(
            "bad-placement", "expected placement steps and source size in HEAD", offset=offset
        )
    return header.placement_steps


def pack_placement(placement: Placement, header: Header) -> bytes:
    """Return the PLAC payload of one group."""
    steps = _placement_steps(header, None)
    if placement.steps.tolist() != steps.tolist():
        raise FormatError("bad-placement", "expected the placement steps of the header")
    if placement.values.ndim != 2 or placement.values.shape[1] != PLACEMENT_CHANNELS:
        raise FormatError("bad-frames", f"expected [T, 4], found {placement.values.shape}")
    count = len(placement.values)
    _check_span(Cursor(b""), placement.first_frame, count)
    stream = pack_frames(placement.values, default_model(PLACEMENT_CHANNELS))
    return pack_varint(placement.first_frame) + pack_varint(count) + stream


def unpack_placement(payload: bytes, header: Header, *, offset: int | None = None) -> Placement:
    """Read a PLAC payload."""
    steps = _placement_steps(header, offset)
    cursor = Cursor(payload, offset=offset, code="bad-placement")
    first_frame, count = cursor.varint(), cursor.varint()
    _check_span(cursor, first_frame, count)
    try:
        values = unpack_frames(cursor.rest(), count, default_model(PLACEMENT_CHANNELS))
    except FormatError as error:
        raise FormatError(error.code, error.message, offset=offset) from error
    return Placement(values=values, steps=steps, first_frame=first_frame)


def shift_placement(payload: bytes, frames: int) -> bytes:
    """Return a PLAC payload that starts some frames later or earlier."""
    cursor = Cursor(payload, code="bad-placement")
    return pack_varint(cursor.varint() + frames) + cursor.rest()
