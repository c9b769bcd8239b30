"""Chunks out: offsets, index and end kept while a file is written (SPEC.md sections 2 and 11)."""

from __future__ import annotations

from typing import BinaryIO

from sglat.bitstream.chunks import Chunk, Order, pack_chunk
from sglat.bitstream.constants import SIGNATURE
from sglat.bitstream.extras import End, Index, first_dts, pack_end, pack_index
from sglat.bitstream.groups import GroupHead
from sglat.bitstream.header import pack_header, unpack_header
from sglat.bitstream.records import Header, IndexEntry
from sglat.errors import FormatError


class Muxer:
    """Writes chunks to any file, a pipe included, and remembers where they are.

    Args:
        file: open for writing in binary mode; it is not closed.
        header: HEAD of the file.
    """

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self.header = header
        self.frame_count = 0
        self._file = file
        self._offset = 0
        self._order = Order()
        self._groups: list[IndexEntry] = []
        self._audio: list[tuple[int, int]] = []
        self._write(SIGNATURE)
        payload = pack_header(header)
        # What readers will see: steps rounded to f32.
        self.header = unpack_header(payload)
        self.put("HEAD", payload)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)

    def put(self, type_: str, payload: bytes, *, flags: int | None = None) -> None:
        """Write one chunk; groups go through `put_group`.

        Raises:
            FormatError: `bad-length`, `bad-order`, `duplicate-chunk`, `no-identity`.
        """
        data = pack_chunk(type_, payload, flags=flags)
        chunk = Chunk(type=type_, flags=data[4], payload=payload, offset=self._offset)
        self._order.check(chunk)
        if type_ == "APKT":
            self._audio.append((self._offset, first_dts(payload)))
        self._write(data)

    def put_group(self, payload: bytes, head: GroupHead) -> None:
        """Write one MOTN chunk.

        Raises:
            FormatError: `bad-frames` and `bad-time` unless it follows the group before.
        """
        if head.first_frame != self.frame_count:
            raise FormatError(
                "bad-frames",
                f"expected a group from frame {self.frame_count}, found {head.first_frame}",
            )
        entry = IndexEntry(
            first_frame=head.first_frame,
            frame_count=head.frame_count,
            offset=self._offset,
            first_pts=head.first_pts(self.header),
        )
        self.put("MOTN", payload)
        self._groups.append(entry)
        self.frame_count += head.frame_count

    def finish(self, motion_sha256: bytes) -> None:
        """Write INDX and ENDS.

        Raises:
            FormatError: `bad-frames` if HEAD promised another number of frames.
        """
        promised = self.header.frame_count
        if promised is not None and promised != self.frame_count:
            raise FormatError("bad-frames", f"expected {promised} frames, found {self.frame_count}")
        index_offset = 0
        if self._groups or self._audio:
            index_offset = self._offset
            index = Index(groups=tuple(self._groups), audio=tuple(self._audio))
            self.put("INDX", pack_index(index, has_pts=self.header.frame_ticks is None))
        end = End(
            index_offset=index_offset, frame_count=self.frame_count, motion_sha256=motion_sha256
        )
        self.put("ENDS", pack_end(end))
        self._file.flush()
