"""Joining files of one person (SPEC.md section 13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd
from typing import BinaryIO, Final

import numpy as np

from sglat.bitstream import extras, origins
from sglat.bitstream.constants import MAX_TIME_BASE
from sglat.bitstream.edits import Source, check_same_decoder
from sglat.bitstream.identity import NEUTRAL_BYTES, unpack_neutral
from sglat.bitstream.records import AudioFormat, AudioPacket, Float32, Header
from sglat.bitstream.seek import SeekableFile
from sglat.bitstream.timeline import Joiner
from sglat.bitstream.writer import Muxer
from sglat.errors import FormatError, UsageError
from sglat.files import naming

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


def concat(files: Sequence[BinaryIO], out: BinaryIO, *, names: Sequence[str] = ()) -> list[Joined]:
    """Write several files of one person one after the other; return what was changed for that.

    Preamble, metadata and look are the first file's. Steps and model are those of the file with the
    finest steps. Motion bytes of files that have the same are copied, the motion of others is
    quantized again. Files of different rates make one of variable rate. All must be seekable;
    `names` stand in messages.

    Raises:
        BundleMismatchError: other decoders.
        UsageError: `cannot-concat` for other sound.
    """
    names = names or [f"file {number + 1}" for number in range(len(files))]
    spans = [_span(SeekableFile(file)) for file in files]
    for file in files:
        file.seek(0)
    sources = [Source(file) for file in files]
    for file, other in zip(files, sources, strict=True):
        with naming(file):
            check_same_decoder(sources[0].header, other.header)
    header, scales = _common_header(sources)
    sound = _common_sound(sources, names)
    muxer = Muxer(out, header)
    muxer.copy([chunk for chunk in sources[0].preamble if chunk.type != "PROV"])
    looks = {source.identity_sha256() for source in sources}
    records = [source.payload("PROV") for source in sources]
    record = origins.joined(records, is_swapped=len(looks) > 1)
    if record is not None:
        muxer.put("PROV", record)
    if sound is not None and sources[0].audio() is None:
        muxer.put("AHDR", extras.pack_audio_format(sound))
    joiner, changes = Joiner(muxer), []
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


def _changes(joiner: Joiner, number: int, sources: Sequence[Source]) -> Joined:
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


def _next_pts(joiner: Joiner) -> int:
    """Return the time stamp that the next frame should have."""
    header = joiner.muxer.header
    if header.frame_ticks is None:
        return 0 if joiner.last_pts is None else joiner.last_pts + joiner.last_step
    return header.start_ticks + joiner.muxer.frame_count * header.frame_ticks
