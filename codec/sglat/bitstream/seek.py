"""Random access: index at the end, or rebuilt by a scan (SPEC.md section 12)."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from fractions import Fraction
from math import ceil
from typing import BinaryIO

import numpy as np

from sglat.bitstream import extras
from sglat.bitstream.chunks import HEAD, ByteSource, Chunk, read_chunk, read_signature
from sglat.bitstream.constants import (
    CHUNK_FRAME_BYTES,
    CHUNK_HEAD_BYTES,
    CHUNKS,
    ENDS_CHUNK_BYTES,
    MAX_GROUPS,
    MAX_TICKS,
)
from sglat.bitstream.groups import unpack_group_head, unpack_motion
from sglat.bitstream.header import unpack_header
from sglat.bitstream.records import Header, IndexEntry, Motion
from sglat.errors import FormatError
from sglat.files import naming


class SeekableFile:
    """Groups of a seekable file by time or number; a seek reads one besides header and index.

    Raises:
        FormatError: the header is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        with naming(file):
            self._open(file)

    def _open(self, file: BinaryIO) -> None:
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)
        source = ByteSource(file)
        read_signature(source)
        head = read_chunk(source)
        if head.type != "HEAD":
            raise FormatError("bad-order", f"expected HEAD first, found {head.type}", offset=8)
        self.header: Header = unpack_header(head.payload, offset=head.payload_offset)
        self._after_header = source.position
        self.is_index_rebuilt = False
        self.audio_index: tuple[tuple[int, int], ...] = ()
        """Offset and first time stamp of each run of audio packets; empty if rebuilt."""
        try:
            self.index = self._read_index()
        except FormatError:
            self.index = self._scan()
            self.is_index_rebuilt = True
        self._stamps = [entry.first_pts for entry in self.index]

    def _chunk_at(self, offset: int) -> Chunk:
        self._file.seek(offset)
        return read_chunk(ByteSource(self._file, position=offset))

    def _read_index(self) -> tuple[IndexEntry, ...]:
        tail = self._size - ENDS_CHUNK_BYTES
        if tail < self._after_header:
            raise FormatError("truncated", "expected ENDS, found the end", offset=self._size)
        ends = self._chunk_at(tail)
        if ends.type != "ENDS":
            raise FormatError("truncated", f"expected ENDS, found {ends.type}", offset=tail)
        end = extras.unpack_end(ends.payload)
        if end.frame_count == 0:
            return ()
        if not self._after_header <= end.index_offset < tail:
            raise FormatError(
                "bad-index", f"expected an index, found offset {end.index_offset}", offset=tail
            )
        chunk = self._chunk_at(end.index_offset)
        if chunk.type != "INDX":
            raise FormatError(
                "bad-index", f"expected INDX, found {chunk.type}", offset=end.index_offset
            )
        index = extras.unpack_index(
            chunk.payload,
            frame_ticks=self.header.frame_ticks,
            start_ticks=self.header.start_ticks,
            offset=chunk.payload_offset,
        )
        self.audio_index = tuple(index.audio)
        return index.groups

    def _scan(self) -> tuple[IndexEntry, ...]:
        """Return the groups before the first damage; reads chunk heads and motion groups only."""
        entries: list[IndexEntry] = []
        offset = self._after_header
        while offset + CHUNK_FRAME_BYTES <= self._size and len(entries) < MAX_GROUPS:
            self._file.seek(offset)
            type_, packed = HEAD.unpack(ByteSource(self._file).read(CHUNK_HEAD_BYTES, "a head"))
            length = packed >> 8
            if type_ == b"MOTN":
                try:
                    entries.append(self._entry(offset, entries))
                except FormatError:
                    break
            rule = CHUNKS.get(type_.decode("ascii", "replace"))
            if rule is not None and length > rule.max_bytes:
                break
            offset += length + CHUNK_FRAME_BYTES
        return tuple(entries)

    def _entry(self, offset: int, before: list[IndexEntry]) -> IndexEntry:
        chunk = self._chunk_at(offset)
        head = unpack_group_head(chunk.payload, self.header, offset=chunk.payload_offset)
        expected = before[-1].first_frame + before[-1].frame_count if before else 0
        if head.first_frame != expected:
            raise FormatError(
                "bad-frames", f"expected frame {expected}, found {head.first_frame}", offset=offset
            )
        return IndexEntry(
            first_frame=head.first_frame,
            frame_count=head.frame_count,
            offset=offset,
            first_pts=head.first_pts(self.header),
        )

    def group_at_ticks(self, ticks: int) -> Motion:
        """Return the group on screen at a time; before the first one, the first.

        Raises:
            FormatError: `bad-index` if there is no group or the index names another place.
        """
        at = max(0, bisect_right(self._stamps, ticks) - 1)
        return self._group(at)

    def group_at_frame(self, frame: int) -> Motion:
        """Return the group that holds a frame."""
        starts = [entry.first_frame for entry in self.index]
        return self._group(max(0, bisect_right(starts, frame) - 1))

    def place_before(self, ticks: int, audio_ticks: int | None) -> tuple[int, int] | None:
        """Return where to read on for a time: an offset, and the frame its first group begins with.

        From there a reader meets the group on screen at that time with its placement, and the audio
        packet that sounds then; `audio_ticks` is the same time in the audio's time base, None
        without sound. None: the file must be read from the front.
        """
        at = bisect_right(self._stamps, ticks) - 1
        if at < 1 or self.is_index_rebuilt:
            return None
        before = self.index[at - 1].offset
        self._file.seek(before)
        _, packed = HEAD.unpack(ByteSource(self._file).read(CHUNK_HEAD_BYTES, "a head"))
        offset = before + (packed >> 8) + CHUNK_FRAME_BYTES
        if audio_ticks is not None:
            heard = [place for place, first in self.audio_index if first <= audio_ticks]
            offset = min(offset, heard[-1] if heard else 0)
        following = next(entry for entry in self.index if entry.offset > offset)
        return (offset, following.first_frame) if following.first_frame > 0 else None

    def first_frame_at(self, ticks: Fraction) -> int:
        """Return the number of the first frame that begins at or after a time; all frames' count
        if none does."""
        first = min(ceil(ticks), MAX_TICKS + 1)
        at = max(0, bisect_left(self._stamps, first) - 1)
        for number in range(at, len(self.index)):
            motion = self._group(number)
            found = int(np.searchsorted(motion.stamps(self.header), first))
            if found < len(motion.values):
                return motion.first_frame + found
        return sum(entry.frame_count for entry in self.index)

    def frame_ticks(self, frame: int) -> int | None:
        """Return the time stamp of a frame; None behind the last one."""
        if frame >= sum(entry.frame_count for entry in self.index):
            return None
        motion = self.group_at_frame(frame)
        return int(motion.stamps(self.header)[frame - motion.first_frame])

    def end_ticks(self) -> int:
        """Return the first tick after the last frame; at a variable rate it lasts one tick.

        Raises:
            FormatError: `bad-index` if there is no group; any code of the last one.
        """
        last = self._group(len(self.index) - 1)
        if last.pts is not None:
            return int(last.pts[-1]) + 1
        frames = last.first_frame + len(last.values)
        return self.header.start_ticks + frames * (self.header.frame_ticks or 0)

    def _group(self, at: int) -> Motion:
        with naming(self._file):
            return self._read_group(at)

    def _read_group(self, at: int) -> Motion:
        if not 0 <= at < len(self.index):
            raise FormatError("bad-index", "expected a motion group, found none")
        entry = self.index[at]
        chunk = self._chunk_at(entry.offset)
        if chunk.type != "MOTN":
            raise FormatError(
                "bad-index", f"expected MOTN, found {chunk.type}", offset=entry.offset
            )
        head = unpack_group_head(chunk.payload, self.header, offset=chunk.payload_offset)
        found = (head.first_frame, head.frame_count, head.first_pts(self.header))
        expected = (entry.first_frame, entry.frame_count, entry.first_pts)
        if found != expected:
            raise FormatError(
                "bad-index", f"expected group {expected}, found {found}", offset=entry.offset
            )
        return unpack_motion(head, self.header)
