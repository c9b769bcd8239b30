"""Records to bytes: muxer and streaming writer, which never seek (SPEC.md 2, 7 and 11)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, Final

import numpy as np

from sglat.bitstream import extras
from sglat.bitstream.chunks import Chunk, Order, pack_chunk
from sglat.bitstream.constants import MAX_GROUP_FRAMES, MAX_PACKETS, SIGNATURE
from sglat.bitstream.groups import (
    GroupHead,
    join_motion,
    pack_motion,
    pack_placement,
    unpack_group_head,
)
from sglat.bitstream.header import pack_header, unpack_header
from sglat.bitstream.identity import needed_version, pack_identity, pack_neutral, pack_reference
from sglat.bitstream.records import (
    AudioFormat,
    AudioPacket,
    Float32,
    Header,
    Identity,
    IdentityReference,
    IndexEntry,
    Motion,
    Picture,
    Placement,
    Provenance,
)
from sglat.errors import FormatError
from sglat.files import StrPath, atomic_file

GROUP_FRAMES: Final = 256  # ten seconds: a group's own cost is then about one bit a frame


class Muxer:
    """Writes chunks to a file open for writing, a pipe included; collects their offsets for the
    index."""

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
        # As readers decode it: steps rounded to f32.
        self.header = unpack_header(payload)
        self.put("HEAD", payload)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)

    def put(self, type_: str, payload: bytes, *, flags: int | None = None) -> None:
        """Write one chunk; groups go through `put_group`."""
        data = pack_chunk(type_, payload, flags=flags)
        chunk = Chunk(type=type_, flags=data[4], payload=payload, offset=self._offset)
        self._order.check(chunk)
        if type_ == "APKT":
            self._audio.append((self._offset, extras.first_dts(payload)))
        self._write(data)

    def copy(self, chunks: Iterable[Chunk]) -> None:
        """Write chunks of another file, anything but groups."""
        for chunk in chunks:
            self.put(chunk.type, chunk.payload, flags=chunk.flags)

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
            index = extras.Index(groups=tuple(self._groups), audio=tuple(self._audio))
            self.put("INDX", extras.pack_index(index, has_pts=self.header.frame_ticks is None))
        end = extras.End(
            index_offset=index_offset, frame_count=self.frame_count, motion_sha256=motion_sha256
        )
        self.put("ENDS", extras.pack_end(end))
        self._file.flush()


class Writer:
    """Writes one file front to back; nothing is held but the group in progress.

    Order of calls: identity, pictures, provenance, metadata and audio format first; then motion and
    audio as they come; then `close`, which leaves the file open. The header goes out at once.
    """

    def __init__(self, file: BinaryIO, header: Header, *, group_frames: int = GROUP_FRAMES) -> None:
        if not 1 <= group_frames <= MAX_GROUP_FRAMES:
            raise FormatError(
                "bad-frames", f"expected groups of 1 to {MAX_GROUP_FRAMES}, found {group_frames}"
            )
        self._muxer = Muxer(file, header)
        self._group_frames = group_frames
        self._digest = hashlib.sha256()
        self._motion: list[Motion] = []
        self._placement: list[Placement] = []
        self._last_pts: int | None = None

    @property
    def header(self) -> Header:
        """The header as readers decode it."""
        return self._muxer.header

    def put_chunk(self, chunk: Chunk) -> None:
        """Copy a chunk of another file, anything but motion."""
        self._muxer.copy([chunk])

    def put_identity(self, identity: Identity) -> None:
        """Write IDEN and LAYR."""
        shape = identity.layers[0].latent.values.shape  # type: ignore[union-attr]
        if shape != (self.header.num_ws, self.header.w_dim):
            expected = (self.header.num_ws, self.header.w_dim)
            raise FormatError("bad-layer", f"expected a latent of {expected}, found {shape}")
        needed, promised = needed_version(identity), self.header.read_version
        if needed > promised:
            raise FormatError(
                "unsupported-version", f"expected read version {needed} in HEAD, found {promised}"
            )
        for type_, payload in pack_identity(identity):
            self._muxer.put(type_, payload)

    def put_identity_reference(self, reference: IdentityReference) -> None:
        """Write IREF in place of an identity."""
        self._muxer.put("IREF", pack_reference(reference))

    def put_motion_neutral(self, neutral: Float32) -> None:
        """Write NEUT: the neutral of the person whose motion this is, `[34]`."""
        self._muxer.put("NEUT", pack_neutral(neutral))

    def put_plate(self, picture: Picture) -> None:
        """Write PLAT."""
        self._muxer.put("PLAT", extras.pack_picture(picture))

    def put_thumbnail(self, picture: Picture) -> None:
        """Write THMB."""
        self._muxer.put("THMB", extras.pack_picture(picture))

    def put_provenance(self, provenance: Provenance) -> None:
        """Write PROV."""
        self._muxer.put("PROV", extras.pack_provenance(provenance))

    def put_metadata(self, metadata: dict[str, str]) -> None:
        """Write META."""
        self._muxer.put("META", extras.pack_metadata(metadata))

    def put_audio_format(self, audio: AudioFormat) -> None:
        """Write AHDR."""
        self._muxer.put("AHDR", extras.pack_audio_format(audio))

    def put_audio(self, packets: Sequence[AudioPacket]) -> None:
        """Write packets now, before the motion that is still to come."""
        for at in range(0, len(packets), MAX_PACKETS):
            payload = extras.pack_audio_packets(packets[at : at + MAX_PACKETS])
            self._muxer.put("APKT", payload)

    def put_motion(self, motion: Motion, placement: Placement | None = None) -> None:
        """Take frames of any number; whole groups go out at once.

        Frames follow each other; `first_frame` of the records is not used.
        """
        if placement is not None and len(placement.values) != len(motion.values):
            raise FormatError(
                "bad-placement",
                f"expected {len(motion.values)} frames of placement, found {len(placement.values)}",
            )
        for start, length in _pieces(len(motion.values), self._group_frames, self._pending()):
            span = slice(start, start + length)
            if self._motion and (not self._placement) != (placement is None):
                self.flush()
            self._motion.append(_cut(motion, span))
            if placement is not None:
                self._placement.append(replace(placement, values=placement.values[span]))
            if self._pending() == self._group_frames:
                self.flush()

    def _pending(self) -> int:
        return sum(len(part.values) for part in self._motion)

    def flush(self) -> None:
        """End the current group early: for live streams, or where the source cuts."""
        if not self._motion:
            return
        motion = replace(
            join_motion(self._motion, self.header), first_frame=self._muxer.frame_count
        )
        if motion.pts is not None:
            if self._last_pts is not None and int(motion.pts[0]) <= self._last_pts:
                raise FormatError("bad-time", "expected rising time stamps from group to group")
            self._last_pts = int(motion.pts[-1])
        payload = pack_motion(motion, self.header)
        if self._placement:
            values = np.concatenate([part.values for part in self._placement])
            placement = replace(
                self._placement[0], values=values, first_frame=self._muxer.frame_count
            )
            self._muxer.put("PLAC", pack_placement(placement, self.header))
        self._muxer.put_group(payload, unpack_group_head(payload, self.header))
        self._digest.update(motion.values.astype("<i4").tobytes())
        self._motion, self._placement = [], []

    def close(self) -> None:
        """Write what is left, the index and the end."""
        self.flush()
        self._muxer.finish(self._digest.digest())


def _pieces(count: int, size: int, pending: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of spans that fill groups of `size`, the first of which is begun."""
    start, room = 0, size - pending
    while start < count:
        length = min(room, count - start)
        yield start, length
        start, room = start + length, size


def _cut(motion: Motion, span: slice) -> Motion:
    return replace(
        motion,
        values=motion.values[span],
        pts=None if motion.pts is None else motion.pts[span],
        flags=None if motion.flags is None else motion.flags[span],
    )


@contextmanager
def open_writer(
    path: StrPath,
    header: Header,
    *,
    group_frames: int = GROUP_FRAMES,
    force: bool = False,
) -> Iterator[Writer]:
    """Yield a writer whose file appears only when it is complete.

    Raises:
        UsageError: the path exists and `force` is not set.
    """
    with atomic_file(path, force=force) as file:
        writer = Writer(file, header, group_frames=group_frames)
        yield writer
        writer.close()
