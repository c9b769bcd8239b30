"""Chunks to typed events, with the checks that need more than one chunk (SPEC.md 3, 11 and 12)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sglat.bitstream import extras, records
from sglat.bitstream.chunks import ByteSource, Chunk, read_chunks
from sglat.bitstream.constants import BOUND
from sglat.bitstream.groups import GroupHead, unpack_group_head, unpack_placement
from sglat.bitstream.header import unpack_header
from sglat.bitstream.identity import (
    describe_layer,
    unpack_base,
    unpack_layer,
    unpack_neutral,
    unpack_reference,
)
from sglat.errors import FormatError


@dataclass(frozen=True, kw_only=True)
class Event:
    """A chunk in its place. What no other chunk depends on is decoded by `unpack`, on demand."""

    chunk: Chunk

    @property
    def is_copied(self) -> bool:
        """Whether an edit copies the chunk."""
        return self.chunk.is_known or not self.chunk.flags & BOUND


@dataclass(frozen=True, kw_only=True)
class Layer(Event):
    """IDEN (number 0) or LAYR."""

    number: int
    shape: tuple[int, int]
    """Of the latent."""

    def unpack_base(self) -> tuple[records.Float32, int | None, records.LatentLayer]:
        """Return neutral, number of the ID frame and layer 0 of IDEN."""
        return unpack_base(self.chunk.payload, self.shape, offset=self.chunk.payload_offset)

    def unpack(self, room: int) -> records.LatentLayer | records.DeltaLayer:
        """Return the layer of LAYR, of at most `room` integers."""
        chunk = self.chunk
        return unpack_layer(
            chunk.payload, self.number, self.shape, room=room, offset=chunk.payload_offset
        )

    def describe(self) -> dict[str, object]:
        """Return kind, entries and integers, not decoded."""
        chunk = self.chunk
        return describe_layer(chunk.payload, self.number, self.shape, offset=chunk.payload_offset)


class Reference(Event):
    """IREF."""

    def unpack(self) -> records.IdentityReference:
        return unpack_reference(self.chunk.payload, offset=self.chunk.payload_offset)


class Neutral(Event):
    """NEUT."""

    def unpack(self) -> records.Float32:
        return unpack_neutral(self.chunk.payload, offset=self.chunk.payload_offset)


class Picture(Event):
    """PLAT or THMB."""

    @property
    def is_plate(self) -> bool:
        return self.chunk.type == "PLAT"

    def unpack(self) -> records.Picture:
        return extras.unpack_picture(self.chunk.payload, offset=self.chunk.payload_offset)


class Provenance(Event):
    """PROV."""

    def unpack(self) -> records.Provenance:
        return extras.unpack_provenance(self.chunk.payload, offset=self.chunk.payload_offset)


class Metadata(Event):
    """META."""

    def unpack(self) -> dict[str, str]:
        return extras.unpack_metadata(self.chunk.payload, offset=self.chunk.payload_offset)


class Sound(Event):
    """AHDR."""

    def unpack(self) -> records.AudioFormat:
        return extras.unpack_audio_format(self.chunk.payload, offset=self.chunk.payload_offset)


@dataclass(frozen=True, kw_only=True)
class Group(Event):
    """MOTN."""

    head: GroupHead


@dataclass(frozen=True, kw_only=True)
class Placement(Event):
    """PLAC."""

    placement: records.Placement


@dataclass(frozen=True, kw_only=True)
class Packets(Event):
    """APKT."""

    packets: tuple[records.AudioPacket, ...]


@dataclass(frozen=True, kw_only=True)
class Index(Event):
    """INDX."""

    index: extras.Index


@dataclass(frozen=True, kw_only=True)
class End(Event):
    """ENDS."""

    end: extras.End


class Unknown(Event):
    """An ancillary chunk of a later version."""


_BY_TYPE: dict[str, type[Event]] = {
    "IREF": Reference, "NEUT": Neutral, "PLAT": Picture, "THMB": Picture, "PROV": Provenance,
    "META": Metadata, "AHDR": Sound,
}  # fmt: skip


class Demuxer:
    """Reads the events after HEAD of a file open for reading, pipes included; holds one chunk.

    Checked are order and number of chunks, frame numbers, time stamps, placement, index and counts.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.source = ByteSource(file)
        self.chunk_bytes: Counter[str] = Counter()
        """Payload bytes by type of what was read, HEAD included."""
        self.chunk_counts: Counter[str] = Counter()
        self._chunks = read_chunks(self.source)
        self._ahead: Chunk | None = None
        self.head = self._read()
        self.header = unpack_header(self.head.payload, offset=self.head.payload_offset)
        self.frame_count = 0
        self._layers = 0
        self._groups: list[tuple[int, int, int]] = []  # frame count, offset, first time stamp
        self._audio: list[tuple[int, int]] = []  # offset, dts of the first packet
        self._last_pts: int | None = None
        self._placement: tuple[int, int, int] | None = None
        self._index_offset = 0
        self._has_skipped = False

    def _read(self) -> Chunk:
        chunk = next(self._chunks)
        self.chunk_bytes[chunk.type] += len(chunk.payload)
        self.chunk_counts[chunk.type] += 1
        return chunk

    def peek(self) -> str:
        """Return the type of the next chunk, which is in its place; empty at the end."""
        if self._ahead is None:
            try:
                self._ahead = self._read()
            except StopIteration:
                return ""
        return self._ahead.type

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if not self.peek():
            raise StopIteration
        chunk, self._ahead = self._ahead, None
        assert chunk is not None  # peek has put it there
        match chunk.type:
            case "IDEN" | "LAYR":
                number, self._layers = self._layers, self._layers + 1
                shape = (self.header.num_ws, self.header.w_dim)
                return Layer(chunk=chunk, number=number, shape=shape)
            case "MOTN":
                return Group(chunk=chunk, head=self._group(chunk))
            case "PLAC":
                return Placement(chunk=chunk, placement=self._place(chunk))
            case "APKT":
                packets = extras.unpack_audio_packets(chunk.payload, offset=chunk.payload_offset)
                self._audio.append((chunk.offset, packets[0].dts))
                return Packets(chunk=chunk, packets=packets)
            case "INDX":
                return Index(chunk=chunk, index=self._index(chunk))
            case "ENDS":
                return End(chunk=chunk, end=self._end(chunk))
        return _BY_TYPE.get(chunk.type, Unknown)(chunk=chunk)

    def skip_to(self, offset: int, frame: int) -> None:
        """Continue at a chunk before the group that begins with a frame; reset running checks."""
        self.source.jump(offset)
        self._ahead, self._has_skipped = None, True
        self.frame_count, self._groups, self._audio = frame, [], []
        self._last_pts = self._placement = None

    def _group(self, chunk: Chunk) -> GroupHead:
        head = unpack_group_head(chunk.payload, self.header, offset=chunk.payload_offset)
        if head.first_frame != self.frame_count:
            raise chunk.error(
                "bad-frames",
                f"expected a group from frame {self.frame_count}, found {head.first_frame}",
            )
        self._use_placement(head)
        first = head.first_pts(self.header)
        if self._last_pts is not None and first <= self._last_pts:
            raise chunk.error(
                "bad-time", f"expected a time stamp after {self._last_pts}, found {first}"
            )
        self._last_pts = head.last_pts(self.header)
        self._groups.append((head.frame_count, chunk.offset, first))
        self.frame_count += head.frame_count
        return head

    def _place(self, chunk: Chunk) -> records.Placement:
        placement = unpack_placement(chunk.payload, self.header, offset=chunk.payload_offset)
        self._use_placement(None)
        self._placement = (placement.first_frame, len(placement.values), chunk.offset)
        return placement

    def _use_placement(self, head: GroupHead | None) -> None:
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

    def _index(self, chunk: Chunk) -> extras.Index:
        self._use_placement(None)
        index = extras.unpack_index(
            chunk.payload,
            frame_ticks=self.header.frame_ticks,
            start_ticks=self.header.start_ticks,
            offset=chunk.payload_offset,
        )
        found = [(entry.frame_count, entry.offset, entry.first_pts) for entry in index.groups]
        audio = list(index.audio)
        if self._has_skipped:
            found = found[len(found) - len(self._groups) :]
            audio = audio[len(audio) - len(self._audio) :]
        if found != self._groups or audio != self._audio:
            raise chunk.error("bad-index", "expected the groups of this file, found others")
        self._index_offset = chunk.offset
        return index

    def _end(self, chunk: Chunk) -> extras.End:
        self._use_placement(None)
        end = extras.unpack_end(chunk.payload)
        for expected in (self.frame_count, self.header.frame_count):
            if expected is not None and end.frame_count != expected:
                raise chunk.error(
                    "bad-frames", f"expected {expected} frames, found {end.frame_count}"
                )
        if end.index_offset != self._index_offset:
            raise chunk.error(
                "bad-index", f"expected the index at {self._index_offset}, found {end.index_offset}"
            )
        return end
