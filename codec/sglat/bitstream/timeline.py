"""Edits of time: trim on group borders and concatenate (SPEC.md section 13)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

from sglat.bitstream import extras
from sglat.bitstream.chunks import Chunk
from sglat.bitstream.edits import Source, check_same_decoder, open_source, shifted
from sglat.bitstream.groups import GroupHead, pack_group_head, shift_placement, unpack_motion
from sglat.bitstream.muxer import Muxer
from sglat.bitstream.records import AudioPacket, Header
from sglat.bitstream.seek import SeekableFile
from sglat.errors import FormatError, UsageError


class _Joiner:
    """Appends groups and audio to a muxer, renumbered and moved in time."""

    def __init__(self, muxer: Muxer) -> None:
        self.muxer = muxer
        self.digest = hashlib.sha256()
        self.last_pts: int | None = None
        self.last_step = 1
        self.last_packet: AudioPacket | None = None
        self.past: AudioPacket | None = None

    def group(self, head: GroupHead, source: Header, ticks: int) -> None:
        """Append a group, its time stamps moved by some ticks."""
        values = unpack_motion(head, source).values
        pts = None if head.pts is None else head.pts + ticks
        moved = replace(head, first_frame=self.muxer.frame_count, pts=pts)
        self.muxer.put_group(pack_group_head(moved), moved)
        self.digest.update(values.astype("<i4").tobytes())
        if pts is not None:
            if len(pts) > 1:
                self.last_step = int(pts[-1] - pts[-2])
            self.last_pts = int(pts[-1])

    def placement(self, payload: bytes, first_frame: int) -> None:
        """Append a PLAC whose first frame was `first_frame`."""
        self.muxer.put("PLAC", shift_placement(payload, self.muxer.frame_count - first_frame))

    def audio(self, packets: Sequence[AudioPacket]) -> None:
        """Append packets, if any are left.

        Where files meet, those of the later one are left out that begin before most of the earlier
        one's last packet is over: sound may begin before a file's first picture, and no container
        takes time stamps that go back.
        """
        kept = [packet for packet in packets if not self._is_past(packet)]
        if kept:
            self.muxer.put("APKT", extras.pack_audio_packets(kept))
            self.last_packet = kept[-1]

    def next_file(self) -> None:
        """Tell that what follows is of another file."""
        self.past = self.last_packet

    def _is_past(self, packet: AudioPacket) -> bool:
        past = self.past
        if past is None:
            return False
        most = past.pts + past.duration - past.duration // 2
        return packet.pts < most or packet.dts <= past.dts

    def finish(self) -> None:
        self.muxer.finish(self.digest.digest())


def _put_preamble(muxer: Muxer, source: Source) -> None:
    for chunk in source.preamble:
        muxer.put(chunk.type, chunk.payload, flags=chunk.flags)


def _first_frame(chunk: Chunk, source: Source) -> int:
    from sglat.bitstream.groups import placement_span

    return placement_span(chunk.payload)[0]


def trim(file: BinaryIO, out: BinaryIO, *, start_seconds: Fraction, end_seconds: Fraction) -> None:
    """Write the groups that touch a span of time; time stamps stay, so sound stays in step.

    Raises:
        UsageError: no group touches the span.
        FormatError: any code of SPEC.md section 14.
    """
    seekable = SeekableFile(file)
    index, end_ticks = seekable.index, seekable.end_ticks()
    file.seek(0)
    source = open_source(file)
    header = source.header
    first, last = (int(t / header.time_base) for t in (start_seconds, end_seconds))
    ends = [entry.first_pts for entry in index[1:]]
    spans = zip(index, [*ends, end_ticks], strict=True)
    kept = [entry for entry, end in spans if entry.first_pts < last and end > first]
    if not kept:
        raise UsageError("empty-trim", f"no motion between {start_seconds} s and {end_seconds} s")
    frames = range(kept[0].first_frame, kept[-1].first_frame + kept[-1].frame_count)
    until = next((entry.first_pts for entry in index if entry.first_frame >= frames.stop), None)
    shift = frames.start * (header.frame_ticks or 0)
    count = None if header.frame_count is None else len(frames)
    muxer = Muxer(out, replace(header, start_ticks=header.start_ticks + shift, frame_count=count))
    _put_preamble(muxer, source)
    joiner = _Joiner(muxer)
    begin = kept[0].first_pts * header.time_base
    stop = None if until is None else until * header.time_base
    audio = source.audio()
    for chunk, head in source.body():
        if head is not None:
            if head.first_frame in frames:
                joiner.group(head, header, 0)
        elif chunk.type == "PLAC":
            if _first_frame(chunk, source) in frames:
                joiner.placement(chunk.payload, _first_frame(chunk, source))
        elif chunk.type == "APKT":
            assert audio is not None  # chunk order is checked while reading
            packets = extras.unpack_audio_packets(chunk.payload)
            joiner.audio(
                [
                    p
                    for p in packets
                    if (p.pts + p.duration) * audio.time_base > begin
                    and (stop is None or p.pts * audio.time_base < stop)
                ]
            )
        else:
            muxer.put(chunk.type, chunk.payload, flags=chunk.flags)
    joiner.finish()


def check_joinable(one: Source, other: Source) -> None:
    """Refuse to concatenate files that mean their integers differently.

    Raises:
        BundleMismatchError: other decoders.
        UsageError: other steps, rates, models, identities or audio formats.
    """
    check_same_decoder(one.header, other.header)
    a, b = one.header, other.header
    placements = [h.placement_steps for h in (a, b)]
    same = {
        "motion steps": a.motion_steps.tolist() == b.motion_steps.tolist(),
        "time base": a.time_base == b.time_base,
        "frame rate": a.frame_ticks == b.frame_ticks,
        "motion model": a.model == b.model,
        "placement steps": len({None if s is None else tuple(s.tolist()) for s in placements}) == 1,
        "source size": a.source_size == b.source_size,
        "identity": one.identity_sha256() == other.identity_sha256(),
        "audio format": one.payload("AHDR") == other.payload("AHDR"),
    }
    for name, is_same in same.items():
        if not is_same:
            raise UsageError("cannot-concat", f"expected files with one {name}, found two")


def concat(files: Sequence[BinaryIO], out: BinaryIO) -> None:
    """Write several files of one person one after the other.

    The preamble, metadata included, is the first file's.

    Raises:
        BundleMismatchError, UsageError: the files do not fit together.
        FormatError: any code of SPEC.md section 14.
    """
    indices = [SeekableFile(file) for file in files]
    for file in files:
        file.seek(0)
    sources = [open_source(file) for file in files]
    for other in sources[1:]:
        check_joinable(sources[0], other)
    counts = [source.header.frame_count for source in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    muxer = Muxer(out, replace(sources[0].header, frame_count=total))
    _put_preamble(muxer, sources[0])
    joiner = _Joiner(muxer)
    for number, (source, seekable) in enumerate(zip(sources, indices, strict=True)):
        ticks = 0
        if number and seekable.index:
            ticks = _next_pts(joiner, source.header) - seekable.index[0].first_pts
        frames = sum(entry.frame_count for entry in seekable.index)
        joiner.next_file()
        is_last = number == len(sources) - 1
        _append(joiner, source, ticks, None if is_last else frames)
    joiner.finish()


def _next_pts(joiner: _Joiner, header: Header) -> int:
    """Return the time stamp that the next frame should have."""
    if header.frame_ticks is None:
        return 0 if joiner.last_pts is None else joiner.last_pts + joiner.last_step
    return joiner.muxer.header.start_ticks + joiner.muxer.frame_count * header.frame_ticks


def _append(joiner: _Joiner, source: Source, ticks: int, frames: int | None) -> None:
    """Append one file; sound past its last frame is cut unless it is the last file."""
    header, audio = source.header, source.audio()
    shift = 0 if audio is None else round(ticks * header.time_base / audio.time_base)
    for chunk, head in source.body():
        if head is not None:
            joiner.group(head, header, ticks)
        elif chunk.type == "PLAC":
            joiner.placement(chunk.payload, _first_frame(chunk, source))
        elif chunk.type == "APKT":
            assert audio is not None  # chunk order is checked while reading
            packets = extras.unpack_audio_packets(chunk.payload)
            if frames is not None and header.frame_ticks is not None:
                end = (header.start_ticks + frames * header.frame_ticks) * header.time_base
                packets = tuple(p for p in packets if p.pts * audio.time_base < end)
            joiner.audio(shifted(packets, shift))
        else:
            joiner.muxer.put(chunk.type, chunk.payload, flags=chunk.flags)
    if source.end is None:
        raise FormatError("truncated", "expected ENDS, found the end")
