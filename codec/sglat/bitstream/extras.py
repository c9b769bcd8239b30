"""Audio, pictures, provenance, metadata, index and end (SPEC.md sections 9 to 11)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

from sglat.bitstream.constants import (
    MAX_METADATA_KEYS,
    MAX_PACKETS,
    MAX_TICKS,
    MAX_TIME_BASE,
)
from sglat.bitstream.records import AudioFormat, AudioPacket, IndexEntry, Picture, Provenance
from sglat.bitstream.values import (
    Cursor,
    Fields,
    pack_map,
    pack_svarint,
    pack_text,
    pack_varint,
    unpack_map,
)
from sglat.errors import FormatError

_ENDS: Final = struct.Struct("<QQ32s")
_MAX_MEDIA_TYPE: Final = 64


def pack_audio_format(audio: AudioFormat) -> bytes:
    """Return the AHDR payload."""
    payload = pack_map(
        {
            "channels": audio.channels,
            "codec": audio.codec,
            "extra": audio.extradata,
            "frame": audio.frame_size,
            "layout": audio.layout,
            "rate": audio.sample_rate,
            "tb": [audio.time_base.numerator, audio.time_base.denominator],
        }
    )
    unpack_audio_format(payload)
    return payload


def unpack_audio_format(payload: bytes, *, offset: int | None = None) -> AudioFormat:
    """Read AHDR."""
    fields = Fields(unpack_map(payload, offset=offset), "AHDR", code="bad-audio", offset=offset)
    base = fields.integers("tb", [(1, MAX_TIME_BASE), (1, MAX_TIME_BASE)])
    return AudioFormat(
        codec=fields.text("codec", 32, min_bytes=1),
        time_base=Fraction(base[0], base[1]),
        sample_rate=fields.integer("rate", 1, (1 << 31) - 1),
        channels=fields.integer("channels", 1, 255),
        layout=fields.text("layout", 64),
        extradata=fields.data("extra", None),
        frame_size=fields.integer("frame", 0, (1 << 31) - 1),
    )


def _pack_column(values: Sequence[int]) -> bytes:
    if len(set(values)) == 1:
        return b"\0" + pack_svarint(values[0])
    return b"\1" + b"".join(pack_svarint(value) for value in values)


def _read_column(cursor: Cursor, count: int, low: int, high: int) -> list[int]:
    mode = cursor.u8()
    if mode > 1:
        raise cursor.error("bad-audio", f"expected a column of mode 0 or 1, found {mode}")
    stored = [cursor.svarint() for _ in range(count if mode else 1)]
    values = stored if mode else stored * count
    if not low <= min(values) <= max(values) <= high:
        raise cursor.error("bad-audio", f"expected {low} to {high} in a column, found others")
    return values


def pack_audio_packets(packets: Sequence[AudioPacket]) -> bytes:
    """Return an APKT payload."""
    if not 1 <= len(packets) <= MAX_PACKETS:
        raise FormatError("bad-audio", f"expected 1 to {MAX_PACKETS} packets, found {len(packets)}")
    dts = [packet.dts for packet in packets]
    steps = [0, *(after - before for before, after in pairwise(dts))]
    if len(steps) > 2 and len(set(steps[1:])) == 1:
        steps[0] = steps[1]  # the first one is not used, so let the column be constant
    columns = (
        [len(packet.data) for packet in packets],
        [packet.duration for packet in packets],
        steps,
        [packet.pts - packet.dts for packet in packets],
        [int(packet.is_key_frame) for packet in packets],
    )
    front = pack_varint(len(packets)) + pack_svarint(dts[0])
    payload = front + b"".join(_pack_column(column) for column in columns)
    payload += b"".join(packet.data for packet in packets)
    return payload


def unpack_audio_packets(payload: bytes, *, offset: int | None = None) -> tuple[AudioPacket, ...]:
    """Read APKT."""
    cursor = Cursor(payload, offset=offset, code="bad-audio")
    count = cursor.varint()
    if not 1 <= count <= MAX_PACKETS:
        raise cursor.error("bad-audio", f"expected 1 to {MAX_PACKETS} packets, found {count}")
    dts = cursor.svarint()
    sizes = _read_column(cursor, count, 0, len(payload))
    durations = _read_column(cursor, count, 0, MAX_TICKS)
    steps = _read_column(cursor, count, -MAX_TICKS, MAX_TICKS)
    shifts = _read_column(cursor, count, -MAX_TICKS, MAX_TICKS)
    keys = _read_column(cursor, count, 0, 1)
    if sum(sizes) != cursor.left:
        raise cursor.error("bad-audio", f"expected {sum(sizes)} packet bytes, found {cursor.left}")
    packets = []
    for at in range(count):
        dts += steps[at] if at else 0
        if abs(dts) > MAX_TICKS:
            raise cursor.error("bad-audio", "expected time stamps within 2^53, found a larger one")
        packets.append(
            AudioPacket(
                data=cursor.take(sizes[at]),
                pts=dts + shifts[at],
                dts=dts,
                duration=durations[at],
                is_key_frame=bool(keys[at]),
            )
        )
    return tuple(packets)


def first_dts(payload: bytes) -> int:
    """Return the dts of the first packet of an APKT payload."""
    cursor = Cursor(payload, code="bad-audio")
    cursor.varint()
    return cursor.svarint()


def pack_picture(picture: Picture) -> bytes:
    """Return the payload of PLAT or THMB."""
    payload = pack_text(picture.media_type) + picture.data
    unpack_picture(payload)
    return payload


def unpack_picture(payload: bytes, *, offset: int | None = None) -> Picture:
    """Read PLAT or THMB."""
    cursor = Cursor(payload, offset=offset, code="bad-picture")
    media_type = cursor.text(_MAX_MEDIA_TYPE, min_bytes=1)
    if not cursor.left:
        raise cursor.error("bad-picture", "expected a picture, found no bytes")
    return Picture(media_type=media_type, data=cursor.rest())


def pack_provenance(provenance: Provenance) -> bytes:
    """Return the PROV payload."""
    values: dict[str, Any] = {
        "by": provenance.generated_by,
        "consent": provenance.consent,
        "note": provenance.note,
        "source": provenance.source_sha256,
    }
    kept = {key: value for key, value in values.items() if value or key == "by"}
    payload = pack_map(provenance.extra | kept)
    unpack_provenance(payload)
    return payload


def unpack_provenance(payload: bytes, *, offset: int | None = None) -> Provenance:
    """Read PROV."""
    fields = Fields(unpack_map(payload, offset=offset), "PROV", offset=offset)
    known = Provenance(
        generated_by=fields.text("by", len(payload)),
        consent=fields.text("consent", len(payload), is_required=False),
        note=fields.text("note", len(payload), is_required=False),
        source_sha256=fields.data("source", 32, is_required=False),
    )
    return replace(known, extra=fields.rest())


def pack_metadata(metadata: dict[str, str]) -> bytes:
    """Return the META payload."""
    payload = pack_map(dict(metadata))
    unpack_metadata(payload)
    return payload


def unpack_metadata(payload: bytes, *, offset: int | None = None) -> dict[str, str]:
    """Read META."""
    values = {"META": unpack_map(payload, offset=offset)}
    fields = Fields(values, "META", offset=offset)
    return fields.texts("META", MAX_METADATA_KEYS, len(payload))


@dataclass(frozen=True, kw_only=True)
class Index:
    """Where motion groups and audio chunks lie."""

    groups: tuple[IndexEntry, ...]
    audio: tuple[tuple[int, int], ...]
    """Offset of each APKT chunk and the dts of its first packet."""


def pack_index(index: Index, *, has_pts: bool) -> bytes:
    """Return the INDX payload."""
    out = pack_varint(len(index.groups))
    offset = pts = 0
    for entry in index.groups:
        out += pack_varint(entry.frame_count) + pack_varint(entry.offset - offset)
        if has_pts:
            out += pack_svarint(entry.first_pts - pts)
        offset, pts = entry.offset, entry.first_pts
    out += pack_varint(len(index.audio))
    offset = dts = 0
    for at, stamp in index.audio:
        out += pack_varint(at - offset) + pack_svarint(stamp - dts)
        offset, dts = at, stamp
    return out


def unpack_index(
    payload: bytes, *, frame_ticks: int | None, start_ticks: int, offset: int | None = None
) -> Index:
    """Read INDX."""
    cursor = Cursor(payload, offset=offset, code="bad-index")
    groups = []
    frame = at = pts = 0
    for _ in range(_count(cursor)):
        count, gap = cursor.varint(), cursor.varint()
        at += gap
        pts = pts + cursor.svarint() if frame_ticks is None else start_ticks + frame * frame_ticks
        if count < 1 or gap < 1:
            raise cursor.error("bad-index", f"expected rising groups, found {count} at +{gap}")
        groups.append(IndexEntry(first_frame=frame, frame_count=count, offset=at, first_pts=pts))
        frame += count
    audio = []
    at = dts = 0
    for _ in range(_count(cursor)):
        gap = cursor.varint()
        at, dts = at + gap, dts + cursor.svarint()
        if gap < 1:
            raise cursor.error("bad-index", "expected rising audio offsets, found equal ones")
        audio.append((at, dts))
    cursor.finish("INDX")
    return Index(groups=tuple(groups), audio=tuple(audio))


def _count(cursor: Cursor) -> int:
    count = cursor.varint()
    if count > cursor.left:  # every item takes more than a byte
        raise cursor.error("bad-index", f"expected items within the chunk, found {count}")
    return count


@dataclass(frozen=True, kw_only=True)
class End:
    """The content of ENDS."""

    index_offset: int
    frame_count: int
    motion_sha256: bytes


def pack_end(end: End) -> bytes:
    """Return the ENDS payload."""
    return _ENDS.pack(end.index_offset, end.frame_count, end.motion_sha256)


def unpack_end(payload: bytes) -> End:
    """Read ENDS; its size is checked with the chunk."""
    index_offset, frame_count, motion_sha256 = _ENDS.unpack(payload)
    return End(index_offset=index_offset, frame_count=frame_count, motion_sha256=motion_sha256)
