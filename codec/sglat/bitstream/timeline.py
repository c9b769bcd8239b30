"""Edits of time: trim to the frame, and what joining files shares with it (SPEC.md section 13)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from sglat.bitstream import extras
from sglat.bitstream.demux import Group, Packets
from sglat.bitstream.demux import Placement as PlacementEvent
from sglat.bitstream.edits import Source
from sglat.bitstream.groups import (
    GroupHead,
    pack_group_head,
    pack_motion,
    pack_placement,
    shift_placement,
    unpack_group_head,
    unpack_motion,
)
from sglat.bitstream.motion_coder import quantize
from sglat.bitstream.records import (
    FIRST_CONTROL,
    AudioPacket,
    Float32,
    Header,
    Int32,
    Motion,
    Placement,
)
from sglat.bitstream.seek import SeekableFile
from sglat.bitstream.writer import Muxer
from sglat.errors import UsageError


class Joiner:
    """Appends groups and audio to a muxer, renumbered and moved in time.

    Groups keep their coded bytes where every frame is taken, and steps and model are the output's.
    """

    def __init__(self, muxer: Muxer) -> None:
        self.muxer = muxer
        self.digest = hashlib.sha256()
        self.last_pts: int | None = None
        self.last_step = 1
        self.last_packet: AudioPacket | None = None
        self.past: AudioPacket | None = None
        self.requantized_frames = 0
        self.squares = np.zeros((3,))  # degrees, controls, steps
        self.is_resized = False

    def append(
        self,
        source: Source,
        *,
        ticks: int = 0,
        scale: int = 1,
        audio_ticks: int = 0,
        frames: range | None = None,
        shift: Float32 | None = None,
        is_kept: Callable[[AudioPacket], bool],
    ) -> None:
        """Append the body of a file.

        Args:
            source: at the beginning of its body.
            ticks: added to all time stamps of groups, in ticks of the output.
            scale: ticks of the output in one of the source.
            audio_ticks: added to those of packets.
            frames: frames to take; None takes all.
            shift: added to the motion, `[34]`.
            is_kept: chooses packets by their time in the source.
        """
        frames = range(1 << 62) if frames is None else frames
        self.requantized_frames, self.squares, self.is_resized = 0, np.zeros((3,)), False
        for event in source.body():
            match event:
                case Group(head=head):
                    kept = _overlap(head.first_frame, head.frame_count, frames)
                    if kept:
                        self._group(head, source.header, kept, ticks, scale, shift)
                case PlacementEvent(chunk=chunk, placement=placement):
                    kept = _overlap(placement.first_frame, len(placement.values), frames)
                    if kept:
                        self._place(chunk.payload, placement, source.header, kept)
                case Packets(packets=packets):
                    self._packets(
                        replace(packet, pts=packet.pts + audio_ticks, dts=packet.dts + audio_ticks)
                        for packet in filter(is_kept, packets)
                    )
                case _:
                    self.muxer.copy([event.chunk])

    def _group(
        self,
        head: GroupHead,
        source: Header,
        kept: slice,
        ticks: int,
        scale: int,
        shift: Float32 | None,
    ) -> None:
        header, first = self.muxer.header, self.muxer.frame_count
        motion = unpack_motion(head, source)
        values = motion.values[kept]
        pts = motion.stamps(source)[kept] * scale + ticks
        flags = None if head.flags is None else head.flags[kept]
        has_own_steps = source.motion_steps.tolist() == header.motion_steps.tolist()
        if shift is not None or not has_own_steps:
            exact = motion.dequantize()[kept] + (0 if shift is None else shift)
            values = quantize(exact, header.motion_steps)
            self._count_loss(exact, values)
        stamps = pts if header.frame_ticks is None else None
        is_whole = len(values) == head.frame_count
        if is_whole and has_own_steps and shift is None and source.model == header.model:
            moved = replace(head, first_frame=first, pts=stamps)
            self.muxer.put_group(pack_group_head(moved), moved)
        else:
            part = Motion(
                values=values, steps=header.motion_steps, first_frame=first, pts=stamps, flags=flags
            )
            payload = pack_motion(part, header)
            self.muxer.put_group(payload, unpack_group_head(payload, header))
        self.digest.update(values.astype("<i4").tobytes())
        if len(pts) > 1:
            self.last_step = int(pts[-1] - pts[-2])
        elif source.frame_ticks is not None:
            self.last_step = source.frame_ticks * scale
        self.last_pts = int(pts[-1])

    def _count_loss(self, exact: Float32, values: Int32) -> None:
        steps = self.muxer.header.motion_steps
        error = np.square(values * steps.astype(np.float64) - exact)
        self.requantized_frames += len(values)
        self.squares += [
            error[:, :FIRST_CONTROL].mean(axis=1).sum(),
            error[:, FIRST_CONTROL:].mean(axis=1).sum(),
            (error / np.square(steps.astype(np.float64))).mean(axis=1).sum(),
        ]

    def _place(self, payload: bytes, placement: Placement, source: Header, kept: slice) -> None:
        header, first = self.muxer.header, self.muxer.frame_count
        steps, size = header.placement_steps, header.source_size
        assert steps is not None and size is not None  # `_common_header` takes them from a file
        assert source.source_size is not None
        self.is_resized |= source.source_size != size
        values = placement.values[kept]
        is_whole = len(values) == len(placement.values)
        if source.source_size != size or placement.steps.tolist() != steps.tolist():
            across, down = (size[i] / source.source_size[i] for i in range(2))
            scale = np.array([across, down, (across * down) ** 0.5, 1.0])
            values = quantize(placement.dequantize()[kept] * scale, steps)
            is_whole = False
        if is_whole:
            moved = shift_placement(payload, first - placement.first_frame)
        else:
            moved = pack_placement(Placement(values=values, steps=steps, first_frame=first), header)
        self.muxer.put("PLAC", moved)

    def _packets(self, packets: Iterable[AudioPacket]) -> None:
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


def _overlap(first: int, count: int, frames: range) -> slice | None:
    """Return which of `count` frames from `first` are taken; None if none is."""
    start, stop = max(frames.start - first, 0), min(frames.stop - first, count)
    return slice(start, stop) if start < stop else None


def trim(file: BinaryIO, out: BinaryIO, *, start_seconds: Fraction, end_seconds: Fraction) -> None:
    """Write the frames that begin within a span of time, its end excluded.

    Groups that lie inside are copied; those at the ends are coded anew without loss. Time stamps
    stay, so sound stays in step.

    Raises:
        UsageError: no frame begins in the span.
    """
    seekable = SeekableFile(file)
    frames = _frames_between(seekable, start_seconds, end_seconds)
    begin, end = (seekable.frame_ticks(number) for number in (frames.start, frames.stop))
    file.seek(0)
    source = Source(file)
    header = source.header
    shift = frames.start * (header.frame_ticks or 0)
    count = None if header.frame_count is None else len(frames)
    muxer = Muxer(out, replace(header, start_ticks=header.start_ticks + shift, frame_count=count))
    muxer.copy(source.preamble)
    joiner = Joiner(muxer)
    audio = source.audio()
    assert begin is not None  # the span holds a frame
    first = begin * header.time_base
    last = end_seconds if end is None else end * header.time_base

    def is_kept(packet: AudioPacket) -> bool:
        assert audio is not None  # the demuxer checks that AHDR stands before packets
        stop = (packet.pts + packet.duration) * audio.time_base
        return packet.pts * audio.time_base < last and stop > first

    joiner.append(source, frames=frames, is_kept=is_kept)
    joiner.finish()


def _frames_between(seekable: SeekableFile, start: Fraction, end: Fraction) -> range:
    """Return the frames that begin from `start` on and before `end`."""
    base, end_ticks = seekable.header.time_base, seekable.end_ticks()
    frames = range(seekable.first_frame_at(start / base), seekable.first_frame_at(end / base))
    if not frames:
        first, last = (float(t * base) for t in (seekable.index[0].first_pts, end_ticks))
        raise UsageError(
            "empty-trim",
            f"no frame begins between {float(start):.2f} s and {float(end):.2f} s; "
            f"the file has {first:.2f} s to {last:.2f} s",
        )
    return frames
