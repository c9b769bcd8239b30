"""Edits of time: trim to the frame and join (SPEC.md section 13)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd
from typing import BinaryIO, Final

import numpy as np

from sglat.bitstream import extras
from sglat.bitstream.constants import MAX_TIME_BASE
from sglat.bitstream.demux import Group, Packets
from sglat.bitstream.demux import Placement as PlacementEvent
from sglat.bitstream.edits import Source, check_same_decoder, shifted
from sglat.bitstream.groups import (
    GroupHead,
    pack_group_head,
    pack_motion,
    pack_placement,
    shift_placement,
    unpack_group_head,
    unpack_motion,
)
from sglat.bitstream.identity import NEUTRAL_BYTES, unpack_neutral
from sglat.bitstream.motion_coder import quantize
from sglat.bitstream.records import (
    FIRST_CONTROL,
    AudioFormat,
    AudioPacket,
    Float32,
    Header,
    Int32,
    Int64,
    Motion,
    Placement,
)
from sglat.bitstream.seek import SeekableFile
from sglat.bitstream.writer import Muxer
from sglat.errors import FormatError, UsageError

FREE_EXTRADATA: Final = ("opus", "mp3")
"""Codecs whose packets decode whatever another encoder wrote in its extradata."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What joining changed in one of the files."""

    number: int
    """Of the file, from 0."""
    has_other_look: bool
    """Its identity is not the first file's, which is the one shown."""
    requantized_frames: int
    """Frames whose integers were written anew; 0: all motion bytes are its own."""
    rms_degrees: float
    """Error added to yaw and pitch."""
    rms_controls: float
    """Error added to the controls."""
    rms_steps: float
    """The same over all channels, in quantizer steps of the output."""
    is_resized: bool
    """Its frames have another size; the placement was scaled to the first file's."""


class _Joiner:
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
                    self._packets(shifted(list(filter(is_kept, packets)), audio_ticks))
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
        pts = _stamps(head, source)[kept] * scale + ticks
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


def _overlap(first: int, count: int, frames: range) -> slice | None:
    """Return which of `count` frames from `first` are taken; None if none is."""
    start, stop = max(frames.start - first, 0), min(frames.stop - first, count)
    return slice(start, stop) if start < stop else None


def _stamps(head: GroupHead, header: Header) -> Int64:
    """Return the time stamps of a group, `[T]`."""
    if head.pts is not None:
        return head.pts
    step = header.frame_ticks or 0
    return head.first_pts(header) + step * np.arange(head.frame_count, dtype=np.int64)


def trim(file: BinaryIO, out: BinaryIO, *, start_seconds: Fraction, end_seconds: Fraction) -> None:
    """Write the frames that begin within a span of time, its end excluded.

    Groups that lie inside are copied; those at the ends are coded anew without loss. Time stamps
    stay, so sound stays in step.

    Raises:
        UsageError: no frame begins in the span.
        FormatError: any code of SPEC.md section 14.
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
    joiner = _Joiner(muxer)
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
    base = seekable.header.time_base
    frames = range(seekable.first_frame_at(start / base), seekable.first_frame_at(end / base))
    if not frames:
        first, last = (float(t * base) for t in (seekable.index[0].first_pts, seekable.end_ticks()))
        raise UsageError(
            "empty-trim",
            f"no frame begins between {float(start):.2f} s and {float(end):.2f} s; "
            f"the file has {first:.2f} s to {last:.2f} s",
        )
    return frames


def concat(files: Sequence[BinaryIO], out: BinaryIO, *, names: Sequence[str] = ()) -> list[Joined]:
    """Write several files of one person one after the other; return what was changed for that.

    Preamble, metadata and look are the first file's. Steps and model are those of the file with the
    finest steps. Motion bytes of files that have the same are copied, the motion of others is
    quantized again. Files of different rates make one of variable rate.

    Args:
        files: open for reading, seekable.
        out: the new file.
        names: of the files, for messages.

    Raises:
        BundleMismatchError: other decoders.
        UsageError: `cannot-concat` for other sound.
        FormatError: any code of SPEC.md section 14.
    """
    names = names or [f"file {number + 1}" for number in range(len(files))]
    spans = [_span(SeekableFile(file)) for file in files]
    for file in files:
        file.seek(0)
    sources = [Source(file) for file in files]
    for other in sources[1:]:
        check_same_decoder(sources[0].header, other.header)
    header, scales = _common_header(sources)
    sound = _common_sound(sources, names)
    muxer = Muxer(out, header)
    muxer.copy(sources[0].preamble)
    if sound is not None and sources[0].audio() is None:
        muxer.put("AHDR", extras.pack_audio_format(sound))
    joiner, changes = _Joiner(muxer), []
    base = Fraction(1) if sound is None else sound.time_base
    for number, (source, (begin, stop)) in enumerate(zip(sources, spans, strict=True)):
        ticks = 0 if begin is None or not number else _next_pts(joiner) - begin * scales[number]
        joiner.next_file()
        is_cut = number < len(sources) - 1 and source.header.frame_ticks is not None
        end = stop if is_cut else None
        joiner.append(
            source, ticks=ticks, scale=scales[number],
            audio_ticks=round(ticks * header.time_base / base),
            shift=_shift(sources[0], source, names[number]),
            is_kept=_before(end, source.header.time_base, base),
        )  # fmt: skip
        if source.end is None:
            raise FormatError("truncated", "expected ENDS, found the end")
        changes.append(_changes(joiner, number, sources))
    joiner.finish()
    return changes


def _span(seekable: SeekableFile) -> tuple[int | None, int | None]:
    """Return the first tick of a file, and the first one after its frames; None without frames."""
    return (seekable.index[0].first_pts, seekable.end_ticks()) if seekable.index else (None, None)


def _before(
    end: int | None, time_base: Fraction, audio_base: Fraction
) -> Callable[[AudioPacket], bool]:
    """Return whether packets begin before the end of a file's frames; None: all do."""
    return lambda packet: end is None or packet.pts * audio_base < end * time_base


