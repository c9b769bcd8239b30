"""Checks that need more than one chunk: frame numbers, time, placement, index, counts."""

from __future__ import annotations

from sglat.bitstream import extras
from sglat.bitstream.chunks import Chunk
from sglat.bitstream.groups import GroupHead, unpack_group_head
from sglat.bitstream.records import Header, Placement
from sglat.errors import FormatError


class Tracker:
    """Follows a file from the header to the end."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.frame_count = 0
        self.groups: list[tuple[int, int, int]] = []
        """Frame count, offset and first time stamp of each group."""
        self.audio: list[tuple[int, int]] = []
        self._last_pts: int | None = None
        self._placement: tuple[int, int, int] | None = None
        self._index: tuple[int, extras.Index] | None = None
        self._has_skipped = False

    def skip_to(self, frame: int) -> None:
        """Expect the group that begins with a frame next; what was seen so far is forgotten."""
        self.frame_count, self._has_skipped = frame, True
        self.groups, self.audio = [], []
        self._last_pts = self._placement = None

    def group(self, chunk: Chunk) -> GroupHead:
        """Read and check the head of a MOTN chunk."""
        head = unpack_group_head(chunk.payload, self.header, offset=chunk.payload_offset)
        if head.first_frame != self.frame_count:
            raise FormatError(
                "bad-frames",
                f"expected a group from frame {self.frame_count}, found {head.first_frame}",
                offset=chunk.offset,
            )
        self.placement_used(head)
        first = head.first_pts(self.header)
        if self._last_pts is not None and first <= self._last_pts:
            raise FormatError(
                "bad-time",
                f"expected a time stamp after {self._last_pts}, found {first}",
                offset=chunk.offset,
            )
        self._last_pts = head.last_pts(self.header)
        self.groups.append((head.frame_count, chunk.offset, first))
        self.frame_count += head.frame_count
        return head

    def placement(self, placement: Placement, chunk: Chunk) -> None:
        """Remember a PLAC until its MOTN comes."""
        self.placement_used(None)
        self._placement = (placement.first_frame, len(placement.values), chunk.offset)

    def placement_used(self, head: GroupHead | None) -> None:
        """Check that a waiting PLAC belongs to this group."""
        if self._placement is None:
            return
        first, count, offset = self._placement
        expected = None if head is None else (head.first_frame, head.frame_count)
        if (first, count) != expected:
            raise FormatError(
                "bad-placement",
                f"expected the frames of the next group, {expected}, found {(first, count)}",
                offset=offset,
            )
        self._placement = None

    def index(self, chunk: Chunk) -> None:
        """Compare INDX with what has passed."""
        self.placement_used(None)
        index = extras.unpack_index(
            chunk.payload,
            frame_ticks=self.header.frame_ticks,
            start_ticks=self.header.start_ticks,
            offset=chunk.payload_offset,
        )
        found = [(entry.frame_count, entry.offset, entry.first_pts) for entry in index.groups]
        audio = list(index.audio)
        if self._has_skipped:
            found = found[len(found) - len(self.groups) :]
            audio = audio[len(audio) - len(self.audio) :]
        if found != self.groups or audio != self.audio:
            raise FormatError(
                "bad-index", "expected the groups of this file, found others", offset=chunk.offset
            )
        self._index = (chunk.offset, index)

    def end(self, chunk: Chunk) -> extras.End:
        """Check the counts in ENDS."""
        self.placement_used(None)
        end = extras.unpack_end(chunk.payload)
        promised = self.header.frame_count
        for expected in (self.frame_count, promised):
            if expected is not None and end.frame_count != expected:
                raise FormatError(
                    "bad-frames",
                    f"expected {expected} frames, found {end.frame_count}",
                    offset=chunk.offset,
                )
        offset = self._index[0] if self._index else 0
        if end.index_offset != offset:
            raise FormatError(
                "bad-index",
                f"expected the index at {offset}, found {end.index_offset}",
                offset=chunk.offset,
            )
        return end
