"""Edits of time: trim on group borders and concatenate (SPEC.md section 13)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

from sglat.bitstream import extras
from sglat.bitstream.demux import Group, Packets, Placement
from sglat.bitstream.edits import Source, check_same_decoder, shifted
from sglat.bitstream.groups import GroupHead, pack_group_head, shift_placement, unpack_motion
from sglat.bitstream.records import AudioPacket, Header
from sglat.bitstream.seek import SeekableFile
from sglat.bitstream.writer import Muxer
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

    def append(
        self,
        source: Source,
        *,
        ticks: int = 0,
        audio_ticks: int = 0,
        frames: range | None = None,
        is_kept: Callable[[AudioPacket], bool],
    ) -> None:
        """Append the body of a file.

        Args:
            source: at the beginning of its body.
            ticks: added to all time stamps of groups.
            audio_ticks: added to those of packets.
            frames: first frames of the groups to take; None takes all.
            is_kept: chooses packets by their time in the source.
        """
        for event in source.body():
            match event:
                case Group(head=head):
                    if frames is None or head.first_frame in frames:
                        self._group(head, source.header, ticks)
                case Placement(chunk=chunk, placement=placement):
                    first = placement.first_frame
                    if frames is None or first in frames:
                        moved = shift_placement(chunk.payload, self.muxer.frame_count - first)
                        self.muxer.put("PLAC", moved)
                case Packets(packets=packets):
                    self._packets(shifted(list(filter(is_kept, packets)), audio_ticks))
                case _:
                    self.muxer.copy([event.chunk])

    def _group(self, head: GroupHead, source: Header, ticks: int) -> None:
        values = unpack_motion(head, source).values
        pts = None if head.pts is None else head.pts + ticks
        moved = replace(head, first_frame=self.muxer.frame_count, pts=pts)
        self.muxer.put_group(pack_group_head(moved), moved)
        self.digest.update(values.astype("<i4").tobytes())
        if pts is not None:
            if len(pts) > 1:
                self.last_step = int(pts[-1] - pts[-2])
            self.last_pts = int(pts[-1])

    def _packets(self, packets: Sequence[AudioPacket]) -> None:
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
        """Begin another file."""
        self.past = self.last_packet

    def _is_past(self, packet: AudioPacket) -> bool:
        past = self.past
        if past is None:
            return False
        most = past.pts + past.duration - past.duration // 2
        return packet.pts < most or packet.dts <= past.dts

    def finish(self) -> None:
        """Write index and end."""
        self.muxer.finish(self.digest.digest())


def trim(file: BinaryIO, out: BinaryIO, *, start_seconds: Fraction, end_seconds: Fraction) -> None:
    """Write the groups that touch a span of time; time stamps stay, so sound stays in step.

    Raises:
        UsageError: no group touches the span.
        FormatError: any code of SPEC.md section 14.
    """
    seekable = SeekableFile(file)
    index, end_ticks = seekable.index, seekable.end_ticks()
    file.seek(0)
    source = Source(file)
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
    muxer.copy(source.preamble)
    joiner = _Joiner(muxer)
    begin = kept[0].first_pts * header.time_base
    stop = None if until is None else until * header.time_base
    audio = source.audio()

    def is_kept(packet: AudioPacket) -> bool:
        assert audio is not None  # the demuxer checks that AHDR stands before packets
        is_begun = stop is None or packet.pts * audio.time_base < stop
        return is_begun and (packet.pts + packet.duration) * audio.time_base > begin

    joiner.append(source, frames=frames, is_kept=is_kept)
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
    sources = [Source(file) for file in files]
    for other in sources[1:]:
        check_joinable(sources[0], other)
    counts = [source.header.frame_count for source in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    muxer = Muxer(out, replace(sources[0].header, frame_count=total))
    muxer.copy(sources[0].preamble)
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
    base = Fraction(1) if audio is None else audio.time_base
    end: Fraction | None = None
    if frames is not None and header.frame_ticks is not None:
        end = (header.start_ticks + frames * header.frame_ticks) * header.time_base
    joiner.append(
        source,
        ticks=ticks,
        audio_ticks=round(ticks * header.time_base / base),
        is_kept=lambda packet: end is None or packet.pts * base < end,
    )
    if source.end is None:
        raise FormatError("truncated", "expected ENDS, found the end")