def _changes(joiner: _Joiner, number: int, sources: Sequence[Source]) -> Joined:
    degrees, controls, steps = np.sqrt(joiner.squares / max(1, joiner.requantized_frames)).tolist()
    return Joined(
        number=number,
        has_other_look=sources[number].identity_sha256() != sources[0].identity_sha256(),
        requantized_frames=joiner.requantized_frames,
        rms_degrees=degrees,
        rms_controls=controls,
        rms_steps=steps,
        is_resized=joiner.is_resized,
    )


def _common_header(sources: Sequence[Source]) -> tuple[Header, list[int]]:
    """Return the header of joined files, and ticks of it in one tick of each file."""
    headers = [source.header for source in sources]
    finest = min(headers, key=lambda h: float(np.log(h.motion_steps).mean()))
    placed = next((h for h in headers if h.placement_steps is not None), headers[0])
    counts = [h.frame_count for h in headers]
    common = replace(
        headers[0],
        motion_steps=finest.motion_steps,
        model=finest.model,
        placement_steps=placed.placement_steps,
        source_size=placed.source_size,
        frame_count=None if None in counts else sum(count or 0 for count in counts),
        read_version=max(h.read_version for h in headers),
    )
    rates = {(h.time_base, h.frame_ticks) for h in headers}
    if len(rates) == 1:
        return common, [1] * len(headers)
    base = headers[0].time_base
    for h in headers[1:]:
        base = _common_base(base, h.time_base)
    common = replace(common, time_base=base, frame_ticks=None, start_ticks=0)
    return common, [int(h.time_base / base) for h in headers]


def _common_base(one: Fraction, other: Fraction) -> Fraction:
    """Return the longest tick that both are whole multiples of.

    Raises:
        UsageError: `cannot-concat` if it is too short for the format.
    """
    top = gcd(one.numerator * other.denominator, other.numerator * one.denominator)
    base = Fraction(top, one.denominator * other.denominator)
    if max(base.numerator, base.denominator) > MAX_TIME_BASE:
        raise UsageError(
            "cannot-concat", f"no common clock for ticks of {one} s and {other} s; encode both anew"
        )
    return base


def _common_sound(sources: Sequence[Source], names: Sequence[str]) -> AudioFormat | None:
    """Return the sound format of all files that have sound.

    Raises:
        UsageError: `cannot-concat`.
    """
    first: tuple[AudioFormat, str] | None = None
    for source, name in zip(sources, names, strict=True):
        sound = source.audio()
        if sound is None:
            continue
        if first is None:
            first = sound, name
        elif _comparable(sound) != _comparable(first[0]):
            raise UsageError(
                "cannot-concat",
                f"the sound of {first[1]} ({_describe(first[0])}) and of {name} "
                f"({_describe(sound)}) differs; encode them with the same --audio, such as opus",
            )
    return None if first is None else first[0]


def _comparable(sound: AudioFormat) -> AudioFormat:
    is_free = sound.codec in FREE_EXTRADATA
    return replace(sound, extradata=b"", frame_size=0) if is_free else sound


def _describe(sound: AudioFormat) -> str:
    return f"{sound.codec}, {sound.sample_rate} Hz, {sound.channels} ch"


def _shift(first: Source, source: Source, name: str) -> Float32 | None:
    """Return what is added to a file's motion, `[34]`, so that the joined file shows the same.

    A file with NEUT shows `motion + neutral of its look − NEUT`, one without shows its motion; the
    joined file has the NEUT of the first one.

    Raises:
        UsageError: `no-identity` if a neutral that is needed lies in another file.
    """
    mine, theirs = (s.payload("NEUT") for s in (source, first))
    if mine == theirs and (mine is None or source.identity_sha256() == first.identity_sha256()):
        return None
    shift = _shown_offset(source, name) - _shown_offset(first, "the first file")
    return shift if shift.any() else None


def _shown_offset(source: Source, name: str) -> Float32:
    """Return what a decoder adds to a file's motion, `[34]`."""
    driver, base = source.payload("NEUT"), source.payload("IDEN")
    if driver is None:
        return np.zeros(1, np.float32)
    if base is None:
        raise UsageError("no-identity", f"the look of {name} lies in another file; --attach it")
    own: Float32 = unpack_neutral(base[:NEUTRAL_BYTES]) - unpack_neutral(driver)
    return own


def _next_pts(joiner: _Joiner) -> int:
    """Return the time stamp that the next frame should have."""
    header = joiner.muxer.header
    if header.frame_ticks is None:
        return 0 if joiner.last_pts is None else joiner.last_pts + joiner.last_step
    return header.start_ticks + joiner.muxer.frame_count * header.frame_ticks
